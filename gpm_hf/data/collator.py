"""From preference rows, pairs or groups, to batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from gpm_hf.data.preference import LABEL_COLUMNS
from gpm_hf.data.preference_rows import IDENTICAL, read_label
from gpm_hf.modeling import EncodedGroup, collate_groups


class Shape(NamedTuple):
    """
    How long the sequences of a row are.

    Attributes:
        shared: tokens with which all of them begin and which pass the backbone once, where that is possible; else 0.
        lengths: of each, in tokens.
    """

    shared: int
    lengths: tuple[int, ...]


@dataclass
class PreferenceCollator:
    """
    Pads preference rows into one batch for [`GPMForPreference`], see `collate_groups`, one sequence a row.

    A pair has `chosen_ids`, `rejected_ids` and, with `with_prompts`, `prompt_ids`. In the batch the sequences lie
    chosen, rejected, chosen, rejected, ...; labels (`margin`, `target_score`, `preference_probability`) are float
    tensors of shape (B,), `identical` a bool one, and `gate_rows` says at which row each pair's scales are.

    Where a sequence ends to be prompt, its ids and the prompt's say: rows have no second statement of it that could
    differ, and to compare them costs a hundredth of what a batch does.

    Of groups (see `group_rows.py`) the sequences lie group by group, labels and `gate_rows` have shape (P,), the
    number of pairs, and there are also what [`pair_tensors`] returns.
    """

    pad_token_id: int
    with_prompts: bool = True
    pad_to_multiple_of: int | None = None

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        groups = [EncodedGroup(sequences_of(row), row["prompt_ids"] if self.with_prompts else None) for row in rows]
        batch = collate_groups(groups, self.pad_token_id, self.with_prompts, self.pad_to_multiple_of)
        if is_group(rows[0]):
            batch |= pair_tensors(rows, [len(group.sequences) for group in groups], batch.get("gate_rows"))
        return batch | label_tensors(rows)

    def shape_of(self, row: dict[str, Any]) -> Shape:
        """How long a row's sequences are."""
        return Shape(0, tuple(map(len, sequences_of(row))))

    def tokens_of(self, shapes: Sequence[Shape]) -> int:
        """Tokens of a batch of rows of these shapes, padding included."""
        return sum(len(shape.lengths) for shape in shapes) * max(max(shape.lengths) for shape in shapes)


def is_group(row: dict[str, Any]) -> bool:
    """Whether a prepared row is a group, and no pair."""
    return "pairs" in row


def sequences_of(row: dict[str, Any]) -> list[list[int]]:
    """The token ids of a row's sequences, each once in a group."""
    return row["sequence_ids"] if is_group(row) else [row["chosen_ids"], row["rejected_ids"]]


def pair_tensors(
    rows: list[dict[str, Any]], sizes: Sequence[int], gate_rows: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    """
    Where the pairs of groups are in the model's output.

    Args:
        rows: G groups with P pairs in all.
        sizes: how many rows of the output belong to each group.
        gate_rows: the row of each group's scales, shape (G,).

    Returns:
        `pair_rows` of shape (P, 2), the rows of each pair's chosen and rejected response; `pair_counts` of shape (G,),
        the numbers of pairs; `pair_weights` of shape (P,), 1 over the number of pairs in the group; `is_cyclic` of
        shape (G,); and `gate_rows` of shape (P,), where given.
    """
    counts = torch.tensor([len(row["pairs"]) for row in rows])
    starts = (torch.tensor(sizes).cumsum(0) - torch.tensor(sizes)).repeat_interleave(counts)
    found = {
        "pair_rows": torch.tensor([pair for row in rows for pair in row["pairs"]]) + starts[:, None],
        "pair_counts": counts,
        "pair_weights": torch.tensor([row["pair_weight"] for row in rows]).repeat_interleave(counts),
        "is_cyclic": torch.tensor([row["is_cyclic"] for row in rows]),
    }
    if gate_rows is not None:
        found["gate_rows"] = gate_rows.repeat_interleave(counts)
    return found


def collate_states(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """
    Stacks rows that hold hidden states instead of tokens; a model without a gate leaves the prompts' states unused.

    Returns:
        `response_states` of shape (sequences, hidden_size), ordered as in [`PreferenceCollator`], `prompt_states`
        where the rows have one, one for each row, the labels, and of groups what [`pair_tensors`] returns.
    """
    batch = {"response_states": torch.stack([state for row in rows for state in row["sequence_states"]])}
    if "prompt_state" in rows[0]:
        batch["prompt_states"] = torch.stack([row["prompt_state"] for row in rows])
    if is_group(rows[0]):
        gates = torch.arange(len(rows)) if "prompt_state" in rows[0] else None
        batch |= pair_tensors(rows, [len(row["sequence_states"]) for row in rows], gates)
    return batch | label_tensors(rows)


def label_tensors(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """
    The labels that rows have, as float tensors with a number for each pair, and which pairs have nothing to prefer,
    `identical`. `ValueError` for what is no number.
    """

    def values(name: str) -> list[Any]:
        return [one for row in rows for one in (row[name] if is_group(row) else [row[name]])]

    labels = {
        name: torch.tensor([read_label(value, name) for value in values(name)], dtype=torch.float32)
        for name in LABEL_COLUMNS
        if name in rows[0]
    }
    if IDENTICAL in rows[0]:
        labels[IDENTICAL] = torch.tensor(values(IDENTICAL))
    return labels
