"""Temperature and tie width, against votes drawn from known ones and against equations written out."""

import math

import numpy as np
import pytest

from gpm_hf.evaluation.benchmarks.ties import ties_result
from gpm_hf.evaluation.statistics.tie_calibration import TieModel, calibrate_ties, tie_calibration_table


def drawn(seed=0, pairs=1500, temperature=2.5, log_tie=0.4):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=pairs) * 4
    targets = []
    for score in scores.tolist():
        parts = np.array([math.exp(score / temperature / 2), math.exp(log_tie), math.exp(-score / temperature / 2)])
        targets.append(rng.choice([1.0, 0.5, 0.0], p=parts / parts.sum()))
    return scores.tolist(), targets, [pair // 2 for pair in range(pairs)]


def test_what_was_planted_is_found_and_solves_the_equations():
    scores, targets, prompts = drawn()
    found = calibrate_ties(scores, targets, prompts)
    model = found.model
    assert model.temperature == pytest.approx(2.5, rel=0.2) and model.log_tie == pytest.approx(0.4, abs=0.2)
    tie_slope = scale_slope = 0.0
    for score, target in zip(scores, targets):
        win, tie, loss = (
            math.exp(score / model.temperature / 2),
            math.exp(model.log_tie),
            math.exp(-score / model.temperature / 2),
        )
        whole = win + tie + loss
        tie_slope += float(target == 0.5) - tie / whole
        scale_slope += score * (2 * (target - 0.5) - (win - loss) / whole) / 2
    assert abs(tie_slope) < 1e-6
    # The weak prior around 1.
    assert scale_slope == pytest.approx(0.01 * (1 / model.temperature - 1), abs=1e-6)
    assert found.log_loss < found.log_loss_before and found.gain_interval[0] > 0
    assert found.tie_log_loss < found.frequency_log_loss


def test_the_width_is_where_a_tie_stops_being_likeliest():
    model = TieModel(1.7, 0.6)
    at = model.probabilities(model.tie_width)
    assert at.tie == pytest.approx(at.win, rel=1e-12) and at.win > at.loss
    assert model.even_tie_probability == pytest.approx(math.exp(0.6) / (math.exp(0.6) + 2))
    assert TieModel(1.0, -0.5).tie_width == 0 and TieModel(1.0, -math.inf).even_tie_probability == 0


def test_without_ties_there_is_a_temperature_alone():
    scores, targets, prompts = drawn(log_tie=-math.inf, pairs=800)
    found = calibrate_ties(scores, targets, prompts)
    assert found.model.log_tie == -math.inf and found.tie_log_loss is None and found.tie_share == 0
    assert found.model.temperature == pytest.approx(2.5, rel=0.3)
    assert tie_calibration_table({"x": found}).splitlines()[2].startswith("| x | 800 | 0.0% | ")
    # Frequencies as soft labels give what the votes give.
    soft = calibrate_ties([2.0, 1.0, 3.0, 0.5, 2.5] * 20, [0.75, 0.6, 0.8, 0.55, 0.7] * 20, list(range(100)))
    hard_scores = [s for s in (2.0, 1.0, 3.0, 0.5, 2.5) for _ in range(20)] * 5
    hard = [float(k < round(20 * p)) for p in (0.75, 0.6, 0.8, 0.55, 0.7) for k in range(20)] * 5
    again = calibrate_ties(hard_scores, hard, list(range(500)))
    assert soft.model.temperature == pytest.approx(again.model.temperature, rel=0.01)


def test_pairs_that_are_all_right_have_a_finite_temperature():
    found = calibrate_ties([1.0, 2.0, 3.0] * 20, [1.0] * 60, list(range(60)))
    assert 0 < found.model.temperature < 1


@pytest.mark.parametrize(
    ("scores", "targets", "message"),
    [
        ([-1.0, -2.0] * 10, [1.0] * 20, "or the opposite"),
        ([1.0, 2.0] * 10, [0.5] * 20, "Every pair is a tie"),
        ([1.0, 2.0], [1.0, 1.0], "2 prompts are too few"),
        ([math.nan] * 20, [1.0] * 20, "finite"),
        ([1.0] * 20, [1.5] * 20, "from 0 to 1"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(scores, targets, message):
    with pytest.raises(ValueError, match=message):
        calibrate_ties(scores, targets, list(range(len(scores))))


def test_calibrated_on_the_pairs_of_ties_rows():
    """
    Rows as RewardBench 2's Ties has them, several right answers and many wrong ones, by a scorer that is four times
    too sure: its number does not see the scale, the held-out log loss does, and P(tie) is of the right answers alone.
    """
    rng = np.random.default_rng(0)
    rows, matrices, scores, targets, prompts = [], [], [], [], []
    for question in range(60):
        for kind, correct in (("ref", 1), ("tied", 4)):
            # Differences of rewards are log-odds of one answer being better than another; wrong ones are 2 behind.
            reward = np.concatenate([np.zeros(correct), np.full(6, -2.0)]) + 0.3 * rng.normal(size=correct + 6)
            rows.append({"id": f"{kind}:{question}", "correct": correct})
            matrices.append(4 * (reward[:, None] - reward))
            for i in range(correct):
                for j in range(i + 1, correct + 6):
                    scores.append(matrices[-1][i, j])
                    chance = 1 / (1 + math.exp(-2 * (j >= correct)))
                    targets.append(0.5 if j < correct else float(rng.random() < chance))
                    prompts.append(f"{kind}:{question}")
    found = calibrate_ties(scores, targets, prompts)
    assert found.log_loss < found.log_loss_before - 0.1 and found.gain_interval[0] > 0.1
    assert found.tie_log_loss < found.frequency_log_loss - 0.1
    probability = found.model.probabilities(np.array(scores)).tie
    right = np.array(targets) == 0.5
    print(probability[right].mean(), probability[~right].mean(), right.mean())
    assert probability[right].mean() > right.mean() > probability[~right].mean()
    before = ties_result(rows, matrices)
    after = ties_result(rows, [matrix / found.model.temperature for matrix in matrices])
    assert after.score == pytest.approx(before.score) and 0.5 < before.score <= 1.01
