"""Two runs started together on one output or one store: no row of the other, nothing lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import build_gpm, build_tokenizer
from tests.recipes.test_kills import make_world, write

# A run of the others takes seconds.
COMMANDS = {"score": 6, "rank": 3, "answer": 4, "best-of-n": 4, "build-cyclic": 4, "store": 6, "table1": 2}


def make_others(folder):
    """What the second of each pair reads."""
    build_gpm(embedding_dim=4, seed=1).save_pretrained(folder / "gpm2")
    build_tokenizer().save_pretrained(folder / "gpm2")
    write(
        folder / "pairs2.jsonl",
        [{"prompt": f"P{n}?", "chosen": "a" * (n % 5 + 1), "rejected": "c"} for n in range(60)],
    )


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_pairs_of_runs(tmp_path):
    make_world(tmp_path)
    make_others(tmp_path)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": os.getcwd()}
    worker = [sys.executable, str(Path(__file__).with_name("pairs_worker.py")), str(tmp_path)]
    for count in sorted(set(COMMANDS.values())):
        commands = [command for command, pairs in COMMANDS.items() if pairs == count]
        done = subprocess.run([*worker, str(count), *commands], env=environment, capture_output=True, text=True)
        print(done.stdout)
        assert done.returncode == 0, done.stderr[-3000:]
        assert [json.loads(line)["command"] for line in done.stdout.splitlines()] == commands
