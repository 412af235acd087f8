"""The launch script of iterative alignment: its recipe, killed anywhere, and on two processes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.conftest import build_gpm, build_tokenizer, save_backbone
from tests.training.test_online_gpo_distributed import free_port

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "trainers" / "iterate.py"
RECIPE = ROOT / "trainers" / "configs" / "iterate_llama3_8b.yaml"
DATA = ("samples.jsonl", "scored.jsonl")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    save_backbone(folder / "policy")
    build_gpm(embedding_dim=4).save_pretrained(folder / "gpm")
    build_tokenizer().save_pretrained(folder / "gpm")
    prompts = [{"prompt": f"Question {number}?"} for number in range(24)]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    return folder


def parse(*arguments):
    from trl import TrlParser

    from gpm_hf.recipes.iterate_config import IterateConfig
    from gpm_hf.scripts.iterate import main
    from gpm_hf.training import OfflineGPOConfig

    parser = TrlParser((IterateConfig, OfflineGPOConfig))
    return main, parser.parse_args_and_config([*map(str, arguments)], fail_with_unknown_args=True)


def test_the_recipe_says_the_papers_settings():
    _, (config, training) = parse("--config", RECIPE, "--use_cpu", "--bf16", "false")
    assert config.policy == "meta-llama/Meta-Llama-3-8B-Instruct"
    assert (config.iterations, config.prompts_per_iteration, config.num_generations) == (3, 20000, 5)
    assert (config.temperature, config.top_p, config.method) == (0.7, 0.9, "gpo")
    assert (training.gpo_beta, training.learning_rate, training.optim) == (0.001, 5e-7, "rmsprop")
    comment = RECIPE.read_text()
    assert f"--config trainers/configs/{RECIPE.name}" in comment
    assert (ROOT / comment.split("--config_file ")[1].split()[0]).is_file()


@pytest.mark.slow
def test_the_recipe_starts_on_a_tiny_model(world, tmp_path):
    main, parsed = parse(
        "--config", RECIPE, "--policy", world / "policy", "--scorer", f"gpm:{world / 'gpm'}", "--prompts",
        world / "prompts.jsonl", "--output", tmp_path / "out", "--use_cpu", "--bf16", "false", "--report_to", "none",
        "--prompts_per_iteration", 8, "--max_new_tokens", 6, "--disable_tqdm", "true", "--max_prompt_length", 200,
    )  # fmt: skip
    main(*parsed)
    for iteration in (1, 2, 3):
        assert (tmp_path / "out" / f"iteration-{iteration}" / "policy" / "model.safetensors").is_file()


def command(world, output, launcher=(), processes=1):
    return [
        sys.executable, *launcher, str(SCRIPT), "--policy", world / "policy", "--scorer", f"gpm:{world / 'gpm'}",
        "--prompts", world / "prompts.jsonl", "--output", output, "--iterations", "2", "--num_generations", "3",
        "--max_new_tokens", "24", "--shard_size", "2", "--bf16", "false", "--report_to", "none", "--disable_tqdm",
        "true", "--gradient_checkpointing", "false", "--save_steps", "2", "--num_train_epochs", "2",
        "--per_device_train_batch_size", str(4 // processes), "--learning_rate", "1e-3", "--gpo_beta", "0.1",
    ]  # fmt: skip


def environment():
    return {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """The job in one go, and how many seconds it took once it had begun to work."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    finish(command(world, folder))
    seconds = (folder / "iteration-2" / "policy").stat().st_mtime - (folder / "iterate.json").stat().st_mtime
    return folder, seconds


def finish(arguments, variables=None):
    arguments = list(map(str, arguments))
    finished = subprocess.run(arguments, env=variables or environment(), capture_output=True, text=True, cwd=ROOT)
    assert finished.returncode == 0, finished.stderr[-5000:]
    return finished.stdout


def data(folder):
    return {
        path: (folder / path).read_bytes()
        for path in [f"iteration-{iteration}/{name}" for iteration in (1, 2) for name in DATA]
    }


@pytest.mark.slow
def test_killed_at_ten_random_points_it_ends_with_the_same_bytes(world, whole, tmp_path):
    folder, seconds = whole
    draw, output, kills = random.Random(0), tmp_path / "out", []
    arguments = list(map(str, command(world, output)))
    while len(kills) < 10:
        before = state(output)
        run = subprocess.Popen(arguments, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # The beginning only loads libraries: points are drawn from where the work is.
        while run.poll() is None and state(output) == before:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, seconds / 4))
        if run.poll() is None:
            run.send_signal(signal.SIGKILL)
            run.wait()
            kills.append(stage(output))
        else:  # it got to the end: the other kills are of a new run
            assert run.returncode == 0
            check(output, folder)
            shutil.rmtree(output)
    print("killed during", kills)
    finish(arguments)
    check(output, folder)
    assert len(set(kills)) >= 3


