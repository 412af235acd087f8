"""
Every long command, killed at its file operations: the same command again ends with the bytes of a run that nobody
disturbed, and leaves nothing beside them. A sample by default; `GPM_HF_EVERY_OPERATION=1` takes the first 60 of each
command and 20 of the rest.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.conftest import build_gpm, build_tokenizer
from tests.recipes.operations_worker import TRAINERS
from tests.recipes.test_kills import COMMANDS, make_world

# A run takes seconds.
LONG = ("iterate", "table1", "ablation")
SAMPLE, SAMPLE_OF_LONG = 6, 3


def repositories(server):
    """What each has on its branch."""
    return {
        name: {path: blob.data for path, blob in repo.resolve("main").files.items()}
        for (_, name), repo in server.store.repos.items()
    }


@pytest.fixture
def folder():
    """Of a short name: a socket of the processes lies in it, whose path may have a hundred characters."""
    with tempfile.TemporaryDirectory(prefix="kills") as name:
        yield Path(name)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_at_any_file_operation(hub_server, folder):
    make_world(folder)
    build_gpm(embedding_dim=4).save_pretrained(folder / "trained")
    build_tokenizer().save_pretrained(folder / "trained")
    environment = hub_server.environment(folder / "home", token="hf_alice")
    environment |= {"ACCELERATE_USE_CPU": "true", "PYTHONPATH": os.getcwd()}
    every = os.environ.get("GPM_HF_EVERY_OPERATION")
    found = []
    for commands, sample in (
        ([*(name for name in COMMANDS if name not in LONG), *TRAINERS, "push"], SAMPLE),
        (LONG, SAMPLE_OF_LONG),
    ):
        worker = [sys.executable, str(Path(__file__).with_name("operations_worker.py")), str(folder)]
        done = subprocess.run(
            [*worker, "all" if every else str(sample), *commands], env=environment, capture_output=True, text=True
        )
        print(done.stdout)
        assert done.returncode == 0, done.stderr[-2000:] + (folder / "log").read_text()[-2000:]
        found += [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    print(f"{sum(one['kills'] for one in found)} kills of {len(found)} commands")
    assert {one["command"] for one in found} == {*COMMANDS, *TRAINERS, "push"}
    assert all(one["kills"] == min(one["operations"], SAMPLE_OF_LONG) or one["kills"] >= SAMPLE for one in found)
    # Every push ended with the same files on the Hub.
    pushed = {name: repo for name, repo in repositories(hub_server).items() if name.startswith("alice/push-")}
    whole = pushed.pop("alice/push-whole")
    assert pushed and all(files == whole for files in pushed.values())
