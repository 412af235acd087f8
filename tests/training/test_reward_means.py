"""Means of GPMRewardTrainer: over rows whatever the batches, in the direction of the labels, under their own names."""

import json
import math

import pytest
import torch
from datasets import Dataset

from tests.conftest import build_gpm, save_backbone
from tests.training.test_reward_trainer import config, log_odds_by_hand, make_trainer, ring_rows


def flipped(rows, **label):
    """The same preferences with the responses the other way round."""
    return [row | {"chosen": row["rejected"], "rejected": row["chosen"], **label} for row in rows]


def evaluation(folder, rows, **options):
    return make_trainer(folder, rows=ring_rows(1, **options.pop("train", {})), eval_rows=rows, **options).evaluate()


class TestLabels:
    def test_the_same_pairs_as_a_and_b_have_the_same_metrics(self, tmp_path):
        rows = ring_rows(8)
        plain = evaluation(tmp_path, rows)
        mixed = [
            flipped([row], preference_probability=0.0)[0] if number % 3 else row | {"preference_probability": 1.0}
            for number, row in enumerate(rows)
        ]
        other = evaluation(tmp_path, mixed)
        assert 0.1 < plain["eval_accuracy"] < 0.9  # an untrained model: some are right, some are wrong
        for name in ("loss", "accuracy", "mean_probability", "mean_log_odds"):
            assert other[f"eval_{name}"] == pytest.approx(plain[f"eval_{name}"], rel=1e-5), name

    def test_soft_labels_by_hand(self, tmp_path):
        labels = [0.9, 0.2, 0.5, 0.0, 1.0, 0.5]
        rows = [row | {"preference_probability": label} for row, label in zip(ring_rows(2), labels)]
        trainer = make_trainer(tmp_path, rows=rows, eval_rows=rows, per_device_eval_batch_size=4)
        metrics = trainer.evaluate()
        log_odds = [log_odds_by_hand(trainer.model, trainer.processing_class, row).item() for row in rows]
        toward = [(s if p > 0.5 else -s) for s, p in zip(log_odds, labels) if p != 0.5]
        assert metrics["eval_accuracy"] == pytest.approx(sum(s > 0 for s in toward) / 4)
        assert metrics["eval_mean_probability"] == pytest.approx(
            sum(1 / (1 + math.exp(-s)) for s in toward) / 4, rel=1e-4
        )
        assert metrics["eval_mean_log_odds"] == pytest.approx(sum(toward) / 4, rel=1e-4, abs=1e-4)
        assert metrics["eval_undecided_labels"] == 2 and "eval_identical_pairs" not in metrics

    def test_targets_have_a_side_too(self, tmp_path):
        targets = [1.5, -2.0, 0.0, -0.1, 3.0, -1.0]
        rows = [row | {"target_score": target} for row, target in zip(ring_rows(2), targets)]
        trainer = make_trainer(tmp_path, rows=rows, eval_rows=rows, loss_type="regression")
        metrics = trainer.evaluate()
        log_odds = [log_odds_by_hand(trainer.model, trainer.processing_class, row).item() for row in rows]
        right = [(s > 0) == (t > 0) for s, t in zip(log_odds, targets) if t != 0]
        assert metrics["eval_accuracy"] == pytest.approx(sum(right) / 5)
        assert metrics["eval_undecided_labels"] == 1

    def test_equal_responses_are_counted_and_not_wrong(self, tmp_path, caplog):
        rows = ring_rows(1)
        same = [row | {"rejected": row["chosen"]} for row in rows[:2]]
        trainer = make_trainer(tmp_path, rows=[*rows, *same], eval_rows=[*rows, *same], max_steps=1)
        metrics = trainer.evaluate()
        assert "2 of 5 train rows have equal responses" in caplog.text
        assert "2 of 5 eval rows have equal responses" in caplog.text
        assert metrics["eval_identical_pairs"] == 2
        alone = evaluation(tmp_path, rows)
        for name in ("accuracy", "mean_probability", "mean_log_odds"):
            assert metrics[f"eval_{name}"] == pytest.approx(alone[f"eval_{name}"], rel=1e-5)
        assert metrics["eval_loss"] == pytest.approx((3 * alone["eval_loss"] + 2 * math.log(2)) / 5, rel=1e-5)
        trainer.train()
        assert trainer.state.log_history[-2]["identical_pairs"] == 2

    def test_without_a_decided_pair_there_is_no_accuracy(self, tmp_path):
        metrics = evaluation(tmp_path, ring_rows(1, preference_probability=0.5))
        assert "eval_accuracy" not in metrics and metrics["eval_undecided_labels"] == 3

    def test_the_best_model_is_chosen_by_the_labels(self, tmp_path):
        """All pairs the other way round: what the labels call right grows in training."""
        rows = flipped(ring_rows(6), preference_probability=0.0)
        trainer = make_trainer(
            tmp_path / "out",
            save_backbone(tmp_path / "backbone"),
            rows,
            eval_rows=rows,
            embedding_dim=6,
            max_steps=60,
            learning_rate=5e-3,
            eval_strategy="steps",
            save_strategy="steps",
            eval_steps=20,
            save_steps=20,
            save_only_model=True,
            load_best_model_at_end=True,
            metric_for_best_model="accuracy",
        )
        trainer.train()
        assert trainer.state.best_metric > 0.95
        trainer.save_model()
        step = trainer.state.best_global_step
        assert (
            f"accuracy (evaluation, step {step}) | {trainer.state.best_metric:.4g} |"
            in (tmp_path / "out" / "README.md").read_text()
        )


