"""Seven rows on two processes, four and three: gradients, losses and metrics are those of the seven in one batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def launch(output, ranks, kind):
    output.mkdir()
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks), "--standalone"]
    finished = subprocess.run(
        [*command, "-m", "tests.training.row_means_worker", str(output), kind],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return [json.loads((output / f"rank{rank}.json").read_text()) for rank in range(ranks)]


@pytest.mark.parametrize("kind", ["reward", "offline", "groups", "prompts", "tokens"])
def test_repeated_rows_count_for_nothing(tmp_path, kind):
    first, second = launch(tmp_path / "two", 2, kind)
    (alone,) = launch(tmp_path / "one", 1, kind)
    assert first["world_size"] == second["world_size"] == 2 and alone["world_size"] == 1
    assert first["class"] == second["class"] == "DistributedDataParallel"
    changes = [
        torch.cat([torch.tensor(values, dtype=torch.float64) for values in facts["change"].values()])
        for facts in (first, second, alone)
    ]
    assert changes[2].norm() > 1e-2
    assert torch.equal(changes[0], changes[1])
    assert (changes[0] - changes[2]).norm() < 1e-5 * changes[2].norm()
    for kind in ("train", "eval"):
        assert set(first[kind]) == set(alone[kind])
        assert len(first[kind]) >= 5
        for name, value in alone[kind].items():
            assert first[kind][name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
            assert second[kind][name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
