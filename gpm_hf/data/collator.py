"""From preference rows to batches."""

from dataclasses import dataclass
from typing import Any

import torch

from gpm_hf.data.preference import LABEL_COLUMNS
from gpm_hf.data.preference_rows import IDENTICAL, read_label
from gpm_hf.modeling import EncodedGroup, collate_groups


@dataclass
class PreferenceCollator:
    """
    Pads preference pairs into one batch for [`GPMForPreference`], see `collate_groups`.

    Each row has `chosen_ids`, `rejected_ids` and, with `with_prompts`, `prompt_ids`. In the batch the sequences lie
    chosen, rejected, chosen, rejected, ...; labels (`margin`, `target_score`, `preference_probability`) are float
    tensors of shape (B,), `identical` a bool one.
    """

    pad_token_id: int
    with_prompts: bool = True
    pad_to_multiple_of: int | None = None

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        groups = [
            EncodedGroup([row["chosen_ids"], row["rejected_ids"]], row["prompt_ids"] if self.with_prompts else None)
            for row in rows
        ]
        batch = collate_groups(groups, self.pad_token_id, self.with_prompts, self.pad_to_multiple_of)
        return batch | label_tensors(rows)


def collate_states(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """
    Stacks rows that hold hidden states instead of tokens; a model without a gate leaves the prompts' states unused.

    Returns:
        `response_states` of shape (2B, hidden_size), ordered as in [`PreferenceCollator`], `prompt_states` of shape
        (B, hidden_size) where the rows have one, and the labels.
    """
    states = [state for row in rows for state in (row["chosen_state"], row["rejected_state"])]
    batch = {"response_states": torch.stack(states)}
    if "prompt_state" in rows[0]:
        batch["prompt_states"] = torch.stack([row["prompt_state"] for row in rows])
    return batch | label_tensors(rows)


def label_tensors(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """
    The labels that rows have, as float tensors of shape (B,), and which rows have nothing to prefer, `identical`.
    `ValueError` for what is no number.
    """
    labels = {
        name: torch.tensor([read_label(row[name], name) for row in rows], dtype=torch.float32)
        for name in LABEL_COLUMNS
        if name in rows[0]
    }
    if IDENTICAL in rows[0]:
        labels[IDENTICAL] = torch.tensor([row[IDENTICAL] for row in rows])
    return labels