class TestNames:
    def test_each_data_set_has_its_own_metrics(self, tmp_path):
        sets = {"a": ring_rows(2), "b": flipped(ring_rows(2))}
        trainer = make_trainer(tmp_path, max_steps=1)
        metrics = trainer.evaluate({name: Dataset.from_list(rows) for name, rows in sets.items()})
        for name, rows in sets.items():
            log_odds = [log_odds_by_hand(trainer.model, trainer.processing_class, row).item() for row in rows]
            right = sum(s > 0 for s in log_odds) / len(rows)
            loss = sum(math.log(1 + math.exp(-s)) for s in log_odds) / len(rows)
            assert metrics[f"eval_{name}_accuracy"] == pytest.approx(right)
            assert metrics[f"eval_{name}_loss"] == pytest.approx(loss, rel=1e-4)
        assert metrics["eval_a_accuracy"] != metrics["eval_b_accuracy"]
        assert not {"eval_accuracy", "eval_loss"} & {*metrics, *trainer.state.log_history[-1]}

    def test_predictions_and_evaluations_by_prefix(self, tmp_path):
        trainer = make_trainer(tmp_path)
        rows = Dataset.from_list(ring_rows(2))
        predicted = trainer.predict(rows).metrics
        assert {"test_accuracy", "test_loss", "test_mean_probability"} <= set(predicted)
        evaluated = trainer.evaluate(rows, metric_key_prefix="held_out")
        assert evaluated["held_out_accuracy"] == predicted["test_accuracy"]
        assert not any(name.startswith("eval_") for name in {*predicted, *evaluated})

    def test_best_model_and_card_by_the_data_set(self, tmp_path):
        from gpm_hf import GPMRewardTrainer
        from tests.conftest import build_tokenizer

        trainer = GPMRewardTrainer(
            build_gpm(embedding_dim=4),
            config(
                tmp_path,
                max_steps=2,
                eval_strategy="steps",
                save_strategy="steps",
                eval_steps=1,
                save_steps=1,
                load_best_model_at_end=True,
                metric_for_best_model="eval_a_accuracy",
            ),
            train_dataset=Dataset.from_list(ring_rows()),
            eval_dataset={"a": Dataset.from_list(ring_rows(2)), "b": Dataset.from_list(flipped(ring_rows(2)))},
            processing_class=build_tokenizer(),
        )
        trainer.train()
        trainer.save_model()
        history = trainer.state.log_history
        assert trainer.state.best_metric == max(e["eval_a_accuracy"] for e in history if "eval_a_accuracy" in e)
        step = trainer.state.best_global_step
        card = (tmp_path / "README.md").read_text()
        for name in ("a", "b"):
            entry = next(e for e in history if e["step"] == step and f"eval_{name}_loss" in e)
            for metric in ("loss", "accuracy"):
                value = f"{entry[f'eval_{name}_{metric}']:.4g}"
                assert f"| {metric} (evaluation of `{name}`, step {step}) | {value} |" in card
        record = json.loads((tmp_path / "gpm_run.json").read_text())
        assert not any("(evaluation, " in name for name in record["metrics"])
        assert "train" not in "".join(name for name in record["metrics"] if "training" not in name)


def gradient_of_one_step(folder, rows, batch_size, accumulation):
    """The change of the weights by one step of SGD with learning rate 1."""
    trainer = make_trainer(
        folder,
        rows=rows,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        learning_rate=1.0,
        optim="sgd",
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        weight_decay=0.0,
        train_sampling_strategy="sequential",
        gradient_checkpointing=False,
    )
    before = torch.cat([p.detach().flatten().clone() for p in trainer.model.parameters()])
    trainer.train()
    after = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    return (before - after).double(), trainer.state.log_history[0]


@pytest.mark.parametrize(("rows", "batch_size", "accumulation"), [(6, 4, 2), (5, 4, 2), (7, 3, 3)])
def test_a_ragged_micro_batch_weighs_as_its_rows(tmp_path, rows, batch_size, accumulation):
    """4+2, 4+1 and 3+3+1 rows: one step is that of all rows in one batch, and so are its metrics."""
    data = [row | {"margin": 0.5 * number} for number, row in enumerate(ring_rows(3)[:rows])]  # unequal losses
    accumulated, log = gradient_of_one_step(tmp_path, data, batch_size, accumulation)
    single, expected = gradient_of_one_step(tmp_path, data, rows, 1)
    assert single.norm() > 0.1
    assert (accumulated - single).norm() < 1e-5 * single.norm()
    for name in ("loss", "accuracy", "mean_probability", "mean_log_odds"):
        assert log[name] == pytest.approx(expected[name], rel=1e-5), name
