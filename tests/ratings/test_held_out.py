"""Held-out votes: losses by hand, and the model that was planted is the one they speak for."""

import math

import numpy as np
import pytest

from gpm_hf.ratings import count_votes, fit_blocks, fit_bradley_terry
from gpm_hf.ratings.held_out import compare_models, fit_model
from gpm_hf.ratings.intervals import mean_score_intervals, rating_intervals
from gpm_hf.ratings.report import rate, rating_table, sentences
from tests.ratings.simulated import bradley_terry_votes, planted_votes


def test_the_planted_model_is_found():
    votes, _ = planted_votes(np.random.default_rng(0), items=14, repeats=25, strength=2.5)
    found = compare_models(votes)
    assert found.best == "hybrid" and found.models["hybrid"].excess < found.models["bradley_terry"].excess / 2
    assert found.gains["hybrid"] == pytest.approx(
        found.models["bradley_terry"].log_loss - found.models["hybrid"].log_loss
    )
    assert found.floor is not None and 0 < found.floor < found.models["hybrid"].excess
    # A pair of n votes loses about 1/2 nat by sampling.
    assert found.floor == pytest.approx(0.5 / 25, rel=0.3)
    fit = fit_model(votes, found, "hybrid")
    assert fit.rating.shape == (14,) and fit.vectors.shape == (14, 2)


def test_ratings_suffice_for_votes_of_ratings():
    found = compare_models(bradley_terry_votes(np.random.default_rng(1), items=12, repeats=15))
    assert found.best == "bradley_terry"
    losses = {name: one.log_loss for name, one in found.models.items()}
    assert losses["hybrid"] < 1.02 * losses["bradley_terry"] < losses["blocks"] * 1.02


def test_the_loss_is_of_votes_that_the_fit_has_not_seen():
    # Of two items only one pair in each fold is left out; with prompts held out the frequency is known.
    rng = np.random.default_rng(2)
    outcome = (rng.random(3000) < 0.8).astype(float)
    items = [("A", "B"), ("B", "C"), ("A", "C")]
    a, b = zip(*[items[number % 3] for number in range(3000)])
    votes = count_votes(a, b, outcome, prompt=[number // 3 for number in range(3000)])
    found = compare_models(votes, unit="prompts")
    share = [outcome[number::3].mean() for number in range(3)]
    # BT cannot hold A > B > C as 80%, 80%, 80%; a reward and a block can.
    best = np.mean([-p * math.log(p) - (1 - p) * math.log(1 - p) for p in share])
    assert found.models["hybrid"].log_loss == pytest.approx(best, abs=0.01)
    assert found.models["bradley_terry"].log_loss > best + 0.01
    with pytest.raises(ValueError, match="3 pairs, which is less than 5"):
        compare_models(votes)
    with pytest.raises(ValueError, match="unit='votes'"):
        compare_models(votes, unit="votes")


def test_intervals_are_as_wide_as_the_information_says():
    votes = count_votes(["A", "A"], ["B", "B"], [1, 0], count=[300, 100])
    fit = fit_bradley_terry(votes)
    # Of a difference of log-odds: 1 / sqrt(n p (1 - p)), of which each rating has half.
    width = 2 * 1.96 / math.sqrt(400 * 0.75 * 0.25) / 2
    low, high = rating_intervals(votes, fit, samples=4000)[votes.items.index("A")]
    assert high - low == pytest.approx(width, rel=0.08) and low < fit.rating[0] < high
    # Ten prompts whose votes agree: as much as ten votes.
    whole = count_votes(["A"] * 10, ["B"] * 10, [1] * 7 + [0] * 3, count=[40] * 10, prompt=list(range(10)))
    low, high = rating_intervals(whole, fit_bradley_terry(whole), samples=4000)[0]
    assert high - low == pytest.approx(2 * 1.96 / math.sqrt(10 * 0.7 * 0.3) / 2, rel=0.15)
    assert rating_intervals(count_votes(["A"], ["B"], [0.7]), fit) is None


def test_the_report_says_what_is_open():
    votes = count_votes(["A", "B", "C"], ["B", "C", "B"], [1, 1, 1])
    report = rate(votes, simulations=50)
    text = " ".join(sentences(report))
    assert "'A' never lost" in text and "The ridge" in text and "No three items" in text
    assert report.best == "bradley_terry" and rating_table(report).splitlines()[2].startswith("| A |")
    assert report.to_dict()["cycles"] is None and report.to_dict()["items"]["A"]["rating"] > 0


def test_intervals_of_mean_scores_hold_what_was_planted():
    rng = np.random.default_rng(4)
    rating, angle = rng.normal(size=8), rng.uniform(0, 2 * np.pi, 8)
    truth = rating[:, None] - rating + 2 * np.sin(angle[:, None] - angle)
    a, b = np.triu_indices(8, 1)
    wins = rng.binomial(60, 1 / (1 + np.exp(-truth[a, b])))
    outcome, count = np.tile([1.0, 0.0], len(a)), np.stack([wins, 60 - wins], 1).ravel()
    kept = count > 0
    votes = count_votes(np.repeat(a, 2)[kept].tolist(), np.repeat(b, 2)[kept].tolist(), outcome[kept], count[kept])
    fit = fit_blocks(votes, 1, ridge=0.1, block_ridge=0.1)
    low, high = mean_score_intervals(votes, fit, samples=60).T
    means = truth[votes.items][:, votes.items].mean(1)
    assert ((low < means) & (means < high)).sum() >= 6
    # Of 60 votes a pair, each worth p (1 - p) of about 1/5 on seven pairs: a standard error near 1 / sqrt(60 * 7 / 5).
    assert 0.1 < np.median(high - low) < 1.2
    split = count_votes(["A", "A", "B"], ["B", "C", "C"], [0.7, 0.6, 0.8])
    assert mean_score_intervals(split, fit_blocks(split)) is None
    # Prompts are resampled whole: two kinds of prompts that disagree make a mean uncertain, however many votes.
    prompts = [
        (i, j, float((i < j) == (prompt % 2 == 0)), prompt) for prompt in range(10) for i, j in ((0, 1), (1, 2))
    ]
    first, second, won, about = zip(*prompts)
    clustered = count_votes(first, second, won, count=[50] * 20, prompt=about)
    plain = count_votes(first, second, won, count=[50] * 20)
    widths = [np.ptp(mean_score_intervals(one, fit_blocks(one), samples=60), axis=1)[0] for one in (clustered, plain)]
    assert widths[0] > 2 * widths[1]


def test_the_report_has_the_intervals_of_a_hybrid():
    votes, _ = planted_votes(np.random.default_rng(0), items=8, repeats=40, strength=3.0)
    report = rate(votes, simulations=20)
    assert report.best == "hybrid" and report.mean_intervals.shape == (8, 2)
    means = report.scores("hybrid").mean(1)
    low, high = report.mean_intervals.T
    assert ((low < means) & (means < high)).mean() > 0.8
    found = report.to_dict()["items"][str(votes.items[0])]["mean_score_hybrid_interval"]
    assert (
        found == report.mean_intervals[0].tolist() and rating_table(report).splitlines()[0].count("95% interval") == 2
    )
