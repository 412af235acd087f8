"""The recipes in trainers/configs: what they say, and that each one starts on a tiny model and tiny data."""

import json
from pathlib import Path

import pytest

from tests.training.test_reward_trainer import ring_rows

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "trainers" / "configs").glob("reward_*.yaml"))
GPUS = 8


def parse(recipe, *arguments):
    from trl import ModelConfig, TrlParser

    from gpm_hf import GPMRewardConfig
    from gpm_hf.scripts.reward import RewardScriptArguments, main

    parser = TrlParser((RewardScriptArguments, GPMRewardConfig, ModelConfig))
    arguments = ["--config", str(recipe), "--use_cpu", "--bf16", "false", *map(str, arguments)]
    return main, parser.parse_args_and_config(arguments, fail_with_unknown_args=True)


@pytest.fixture
def conversations(tmp_path):
    """Skywork's columns: whole conversations, which part at the last message, and where they are from."""
    rows = []
    for row in ring_rows(4):
        sides = {
            side: [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row[side]}]
            for side in ("chosen", "rejected")
        }
        rows.append({**sides, "source": "rings"})
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "pairs.jsonl"


def test_there_is_a_recipe_for_each_model_and_kind():
    names = {path.stem for path in RECIPES}
    models = ("gemma_2b_it", "gemma_2_9b_it", "llama_3.1_8b_instruct", "cyclic")
    assert names == {f"reward_{model}_{kind}" for model in models for kind in ("gpm", "bt")}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_it_says_the_papers_settings(recipe):
    _, (script, training, model) = parse(recipe)
    cyclic = "cyclic" in recipe.stem
    pairs = training.per_device_train_batch_size * training.gradient_accumulation_steps * (1 if cyclic else GPUS)
    assert (pairs, training.num_train_epochs) == ((1, 50) if cyclic else (32, 2))
    is_small = model.model_name_or_path == "google/gemma-2b-it"
    assert training.learning_rate == (1e-5 if is_small else 2e-6)
    assert (training.lr_scheduler_type, training.warmup_steps) == ("cosine", 0.03)
    assert (training.max_length, training.tau) == (2048, 0.1)
    assert (training.embedding_dim == 1) == recipe.stem.endswith("bt")
    data = "cyclic-preference" if cyclic else "Skywork/Skywork-Reward-Preference-80K-v0.2"
    assert script.dataset_name == data
    # The command in the comment is the file's own, and the launcher's file is there.
    comment = recipe.read_text()
    assert f"--config trainers/configs/{recipe.name}" in comment
    launcher = comment.split("--config_file ")[1].split()[0]
    assert (ROOT / launcher).is_file() and f"--num_processes {1 if cyclic else GPUS}" in comment


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_it_starts(recipe, conversations, backbone_folder, tmp_path):
    from gpm_hf import load_preference_model

    overrides = ["--model_name_or_path", backbone_folder, "--dataset_name", conversations]
    # A recipe may name a configuration, which a file does not have.
    overrides += ["--dataset_config", "", "--output_dir"]
    overrides += [tmp_path / "out", "--max_steps", 1, "--report_to", "none", "--disable_tqdm", "true"]
    main, parsed = parse(recipe, *overrides)
    main(*parsed)
    config = load_preference_model(str(tmp_path / "out")).config
    assert config.tau == 0.1 and config.is_bradley_terry == recipe.stem.endswith("bt")
    record = json.loads((tmp_path / "out" / "gpm_run.json").read_text())
    assert float(record["hyperparameters"]["learning_rate"]) in (1e-5, 2e-6)
