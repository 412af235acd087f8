"""Kills at random moments of each long command: the same command again ends with the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import build_gpm, build_tokenizer, save_backbone

# How many kills each gets; a run of the grids takes seconds, and what goes on after a kill is the same in both.
COMMANDS = {
    "score": 10,
    "rank": 10,
    "answer": 10,
    "best-of-n": 10,
    "iterate": 10,
    "build-cyclic": 10,
    "table1": 4,
    "ablation": 3,
}


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))


def ratings(number):
    """A row of UltraFeedback's form, whose three responses beat each other in a ring."""
    aspects = ("instruction_following", "honesty", "truthfulness", "helpfulness")
    own = [(5, 3, 1, 4), (3, 1, 5, 3), (1, 5, 3, 2), (4, 4, 4, 1)]
    return {
        "instruction": f"Question {number}?",
        "completions": [
            {
                "response": f"{number}: {place}",
                "annotations": {aspect: {"Rating": str(rating)} for aspect, rating in zip(aspects, marks)},
            }
            for place, marks in enumerate(own)
        ],
    }


def make_world(folder):
    """The models and data that the commands read."""
    build_gpm(embedding_dim=4).save_pretrained(folder / "gpm")
    build_tokenizer().save_pretrained(folder / "gpm")
    save_backbone(folder / "policy")
    write(folder / "prompts.jsonl", [{"prompt": f"Question {n}?"} for n in range(12)])
    pairs = [{"prompt": f"Q{n}?", "chosen": "a" * (n % 7 + 1), "rejected": "b"} for n in range(60)]
    write(folder / "pairs.jsonl", pairs)
    write(
        folder / "rings.jsonl",
        [{"prompt": f"Q{n}?", "responses": [f"{n}a", f"{n}b", f"{n}c"], "ring": True} for n in range(6)],
    )
    write(folder / "ratings.jsonl", [ratings(n) for n in range(40)])


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize(("command", "kills"), COMMANDS.items())
def test_kills_change_nothing(tmp_path, command, kills):
    make_world(tmp_path)
    worker = Path(__file__).with_name("kill_worker.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": os.getcwd()}
    call = [sys.executable, str(worker), str(tmp_path), command, str(kills)]
    done = subprocess.run(call, env=environment, capture_output=True, text=True)
    log = tmp_path / f"{command}.log"
    assert done.returncode == 0, done.stderr[-2000:] + (log.read_text()[-2000:] if log.exists() else "")
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert found["kills"] == kills
