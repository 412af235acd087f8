"""Intervals of weighted means against their standard error."""

import numpy as np
import pytest

from gpm_hf.evaluation.statistics.stratified_bootstrap import Stratum, stratified_interval


def test_the_width_is_that_of_the_standard_error():
    strata = [Stratum([1] * 50 + [0] * 50, [1] * 100, 3.0), Stratum([1] * 80 + [0] * 320, [1] * 400, 1.0)]
    low, high = stratified_interval(strata, samples=5000)
    error = np.sqrt(0.75**2 * 0.25 / 100 + 0.25**2 * 0.16 / 400)
    assert (low + high) / 2 == pytest.approx(0.75 * 0.5 + 0.25 * 0.2, abs=0.01)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_parts_without_spread_add_none():
    ones = [1] * 3
    assert stratified_interval([Stratum(ones, ones, 1.0), Stratum([0, 0, 0], ones, 3.0)]) == (0.25, 0.25)
    with pytest.raises(ValueError, match="nothing to resample"):
        stratified_interval([Stratum([], [], 1.0)])


def test_few_clusters_have_no_interval():
    """However many parts of one prompt each: none of them says how its prompts differ."""
    assert stratified_interval([Stratum([1], [1], 1.0), Stratum([0], [1], 1.0)] * 10) is None
    assert stratified_interval([Stratum([1, 0], [1, 1], 1.0)] * 3) is None
    assert stratified_interval([Stratum([1, 0], [1, 1], 1.0)] * 4) is not None
    assert stratified_interval([Stratum([1, 0, 1, 0], [1] * 4, 1.0)]) is None
    assert stratified_interval([Stratum([1, 0, 1, 0, 1], [1] * 5, 1.0)]) is not None


@pytest.mark.parametrize("right", [0, 1])
def test_all_right_or_all_wrong_is_no_certainty(right):
    """Two parts of 4 and 12 prompts, of which the second counts three times: all prompts weigh alike, so of 16."""
    strata = [Stratum([right] * 4, [1] * 4, 1), Stratum([right] * 12, [1] * 12, 3)]
    width = 1.96**2 / (16 + 1.96**2)
    assert stratified_interval(strata) == pytest.approx((1 - width, 1) if right else (0, width))
    # Where the small part counts as much as the large one, they say as much as 2^2 / (1/4 + 1/12) = 12.
    strata = [one._replace(weight=1) for one in strata]
    width = 1.96**2 / (12 + 1.96**2)
    assert stratified_interval(strata) == pytest.approx((1 - width, 1) if right else (0, width))
