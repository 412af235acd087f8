"""The reward script in this process: what it reads, holds out, measures, says and writes."""

import itertools
import json
import math
import re
import sys

import numpy as np
import pytest
import transformers
from datasets import Dataset

from gpm_hf.data.overlap import hold_out
from tests.conftest import save_backbone
from tests.training.test_reward_trainer import ring_rows


def votes(questions=12):
    return [
        {"prompt": row["prompt"], "response_a": row["chosen"], "response_b": row["rejected"], "winner": "a"}
        for row in ring_rows(questions)
    ]


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def run(backbone, folder, *arguments):
    from trl import DatasetMixtureConfig, ModelConfig, TrlParser

    from gpm_hf import GPMRewardConfig
    from gpm_hf.scripts.reward import RewardScriptArguments, main

    options = ["--model_name_or_path", backbone, "--output_dir", folder, "--use_cpu", "--bf16", "false"]
    options += ["--report_to", "none", "--disable_tqdm", "true", "--per_device_train_batch_size", 12]
    parser = TrlParser((RewardScriptArguments, GPMRewardConfig, ModelConfig, DatasetMixtureConfig))
    main(*parser.parse_args_and_config([str(one) for one in (*options, *arguments)]))


def test_a_dry_run_reads_everything_and_leaves_nothing(capsys, backbone_folder, tmp_path):
    data = write(tmp_path / "votes.jsonl", votes())
    arguments = ["--dataset_name", data, "--test_split_size", 0.25, "--dry_run", "--gradient_accumulation_steps", 2]
    run(backbone_folder, tmp_path / "out", *arguments)
    out = capsys.readouterr().out
    assert "36 rows read as `table`" in out and "Held out by prompt: 9 of 36 rows" in out
    assert r"'<|im_start|>user\nQuestion" in out and "chosen > rejected" in out
    # 27 rows in batches of 12 are 3 batches, two steps; three epochs.
    assert "| rows | 27 to train on, 9 held out |" in out and "| steps | 6 of 2 an epoch, 3 epochs |" in out
    total = int(re.search(r"\| parameters \| ([\d,]+)", out)[1].replace(",", ""))
    assert f"| memory: weights | {total * 4 / 1000:.3g} kB |" in out
    assert f"| memory: AdamW | {total * 8 / 1000:.3g} kB |" in out
    run(backbone_folder, tmp_path / "out", *arguments, "--train_heads_only", "--embedding_dim", 4)
    # Heads of 4 and of 2 rows over 32 hidden units.
    assert f"| trained | {32 * 6} " in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"votes.jsonl"}


def test_a_screen_has_a_bar_in_place_of_a_line_for_each_log(capsys, monkeypatch, backbone_folder, tmp_path):
    """Also where transformers' notes are left out, as commands do."""
    from gpm_hf.scripts import reward

    data = write(tmp_path / "votes.jsonl", votes())
    arguments = ["--model_name_or_path", backbone_folder, "--output_dir", tmp_path / "out", "--dataset_name", data]
    arguments += ["--test_split_size", 0.25, "--eval_strategy", "epoch", "--train_heads_only", "--logging_steps", 1]
    arguments += ["--use_cpu", "--bf16", "false", "--report_to", "none", "--num_train_epochs", 2]
    monkeypatch.setattr(sys, "argv", ["reward.py", *map(str, arguments)])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        reward.run()
    finally:
        transformers.logging.set_verbosity(level)
    out, err = capsys.readouterr()
    assert "{'" not in out + err and "Training" in err and "held-out accuracy=" in err
    assert "accuracy" in out and len(out.splitlines()) < 30


def test_bradley_terry_beside_it_with_the_numbers_of_the_saved_models(capsys, backbone_folder, tmp_path):
    from gpm_hf import load_preference_model, load_tokenizer
    from gpm_hf.data.splits import load_preference_dataset

    data = write(tmp_path / "votes.jsonl", votes(24))
    folder = tmp_path / "out"
    arguments = ["--dataset_name", data, "--test_split_size", 0.25, "--compare_bt", "--train_heads_only"]
    run(backbone_folder, folder, *arguments, "--learning_rate", 1e-2, "--logging_steps", 1, "--num_train_epochs", 2)
    out = capsys.readouterr().out
    _, test = hold_out(load_preference_dataset(str(data))["train"], 0.25, seed=42)
    for where, name in ((folder, "General preference model"), (folder / "bradley-terry", "Bradley-Terry")):
        model, tokenizer = load_preference_model(str(where)), load_tokenizer(str(where))
        right = [
            model.preference_scores(tokenizer, row["prompt"], [row["chosen"], row["rejected"]])[0, 1].item() > 0
            for row in test
        ]
        told = re.search(rf"{name}.*: accuracy ([\d.]+)% \[.*\] of 18 pairs over 6 prompts", out)
        assert float(told[1]) == pytest.approx(100 * np.mean(right), abs=0.06)
        result = json.loads((where / "results" / "held_out.json").read_text())
        assert result["result"]["accuracy"] == np.mean(right) and result["data"] == "votes.jsonl, held out"
        card = (where / "README.md").read_text()
        assert "(95% interval" in card and "learning_curve.png" in card and (where / "learning_curve.png").is_file()
        assert str(tmp_path) not in card
    assert out.count("gpm-hf ") == 3 and f"gpm-hf score {folder}" in out
    assert f"gpm-hf eval pairs gpm:{folder} gpm:{folder / 'bradley-terry'} --dataset" in out


