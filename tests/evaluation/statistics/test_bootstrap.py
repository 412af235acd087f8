"""Intervals by resampling clusters."""

import math

import numpy as np
import pytest

from gpm_hf.evaluation.statistics.bootstrap import bootstrap_interval, interval_text, share_interval


def test_width_of_single_units_is_the_binomials():
    right = [1] * 300 + [0] * 100
    low, high = bootstrap_interval(right, [1] * 400, seed=3)
    half = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert low == pytest.approx(0.75 - half, abs=0.006)
    assert high == pytest.approx(0.75 + half, abs=0.006)


def test_units_of_one_cluster_are_drawn_together():
    """Ten prompts with a hundred pairs each, all right or all wrong, say as much as ten pairs."""
    clustered = bootstrap_interval([100] * 5 + [0] * 5, [100] * 10)
    single = bootstrap_interval([1] * 5 + [0] * 5, [1] * 10)
    assert clustered == single
    assert clustered[1] - clustered[0] > 0.5


def test_coverage():
    """Of 200 intervals at 90% from fresh data, about 180 hold the truth."""
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        sizes = rng.integers(1, 6, 80)
        low, high = bootstrap_interval(rng.binomial(sizes, 0.6), sizes, level=0.9, samples=500, seed=seed)
        held += low <= 0.6 <= high
    assert 165 <= held <= 195


def test_it_is_a_function_of_its_arguments_and_needs_units():
    right, total = [1, 0, 1, 1, 1], [1, 2, 1, 3, 1]
    assert bootstrap_interval(right, total, seed=5) == bootstrap_interval(right, total, seed=5) != (0, 0)
    with pytest.raises(ValueError, match="nothing to resample"):
        bootstrap_interval([0], [0])


@pytest.mark.parametrize("clusters", [1, 2, 3, 4])
def test_few_clusters_have_no_interval(clusters):
    assert bootstrap_interval([1, 0, 1, 1][:clusters], [2] * clusters) is None
    # Prompts without a cycle are no clusters of cycles.
    assert bootstrap_interval([1, 0, 1, 1][:clusters] + [0] * 20, [2] * clusters + [0] * 20) is None
    assert bootstrap_interval([1, 0, 1, 1, 0], [2] * 5) is not None
    assert interval_text(None) == ""


@pytest.mark.parametrize(
    ("right", "expected"), [([2] * 8 + [0], (8 / (8 + 1.96**2), 1)), ([0] * 9, (0, 1.96**2 / (8 + 1.96**2)))]
)
def test_all_right_or_all_wrong_is_no_certainty(right, expected):
    """Eight prompts, and one without a pair."""
    total = [2] * 8 + [0]
    assert bootstrap_interval(right, total) in ((0, 0), (1, 1))
    assert share_interval(right, total) == pytest.approx(expected)


def test_other_shares_are_resampled():
    right, total = [1, 0, 1, 1, 1], [1, 2, 1, 3, 1]
    assert share_interval(right, total) == bootstrap_interval(right, total)
    assert share_interval([1] * 4, [1] * 4) is None
