"""Bradley-Terry ratings against likelihood equations written out, and against evalica and choix where installed."""

import math

import numpy as np
import pytest

from gpm_hf.ratings import comparability, count_votes, fit_bradley_terry
from tests.ratings.simulated import bradley_terry_votes


def rows_of(votes):
    pairs = votes.by_pair()
    return list(zip(pairs.a.tolist(), pairs.b.tolist(), pairs.wins, pairs.ties, pairs.losses))


def minorised(votes, rounds=4000):
    """Zermelo's iteration (Hunter 2004), a tie half a win: each strength is wins over expected rivals."""
    size = len(votes.items)
    wins, strength = np.zeros(size), np.ones(size)
    for i, j, w, t, loss in rows_of(votes):
        wins[i] += w + t / 2
        wins[j] += loss + t / 2
    for _ in range(rounds):
        rivals = np.zeros(size)
        for i, j, w, t, loss in rows_of(votes):
            share = (w + t + loss) / (strength[i] + strength[j])
            rivals[i] += share
            rivals[j] += share
        strength = wins / rivals
        strength /= np.exp(np.log(strength).mean())
    return np.log(strength)


def test_ties_as_half_wins_are_zermelos_iteration():
    votes = bradley_terry_votes(np.random.default_rng(0), items=6, repeats=8, ties=0.2)
    fit = fit_bradley_terry(votes, ties="half")
    np.testing.assert_allclose(fit.rating, minorised(votes, 1000), atol=1e-9)
    assert fit.log_tie == -math.inf


def test_agrees_with_evalica_and_choix():
    evalica, choix = pytest.importorskip("evalica"), pytest.importorskip("choix")
    votes = bradley_terry_votes(np.random.default_rng(1), items=12, repeats=10)
    fit = fit_bradley_terry(votes)
    names, won, pairs = [], [], []
    for i, j, w, _, loss in rows_of(votes):
        names += [(i, j)] * int(w + loss)
        won += [evalica.Winner.X] * int(w) + [evalica.Winner.Y] * int(loss)
        pairs += [(i, j)] * int(w) + [(j, i)] * int(loss)
    found = evalica.bradley_terry(
        [f"m{i}" for i, _ in names], [f"m{j}" for _, j in names], won, tolerance=1e-12, limit=100_000
    )
    theirs = np.log([found.scores[f"m{i}"] for i in range(12)])
    np.testing.assert_allclose(fit.rating, theirs - theirs.mean(), atol=1e-6)
    theirs = choix.opt_pairwise(12, pairs, alpha=0, tol=1e-10)
    np.testing.assert_allclose(fit.rating, theirs - theirs.mean(), atol=1e-6)


def davidson(log_odds, log_tie):
    parts = [math.exp(log_odds / 2), math.exp(log_tie), math.exp(-log_odds / 2)]
    return [part / sum(parts) for part in parts]


@pytest.mark.parametrize("ridge", [0.0, 0.7])
def test_ties_of_their_own_solve_davidsons_equations(ridge):
    votes = bradley_terry_votes(np.random.default_rng(2), items=5, repeats=12, ties=0.3)
    fit = fit_bradley_terry(votes, ridge=ridge)
    score, tied, value = np.zeros(5), 0.0, 0.0
    for i, j, w, t, loss in rows_of(votes):
        win, tie, lose = davidson(fit.rating[i] - fit.rating[j], fit.log_tie)
        off = (w - loss - (w + t + loss) * (win - lose)) / 2
        score[i] += off
        score[j] -= off
        tied += t - (w + t + loss) * tie
        value += w * math.log(win) + t * math.log(tie) + loss * math.log(lose)
    np.testing.assert_allclose(score, ridge * fit.rating, atol=1e-8)
    assert abs(tied) < 1e-8 and abs(fit.rating.mean()) < 1e-12
    assert fit.log_likelihood == pytest.approx(value, rel=1e-12)


def test_the_advantage_of_the_first_is_found():
    rng = np.random.default_rng(3)
    rating, first = np.linspace(-1, 1, 8), 0.8
    a, b, outcome = [], [], []
    for i in range(8):
        for j in range(8):
            for _ in range(60 * (i != j)):
                a.append(i)
                b.append(j)
                outcome.append(float(rng.random() < 1 / (1 + math.exp(rating[j] - rating[i] - first))))
    votes = count_votes(a, b, outcome, ordered=[True] * len(a))
    fit = fit_bradley_terry(votes, order=True)
    off = 0.0
    for i, j, w, loss in zip(votes.a, votes.b, votes.wins, votes.losses):
        off += w - (w + loss) / (1 + math.exp(fit.rating[j] - fit.rating[i] - fit.first))
    # The prior of standard deviation 5.
    assert off == pytest.approx(fit.first / 25, abs=1e-7)
    assert abs(fit.first - first) < 0.2 and np.abs(fit.rating - rating).max() < 0.25
    assert fit_bradley_terry(votes).first == 0


def test_groups_are_fitted_as_if_alone():
    rng = np.random.default_rng(4)
    both = bradley_terry_votes(rng, items=4, repeats=9, groups=2)
    fit = fit_bradley_terry(both, ridge=0.5)
    for group in (0, 1):
        cells = both.where(both.group[both.a] == group)
        alone = count_votes(
            [both.items[i] for i in cells.a for _ in "wl"],
            [both.items[j] for j in cells.b for _ in "wl"],
            [value for _ in cells.a for value in (1, 0)],
            count=np.stack([cells.wins + 1e-12, cells.losses + 1e-12], 1).ravel(),
        )
        own = dict(zip(alone.items, fit_bradley_terry(alone, ridge=0.5).rating))
        for name, rating in own.items():
            assert fit.rating[both.items.index(name)] == pytest.approx(rating, abs=1e-8)


def test_what_votes_do_not_determine_is_said():
    undefeated = count_votes(["A", "B", "C"], ["B", "C", "B"], [1, 1, 1])
    with pytest.raises(ValueError, match=r"'A' never lost.*Give a ridge"):
        fit_bradley_terry(undefeated)
    fit = fit_bradley_terry(undefeated, ridge=0.1)
    assert fit.rating[undefeated.items.index("A")] == fit.rating.max() < 10
    apart = count_votes(["A", "B", "C", "D"], ["B", "A", "D", "C"], [1, 1, 1, 1])
    with pytest.raises(ValueError, match=r"2 parts .*that no vote connects"):
        fit_bradley_terry(apart)
    # A and B are even, so are C and D, and the first two never lost to the others.
    one_way = count_votes(["A", "B", "C", "D", "A"], ["B", "A", "D", "C", "C"], [1, 1, 1, 1, 1])
    assert not comparability(one_way).undefeated
    with pytest.raises(ValueError, match="never lost to any of the others"):
        fit_bradley_terry(one_way)
    # A tie bounds what a lost vote would.
    found = comparability(count_votes(["A", "A"], ["B", "B"], [1, 0.5]))
    assert found.is_bounded and found.components == [["A", "B"]]


def test_bad_options_are_refused():
    votes = count_votes(["A", "B"], ["B", "A"], [1, 1])
    with pytest.raises(ValueError, match="ties='rao'"):
        fit_bradley_terry(votes, ties="rao")
    with pytest.raises(ValueError, match="at least 0"):
        fit_bradley_terry(votes, ridge=-1)
