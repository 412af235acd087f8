"""
Starts two runs together on one output, or on one store: `python pairs_worker.py FOLDER COUNT COMMAND...`.

The two differ in what they make. One of them writes the output, which must be as if it had been alone; the other is
told in one sentence. On a store both end well, with the numbers that they find alone, and all their scores are in it.
The runs are forks of this process, which has all imports. Prints a line of JSON per command.
"""

import json
import random
import sys
import time
from pathlib import Path

import torch

from tests.recipes.forks import ended, started
from tests.recipes.kill_worker import arguments, make_small, result
from tests.recipes.operations_worker import fresh, left

# What makes the second of a pair another run: of its arguments, some are replaced and some are added.
OTHERS = {
    "score": {"gpm": "gpm2"},
    "rank": {"gpm": "gpm2"},
    "answer": ["--seed", "1"],
    "best-of-n": {"gpm": "gpm2"},
    "iterate": ["--seed", "1"],
    "build-cyclic": ["--seed", "1"],
    "table1": {"seeds": "1"},
    "ablation": {"seeds": "1"},
}
TOLD = ("Another run is writing", "exists already", "with other", "with the same ones")


def command_line(command, folder, output, is_second):
    """Of the first or second of a pair."""
    if command == "store":
        data = folder / ("pairs2.jsonl" if is_second else "pairs.jsonl")
        return ["eval", "pairs", "random", "--dataset", str(data), "--store", str(output), "--chunk-size", "4"]
    line = arguments(command, folder, output)
    if not is_second:
        return line
    other = OTHERS[command]
    if isinstance(other, list):
        return [*line, *other]
    if "seeds" in other:
        place = line.index("--seeds") + 1
        return [*line[:place], other["seeds"], *line[place + 1 :]]
    return [part.replace(str(folder / "gpm"), str(folder / "gpm2")) for part in line]


def start(command, folder, root, is_second):
    """A fork that runs one of a pair, its words in a file."""

    def work():
        make_small(root / f"cache-{int(is_second)}")
        from gpm_hf.cli import main

        return main(command_line(command, folder, root / "out", is_second))

    return started(work, root / f"words-{int(is_second)}", root / "tmp")


def said(root, is_second):
    """What a run printed."""
    return (root / f"words-{int(is_second)}").read_text()


def table(root, is_second):
    """What an evaluation printed on standard output."""
    return [line for line in said(root, is_second).splitlines() if line.startswith("|")]


def main(folder, count, command):
    """See above."""
    root, begin, dice = folder / "run", time.monotonic(), random.Random(0)
    alone, tables, seconds = [], [], 0.0
    for is_second in (False, True):
        fresh(root, command)
        seconds = time.monotonic()
        assert ended(start(command, folder, root, is_second)) == 0, said(root, is_second)
        seconds = time.monotonic() - seconds
        alone.append(result(root / "out"))
        tables.append(table(root, is_second))
    assert alone[0] != alone[1]
    firsts = 0
    for number in range(count):
        fresh(root, command)
        order = [False, True] if number % 2 else [True, False]
        children = {}
        for is_second in order:
            children[is_second] = start(command, folder, root, is_second)
            # Together, or one in the midst of the other.
            time.sleep(dice.uniform(0, seconds / 2) if number % 3 == 0 else 0)
        codes = {is_second: ended(child) for is_second, child in children.items()}
        found = result(root / "out")
        if command == "store":
            assert codes == {False: 0, True: 0}, said(root, False) + said(root, True)
            records = [line for rows in found.values() for line in rows.splitlines()]
            whole = [line for rows in [*alone[0].values(), *alone[1].values()] for line in rows.splitlines()]
            assert sorted(records) == sorted(whole)
            assert [table(root, is_second) for is_second in (False, True)] == tables
        else:
            assert sorted(codes.values()) == [0, 1], said(root, False) + said(root, True)
            winner = codes[True] == 0
            firsts += not winner
            assert found == alone[winner], f"{command}, pair {number}: {sorted(found)}"
            words = said(root, not winner).splitlines()[-1]
            assert any(sentence in words for sentence in TOLD), said(root, not winner)
        assert not left(root), left(root)
    spent = time.monotonic() - begin
    print(json.dumps({"command": command, "pairs": count, "won by the first": firsts, "seconds": spent}))
    sys.stdout.flush()


if __name__ == "__main__":
    import datasets
    import trl

    import gpm_hf.evaluation
    import gpm_hf.recipes.ablation
    import gpm_hf.recipes.iterate
    import gpm_hf.recipes.table1  # noqa: F401

    assert datasets and trl
    torch.set_num_threads(1)
    for one in sys.argv[3:]:
        main(Path(sys.argv[1]), int(sys.argv[2]), one)
