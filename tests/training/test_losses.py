"""The losses of preference models (appendix A.1) and of policies (section 5) against formulas written out by hand."""

import math

import pytest
import torch

from gpm_hf.training.losses import (
    cross_entropy_loss,
    divergence_terms,
    gpo_residuals,
    gpo_targets,
    group_mean_scores,
    label_sides,
    opponent_mean_scores,
    per_token,
    rebel_residuals,
    regression_loss,
    squared_residuals,
    win_margin,
)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("log_odds", [-3.0, -0.2, 0.0, 0.7, 4.0])
@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("margin", [0.0, 0.8])
def test_cross_entropy_is_the_formula(log_odds, probability, margin):
    shifted = log_odds - margin
    expected = -(probability * math.log(sigmoid(shifted)) + (1 - probability) * math.log(1 - sigmoid(shifted)))
    loss = cross_entropy_loss(torch.tensor([log_odds]), probability, margin)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_takes_one_label_per_pair():
    log_odds = torch.tensor([1.0, 1.0])
    losses = cross_entropy_loss(log_odds, torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.0]))
    assert losses.tolist() == pytest.approx([-math.log(sigmoid(0.5)), -math.log(1 - sigmoid(1.0))])


def test_hard_labels_are_the_default():
    assert cross_entropy_loss(torch.tensor([2.0])).item() == pytest.approx(-math.log(sigmoid(2.0)))


def test_cross_entropy_stays_finite_where_a_sigmoid_would_round_to_zero():
    assert cross_entropy_loss(torch.tensor([-200.0])).item() == pytest.approx(200.0)


def test_a_soft_label_is_fitted_by_its_own_log_odds():
    log_odds = torch.tensor([math.log(0.7 / 0.3)], requires_grad=True)
    cross_entropy_loss(log_odds, 0.7).sum().backward()
    assert log_odds.grad.item() == pytest.approx(0.0, abs=1e-6)


def test_regression_is_half_the_squared_error():
    losses = regression_loss(torch.tensor([1.5, -2.0]), torch.tensor([0.5, 1.0]))
    assert losses.tolist() == pytest.approx([0.5, 4.5])


def test_the_side_of_a_label():
    log_odds = torch.tensor([0.3, -2.0, 1.0])
    assert label_sides({}, "cross_entropy", log_odds).tolist() == [1, 1, 1]
    probabilities = {"preference_probability": torch.tensor([0.9, 0.5, 0.1])}
    assert label_sides(probabilities, "cross_entropy", log_odds).tolist() == [1, 0, -1]
    assert label_sides({"target_score": torch.tensor([2.0, 0.0, -0.1])}, "regression", log_odds).tolist() == [1, 0, -1]


# --- targets of policies ---------------------------------------------------------------------------------------------

NAN = math.nan
# Three responses, each preferred to the next: log-odds.
RING = [[0.0, 2.0, -1.0], [-2.0, 0.0, 0.5], [1.0, -0.5, 0.0]]


def test_mean_scores_of_a_group():
    scores = torch.tensor([[0.0, NAN, 2.0], [NAN, NAN, NAN], [-2.0, NAN, 0.0]])
    torch.testing.assert_close(group_mean_scores(scores), torch.tensor([1.0, NAN, -1.0]), equal_nan=True)
    torch.testing.assert_close(group_mean_scores(scores, False), torch.tensor([2.0, NAN, -2.0]), equal_nan=True)
    lone = torch.full((2, 2), NAN)
    lone[0, 0] = 0.0
    assert group_mean_scores(lone).isnan().all()


def test_mean_scores_against_an_opponent():
    scores = torch.tensor([[1.0, NAN, 3.0], [NAN, NAN, NAN]])
    torch.testing.assert_close(opponent_mean_scores(scores), torch.tensor([2.0, NAN]), equal_nan=True)
    assert opponent_mean_scores(torch.full((2, 1), NAN)).isnan().all()


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("log_z", ["zero", "group"])
@pytest.mark.parametrize("loss_type", ["gpo", "sppo"])
def test_targets_of_a_group(loss_type, log_z, include_self):
    beta, expected = 0.5, []
    for i, row in enumerate(RING):
        values = [sigmoid(s) - 0.5 if loss_type == "sppo" else s for s in row]
        expected.append(sum(values[j] for j in range(3) if include_self or j != i) / (3 if include_self else 2))
    if log_z == "group":
        z = sum(math.exp(target / beta) for target in expected) / 3
        expected = [target - beta * math.log(z) for target in expected]
    targets = gpo_targets(torch.tensor([RING], dtype=torch.float64), beta, loss_type, log_z, include_self)
    assert targets.tolist() == [pytest.approx(expected, abs=1e-12)]


