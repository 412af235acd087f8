"""
Kills a command at its file operations, and runs it again: `python operations_worker.py FOLDER COUNT COMMAND...`.

Each command runs in forks of this process, which has all imports. The operations of one run are counted; others are
ended before their n-th, as a kill ends them: what Python has not flushed is lost, nothing is cleaned up. After the
same command again the files must be those of the run that was not disturbed, and nothing may be left beside them.
COUNT is how many of a command's operations are chosen, evenly; "all" are the first 60 and 20 of the rest. Prints a
line of JSON per command.
"""

import atexit
import json
import os
import shutil
import sys
import time
from pathlib import Path

import torch

from tests.recipes.forks import ended, started
from tests.recipes.kill_worker import arguments, make_small, result

TRAINERS = ("reward trainer", "offline trainer", "online trainer")
FIRST, REST = 60, 20
KILLED = 77
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")


def count_operations(root, last, done):
    """Counts what changes files below a folder, and ends this process before the `last` of them; `done` takes them."""
    prefix, own = str(root), os.getpid()

    def operation():
        if os.getpid() != own:
            return  # a process that a library started; it ends with this one
        done.append(None)
        if len(done) == last:
            os._exit(KILLED)

    def hook(event, args):
        if event == "open":
            changes = isinstance(args[2], int) and args[2] & _WRITES and str(args[0]).startswith(prefix)
        else:
            # With a folder's number, as `rmtree` has it, names are relative.
            inside = event in _CHANGES and (os.fspath(args[0]).startswith(prefix) or args[-1] not in (-1, None))
            changes = inside
        if changes:
            operation()

    def write_by_halves(file, data):
        for part in (data[: len(data) // 2], data[len(data) // 2 :]):
            file.write(part)
            operation()

    from gpm_hf import records

    records._write_all = write_by_halves
    sys.addaudithook(hook)


def work(command, folder, root):
    """Runs a command to its end; returns the exit code."""
    output = root / "out"
    if command in TRAINERS:
        from tests.training import test_checkpoints

        makers = (test_checkpoints.reward, test_checkpoints.offline, test_checkpoints.online_gpo)
        # A generation is used for two steps: a checkpoint between them goes on with another one, which is said.
        each = 2 if command == "online trainer" else 1
        options = {"save_steps": each, "logging_steps": each, "max_steps": 4 if each == 2 else 3}
        trainer = makers[TRAINERS.index(command)](output, **options)
        from gpm_hf.training.checkpoints import whole_checkpoints

        trainer.train(resume_from_checkpoint=True if whole_checkpoints(output)[0] else None)
        trainer.save_model()
        return 0
    make_small(output)
    from gpm_hf.cli import main

    if command == "push":
        return main(["push", str(folder / "trained"), (root / "repo").read_text()])
    return main(arguments(command, folder, output))


def run(command, folder, root, last=None):
    """Runs a command in a fork; returns its exit code and the number of its operations."""
    reading, writing = os.pipe()

    def counted():
        done = []
        count_operations(root, last, done)
        code = work(command, folder, root)
        atexit._run_exitfuncs()
        os.write(writing, str(len(done)).encode())
        return code

    child = started(counted, folder / "log", root / "tmp")
    os.close(writing)
    with os.fdopen(reading) as pipe:
        count = pipe.read()
    return ended(child), int(count or 0)


def fresh(root, name):
    """An empty folder for a run, always the same: paths are written into what is made."""
    shutil.rmtree(root, ignore_errors=True)
    for part in ("out", "tmp"):
        (root / part).mkdir(parents=True)
    (root / "repo").write_text(f"alice/{name}")


def left(root):
    """What no run should leave: in hiding beside its output, or among temporary files."""
    hidden = [path for path in (root / "out").rglob(".*") if path.suffix != ".lock" or ".run." in path.name]
    return sorted(str(path.relative_to(root)) for path in [*hidden, *(root / "tmp").glob("gpm_hf_*")])


def chosen(count, total):
    """The operations at which a command is killed."""
    if count == "all":
        rest = range(FIRST + 1, total + 1)
        return [*range(1, min(total, FIRST) + 1), *sorted({rest[len(rest) * n // REST] for n in range(REST) if rest})]
    return sorted({1 + (total - 1) * n // max(int(count) - 1, 1) for n in range(int(count))})


def main(folder, count, command):
    """See above."""
    root, name = folder / "run", command.replace(" ", "-")
    fresh(root, f"{name}-whole")
    begin = time.monotonic()
    code, total = run(command, folder, root)
    assert code == 0, f"{command} ended with {code}"
    seconds = time.monotonic() - begin
    whole = result(root / "out")
    assert (whole or command == "push") and not left(root), (sorted(whole), left(root))
    kills = chosen(count, total)
    for last in kills:
        fresh(root, f"{name}-{last}")
        code, _ = run(command, folder, root, last)
        assert code == KILLED, f"{command}, operation {last} of {total}: ended with {code}"
        told = f"{command}, killed before operation {last} of {total}"
        # What is finished is not begun again.
        if command == "push" or result(root / "out") != whole:
            code, _ = run(command, folder, root)
            assert code == 0, f"{told}: run again it ended with {code}"
            assert not left(root), f"{told}: left are {left(root)}"
        found = result(root / "out")
        differ = sorted(name for name in {*whole, *found} if whole.get(name) != found.get(name))
        assert not differ, f"{told}: these differ: {differ}"
    spent = time.monotonic() - begin
    print(json.dumps({"command": command, "operations": total, "kills": len(kills), "run": seconds, "seconds": spent}))
    sys.stdout.flush()


if __name__ == "__main__":
    # All that the commands import, once.
    import datasets
    import trl

    import gpm_hf.recipes.ablation
    import gpm_hf.recipes.iterate
    import gpm_hf.recipes.table1  # noqa: F401
    import tests.training.test_checkpoints  # noqa: F401
    from gpm_hf.training import GPMRewardTrainer, OfflineGPOTrainer  # noqa: F401

    assert datasets and trl
    torch.set_num_threads(1)
    for one in sys.argv[3:]:
        main(Path(sys.argv[1]), sys.argv[2], one)
