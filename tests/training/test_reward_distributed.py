"""Two processes on a CPU: really two, equal to each other, and equal to one process with the same global batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def launch(output, ranks, mode):
    output.mkdir()
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks), "--standalone"]
    finished = subprocess.run(
        [*command, "-m", "tests.training.ddp_reward", str(output), mode],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return [json.loads((output / f"rank{rank}.json").read_text()) for rank in range(ranks)]


@pytest.mark.parametrize("mode", ["full", "heads", "lora"])
def test_two_ranks_train_as_one(tmp_path, mode):
    first, second = launch(tmp_path / "two", 2, mode)
    (alone,) = launch(tmp_path / "one", 1, mode)
    assert first["world_size"] == second["world_size"] == 2 and alone["world_size"] == 1
    assert first["class"] == second["class"] == "DistributedDataParallel"
    assert first["backend"] == "gloo"
    assert first["steps"] == alone["steps"] == 6
    assert first["parameters"] == second["parameters"]
    # The ranks' batches interleave as the single process's do, so sums of gradients agree to rounding.
    assert first["losses"] == pytest.approx(alone["losses"], rel=1e-3, abs=1e-3)
    assert first["metrics"] == pytest.approx(alone["metrics"], rel=1e-2, abs=1e-3)
