"""The losses of appendix A.1 against formulas written out by hand."""

import math

import pytest
import torch

from gpm_hf.training.losses import cross_entropy_loss, regression_loss


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
