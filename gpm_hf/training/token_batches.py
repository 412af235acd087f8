"""Training batches by the tokens that pass the backbone."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from transformers.trainer_pt_utils import BatchRebalanceSampler
from typing_extensions import override


class TokenBatchSampler(BatchRebalanceSampler):
    """
    Batches of rows with at most so many tokens, for the processes of a launcher: all of them make the same batches of
    the same seed, as many for each, and take their turns. Which rows are in a batch is drawn once, so that the number
    of steps is known; in which order batches come is drawn in each epoch.

    (A [`BatchRebalanceSampler`], because transformers takes such samplers for what they are: batches, dealt out.)

    Args:
        shapes: one per row.
        tokens_of: from the shapes of a batch to its tokens.
        most_rows, most_tokens: of a batch. A row with more tokens is a batch of its own.
        processes, rank: how many there are, and which this is.
        seed: of the order.
        shuffle: keep the rows' order where false.
    """

    def __init__(
        self,
        shapes: Sequence[Any],
        tokens_of: Callable[[Sequence[Any]], int],
        most_rows: int,
        most_tokens: int,
        processes: int = 1,
        rank: int = 0,
        seed: int = 42,
        shuffle: bool = True,
    ):
        self.processes, self.rank, self.seed, self.shuffle, self.epoch = processes, rank, seed, shuffle, 0
        order = list(range(len(shapes)))
        if shuffle:
            order = torch.randperm(len(shapes), generator=torch.Generator().manual_seed(seed)).tolist()
        self.batches: list[list[int]] = []
        for row in order:
            batch = self.batches[-1] if self.batches else []
            if batch and len(batch) < most_rows and tokens_of([shapes[one] for one in (*batch, row)]) <= most_tokens:
                batch.append(row)
            else:
                self.batches.append([row])
        # As many for each process: what is halved stays within the bounds.
        while len(self.batches) % processes and max(map(len, self.batches)) > 1:
            longest = max(range(len(self.batches)), key=lambda place: len(self.batches[place]))
            batch = self.batches[longest]
            self.batches[longest : longest + 1] = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
        # Rows one by one: some come twice, as whenever rows do not divide evenly.
        self.batches += self.batches[: -len(self.batches) % processes]

    @override
    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(len(self.batches)))
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed + self.epoch)
            order = torch.randperm(len(self.batches), generator=generator).tolist()
        for place in order[self.rank :: self.processes]:
            yield self.batches[place]

    @override
    def __len__(self) -> int:
        return len(self.batches) // self.processes
