"""The launch script, started as a user starts it: on one process, and on two that do the same together."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import save_backbone
from tests.training.test_offline_gpo import scored_rows

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def launch(processes, *arguments):
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    command += ["--standalone", str(ROOT / "trainers" / "offline_gpo.py"), "--bf16", "false"]
    command += ["--report_to", "none", "--gradient_checkpointing", "false", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def write_rows(path, count=6):
    rows = [{**row, "prompt": f"Question {number}?"} for number, row in enumerate(scored_rows(count))]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_two_processes_train_as_one(tmp_path):
    """Eighteen responses by four: the last step has two, one on each process."""
    from safetensors.torch import load_file

    base, data = save_backbone(tmp_path / "backbone"), write_rows(tmp_path / "scored.jsonl")
    (tmp_path / "recipe.yaml").write_text("selection: all_responses\nlearning_rate: 1.0e-2\ngpo_beta: 0.1\n")
    weights = {}
    for processes in (1, 2):
        output = tmp_path / f"out{processes}"
        finished = launch(
            processes, "--config", tmp_path / "recipe.yaml", "--model_name_or_path", base, "--dataset_name", data,
            "--output_dir", output, "--num_train_epochs", 1, "--gradient_accumulation_steps", 2,
            "--per_device_train_batch_size", 2 // processes, "--optim", "sgd", "--max_grad_norm", 0,
            "--preference_name", "my-name/my-gpm",
        )  # fmt: skip
        assert finished.returncode == 0, finished.stderr[-3000:]
        record = json.loads((output / "gpm_run.json").read_text())
        assert record["hardware"].startswith(f"{processes} x ")
        weights[processes] = load_file(output / "model.safetensors")
    card = (tmp_path / "out1" / "README.md").read_text()
    assert (
        "`scored.jsonl`" in card and "`my-name/my-gpm`" in card and str(tmp_path) not in card.split("## Training")[1]
    )
    start = load_file(Path(base) / "model.safetensors")
    moved = max((weights[1][name] - start[name]).abs().max().item() for name in start)
    apart = max((weights[1][name] - weights[2][name]).abs().max().item() for name in start)
    print(moved, apart)
    assert apart < 1e-5 < 1e-3 < moved


def test_lora_on_pairs(tmp_path):
    base, data = save_backbone(tmp_path / "backbone"), write_rows(tmp_path / "scored.jsonl")
    finished = launch(
        1, "--model_name_or_path", base, "--dataset_name", data, "--output_dir", tmp_path / "out", "--max_steps", 1,
        "--selection", "von_neumann", "--loss_type", "rebel", "--use_peft", "--eval_strategy", "steps",
        "--eval_steps", 1, "--dataset_test_split", "train",
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    assert "pair accuracy (evaluation, step 1)" in (tmp_path / "out" / "README.md").read_text()
