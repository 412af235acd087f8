"""The benchmark of serving, on a tiny model."""

import json
import os
import subprocess
import sys

import pytest

from tests.serving.servers import ROOT, time_limit


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path):
    command = [sys.executable, "benchmarks/serving.py", "--model", "tiny", "--groups", "4", "--clients", "4"]
    command += ["--lengths", "40/8", "--rounds", "2", "--output", str(tmp_path / "report.json")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with time_limit(240):
        finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "| way | CPU, s | of it here | CPU / score | waited, s |" in finished.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert list(report["ways"]) == ["score", "remote", "clients"]
    assert report["ways"]["score"]["CPU / score"] == 1
    for seconds in report["seconds (here, server, waited)"].values():
        assert len(seconds) == 2 and all(min(row) >= 0 for row in seconds)
    assert report["largest difference of log-odds"] < 5e-4