def check(output, expected):
    assert data(output) == data(expected)
    for iteration in (1, 2):
        weights = f"iteration-{iteration}/policy/model.safetensors"
        assert (output / weights).read_bytes() == (expected / weights).read_bytes()
        assert {path.name for path in (output / f"iteration-{iteration}").iterdir()} == {*DATA, "policy"}


def stage(folder):
    """The last result that is there."""
    results = ("samples.jsonl", "scored.jsonl", "training", "policy")
    there = [f"{t}/{name}" for t in (1, 2) for name in results if (folder / f"iteration-{t}" / name).exists()]
    return there[-1] if there else "the first samples"


def state(folder):
    """Which results and shards and checkpoints are there."""
    return frozenset(str(path) for path in folder.rglob("*") if "checkpoint" in path.name or path.suffix == ".jsonl")


@pytest.mark.slow
def test_two_processes_give_the_same_data_as_one(world, whole, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    said = finish(command(world, tmp_path / "out", launcher, processes=2))
    record = json.loads((tmp_path / "out" / "iteration-1" / "policy" / "gpm_run.json").read_text())
    assert record["hardware"].startswith("2 x ")
    one, two = data(whole[0]), data(tmp_path / "out")
    assert two["iteration-1/samples.jsonl"] == one["iteration-1/samples.jsonl"]
    assert two["iteration-1/scored.jsonl"] == one["iteration-1/scored.jsonl"]
    # Gradients are summed in another order, so the second iteration's policies differ in the last digits.
    first, second = ([json.loads(line) for line in of["iteration-2/samples.jsonl"].splitlines()] for of in (one, two))
    for row, other in zip(first, second, strict=True):
        assert row.pop("policy_log_probs") == pytest.approx(other.pop("policy_log_probs"), abs=1e-3)
    assert first == second
    assert said.count("Iteration 2/2: policy in") == 1


def by_accelerate(kind):
    """`accelerate launch` with a shipped configuration, on two processes of a CPU."""
    options = ("--num_processes", "2", "--mixed_precision", "no", "--main_process_port", free_port())
    return ("-m", "accelerate.commands.launch", "--config_file", f"trainers/configs/{kind}.yaml", *options)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "method"), [("zero2", "gpo"), ("zero3", "gpo"), ("zero3", "dpo"), ("ddp", "dpo")])
def test_launched_with_the_shipped_configurations(world, whole, tmp_path, kind, method):
    """Each iteration makes a new trainer in processes that go on: they end where one process does, or near it."""
    folder = whole[0]
    if method == "dpo":
        folder = tmp_path / "one"
        finish([*command(world, folder), "--method", "dpo"])
    arguments = [*command(world, tmp_path / "out", by_accelerate(kind), processes=2), "--method", method, "--use_cpu"]
    # Without DeepSpeed's own variable it would look for a GPU, and with accelerate's it would not be used at all.
    variables = environment()
    if kind != "ddp":
        del variables["ACCELERATE_USE_CPU"]
        variables["DS_ACCELERATOR"] = "cpu"
    finish(arguments, variables)
    for iteration in (1, 2):
        record = json.loads(
            (tmp_path / "out" / f"iteration-{iteration}" / "policy" / "trainer_state.json").read_text()
        )
        assert record["global_step"] == record["max_steps"] > 1
    if method == "gpo":
        run = json.loads((tmp_path / "out" / "iteration-2" / "policy" / "gpm_run.json").read_text())
        assert run["hardware"].startswith("2 x ") and run["hardware"].endswith(f"DeepSpeed ZeRO-{kind[-1]}")
    one, two = data(folder), data(tmp_path / "out")
    assert two["iteration-1/samples.jsonl"] == one["iteration-1/samples.jsonl"]
    assert two["iteration-1/scored.jsonl"] == one["iteration-1/scored.jsonl"]
    start = load_file(world / "policy" / "model.safetensors")
    expected, found = (
        load_file(path / "iteration-1" / "policy" / "model.safetensors") for path in (folder, tmp_path / "out")
    )
    moved = max((expected[name] - start[name]).abs().max().item() for name in start)
    apart = max((expected[name] - found[name]).abs().max().item() for name in start)
    print(kind, method, moved, apart)
    assert apart < 1e-4 < 1e-3 < moved
