"""Ratings with blocks: stationarity by hand, recovery of what was planted."""

import math

import numpy as np
import pytest

from gpm_hf.ratings import count_votes, fit_blocks, fit_bradley_terry
from tests.ratings.simulated import planted_votes


def penalised(votes, rating, vectors, log_tie, ridge, block_ridge):
    """The objective, spelled out."""
    pairs, value = votes.by_pair(), 0.0
    for i, j, w, t, loss in zip(pairs.a, pairs.b, pairs.wins, pairs.ties, pairs.losses):
        log_odds = rating[i] - rating[j]
        for block in range(vectors.shape[1] // 2):
            u, v = vectors[:, 2 * block], vectors[:, 2 * block + 1]
            log_odds += u[i] * v[j] - v[i] * u[j]
        parts = [log_odds / 2, log_tie, -log_odds / 2]
        whole = math.log(sum(math.exp(part) for part in parts))
        value += w * (parts[0] - whole) + t * (parts[1] - whole if t else 0) + loss * (parts[2] - whole)
    return value - ridge / 2 * (rating**2).sum() - block_ridge / 2 * (vectors**2).sum()


@pytest.mark.parametrize("reward", [True, False])
def test_no_direction_goes_up(reward):
    votes, _ = planted_votes(np.random.default_rng(0), items=6, repeats=10, strength=2.0)
    fit = fit_blocks(votes, blocks=2, reward=reward, ridge=0.2, block_ridge=0.4)
    assert bool(fit.rating.any()) is reward
    rng, arguments = np.random.default_rng(1), (fit.log_tie, 0.2, 0.4)
    best = penalised(votes, fit.rating, fit.vectors, *arguments)
    for _ in range(20):
        step = 1e-2 * rng.normal(size=6) * reward, 1e-2 * rng.normal(size=(6, 4))
        there = penalised(votes, fit.rating + step[0], fit.vectors + step[1], *arguments)
        back = penalised(votes, fit.rating - step[0], fit.vectors - step[1], *arguments)
        assert abs(there - back) < 2e-3 * abs(best) ** 0.5 and there + back < 2 * best


def test_scores_are_skew_symmetric_and_blocks_fall_in_strength():
    votes, _ = planted_votes(np.random.default_rng(2), items=8, repeats=20, strength=2.0)
    fit = fit_blocks(votes, blocks=2, block_ridge=0.05)
    a, b = np.meshgrid(np.arange(8), np.arange(8), indexing="ij")
    np.testing.assert_array_equal(fit.scores(a, b), -fit.scores(b, a))
    norms = np.square(fit.vectors).sum(0)
    assert norms[0] == pytest.approx(norms[1]) and norms[2] == pytest.approx(norms[3]) and norms[0] > norms[2] > 0


def test_a_ring_is_recovered_where_ratings_say_nothing():
    # Each beats the next by 30 votes to 10, log-odds log 3.
    votes = count_votes(list("ABCABC"), list("BCABCA"), [1, 1, 1, 0, 0, 0], count=[30] * 3 + [10] * 3)
    assert np.abs(fit_bradley_terry(votes).rating).max() < 1e-9
    fit = fit_blocks(votes, blocks=1, block_ridge=1e-4)
    np.testing.assert_allclose(fit.scores(np.array([0, 1, 2]), np.array([1, 2, 0])), math.log(3), atol=1e-3)


def test_votes_of_ratings_leave_the_blocks_at_zero():
    rng = np.random.default_rng(3)
    rating = np.linspace(-1, 1, 10)
    a, b = np.triu_indices(10, 1)
    chance = 1 / (1 + np.exp(rating[b] - rating[a]))
    wins = rng.binomial(40, chance)
    votes = count_votes(
        np.repeat(a, 2).tolist(),
        np.repeat(b, 2).tolist(),
        np.tile([1.0, 0.0], len(a)),
        count=np.stack([wins, 40 - wins], 1).ravel() + 1e-9,
    )
    assert np.abs(fit_blocks(votes, blocks=1, block_ridge=100.0).vectors).max() < 1e-3


def test_bad_options_are_refused():
    votes = count_votes(["A", "B"], ["B", "A"], [1, 1])
    with pytest.raises(ValueError, match="2 blocks of 2 items"):
        fit_blocks(votes, blocks=2)
    with pytest.raises(ValueError, match="must be positive"):
        fit_blocks(votes, block_ridge=0)
    with pytest.raises(ValueError, match="ties='rao'"):
        fit_blocks(votes, ties="rao")