def test_targets_against_an_opponent():
    scores = torch.tensor([[[0.0, 2.0], [-1.0, 0.4], [NAN, NAN]]], dtype=torch.float64)
    plain, sppo = gpo_targets(scores, 0.5, against="opponent"), gpo_targets(scores, 0.5, "sppo", against="opponent")
    assert plain[0, :2].tolist() == pytest.approx([1.0, -0.3]) and plain[0, 2].isnan()
    means = [(sigmoid(0.0) + sigmoid(2.0)) / 2 - 0.5, (sigmoid(-1.0) + sigmoid(0.4)) / 2 - 0.5]
    assert sppo[0, :2].tolist() == pytest.approx(means)
    # What has no score is no part of the normaliser.
    log_z = math.log((math.exp(1.0 / 0.5) + math.exp(-0.3 / 0.5)) / 2)
    targets = gpo_targets(scores, 0.5, log_z="group", against="opponent")
    assert targets[0, :2].tolist() == pytest.approx([1.0 - 0.5 * log_z, -0.3 - 0.5 * log_z])


def test_a_large_step_does_not_overflow():
    assert gpo_targets(torch.tensor([RING]), 1e-3, log_z="group").isfinite().all()


def test_win_margin_of_numbers_and_tensors():
    assert win_margin(0.75) == 0.25
    assert win_margin(torch.tensor([0.75, 0.5])).tolist() == [0.25, 0.0]


# --- policies --------------------------------------------------------------------------------------------------------

LOG_RATIOS, TARGETS, BETA = [[0.4, -0.7], [-1.5, 2.0]], [[0.3, -0.2], [0.1, -0.4]], 0.1


@pytest.mark.parametrize("rescale", [True, False])
def test_gpo_is_the_squared_difference(rescale):
    log_ratios = torch.tensor(LOG_RATIOS, dtype=torch.float64, requires_grad=True)
    residuals = gpo_residuals(log_ratios, torch.tensor(TARGETS, dtype=torch.float64), BETA)
    losses = squared_residuals(residuals, BETA, rescale)
    for row in range(2):
        for side in range(2):
            ratio, target = LOG_RATIOS[row][side], TARGETS[row][side]
            # Equation 5.3 as the paper has it, with log Z = 0.
            expected = (ratio - target / BETA) ** 2 * (BETA**2 if rescale else 1)
            assert losses[row, side].item() == pytest.approx(expected)
    losses.sum().backward()
    slope = 2 * (LOG_RATIOS[0][0] - TARGETS[0][0] / BETA) * (BETA**2 if rescale else 1)
    assert log_ratios.grad[0, 0].item() == pytest.approx(slope)


@pytest.mark.parametrize("rescale", [True, False])
def test_rebel_is_the_squared_difference_of_differences(rescale):
    log_ratios, targets = torch.tensor(LOG_RATIOS, dtype=torch.float64), torch.tensor(TARGETS, dtype=torch.float64)
    losses = squared_residuals(rebel_residuals(log_ratios, targets, BETA), BETA, rescale)
    assert losses.shape == (2, 1)
    for row, ((first, second), (one, other)) in enumerate(zip(LOG_RATIOS, TARGETS)):
        # Algorithm 1 of arXiv:2404.16767, whose 1/eta is beta.
        expected = (BETA * (first - second) - (one - other)) ** 2
        assert losses[row, 0].item() == pytest.approx(expected / (1 if rescale else BETA**2))


def test_ln_gpo_divides_by_tokens():
    ratios = per_token(torch.tensor([6.0, -3.0, 0.0]), torch.tensor([3, 2, 0]))
    assert ratios.tolist() == [2.0, -1.5, 0.0]


def test_divergence_terms_average_to_the_divergence():
    policy, reference = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    terms = divergence_terms(policy.log(), reference.log())
    first = 0.2 / 0.5 - 1 - math.log(0.2 / 0.5)
    assert terms[0].item() == pytest.approx(first, rel=1e-5) and bool((terms >= 0).all())
    divergence = sum(p * math.log(p / q) for p, q in zip(policy.tolist(), reference.tolist()))
    assert (policy * terms).sum().item() == pytest.approx(divergence, rel=1e-5)
