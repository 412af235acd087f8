"""Votes between items, summed by pair: what every fit of this room reads."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

# Fewer prompts say too little about the spread between them.
MIN_PROMPTS = 5
# Sums by key: a table of all keys up to this many, sorting beyond.
_MOST_KEYS = 1 << 24


@dataclass(frozen=True)
class Votes:
    """
    Votes in cells: cell c holds the votes between items `a[c]` and `b[c]`. Numbers of votes may be fractions: a
    judge's probability is a vote of which each item has its part.

    Attributes:
        items: names of N items.
        a, b: shape (C,), numbers of items; never equal.
        wins, ties, losses: shape (C,), votes for a, for neither, for b.
        ordered: shape (C,), whether a was presented first; `False` where the order is not known.
        prompt: shape (C,), number of the prompt that the votes are about; -1 where none is told.
        group: shape (N,), number of the group that an item belongs to: items of two groups are never compared.
    """

    items: list[str]
    a: np.ndarray
    b: np.ndarray
    wins: np.ndarray
    ties: np.ndarray
    losses: np.ndarray
    ordered: np.ndarray
    prompt: np.ndarray
    group: np.ndarray

    @property
    def size(self) -> np.ndarray:
        """Votes in each cell, shape (C,)."""
        return self.wins + self.ties + self.losses

    @property
    def of_items(self) -> np.ndarray:
        """Votes in which each item took part, shape (N,)."""
        return np.bincount(self.a, self.size, len(self.items)) + np.bincount(self.b, self.size, len(self.items))

    @property
    def total(self) -> float:
        """Votes in all."""
        return float(self.size.sum())

    @property
    def are_whole(self) -> bool:
        """Whether every vote is for one item or for neither; `False` for probabilities."""
        return all(bool((part == np.rint(part)).all()) for part in (self.wins, self.ties, self.losses))

    @property
    def prompts(self) -> int:
        """How many prompts the votes are about; 0 where they do not say."""
        return len(np.unique(self.prompt[self.prompt >= 0]))

    @property
    def pair_key(self) -> np.ndarray:
        """Shape (C,): a number for the pair of items, whichever of them is a."""
        low, high = np.minimum(self.a, self.b), np.maximum(self.a, self.b)
        return low.astype(np.int64) * len(self.items) + high

    @property
    def pair_share(self) -> np.ndarray:
        """Shape (C,): the share of a cell's votes that is for the pair's first item in `items`, a tie half."""
        share = (self.wins + self.ties / 2) / self.size
        return np.where(self.a > self.b, 1 - share, share)

    def by_pair(self, by_order: bool = False) -> "Votes":
        """
        One cell for each pair that was compared, a before b in `items`; prompts are summed over, and orders too, or
        with `by_order` those alone that are not known.
        """
        ordered = self.ordered & by_order
        turned = ~ordered & (self.a > self.b)
        a, b = np.where(turned, self.b, self.a), np.where(turned, self.a, self.b)
        wins, losses = np.where(turned, self.losses, self.wins), np.where(turned, self.wins, self.losses)
        size = len(self.items)
        keys = (ordered.astype(np.int64) * size + a) * size + b
        found, (wins, ties, losses) = summed(keys, (1 + by_order) * size * size, wins, self.ties, losses)
        return replace(
            self,
            a=found // size % size,
            b=found % size,
            wins=wins,
            ties=ties,
            losses=losses,
            ordered=found >= size * size,
            prompt=np.full(len(found), -1),
        )

    def where(self, mask: np.ndarray) -> "Votes":
        """The cells for which a mask of shape (C,) is true; all items stay."""
        cells = {name: getattr(self, name)[mask] for name in ("a", "b", "wins", "ties", "losses", "ordered", "prompt")}
        return replace(self, **cells)

    def within_prompts(self) -> "Votes":
        """
        The same votes with each item of each prompt as an item of its own: responses, that compete within a prompt.

        Raises:
            ValueError: a vote that names no prompt.
        """
        if (self.prompt < 0).any():
            raise ValueError("Responses compete within prompts, and there are votes that name no prompt.")
        keys = np.concatenate([self.prompt, self.prompt]) * len(self.items) + np.concatenate([self.a, self.b])
        own, place = np.unique(keys, return_inverse=True)
        prompt, item = own // len(self.items), own % len(self.items)
        names = [
            f"{self.items[name]} on prompt {number}" for name, number in zip(item.tolist(), (prompt + 1).tolist())
        ]
        group = np.unique(prompt, return_inverse=True)[1]
        return replace(self, items=names, a=place[: len(self.a)], b=place[len(self.a) :], group=group)


def effective_votes(votes: Votes) -> Votes:
    """
    Whole votes that say as much as probabilities do: of each pair as many as have its mean and, if cast independently,
    the standard error of its mean over prompts. Errors that pairs share through a prompt count as if they were each
    pair's own, which makes the noise of cycles larger than it is.

    Args:
        votes: with prompts.

    Returns:
        A cell for each pair that has two prompts at least: a vote for each prompt where the probabilities are 0 or 1,
        and more, up to a hundred for each prompt, where they hardly differ.
    """
    # One value for each pair and prompt, whatever the order was and however many votes there were.
    key, prompts = votes.pair_key, int(votes.prompt.max()) + 1
    keys, most = key * prompts + votes.prompt, len(votes.items) ** 2
    both, (weight, total) = summed(keys, most * prompts, votes.size, votes.pair_share * votes.size)
    value = total / weight
    keys, (count, sums, squares) = summed(both // prompts, most, np.ones_like(value), value, value**2)
    mean = sums / count
    variance = np.maximum(squares / count - mean**2, 0) / np.maximum(count - 1, 1)
    size = np.minimum(mean * (1 - mean) / np.maximum(variance, 1e-300), 100.0 * count)
    size = np.where((mean == 0) | (mean == 1), count, size)
    kept = (count >= 2) & (size >= 1)
    wins = np.rint(mean * size)[kept]
    cells = len(wins)
    return replace(
        votes,
        a=keys[kept] // len(votes.items),
        b=keys[kept] % len(votes.items),
        wins=wins,
        ties=np.zeros(cells),
        losses=np.rint(size[kept]) - np.minimum(wins, np.rint(size[kept])),
        ordered=np.zeros(cells, bool),
        prompt=np.full(cells, -1),
    )


def count_votes(
    a: Sequence,
    b: Sequence,
    outcome: Sequence[float],
    count: Sequence[float] | None = None,
    ordered: Sequence[bool] | None = None,
    prompt: Sequence | None = None,
) -> Votes:
    """
    Sums votes into cells, one for each ordered pair, prompt and known or unknown order.

    Args:
        a, b: names of the two items of each vote; those of a are numbered before those that are only in b.
        outcome: 1 for a, 0 for b, 1/2 for a tie; another number from 0 to 1 is the probability that a is better, a
            vote that is split.
        count: how often each vote was cast; `None` for once.
        ordered: whether a was presented first; `None` where that is known of no vote.
        prompt: what each vote is about, anything that can be a key; `None` where votes do not say.

    Raises:
        ValueError: no votes, lists of different lengths, an outcome outside of 0 to 1, a count that is no positive
            number, or an item against itself.

    Example:

    >>> votes = count_votes(["A", "B", "A"], ["B", "A", "B"], [1, 0, 0.5])
    >>> votes.by_pair().wins, votes.by_pair().ties
    (array([2.]), array([1.]))
    """
    values = np.asarray(outcome, dtype=float)
    times = np.ones_like(values) if count is None else np.asarray(count, dtype=float)
    known = np.zeros(len(values), bool) if ordered is None else np.asarray(ordered, bool)
    if not len(values) or {len(a), len(b), len(times), len(known)} != {len(values)}:
        raise ValueError(
            f"There are {len(a)} and {len(b)} items, {len(values)} outcomes and {len(times)} counts: give as many, "
            "at least one."
        )
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("An outcome is 1 (a is better), 0 (b is), 1/2 (a tie) or a probability between.")
    if not ((times > 0) & np.isfinite(times)).all():
        raise ValueError("A vote is cast a positive number of times.")
    (first, second), items = _numbered([a, b])
    if (first == second).any():
        raise ValueError(f"{items[int(first[(first == second).argmax()])]!r} is compared with itself.")
    if prompt is None:
        about, prompts = np.full(len(values), -1), 1
    else:
        if len(prompt) != len(values):
            raise ValueError(f"There are {len(prompt)} prompts and {len(values)} outcomes: give as many.")
        (about,), names = _numbered([prompt])
        prompts = len(names)
    tied = values == 0.5
    parts = np.where(tied, 0, values) * times, tied * times, np.where(tied, 0, 1 - values) * times
    size = len(items)
    keys = ((np.maximum(about, 0) * 2 + known) * size + first) * size + second
    found, (wins, ties, losses) = summed(keys, prompts * 2 * size * size, *parts)
    rest = found // (size * size)
    return Votes(
        items=items,
        a=found // size % size,
        b=found % size,
        wins=wins,
        ties=ties,
        losses=losses,
        ordered=rest % 2 == 1,
        prompt=np.full(len(found), -1) if prompt is None else rest // 2,
        group=np.zeros(size, int),
    )


def _numbered(columns: Sequence[Sequence]) -> tuple[list[np.ndarray], list]:
    """Numbers for names, in the order of their first appearance in the first column, then in the others."""
    names: dict = {}
    for column in columns:
        names.update(dict.fromkeys(column))
    number = dict(zip(names, range(len(names))))
    return [np.fromiter(map(number.__getitem__, column), np.int64, len(column)) for column in columns], list(number)


def summed(keys: np.ndarray, most: int, *parts: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The keys that occur, in order, and the sum of each part by key."""
    if most <= _MOST_KEYS:
        found = np.flatnonzero(np.bincount(keys, minlength=most))
        return found, [np.bincount(keys, part, most)[found] for part in parts]
    found, place = np.unique(keys, return_inverse=True)
    return found, [np.bincount(place, part, len(found)) for part in parts]
