"""The launch script, started as a user starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import save_backbone
from tests.training.test_reward_trainer import ring_rows

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def launch(*arguments):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", str(ROOT / "trainers" / "reward.py")]
    return subprocess.run([*command, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_the_command_trains_from_any_folder(tmp_path):
    """In one process, with a shipped configuration; the package is all that it needs."""
    from gpm_hf import load_preference_model

    (tmp_path / "pairs.jsonl").write_text("\n".join(json.dumps(row) for row in ring_rows()))
    command = [sys.executable, "-m", "gpm_hf.cli", "train", "reward", "--config_file", "ddp", "--num_processes", "1"]
    command += ["--model_name_or_path", save_backbone(tmp_path / "backbone"), "--dataset_name", "pairs.jsonl"]
    command += ["--mixed_precision", "no", "--output_dir", "out", "--max_steps", "1", "--use_cpu", "--bf16", "false"]
    finished = subprocess.run(
        [*command, "--report_to", "none"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert load_preference_model(str(tmp_path / "out")).config.embedding_dim == 6


def test_flags_and_yaml_train_and_save(tmp_path):
    from gpm_hf import load_preference_model, load_tokenizer

    (tmp_path / "pairs.jsonl").write_text("\n".join(json.dumps(row) for row in ring_rows()))
    (tmp_path / "recipe.yaml").write_text("embedding_dim: 2\ntau: 0.5\nlearning_rate: 1.0e-3\nscale_gate: false\n")
    finished = launch(
        "--config", tmp_path / "recipe.yaml", "--model_name_or_path", save_backbone(tmp_path / "backbone"),
        "--dataset_name", tmp_path / "pairs.jsonl", "--output_dir", tmp_path / "out", "--max_steps", 2,
        "--bf16", "false", "--use_cpu", "--report_to", "none",
        "--eval_strategy", "steps", "--eval_steps", 2, "--dataset_test_split", "train",
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-3000:]
    model = load_preference_model(str(tmp_path / "out"))
    assert (model.config.embedding_dim, model.config.tau, model.config.scale_gate) == (2, 0.5, False)
    assert model.rank(load_tokenizer(str(tmp_path / "out")), "Hi?", ["a", "b"]) in ([0, 1], [1, 0])
    card = (tmp_path / "out" / "README.md").read_text()
    assert "`pairs.jsonl`" in card and "accuracy (evaluation, step 2)" in card
    assert str(tmp_path) not in card


def test_lora_and_a_saved_model_to_go_on_from(tmp_path):
    from gpm_hf import load_preference_model

    (tmp_path / "pairs.jsonl").write_text("\n".join(json.dumps(row) for row in ring_rows()))
    common = ["--dataset_name", tmp_path / "pairs.jsonl", "--max_steps", 1, "--bf16", "false", "--use_cpu"]
    common += ["--report_to", "none"]
    base = save_backbone(tmp_path / "backbone")
    first = launch("--model_name_or_path", base, "--output_dir", tmp_path / "lora", "--use_peft", *common)
    assert first.returncode == 0, first.stderr[-3000:]
    load_preference_model(str(tmp_path / "lora")).merge_and_unload().save_pretrained(tmp_path / "merged")
    from tests.conftest import build_tokenizer

    build_tokenizer().save_pretrained(tmp_path / "merged")
    second = launch("--model_name_or_path", tmp_path / "merged", "--output_dir", tmp_path / "more", *common)
    assert second.returncode == 0, second.stderr[-3000:]
    assert load_preference_model(str(tmp_path / "more")).config.embedding_dim == 6


def test_an_error_ends_it_without_output(tmp_path):
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"text": "x"}))
    base = save_backbone(tmp_path / "backbone")
    finished = launch("--model_name_or_path", base, "--dataset_name", tmp_path / "pairs.jsonl", "--bf16", "false",
                      "--use_cpu", "--output_dir", tmp_path / "out")  # fmt: skip
    assert finished.returncode != 0
    assert "needs `chosen` and `rejected`" in finished.stderr
    assert not (tmp_path / "out").exists()


WORKER = """
import os, sys, time
from pathlib import Path
from gpm_hf import GPMRewardTrainer
from gpm_hf.scripts import reward

folder, rank, told = Path(sys.argv.pop(1)), int(os.environ["RANK"]), reward.summary

def summary(*arguments):
    time.sleep(0 if rank else 3)
    (folder / f"told-{rank}").write_text(str(time.time()))
    return told(*arguments)

reward.summary = summary
GPMRewardTrainer.end = lambda self: (folder / f"end-{rank}").write_text(str(time.time()))
reward.run()
"""


def test_no_process_ends_before_the_first_has_said_all(tmp_path):
    (tmp_path / "pairs.jsonl").write_text("\n".join(json.dumps(row) for row in ring_rows()))
    (tmp_path / "worker.py").write_text(WORKER)
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    command += [tmp_path / "worker.py", tmp_path, "--model_name_or_path", save_backbone(tmp_path / "backbone")]
    command += ["--dataset_name", tmp_path / "pairs.jsonl", "--output_dir", tmp_path / "out", "--max_steps", "1"]
    command += ["--bf16", "false", "--report_to", "none"]
    finished = subprocess.run(
        list(map(str, command)), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    ends = [float((tmp_path / f"end-{rank}").read_text()) for rank in (0, 1)]
    assert min(ends) >= float((tmp_path / "told-0").read_text())
