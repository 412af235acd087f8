"""A judge with known cycles becomes a model that keeps them, on prompts that it has not seen."""

import itertools
import json
import random

import pytest

from tests.conftest import save_backbone

# Each beats the next two, so of the ten pairs of a prompt every ordering has three wrong or more.
WORDS = ["red", "green", "blue", "gold", "grey"]
EDGES = [(i, (i + step) % 5) for i in range(5) for step in (1, 2)]
CEILING = max(
    sum(order.index(i) < order.index(j) for i, j in EDGES) for order in itertools.permutations(range(len(WORDS)))
)
STRENGTH = {1: 3.0, 2: 2.0, 3: -2.0, 4: -3.0, 0: 0.0}


def judge(prompts, groups):
    """Log-odds by the words that the responses name; the position counts too, until both orders are averaged."""
    calls.append(len(groups))
    matrices = []
    for responses in groups:
        kinds = [next(place for place, word in enumerate(WORDS) if word in text) for text in responses]
        # What stands first gains 0.4.
        matrices.append(
            [[STRENGTH[(j - i) % 5] + 0.4 * (a != b) for b, j in enumerate(kinds)] for a, i in enumerate(kinds)]
        )
    return matrices


calls: list[int] = []


def write_groups(path, count):
    rng = random.Random(0)
    rows = []
    for number in range(count):
        texts = [f"{word} {word} {word}" for word in rng.sample(WORDS, len(WORDS))]
        rows.append({"prompt": f"Question {number}?", "responses": texts})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run(folder, data, **options):
    from trl import DatasetMixtureConfig, ModelConfig

    from gpm_hf.scripts.reward import RewardScriptArguments, main
    from tests.training.test_reward_trainer import config

    script = {"label_with": "function:tests.recipes.test_distill.judge", "compare_bt": True}
    training = {"train_heads_only": True, "max_steps": 300, "learning_rate": 0.01, "per_device_train_batch_size": 8}
    script |= {name: options.pop(name) for name in list(options) if name in script}
    main(
        RewardScriptArguments(dataset_name=data, **script),
        config(folder / "out", embedding_dim=8, save_strategy="no", **training | options),
        ModelConfig(model_name_or_path=save_backbone(folder / "backbone")),
        DatasetMixtureConfig(test_split_size=0.2),
    )
    return json.loads((folder / "out" / "results" / "distillation.json").read_text())["result"]


@pytest.mark.slow
def test_a_gpm_keeps_the_cycles_of_a_judge_and_a_reward_its_ceiling(tmp_path, capsys):
    calls.clear()
    data = write_groups(tmp_path / "groups.jsonl", 80)
    found = run(tmp_path, data)
    assert CEILING == 7
    assert (found["prompts"], found["pairs"], found["cycles"]) == (16, 160, 80)
    assert found["pairs_kept"] >= 0.95 and found["cycles_kept"] >= 0.85
    assert found["scalar_ceiling"] == CEILING / 10
    assert found["Bradley-Terry: pairs_kept"] <= CEILING / 10 and found["Bradley-Terry: cycles_kept"] == 0
    # The judge's own: half of its pairs are at log-odds 3, half at 2.
    assert found["judge_entropy"] == pytest.approx((entropy(3.0) + entropy(2.0)) / 2, rel=1e-5)
    assert found["judge_entropy"] < found["cross_entropy"] < found["Bradley-Terry: cross_entropy"]
    assert "ceiling of any scalar reward | 70.0%" in capsys.readouterr().out
    card = (tmp_path / "out" / "README.md").read_text()
    assert "pairs kept" in card and "`distillation` on" in card and str(tmp_path) not in card
    assert (tmp_path / "out" / "bradley-terry" / "model.safetensors").is_file()

    # Again, after what a kill leaves: of the labels nothing is asked for anew.
    labels = tmp_path / "out" / "labels.jsonl"
    assert sum(calls) == 80 == len(labels.read_text().splitlines())
    lines = labels.read_text().splitlines(keepends=True)
    labels.write_text("".join(lines[:70]) + lines[70][:50])
    run(tmp_path, data, max_steps=1, compare_bt=False)
    assert sum(calls) == 90 and labels.read_text().splitlines(keepends=True)[:70] == lines[:70]


def entropy(log_odds):
    import math

    p = 1 / (1 + math.exp(-log_odds))
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def test_labels_are_both_orders_averaged_in_every_form(tmp_path):
    from gpm_hf.recipes.distill import label_groups

    texts = [f"It is {word}." for word in WORDS[:3]]
    rated = [{"response": text, "annotations": {"a": {"Rating": "1"}}} for text in texts]
    rows = {
        "groups": [{"prompt": "Why?", "responses": texts, "ranking": [0, 1, 2]}],
        "pairs": [{"prompt": "Why?", "chosen": texts[0], "rejected": texts[2]}],
        "rated": [{"instruction": "Why?", "completions": rated}],
    }
    scorer = "function:tests.recipes.test_distill.judge"
    found = label_groups(rows, scorer, tmp_path / "labels.jsonl")
    expected = [[STRENGTH[(j - i) % 5] for j in range(3)] for i in range(3)]
    for split in ("groups", "rated"):
        (row,) = found[split]
        assert row.keys() == {"prompt", "responses", "preference_matrix"} and row["responses"] == texts
        for i, j in itertools.product(range(3), repeat=2):
            assert row["preference_matrix"][i][j] == pytest.approx(1 / (1 + 2.718281828 ** -expected[i][j]), rel=1e-6)
            assert row["preference_matrix"][i][j] + row["preference_matrix"][j][i] == 1
    (row,) = found["pairs"]
    assert row["responses"] == [texts[0], texts[2]]
    (row,) = label_groups(rows, scorer, tmp_path / "labels.jsonl", as_log_odds=True)["groups"]
    assert row["target_scores"] == [pytest.approx(line, abs=1e-6) for line in expected]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_with": "nobody:x"}, "describes no scorer"),
        ({"dry_run": True}, "no --dry_run"),
        ({"dataset_streaming": True}, "no stream"),
    ],
)
def test_what_cannot_be_done(tmp_path, options, message):
    from trl import ModelConfig

    from gpm_hf.scripts.reward import RewardScriptArguments, main
    from tests.training.test_reward_trainer import config

    script = {"label_with": "constant", **options}
    data = write_groups(tmp_path / "groups.jsonl", 4)
    arguments = config(tmp_path / "out")
    with pytest.raises(ValueError, match=message):
        main(RewardScriptArguments(dataset_name=data, **script), arguments, ModelConfig(model_name_or_path="x"))


def test_the_command_is_the_launch_script(tmp_path, monkeypatch):
    from gpm_hf.cli import distillation, main

    given = []
    monkeypatch.setattr(distillation, "launch", lambda *arguments: given.append(arguments))
    assert main(["distill", "judge:x", "--input", "a.jsonl", "--output=out", "--model", "m", "--compare_bt"]) == 0
    options = ["--dataset_name", "a.jsonl", "--output_dir=out", "--model_name_or_path", "m", "--compare_bt"]
    assert given == [("reward", [*options, "--label_with", "judge:x"])]
