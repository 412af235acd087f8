"""How often a trained model is right on held-out pairs, with an interval over prompts."""

import hashlib
import json
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset

from gpm_hf.data.preference_rows import IDENTICAL
from gpm_hf.evaluation.statistics.bootstrap import share_interval
from gpm_hf.training import GPMRewardTrainer
from gpm_hf.training.head_states import PROMPT_KEY

_RESAMPLES = 2000


class HeldOut(NamedTuple):
    """
    Attributes:
        pairs: that were judged: those with a side, of two different responses.
        prompts: whose they are.
        accuracy: share of the pairs with log-odds on the label's side.
        interval: 95% bootstrap interval over prompts; `None` for fewer than five.
    """

    pairs: int
    prompts: int
    accuracy: float
    interval: tuple[float, float] | None

    def __str__(self) -> str:
        between = f" [{self.interval[0]:.1%}, {self.interval[1]:.1%}]" if self.interval else ""
        return f"{self.accuracy:.1%}{between} of {self.pairs} pairs over {self.prompts} prompts"

    def to_dict(self) -> dict[str, Any]:
        """For a card and for JSON."""
        return {
            "accuracy": self.accuracy,
            "accuracy_interval": self.interval,
            "pairs": self.pairs,
            "prompts": self.prompts,
        }


def evaluate_held_out(trainer: GPMRewardTrainer) -> HeldOut | None:
    """
    Evaluates a trainer on its `eval_dataset`, logs the metrics as an evaluation does, and adds the interval.

    Returns:
        The accuracy by the pairs' labels; `None` of a stream, whose rows are not at hand, or where no pair has a side.
    """
    output = trainer.predict(trainer.eval_dataset, metric_key_prefix="eval")
    trainer.log(output.metrics)
    if not isinstance(trainer.eval_dataset, Dataset):
        return None
    regression = trainer.args.loss_type == "regression"
    counts = right_by_prompt(trainer.eval_dataset, output.predictions, regression).values()
    if not counts:
        return None
    correct, total = (list(column) for column in zip(*counts, strict=True))
    return HeldOut(
        pairs=sum(total),
        prompts=len(total),
        accuracy=sum(correct) / sum(total),
        interval=share_interval(correct, total, samples=_RESAMPLES),
    )


def right_by_prompt(dataset: Dataset, predictions: np.ndarray, regression: bool) -> dict[str, tuple[int, int]]:
    """
    For each prompt how many pairs are right, and of how many; prompts without a pair that has a side are not there.

    Args:
        dataset: the trainer's, prepared.
        predictions: log-odds of all pairs, as the trainer's `predict` gives them.
        regression: whether labels are log-odds.
    """
    right: dict[str, tuple[int, int]] = {}
    place = 0
    for number, row in enumerate(dataset.with_format(None)):
        size = len(row["pairs"]) if "pairs" in row else 1
        log_odds = np.asarray(predictions[place : place + size], dtype=np.float64).reshape(size)
        place += size
        sides, identical = _sides(row, size, regression), np.atleast_1d(row[IDENTICAL])
        decided = (sides != 0) & ~identical.astype(bool)
        if decided.any():
            key = _prompt(row, number)
            before = right.get(key, (0, 0))
            right[key] = (before[0] + int((log_odds * sides > 0)[decided].sum()), before[1] + int(decided.sum()))
    return right


def _sides(row: dict[str, Any], size: int, regression: bool) -> np.ndarray:
    """1 where the label prefers the first response of a pair, -1 for the second, 0 where it has no side."""
    if regression:
        return np.sign(np.atleast_1d(row["target_score"]).astype(float))
    probability = row.get("preference_probability")
    return np.ones(size) if probability is None else np.sign(np.atleast_1d(probability).astype(float) - 0.5)


def _prompt(row: dict[str, Any], number: int) -> str:
    """Whose prompt a row is; of rows without one each counts as its own."""
    if row.get(PROMPT_KEY) is not None:
        return row[PROMPT_KEY]
    if row.get("prompt_ids") is None:
        return str(number)
    return hashlib.sha256(json.dumps(row["prompt_ids"]).encode()).hexdigest()
