"""Confidence intervals by resampling, where there is enough to resample."""

from collections.abc import Sequence

import numpy as np

# Fewer clusters say next to nothing about the spread between clusters, and one says nothing at all.
MIN_CLUSTERS = 5

# Draws held at once: 8 MB, and as much again while they are multiplied.
_DRAWS_AT_ONCE = 1 << 20


def bootstrap_interval(
    right: Sequence[float], total: Sequence[float], level: float = 0.95, samples: int = 10_000, seed: int = 0
) -> tuple[float, float] | None:
    """
    Percentile bootstrap interval of a share whose units come in clusters: whole clusters (prompts) are drawn with
    replacement, because the pairs of one prompt are not independent.

    Args:
        right: per cluster, how many units count.
        total: per cluster, how many units there are.
        level: the interval's nominal coverage.
        samples: resamples.
        seed: the interval is a function of the arguments.

    Returns:
        Lower and upper end of the interval of sum(right) / sum(total); `None` where fewer than `MIN_CLUSTERS`
        clusters have units, which say too little about the spread between clusters.

    Raises:
        ValueError: no units at all.

    Example:

    >>> low, high = bootstrap_interval([1, 0, 1, 1] * 25, [1] * 100)
    >>> bool(0.65 < low < 0.75 < high < 0.85)
    True
    """
    counts = np.column_stack([right, total]).astype(float)
    if not counts[:, 1].sum() > 0:
        raise ValueError("There is nothing to resample: the clusters are empty.")
    if (counts[:, 1] > 0).sum() < MIN_CLUSTERS:
        return None
    # A resample is a number of times that each cluster was drawn. In blocks, which take from the generator what one
    # draw of all would.
    rng, chance = np.random.default_rng(seed), np.full(len(counts), 1 / len(counts))
    sums = np.empty((samples, 2))
    block = max(1, _DRAWS_AT_ONCE // len(counts))
    for first in range(0, samples, block):
        size = min(block, samples - first)
        sums[first : first + size] = rng.multinomial(len(counts), chance, size=size) @ counts
    shares = sums[sums[:, 1] > 0]
    low, high = np.quantile(shares[:, 0] / shares[:, 1], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def interval_text(interval: tuple[float, float] | None, form: str = " [{:.1%}, {:.1%}]") -> str:
    """An interval to stand behind its number; nothing where there is none."""
    return "" if interval is None else form.format(*interval)
