"""Losses of preference models (paper appendix A.1): pure functions of log-odds."""

from collections.abc import Mapping

import torch
from torch.nn.functional import logsigmoid


def cross_entropy_loss(
    log_odds: torch.Tensor,
    probability: torch.Tensor | float = 1.0,
    margin: torch.Tensor | float = 0.0,
) -> torch.Tensor:
    """
    Cross entropy between the model's preference and the label: `-[p log sigmoid(s) + (1 - p) log sigmoid(-s)]` with
    `s = log_odds - margin`.

    Args:
        log_odds: log-odds that the chosen response is preferred, shape (B,).
        probability: the label's probability p that the chosen response is preferred, shape (B,) or a number; 1 for
            hard labels.
        margin: by how much log-odds must exceed zero, in units of log-odds, shape (B,) or a number.

    Returns:
        Loss per pair in nats, shape (B,).
    """
    shifted = log_odds - margin
    return -(probability * logsigmoid(shifted) + (1 - probability) * logsigmoid(-shifted))


def regression_loss(log_odds: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """
    Squared error to a continuous label: `0.5 (log_odds - target)^2`.

    Args:
        log_odds: log-odds that the chosen response is preferred, shape (B,).
        target: what they should be, in units of log-odds, shape (B,).

    Returns:
        Loss per pair, shape (B,).
    """
    return 0.5 * (log_odds - target) ** 2


def label_sides(labels: Mapping[str, torch.Tensor], loss_type: str, like: torch.Tensor) -> torch.Tensor:
    """
    Which response of each pair the label prefers.

    Args:
        labels: `preference_probability` or, for `"regression"`, `target_score` (log-odds), shape (B,); without the
            former every pair is labelled as it stands.
        loss_type: `"cross_entropy"` or `"regression"`.
        like: log-odds, shape (B,).

    Returns:
        1 for the chosen response, -1 for the rejected one, 0 where the label has no side (a probability of 1/2, a
        target of 0); shape (B,).
    """
    if loss_type == "regression":
        return labels["target_score"].sign()
    if "preference_probability" in labels:
        return (labels["preference_probability"] - 0.5).sign()
    return torch.ones_like(like)
