"""
Kills a command at random moments, and runs it again each time: `python kill_worker.py FOLDER COMMAND KILLS`.

The command runs in forks of this process, which has all imports, so that a start takes no time. FOLDER holds the
models and data that the test has made. Prints the number of kills, and raises where the files of a run that was killed
differ from those of one that was not.
"""

import csv
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from tests.recipes.forks import ended, started


def arguments(command, folder, output):
    """A command line that writes into a folder, on small data."""
    gpm, policy = str(folder / "gpm"), str(folder / "policy")
    sampling = ["--max-new-tokens", "4", "--shard-size", "2", "--device", "cpu"]
    scored = ["--input", str(folder / "pairs.jsonl"), "--output", f"{output}/out.jsonl", "--chunk-size", "4"]
    heads = ["--base", policy, "--dimensions", "2", "--seeds", "0", "--output", str(output)]
    return {
        "score": ["score", gpm, *scored, "--device", "cpu"],
        "rank": ["rank", gpm, *scored, "--device", "cpu"],
        "answer": [
            "answer",
            policy,
            "--prompts",
            str(folder / "prompts.jsonl"),
            "--name",
            "p",
            *sampling,
            "--output",
            f"{output}/out.json",
        ],
        "best-of-n": [
            "best-of-n",
            policy,
            "--scorer",
            f"gpm:{gpm}",
            "--input",
            str(folder / "prompts.jsonl"),
            "--n",
            "2",
            *sampling,
            "--output",
            f"{output}/out.jsonl",
        ],
        "iterate": [
            "iterate",
            policy,
            "--scorer",
            f"gpm:{gpm}",
            "--prompts",
            str(folder / "prompts.jsonl"),
            "--iterations",
            "2",
            "--num_generations",
            "2",
            "--max_new_tokens",
            "4",
            "--shard_size",
            "4",
            "--output",
            str(output),
            "--use_cpu",
            "--bf16",
            "false",
            "--report_to",
            "none",
            "--max_steps",
            "4",
            "--save_steps",
            "1",
            "--gradient_checkpointing",
            "false",
            "--disable_tqdm",
            "true",
        ],
        "build-cyclic": ["build-cyclic", str(folder / "ratings.jsonl"), f"{output}/built", "--num-proc", "1"],
        "table1": ["table1", *heads, "--rings", str(folder / "rings.jsonl")],
        "ablation": ["eval", "ablation", *heads],
    }[command]


def result(output):
    """What a run wrote: all files by name but records that say how long it took, and what a kill left in hiding."""
    timed = ("trainer_state.json", "gpm_run.json", "README.md")
    found = {}
    for path in sorted(output.rglob("*")):
        name = path.relative_to(output)
        hidden = any(part.startswith(".") or part == "last_run" for part in name.parts)
        if path.is_file() and not hidden and path.name not in timed and path.suffix not in (".bin", ".lock"):
            found[str(name)] = untimed(path)
    return found


def untimed(path):
    """What a file holds; of a grid's rows and their table without how long each took."""
    if path.name == "results.jsonl" and path.read_bytes().endswith(b"\n"):
        # Else a kill cut its last row off.
        return [json.loads(line) | {"seconds": None} for line in path.read_text().splitlines()]
    if path.name == "ablation.csv":
        return [row | {"seconds": None} for row in csv.DictReader(path.read_text().splitlines())]
    return path.read_bytes()


def start(command, folder, output):
    """A fork that runs the command; its states are kept in the output's folder alone."""

    def work():
        make_small(output)
        from gpm_hf.cli import main

        return main(arguments(command, folder, output))

    return started(work, folder / f"{command}.log")


def make_small(output):
    """Recipes that take a second."""
    import datasets

    from gpm_hf.recipes import ablation, table1

    datasets.config.HF_DATASETS_CACHE = Path(f"{output}.cache")
    for module in (ablation, table1):
        module.TRAIN_PROMPTS, module.TEST_PROMPTS = 8, 5
        module.SYSTEMATIC_RECIPE = {"max_steps": 5, "learning_rate": 1e-2, "per_device_train_batch_size": 8}
    table1.REAL_RECIPE = {"max_steps": 5, "learning_rate": 1e-2, "per_device_train_batch_size": 8}


def finished(child):
    """Waits for a fork, and makes sure that it ended well."""
    code = ended(child)
    if code != 0:
        raise RuntimeError(f"The command ended with {code}.")


def ended_by(child, deadline):
    """Whether a fork ended, and well, before a moment."""
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            if os.waitstatus_to_exitcode(status) != 0:
                raise RuntimeError(f"The command ended with {os.waitstatus_to_exitcode(status)}.")
            return True
        time.sleep(0.01)
    return False


def main(folder, command, count):
    """See above."""
    begin = time.monotonic()
    (folder / "whole").mkdir()
    finished(start(command, folder, folder / "whole"))
    seconds = time.monotonic() - begin
    whole = result(folder / "whole")
    assert whole, "nothing was written"
    dice, kills, run = random.Random(0), 0, 0
    while kills < count:
        output = folder / f"run-{run}"
        run += 1
        output.mkdir()
        done = False
        while not done and kills < count:
            child = start(command, folder, output)
            done = ended_by(child, time.monotonic() + dice.uniform(0, seconds))
            if not done:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                kills += 1
                # The blow may fall between the last file and the end; what is finished is not begun again.
                done = result(output) == whole
        if not done:
            finished(start(command, folder, output))
        found = result(output)
        differ = sorted(name for name in {*whole, *found} if whole.get(name) != found.get(name))
        assert not differ, f"after {kills} kills these differ: {differ}"
    print(json.dumps({"command": command, "kills": kills, "runs": run, "seconds": round(seconds, 1)}))


if __name__ == "__main__":
    # All that the commands import, once.
    import datasets
    import trl

    import gpm_hf.recipes.ablation
    import gpm_hf.recipes.iterate
    import gpm_hf.recipes.table1  # noqa: F401
    from gpm_hf.training import GPMRewardTrainer, OfflineGPOTrainer  # noqa: F401

    assert datasets and trl
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
