"""The ablation on a tiny backbone."""

import csv
import json

import pytest

from gpm_hf.recipes import ablation, heads
from gpm_hf.recipes.ablation import Variant, ablation_variants, run_ablation


def test_the_papers_grid_has_17_cells():
    variants = ablation_variants()
    assert len(variants) == len(set(variants)) == 17
    assert variants[0] == Variant(2, True, True) and variants[-1] == Variant(1)
    assert {variant[1:3] for variant in variants if variant.embedding_dim == 8} == {
        (gate, norm) for gate in (True, False) for norm in (True, False)
    }
    assert not any(variant.reward_head for variant in variants)
    with_rewards = ablation_variants(reward_head=True)
    assert len(with_rewards) == len(set(with_rewards)) == 33 and with_rewards[-1] == Variant(1)


@pytest.mark.parametrize("dimensions", [(), (3,), (1, 2), (0,)])
def test_dimensions_that_are_not_possible(dimensions):
    with pytest.raises(ValueError, match="each an even number from 2"):
        ablation_variants(dimensions)


def test_no_seeds(tmp_path):
    with pytest.raises(ValueError, match="no seeds"):
        run_ablation(tmp_path, base="any", seeds=())


@pytest.fixture
def short(monkeypatch):
    recipe = {"max_steps": 4, "learning_rate": 5e-4, "per_device_train_batch_size": 30}
    monkeypatch.setattr(ablation, "SYSTEMATIC_RECIPE", recipe)
    monkeypatch.setattr(heads, "TRAIN_PROMPTS", 10)
    monkeypatch.setattr(heads, "TEST_PROMPTS", 5)


def test_an_interrupted_run_goes_on_and_writes_its_tables(tmp_path, backbone_folder, short, monkeypatch, capsys):
    from gpm_hf.cli import main

    trained, train = [], ablation.train_heads

    def counted(base, output, dimension, pairs, recipe, seed, test_pairs, **options):
        trained.append({"embedding_dim": dimension, **options})
        if len(trained) == 4:
            raise KeyboardInterrupt
        return train(base, output, dimension, pairs, recipe, seed, test_pairs, **options)

    monkeypatch.setattr(ablation, "train_heads", counted)
    arguments = ["eval", "ablation", "--base", backbone_folder, "--output", str(tmp_path), "--dimensions", "4"]
    assert main(arguments) == 130
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 3
    assert not (tmp_path / "ablation.md").exists()
    assert main(arguments) == 0
    # The fourth cell was begun twice; the first three once. Bradley-Terry is given no options of the blocks.
    cells = [
        {"embedding_dim": 4, "scale_gate": gate, "normalize_embeddings": norm, "reward_head": False}
        for gate in (True, False)
        for norm in (True, False)
    ]
    assert trained == [*cells, cells[3], {"embedding_dim": 1}]

    printed = capsys.readouterr().out
    table = (tmp_path / "ablation.md").read_text()
    assert table in printed
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert lines[0] == ["model", "dimension", "gate", "L2", "pairs right", "whole cycles right", "log-loss (nats)"]
    assert [line[:4] for line in lines[2:]] == [
        ["GPM", "4", "yes", "yes"],
        ["GPM", "4", "yes", "no"],
        ["GPM", "4", "no", "yes"],
        ["GPM", "4", "no", "no"],
        ["Bradley-Terry", "1", "-", "-"],
        ["ceiling of any scalar reward", "-", "-", "-"],
    ]
    assert lines[-1][4:] == ["66.7%", "0.0%", "-"]
    assert lines[-2][5].startswith("0.0%")

    with open(tmp_path / "ablation.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    stored = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["embedding_dim"] for row in rows] == ["4"] * 4 + ["1"]
    for row, one in zip(rows, stored):
        right = sum(prompt[1] for prompt in one["result"]["prompts"])
        # Five prompts of three pairs.
        assert int(row["pairs_right"]) == right and float(row["pair_accuracy"]) == pytest.approx(right / 15)
        assert float(row["pair_accuracy_low"]) <= right / 15 <= float(row["pair_accuracy_high"])
        assert float(row["log_loss"]) == one["result"]["log_loss"]
    assert (tmp_path / "ablation.png").read_bytes().startswith(b"\x89PNG")

    monkeypatch.setattr(ablation, "train_heads", None)
    assert main(arguments) == 0
    assert table in capsys.readouterr().out


def test_rewards_beside_the_blocks_and_several_seeds(tmp_path, monkeypatch):
    """Tables alone: what a run gives is made up."""

    def run(base, output, cell):
        right = 3 if cell["reward_head"] else 2 if cell["seed"] else 0
        return {"prompts": [[3, right, 1, right // 3, 2]] * 3, "log_loss": 0.25 * (1 + cell["seed"])}

    monkeypatch.setattr(ablation, "_run", run)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    lines = run_ablation(tmp_path, base=str(tmp_path), dimensions=[2], seeds=[0, 1], reward_head=True).splitlines()
    assert len(lines) == 2 + 8 + 2
    # Wilson's for six prompts that are all alike: 6 / (6 + 1.96^2), and what that leaves.
    assert lines[2] == "| GPM | 2 | yes | yes | 33.3% [11.1%, 55.6%] | 0.0% [0.0%, 39.0%] | 0.375 | 0.0% to 66.7% |"
    assert lines[6] == (
        "| GPM with reward | 2 | yes | yes | 100.0% [61.0%, 100.0%] | 100.0% [61.0%, 100.0%] | 0.375 "
        "| 100.0% to 100.0% |"
    )
    assert len((tmp_path / "ablation.csv").read_text().splitlines()) == 1 + 2 * 9
