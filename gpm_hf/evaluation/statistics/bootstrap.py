"""Confidence intervals of shares by resampling, where there is enough to resample."""

from collections.abc import Sequence

import numpy as np

# Fewer clusters say next to nothing about the spread between clusters, and one says nothing at all.
MIN_CLUSTERS = 5

# Standard deviations of a normal distribution's middle 95%.
Z = 1.96

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


def share_interval(
    right: Sequence[float], total: Sequence[float], samples: int = 10_000
) -> tuple[float, float] | None:
    """
    95% interval of the share of right units, as [`bootstrap_interval`] gives it. Where every cluster is right in all
    of its units, or in none, resampling knows no spread: then Wilson's interval of as many events as there are
    clusters.

    Args:
        right: per cluster, how many units are right, from 0 to all of them.
        total: per cluster, how many units there are.
        samples: resamples.

    Returns:
        Lower and upper end; `None` as there.

    Example:

    >>> low, high = share_interval([2] * 8, [2] * 8)  # 8 of 8 prompts: 8 / (8 + 1.96^2) to 1
    >>> bool(abs(low - 0.6756) < 1e-4 and high == 1)
    True
    """
    found = bootstrap_interval(right, total, samples=samples)
    if found in ((0.0, 0.0), (1.0, 1.0)):
        low, high = wilson_interval(found[0], sum(size > 0 for size in total))
        return low, high
    return found


def wilson_interval(share: float, size: float, z: float = Z) -> list[float]:
    """
    Wilson's score interval of a share of independent events (Wilson, "Probable inference, the law of succession, and
    statistical inference", 1927). It stays inside [0, 1], and has a width where the share is 0 or 1.
    """
    shrink = 1 + z**2 / size
    middle = (share + z**2 / (2 * size)) / shrink
    half = z / shrink * (share * (1 - share) / size + z**2 / (4 * size**2)) ** 0.5
    # Exact at the ends, where rounding is not.
    return [0.0 if share == 0 else max(middle - half, 0.0), 1.0 if share == 1 else min(middle + half, 1.0)]


def interval_text(interval: tuple[float, float] | None, form: str = " [{:.1%}, {:.1%}]") -> str:
    """An interval to stand behind its number; nothing where there is none."""
    return "" if interval is None else form.format(*interval)
