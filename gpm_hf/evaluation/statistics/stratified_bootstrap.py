"""Confidence intervals of a weighted mean of shares, each of a part whose size is fixed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gpm_hf.evaluation.statistics.bootstrap import MIN_CLUSTERS, wilson_interval


class Stratum(NamedTuple):
    """
    A part of a benchmark.

    Attributes:
        right: per cluster (prompt), how many units count.
        total: per cluster, how many units there are, at least one.
        weight: what the part's share counts for.
    """

    right: Sequence[float]
    total: Sequence[float]
    weight: float


def stratified_interval(strata: Sequence[Stratum], samples: int = 2000) -> tuple[float, float] | None:
    """
    95% percentile bootstrap interval of sum(weight * share) / sum(weight), where clusters are drawn with replacement
    within each part: how many prompts a benchmark has in each subset is no accident, and resampling them all in one
    pot would add the spread of an accident. Where all units are right, or none is, Wilson's interval of as many events
    as have the spread that the parts' clusters would, (sum weight)^2 / sum(weight^2 / clusters).

    Args:
        strata: the parts.
        samples: resamples; the interval is a function of the arguments.

    Returns:
        Lower and upper end; `None` where the clusters say too little about the spread: a part's first cluster says
        nothing of its own spread, and beyond the first ones there are fewer than in the smallest sample that
        [`~gpm_hf.evaluation.bootstrap_interval`] takes.

    Raises:
        ValueError: no parts, or an empty one.
    """
    if not strata or not all(len(stratum.total) for stratum in strata):
        raise ValueError("There is nothing to resample: a part is empty, or there is none.")
    if sum(len(stratum.total) - 1 for stratum in strata) < MIN_CLUSTERS - 1:
        return None
    rng = np.random.default_rng(0)
    means = np.zeros(samples)
    for stratum in strata:
        size = len(stratum.total)
        # A resample is a number of times that each cluster was drawn.
        draws = rng.multinomial(size, np.full(size, 1 / size), size=samples)
        sums = draws @ np.column_stack([stratum.right, stratum.total]).astype(float)
        means += stratum.weight * sums[:, 0] / sums[:, 1]
    means /= sum(stratum.weight for stratum in strata)
    low, high = np.quantile(means, [0.025, 0.975])
    if low == high and low in (0, 1):
        weights, sizes = np.array([(stratum.weight, len(stratum.total)) for stratum in strata]).T
        low, high = wilson_interval(low, weights.sum() ** 2 / (weights**2 / sizes).sum())
    return float(low), float(high)
