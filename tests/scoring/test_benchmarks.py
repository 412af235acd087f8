"""The scoring benchmark and the checks for a GPU, run on a CPU with tiny models."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run(monkeypatch, script, *arguments):
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    runpy.run_path(str(BENCHMARKS / script), run_name="__main__")


@pytest.mark.slow
def test_the_scoring_benchmark_runs(monkeypatch, tmp_path, capsys):
    run(monkeypatch, "scoring.py", "--quick", "--output", tmp_path / "scoring.json")
    report = json.loads((tmp_path / "scoring.json").read_text())
    (point,) = report["grid"]
    assert point["token bound"] == 4 * (64 + 16) / (64 + 4 * 16)
    assert point["its token bound"] == pytest.approx(12 * (64 + 2 * 16) / (64 + 4 * 16), abs=0.05)
    assert point["pairs timed"] == "2 of 12"
    assert 0 < point["MB, shared"] < point["MB, pair model"]
    assert report["overhead"][0]["ours / backbone"] > 0
    assert report["growth"][0]["time(K=16) / time(K=4)"] > 0  # a measurement, and the machine may be busy
    assert "| prompt | K |" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("check", [["scores"], ["train"], ["train", "--qlora"]])
def test_the_gpu_checks_run_on_a_cpu(monkeypatch, tmp_path, check):
    run(monkeypatch, "gpu_checks.py", *check, "--model", "tiny", "--device", "cpu", "--output", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())


def test_the_gpu_script_is_bash_and_refuses_what_it_does_not_know():
    subprocess.run(["bash", "-n", BENCHMARKS / "gpu.sh"], check=True)
    refused = subprocess.run(["bash", BENCHMARKS / "gpu.sh", "--gpu"], capture_output=True, text=True)
    assert refused.returncode == 2 and "only --cpu" in refused.stderr