def decided_pairs(row):
    """Pairs of a row that somebody has decided, counted in the file's own form: votes, or means of ratings."""
    if "pairs" in row:
        return sum(pair["p_a"] != 0.5 for pair in row["pairs"])
    means = [np.mean([float(one["Rating"]) for one in each["annotations"].values()]) for each in row["completions"]]
    texts = [each["response"] for each in row["completions"]]
    pairs = itertools.combinations(range(len(means)), 2)
    return sum(not math.isclose(means[i], means[j]) and texts[i] != texts[j] for i, j in pairs)


@pytest.mark.parametrize(("data", "form"), [("qa_feedback_4way", "groups"), ("uf_schema_summeval", "ultrafeedback")])
def test_peoples_rankings_and_ratings_in_their_own_form(capsys, shared, tmp_path, data, form):
    """As groups, and as the same pairs one by one: both are judged on every decided pair of the same prompts."""
    rows = [json.loads(line) for line in (shared / "data" / f"{data}.jsonl").read_text().splitlines()[:8]]
    prompt = "instruction" if form == "ultrafeedback" else "prompt"
    file = write(tmp_path / f"{data}.jsonl", rows)
    backbone = save_backbone(tmp_path / "backbone", max_position_embeddings=8192)
    sizes = []
    for options in ([], ["--group_pairs", "false"]):
        arguments = ["--dataset_name", file, "--test_split_size", 0.5, "--seed", 0, "--max_length", 8192]
        run(backbone, tmp_path / "out", *arguments, "--train_heads_only", "--max_steps", 2, *options)
        out = capsys.readouterr().out
        assert f"8 rows read as `{form}`" in out and "Held out by prompt: 4 of 8 rows" in out
        sizes.append(int(re.search(r"accuracy [\d.]+% of (\d+) pairs over 4 prompts", out)[1]))
    pairs = Dataset.from_list([{"prompt": row[prompt], "chosen": "yes", "rejected": "no"} for row in rows])
    held_out = hold_out(pairs, 0.5)[1]["prompt"][:]
    expected = sum(decided_pairs(row) for row in rows if row[prompt] in held_out)
    assert sizes == [expected, expected] and expected > 10


@pytest.mark.parametrize(
    "asked",
    [
        "--early_stopping_patience 2 --num_train_epochs 20",
        "--load_best_model_at_end true --eval_strategy epoch --save_strategy epoch --num_train_epochs 4",
    ],
    ids=["early stopping", "best at the end"],
)
def test_the_best_model_is_the_best_by_accuracy(backbone_folder, tmp_path, monkeypatch, asked):
    from gpm_hf import GPMRewardTrainer, load_preference_model

    seen = []
    original = GPMRewardTrainer.evaluation_loop

    def scripted(self, *arguments, **options):
        output = original(self, *arguments, **options)
        if self.state.global_step and self.model.training is False and len(seen) < 4:
            seen.append((self.state.global_step, self.gpm.embedding_head.weight.detach().clone()))
            output.metrics["eval_accuracy"] = [0.5, 0.9, 0.7, 0.6][len(seen) - 1]
            output.metrics["eval_loss"] = [0.9, 0.5, 0.4, 0.3][len(seen) - 1]  # its lowest is another's
        return output

    monkeypatch.setattr(GPMRewardTrainer, "evaluation_loop", scripted)
    data = write(tmp_path / "pairs.jsonl", ring_rows(12))
    options = [*asked.split(), "--learning_rate", 1e-2]
    run(backbone_folder, tmp_path / "out", "--dataset_name", data, "--test_split_size", 0.25, *options)
    # Of four evaluations (of early stopping the last two are no better) the second one's weights are what is saved.
    assert len(seen) == 4
    saved = load_preference_model(str(tmp_path / "out")).embedding_head.weight
    assert (saved == seen[1][1]).all() and not (saved == seen[3][1]).all()


def test_several_data_sets_with_shares(capsys, backbone_folder, tmp_path):
    groups = [{"prompt": f"Which {n}?", "responses": ["a", "b", "c"], "ranking": [0, 1, 2]} for n in range(10)]
    data = write(tmp_path / "votes.jsonl", votes()), write(tmp_path / "groups.jsonl", groups)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"datasets:\n  - path: {data[0]}\n    fraction: 0.75\n  - path: {data[1]}\n    fraction: 0.25\n"
        "test_split_size: 0.2\n"
    )
    run(backbone_folder, tmp_path / "out", "--config", recipe, "--dry_run")
    out = capsys.readouterr().out
    # 36 votes are three quarters of 48 rows with 10 groups at hand: 30 and 10 are 40.
    assert "Held out by prompt: " in out and "of 40 rows" in out
    assert "preferred: 0 > 1" in out
    recipe.write_text(f"datasets:\n  - path: {data[0]}\ndataset_name: {data[1]}\n")
    with pytest.raises(ValueError, match="both name the data"):
        run(backbone_folder, tmp_path / "out", "--config", recipe)
