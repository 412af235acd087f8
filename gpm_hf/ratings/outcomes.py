"""
Win, tie and loss from log-odds, as Davidson (1970) extends Bradley and Terry: with S the log-odds of i over j among
votes that decide, P(win) : P(tie) : P(loss) = exp(S / 2) : nu : exp(-S / 2). With nu = 0 there are no ties, and
P(win) = sigmoid(S). S may be any skew-symmetric matrix, a difference of ratings or more than that.
"""

from typing import NamedTuple

import numpy as np


class Outcomes(NamedTuple):
    """
    Attributes:
        win, tie, loss: probabilities, that sum to 1.
    """

    win: np.ndarray
    tie: np.ndarray
    loss: np.ndarray

    @property
    def score(self):
        """Expected score, a tie counting half: P(win) + P(tie) / 2."""
        return self.win + self.tie / 2

    @property
    def information(self):
        """Of one vote about S: minus the expected second derivative of its log-likelihood."""
        return ((self.win + self.loss) - np.square(self.win - self.loss)) / 4


def outcome_probabilities(scores, log_tie: float = -np.inf) -> Outcomes:
    """
    Args:
        scores: log-odds S, any shape.
        log_tie: log nu; minus infinity for no ties.
    """
    up = np.asarray(scores, dtype=float) / 2
    top = np.maximum(np.abs(up), log_tie)
    win, tie, loss = np.exp(up - top), np.exp(log_tie - top), np.exp(-up - top)
    total = win + tie + loss
    return Outcomes(win / total, tie / total, loss / total)


def draw_outcomes(
    chance: Outcomes, size: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wins, ties and losses of so many votes in each cell, of the shape of the probabilities."""
    size = size.astype(np.int64)
    wins = rng.binomial(size, np.minimum(chance.win, 1))
    ties = rng.binomial(size - wins, np.clip(chance.tie / np.maximum(1 - chance.win, 1e-300), 0, 1))
    return wins.astype(float), ties.astype(float), (size - wins - ties).astype(float)


def log_normaliser(scores, log_tie: float = -np.inf):
    """log(exp(S / 2) + nu + exp(-S / 2)), any shape."""
    up = np.abs(np.asarray(scores, dtype=float)) / 2
    decided = up + np.log1p(np.exp(-2 * up))
    return decided if log_tie == -np.inf else np.logaddexp(decided, log_tie)


def log_likelihood(votes, scores, log_tie: float = -np.inf):
    """
    Of each cell's votes, in nats.

    Args:
        votes: with `wins`, `ties`, `losses` of shape (C,).
        scores: log-odds of a over b, shape (..., C).
        log_tie: log nu.
    """
    found = (votes.wins - votes.losses) * scores / 2 - votes.size * log_normaliser(scores, log_tie)
    return found if log_tie == -np.inf else found + votes.ties * log_tie
