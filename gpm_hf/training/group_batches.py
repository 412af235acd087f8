"""Which outputs of the model a batch's pairs compare, how much each counts, and what is right of whole groups."""

from typing import Any, NamedTuple

import torch

from gpm_hf.training.row_means import COUNTED


class BatchPairs(NamedTuple):
    """
    The P pairs of a batch of G data rows, which are groups, or pairs themselves.

    Attributes:
        places: the rows of the model's output that are each pair's chosen and rejected response, shape (P, 2).
        gate_rows: the rows of the scales that each pair reads, shape (P,); `None` where there is one for each pair.
        counts: how many pairs each data row has, shape (G,).
        is_cyclic: whether a group's labels go round in a circle, shape (G,); `None` for pairs.
    """

    places: torch.Tensor
    gate_rows: torch.Tensor | None
    counts: torch.Tensor
    is_cyclic: torch.Tensor | None

    @property
    def are_grouped(self) -> bool:
        """Whether the data rows are groups."""
        return self.is_cyclic is not None

    def padded(self, values: torch.Tensor) -> torch.Tensor:
        """Values of pairs, shape (P,), as one row for each group, shape (G, most pairs), NaN behind them; of pairs as
        they are."""
        if not self.are_grouped:
            return values
        rows = values.new_full((len(self.counts), int(self.counts.max())), torch.nan)
        is_pair = torch.arange(rows.shape[1], device=rows.device) < self.counts[:, None]
        rows[is_pair] = values
        return rows


def rows_in(batch: dict[str, Any]) -> int:
    """The number of data rows in a batch, whichever collator made it."""
    for name in ("pair_counts", "response_lengths", "gate_rows"):
        if name in batch:
            return len(batch[name])
    return len(batch["response_states" if "response_states" in batch else "input_ids"]) // 2


def take_pairs(batch: dict[str, Any]) -> BatchPairs:
    """Takes out of a batch what says where its pairs are; without that sequences lie chosen, rejected, chosen, ..."""
    rows = rows_in(batch)
    device = next(iter(batch.values())).device
    places = torch.arange(2 * rows, device=device).view(rows, 2)
    batch.pop("pair_weights", None)
    return BatchPairs(
        places=batch.pop("pair_rows", places),
        gate_rows=batch.pop("gate_rows", None),
        counts=batch.pop("pair_counts", torch.ones(rows, dtype=torch.long, device=device)),
        is_cyclic=batch.pop("is_cyclic", None),
    )


def pair_weights(batch: dict[str, Any], by_prompt: bool) -> torch.Tensor:
    """
    How much each pair of a batch counts in the mean: 1, or 1 over the number of its prompt's pairs, and 0 for those of
    rows that do not count; shape (P,).
    """
    rows = batch[COUNTED]
    if "pair_counts" not in batch:
        return rows
    # Rows are counted on the device of the training, where the batch may not be yet.
    counted = rows.repeat_interleave(batch["pair_counts"].to(rows.device))
    return counted * batch["pair_weights"].to(rows.device) if by_prompt else counted


def whole_groups(pairs: BatchPairs, sides: torch.Tensor, log_odds: torch.Tensor) -> torch.Tensor:
    """
    What is right of groups as a whole.

    Args:
        pairs: of the batch.
        sides: which side each pair's label prefers, 0 for none or where the responses are equal, shape (P,).
        log_odds: in the direction of that side, shape (P,).

    Returns:
        Shape (G, 3): whether all of a group's decided pairs have positive log-odds, whether the group is a cycle, and
        whether it has decided pairs.
    """
    group = torch.arange(len(pairs.counts), device=log_odds.device).repeat_interleave(pairs.counts)
    decided = torch.zeros(len(pairs.counts), dtype=torch.float32, device=log_odds.device)
    wrong = torch.zeros_like(decided)
    decided.index_add_(0, group, (sides != 0).float())
    wrong.index_add_(0, group, ((sides != 0) & (log_odds <= 0)).float())
    cyclic = torch.zeros_like(wrong) if pairs.is_cyclic is None else pairs.is_cyclic.float()
    return torch.stack([(wrong == 0).float(), cyclic, (decided > 0).float()], 1)
