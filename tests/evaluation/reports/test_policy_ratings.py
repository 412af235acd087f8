"""Policies rated by the judgements of their answers."""

import numpy as np
import pytest

from gpm_hf.evaluation.plots.rating_plots import plot_ratings
from gpm_hf.evaluation.reports.policy_ratings import policy_rating_table, policy_votes, rate_policies
from gpm_hf.evaluation.reports.win_rates import WinRates
from gpm_hf.ratings import cycle_test
from gpm_hf.ratings.report import rate, sentences
from gpm_hf.ratings.votes import effective_votes


def judged(mean, prompts, seed=0, spread=0.5):
    """Log-odds that scatter over prompts around a matrix."""
    rng, size = np.random.default_rng(seed), len(mean)
    noise = np.triu(rng.normal(size=(prompts, size, size)) * spread, 1)
    return WinRates(
        scorer="judge",
        policies=[f"p{number}" for number in range(size)],
        prompts=[f"{number}?" for number in range(prompts)],
        responses=[["x"] * size] * prompts,
        log_odds=mean + noise - noise.swapaxes(-1, -2),
        characters=np.tile(np.arange(size) + 10, (prompts, 1)),
        tokens=None,
        asymmetry=0.0,
        forward_passes=0,
        reused=0,
    )


def test_probabilities_count_as_votes_of_the_same_standard_error():
    result = judged(np.zeros((2, 2)), prompts=50, spread=1.0)
    votes = effective_votes(policy_votes(result))
    values = result.probabilities[:, 0, 1]
    error = values.std(ddof=1) / np.sqrt(50)
    size = votes.wins[0] + votes.losses[0]
    assert size == pytest.approx(values.mean() * (1 - values.mean()) / error**2, abs=1)
    assert votes.wins[0] / size == pytest.approx(values.mean(), abs=1 / size)
    # Verdicts of 0 or 1 count once for each prompt.
    sure = effective_votes(policy_votes(judged(np.array([[0, 800.0], [-800.0, 0]]), prompts=20)))
    assert (sure.wins[0], sure.losses[0]) == (20, 0)


def test_a_ranking_and_a_ring_of_policies(tmp_path):
    rating = np.linspace(1, -1, 6)
    additive = rating[:, None] - rating
    votes = policy_votes(judged(additive, prompts=60))
    ranking = rate(votes, ties="half", quick=True)
    assert np.abs(ranking.rating.rating - rating).max() < 0.2 and not cycle_test(votes, 100).is_cyclic
    angle = np.arange(6) * 2 * np.pi / 6
    result = judged(additive / 2 + 1.5 * np.sin(angle[:, None] - angle), prompts=60)
    ring = rate_policies(result, simulations=100)
    assert ring.cycles.is_cyclic and ring.cycles.is_more_than_rating and ring.best == "hybrid"
    table = policy_rating_table(result, ring)
    assert table.startswith("| policy | characters | rating (log-odds) | 95% interval | mean score, bradley terry |")
    assert "Held-out pairs speak for a reward and 1 block" in " ".join(sentences(ring))
    plot_ratings(tmp_path / "ratings.png", ring, "six policies")
    assert (tmp_path / "ratings.png").read_bytes()[:4] == b"\x89PNG"
    plane = ring.fits["hybrid"].vectors
    turn = plane[:, 0::2] @ plane[:, 1::2].T
    assert np.sign((turn - turn.T)[0, 5]) == np.sign(np.sin(angle[0] - angle[5]))


def test_few_prompts_say_nothing_about_cycles():
    report = rate_policies(judged(np.zeros((3, 3)), prompts=4), simulations=50)
    assert report.cycles is None and "5 prompts at least" in report.no_test
    assert report.intervals is None
