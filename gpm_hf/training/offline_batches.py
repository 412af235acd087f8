"""Rows of scored responses for [`OfflineGPOTrainer`]: their columns, their checks, their batches."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from trl.trainer.utils import pad

from gpm_hf.training.losses import win_margin

PAIR = ("chosen", "rejected")
# What the columns of single responses are called while they are prepared: TRL's methods know pairs only.
SINGLE_TO_PAIR = {
    "completion": "chosen",
    "completion_ids": "chosen_ids",
    "score": "chosen_score",
    "probability": "chosen_probability",
    "ref_logps": "ref_chosen_logps",
}


def sides_of(columns, loss_type: str, name: str) -> tuple[str, ...]:
    """
    Checks that a data set can be learned from.

    Args:
        columns: its column names.
        loss_type: "gpo", "sppo" or "rebel".
        name: what to call it in an error.

    Returns:
        The responses in a row: `("chosen", "rejected")`, or `("completion",)`.

    Raises:
        ValueError: naming the columns that are missing and who makes them.
    """
    sides: tuple[str, ...] = PAIR if "chosen" in columns else ("completion",)
    kind = "probability" if loss_type == "sppo" else "score"
    labels = [f"{side}_{kind}" for side in PAIR] if sides == PAIR else [kind]
    missing = [one for one in ("prompt", *sides, *labels) if one not in columns]
    if missing:
        raise ValueError(
            f"The {name} data set has the columns {sorted(columns)}, and loss_type={loss_type!r} needs {missing}. "
            "`gpm_hf.data.policy_data` makes them out of scored groups: pairs by `select_pairs`, all responses by "
            "`all_responses`."
        )
    if sides != PAIR and loss_type == "rebel":
        raise ValueError(
            f"loss_type='rebel' compares two responses, and the {name} data set has one in a row: make pairs, by "
            "`gpm_hf.data.policy_data.select_pairs`."
        )
    if {"images", "image"} & set(columns):
        raise ValueError(f"The {name} data set has images, which this trainer does not read: remove the column.")
    return sides


def add_targets(row: dict[str, Any], number: int, sides: tuple[str, ...], loss_type: str) -> dict[str, float]:
    """
    `chosen_target` and `rejected_target`: what beta times the log-ratio is regressed on, mean log-odds, or mean win
    probabilities minus 1/2.

    Raises:
        ValueError: a score or a reference's log-probability that is no finite number, a probability outside [0, 1],
            or a weight that is negative or not finite, naming the row.
    """
    weight = _number(row.get("weight", 1.0))
    if not math.isfinite(weight) or weight < 0:
        raise ValueError(
            f"Row {number}: {row['weight']!r} is not a possible weight. Mend it, or remove the column `weight`."
        )
    for name in (f"ref_{side}_logps" for side in sides):
        if name in row and not math.isfinite(_number(row[name])):
            raise ValueError(
                f"Row {number}: {row[name]!r} is not a possible `{name}`. Mend it, or remove the reference's "
                "columns to have them computed."
            )
    targets = {}
    for side in sides:
        if loss_type == "sppo":
            given, least, most = row[f"{side}_probability"], 0.0, 1.0
        else:
            given, least, most = row[f"{side}_score"], -math.inf, math.inf
        value = _number(given)
        if not math.isfinite(value) or not least <= value <= most:
            raise ValueError(
                f"Row {number}: {given!r} is not a possible {'probability' if loss_type == 'sppo' else 'score'} for "
                f"loss_type={loss_type!r}. Score the rows again, or filter it out."
            )
        targets[f"{side}_target"] = win_margin(value) if loss_type == "sppo" else value
    return targets


def add_length(row: dict[str, Any], sides: tuple[str, ...], column: str) -> dict[str, int]:
    """The tokens of a row's longest sequence, by which rows can be grouped."""
    return {column: len(row["prompt_ids"]) + max(len(row[f"{side}_ids"]) for side in sides)}


def _number(value: Any) -> float:
    """Of a number or a text that says one; NaN for all else."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


@dataclass
class ScoredResponseCollator:
    """
    Batches of scored responses. What differs from TRL's collator for DPO: a row may hold one response instead of two,
    targets and weights come along, nothing is truncated.

    Args:
        pad_token_id (`int`): any id of the vocabulary; padded positions are masked.
        pad_to_multiple_of (`int`, *optional*): pads the sequence length further.
    """

    pad_token_id: int
    pad_to_multiple_of: int | None = None

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """
        Args:
            rows: `prompt_ids`, `chosen_ids`, `chosen_target`, optionally the same of `rejected`, `ref_chosen_logps`
                and `ref_rejected_logps`, `weight`.

        Returns:
            For B rows of R = 1 or 2 responses: `input_ids`, `attention_mask` and `completion_mask` of shape (R * B,
            length), all chosen ones before all rejected ones; `targets` and, where the rows have it, `ref_log_probs`
            of shape (B, R); `weights` of shape (B,), 1 where the rows have none.
        """
        sides = PAIR if "rejected_target" in rows[0] else PAIR[:1]
        sequences = [(row["prompt_ids"], row[f"{side}_ids"]) for side in sides for row in rows]
        ids = [torch.tensor([*prompt, *response]) for prompt, response in sequences]
        responses = [torch.tensor([0] * len(prompt) + [1] * len(response)) for prompt, response in sequences]
        batch = {
            name: pad(tensors, padding_value=value, pad_to_multiple_of=self.pad_to_multiple_of)
            for name, tensors, value in (
                ("input_ids", ids, self.pad_token_id),
                ("attention_mask", [torch.ones_like(one) for one in ids], 0),
                ("completion_mask", responses, 0),
            )
        }
        batch["targets"] = torch.tensor([[row[f"{side}_target"] for side in sides] for row in rows])
        batch["weights"] = torch.tensor([float(row.get("weight", 1.0)) for row in rows])
        if "ref_chosen_logps" in rows[0]:
            given = [[float(row[f"ref_{side}_logps"]) for side in sides] for row in rows]
            batch["ref_log_probs"] = torch.tensor(given)
        return batch
