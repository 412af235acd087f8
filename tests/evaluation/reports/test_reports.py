"""Calibration, length bias, intransitivity and disagreement, by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from gpm_hf.evaluation.plots.report_plots import plot_accuracy_by_length, plot_reliability
from gpm_hf.evaluation.reports.disagreement import disagreement_table, disagreements
from gpm_hf.evaluation.reports.intransitivity import intransitivity_report, intransitivity_table
from gpm_hf.evaluation.reports.length_bias import characters, length_report, length_table
from gpm_hf.evaluation.reports.pairs import PairResult
from gpm_hf.evaluation.statistics.calibration import calibration_report, calibration_table
from tests.evaluation.scorers import FunctionScorer, by_reward, table


def result(log_odds, lengths=None, scorer="fake"):
    lengths = lengths or [(2, 1)] * len(log_odds)
    rows = [
        {"id": f"r{n}", "prompt": f"p{n}", "chosen": "c" * chosen, "rejected": "r" * rejected, "subset": "s"}
        for n, (chosen, rejected) in enumerate(lengths)
    ]
    return PairResult(scorer, rows, np.array(log_odds, dtype=float), 0.0, 0)


def logit(probability):
    return math.log(probability / (1 - probability))


def test_calibration_by_hand():
    """Confidence 0.8 four times, right thrice; 0.97 twice, right once; a tie."""
    scores = [logit(p) for p in (0.8, 0.8, 0.8, 0.2, 0.97, 0.03, 0.5)]
    found = calibration_report(scores, bins=5)
    assert [(one.pairs, one.low) for one in found.bins] == [(1, 0.5), (4, 0.7), (2, 0.9)]
    assert [one.confidence for one in found.bins] == pytest.approx([0.5, 0.8, 0.97])
    assert [one.accuracy for one in found.bins] == [0.5, 0.75, 0.5]
    assert found.ece == pytest.approx((0 + 4 * 0.05 + 2 * 0.47) / 7)
    given = np.array([0.8, 0.8, 0.8, 0.2, 0.97, 0.03, 0.5])
    assert found.log_loss == pytest.approx(-np.log(given).mean())
    assert found.brier == pytest.approx(((1 - given) ** 2).mean())
    assert "| 7 | " in calibration_table({"fake": found}) and found.to_dict()["bins"][0]["pairs"] == 1


def test_calibration_of_soft_labels_and_extremes():
    found = calibration_report([logit(0.7), logit(0.7)], [0.7, 0.7])
    assert (found.ece, found.brier) == (pytest.approx(0), pytest.approx(0))
    assert found.log_loss == pytest.approx(-(0.7 * math.log(0.7) + 0.3 * math.log(0.3)))
    assert calibration_report([-1000.0]).log_loss == 1000
    assert calibration_report([0.0]).log_loss == pytest.approx(math.log(2))
    for bad in ({"log_odds": []}, {"log_odds": [math.inf]}, {"log_odds": [1.0], "targets": [2.0]}):
        with pytest.raises(ValueError):
            calibration_report(**bad)


def test_a_calibrated_scorer_has_a_small_error():
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 2, 2000)
    # The chosen response is the first with probability sigmoid(score); else the pair is turned round.
    chosen = rng.random(2000) < 1 / (1 + np.exp(-scores))
    assert calibration_report(np.where(chosen, scores, -scores)).ece < 0.05
    assert calibration_report(3 * np.where(chosen, scores, -scores)).ece > 0.1


def test_length_bias_by_hand():
    lengths = [(1, 5), (2, 4), (3, 3), (5, 2), (9, 1), (9, 1)]
    found = length_report(result([-1, 1, 1, 2, 3, 0], lengths), bins=2)
    assert (found.shorter.pairs, found.shorter.accuracy) == (2, 0.5)
    assert (found.equal.pairs, found.equal.accuracy) == (1, 1)
    assert (found.longer.pairs, found.longer.accuracy) == (3, pytest.approx(2 / 3))
    # Of the five of different length the longer is preferred in 1, 0, 1, 1 and by half in the tie.
    assert found.prefers_longer == pytest.approx(3.5 / 5)
    assert found.longer_is_chosen == pytest.approx(3 / 5)
    assert [(one.low, one.high, one.pairs) for one in found.bins] == [(-4, 0, 3), (3, 8, 3)]
    assert "| fake | 50.0% (2) | 100.0% (1) | 66.7% (3) | 70.0% | 60.0% |" in length_table({"fake": found})


def test_lengths_in_another_unit_and_all_equal():
    found = length_report(result([1, -1], [(4, 4), (3, 3)]))
    assert (found.shorter, found.prefers_longer, found.to_dict()["longer"]) == (None, None, None)
    assert characters([{"role": "assistant", "content": "abc"}, {"role": "assistant", "content": None}]) == 3
    halves = length_report(result([1, -1], [(4, 2), (2, 8)]), length=lambda text: len(text) / 2, unit="halves")
    assert (halves.unit, halves.longer.low, halves.shorter.high) == ("halves", 1, -3)
    with pytest.raises(ValueError, match="bins=0"):
        length_report(result([1]), bins=0)


def test_intransitivity_by_hand():
    """A ring a > b > c > a of log-odds 3, and d below all by 2: one cycle of four triples."""
    ring = {("a", "b"): 3, ("b", "c"): 3, ("c", "a"): 3, ("a", "d"): 2, ("b", "d"): 2, ("c", "d"): 2}
    rows = [{"prompt": "p", "responses": list("abcd")}, {"prompt": "q", "responses": list("abd")}]
    found = intransitivity_report(rows, table(ring))
    first, second = found.prompts
    assert (first.triples, first.cycles, second.triples, second.cycles) == (4, 1, 1, 0)
    assert found.cyclic_triples == 1 / 5 and found.prompts_with_cycles == 1 / 2
    # Ratings 1/2, 1/2, 1/2, -3/2 explain the duels with d exactly and nothing of the ring: 27 of 27 + 12.
    assert first.cyclic_share == pytest.approx(27 / 39)
    assert first.cyclic_size == pytest.approx(math.sqrt(27 / 6))
    assert first.size == pytest.approx(math.sqrt(39 / 6))
    assert "| 20.0% | 50.0% |" in intransitivity_table([found]) and found.to_dict()["cycles"] == 1


def test_a_reward_is_transitive_and_position_bias_is_no_cycle():
    rows = [{"prompt": str(n), "responses": ["x" * (n + 1), "y" * 3, "z" * 5, "w" * 7]} for n in range(4)]
    assert intransitivity_report(rows, by_reward(len)).cyclic_triples == 0
    assert intransitivity_report(rows, by_reward(len)).cyclic_share == pytest.approx(0, abs=1e-12)
    first = intransitivity_report(rows, FunctionScorer(lambda prompt, a, b: 4.0))
    assert (first.cyclic_triples, first.cyclic_size) == (0, 0)
    with pytest.raises(ValueError, match="row 1 has 2 responses"):
        intransitivity_report([{"prompt": "p", "responses": ["a", "b"]}], by_reward(len))
    with pytest.raises(ValueError, match="no prompts"):
        intransitivity_report([], by_reward(len))


def test_why_there_is_no_test_of_a_scorers_cycles():
    rows = [{"prompt": str(n), "responses": ["x", "y" * 3, "z" * 5]} for n in range(4)]
    one_order = by_reward(len)
    one_order.asymmetry = None
    for scorer, why in ((one_order, "read each pair in one order"), (by_reward(len), "these scores have no noise")):
        found = intransitivity_report(rows, scorer)
        assert found.noise.test is None and why in intransitivity_table([found])
        other = replace(found, scorer="another")
        assert intransitivity_table([found, other]).count(why) == 1  # of both
        assert f"{found.scorer}, another: " in intransitivity_table([found, other])
        assert why in found.to_dict()["cycle_or_noise"]["no_test"]


def test_disagreements_by_probability():
    """Of log-odds, the last row differs most, by 20; of probabilities the second."""
    first, second = result([0, 2, 10], scorer="GPM"), result([0.1, -2, 30], scorer="BT")
    found = disagreements(first, second, limit=2)
    assert [one.row["id"] for one in found] == ["r1", "r0"]
    high = 1 / (1 + math.exp(-2))
    assert (found[0].first, found[0].second) == (pytest.approx(high), pytest.approx(1 - high))
    assert found[0].to_dict()["difference"] == pytest.approx(2 * high - 1)
    assert "| r1 | s | p1 | cc | r | 0.88 | 0.12 |" in disagreement_table(found, "GPM", "BT")
    with pytest.raises(ValueError, match="3 pairs and BT 1"):
        disagreements(first, result([1], scorer="BT"))
    with pytest.raises(ValueError, match="different pairs, at row 3"):
        disagreements(first, result([0, 0, 0], [(2, 1), (2, 1), (3, 1)]))


def test_pictures(tmp_path):
    rng = np.random.default_rng(0)
    lengths = [(int(a), int(b)) for a, b in rng.integers(1, 99, (200, 2))]
    results = [result(rng.normal(1, scale, 200), lengths, f"model {scale}") for scale in (1, 3)]
    plot_reliability(
        tmp_path / "a.png", {one.scorer: calibration_report(one.log_odds) for one in results}, "title " * 40
    )
    reports = {one.scorer: length_report(one) for one in results}
    plot_accuracy_by_length(tmp_path / "b.png", reports, "title")
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("a.png", "b.png"))
    with pytest.raises(ValueError, match="different bins"):
        plot_accuracy_by_length(tmp_path / "c.png", {**reports, "x": length_report(results[0], bins=3)}, "t")
    with pytest.raises(ValueError, match="no calibration"):
        plot_reliability(tmp_path / "c.png", {}, "t")
    assert not (tmp_path / "c.png").exists()
