"""Whether a scorer's probabilities are what they say."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gpm_hf.evaluation.statistics.bootstrap import share_interval
from gpm_hf.preference.arrays import sigmoid
from gpm_hf.tables import markdown_table


@dataclass(frozen=True)
class ReliabilityBin:
    """
    Attributes:
        low, high: the bin's ends: confidences above `low` up to `high` (the first bin has its lower end too).
        pairs: in the bin.
        confidence: mean probability given to the response that the scorer prefers.
        accuracy: how often that one is preferred in the data.
        interval: 95% bootstrap interval of `accuracy`; `None` for fewer than five pairs.
    """

    low: float
    high: float
    pairs: int
    confidence: float
    accuracy: float
    interval: tuple[float, float] | None


@dataclass
class Calibration:
    """
    Attributes:
        pairs: how many.
        log_loss: mean of -[t log P + (1 - t) log(1 - P)], in nats; 0.693 for a scorer that says 1/2 to all.
        brier: mean of (P - t)^2; 0.25 for a scorer that says 1/2 to all.
        ece: expected calibration error: mean over pairs of |confidence - accuracy| of their bin.
        bins: those that hold pairs, by confidence.
    """

    pairs: int
    log_loss: float
    brier: float
    ece: float
    bins: list[ReliabilityBin]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def calibration_report(
    log_odds: Sequence[float], targets: Sequence[float] | None = None, bins: int = 10
) -> Calibration:
    """
    Calibration of P(chosen is preferred to rejected) = sigmoid(log-odds).

    In pairs whose chosen response is named, the event "chosen is preferred" always happens, and a curve of its
    frequency would be flat at 1. The curve is therefore of confidence, P of the response that the scorer prefers, from
    1/2 to 1, against how often that response is the chosen one: the usual reliability curve folded at 1/2, where it is
    symmetric because which response of a pair comes first means nothing. Log-loss and Brier score need no folding.

    Args:
        log_odds: shape (N,): that the chosen response is preferred, such as `PairResult.log_odds`.
        targets: shape (N,): the probability that it is preferred in the data (`preference_probability`); `None` for 1.
        bins: of equal width from 1/2 to 1.

    Raises:
        ValueError: no pairs, numbers that are not finite, targets outside of 0 to 1 or not as many, no bins.
    """
    scores = np.asarray(log_odds, dtype=float)
    wanted = np.ones_like(scores) if targets is None else np.asarray(targets, dtype=float)
    if not len(scores) or scores.shape != wanted.shape:
        raise ValueError(f"There are {len(scores)} log-odds and {len(wanted)} targets; give as many, at least one.")
    if not np.isfinite(scores).all():
        raise ValueError("Log-odds must be finite: a probability of exactly 0 or 1 has none.")
    if not ((wanted >= 0) & (wanted <= 1)).all():
        raise ValueError("Targets are probabilities from 0 to 1.")
    if bins < 1:
        raise ValueError(f"bins={bins}: at least one is needed.")

    confidence = sigmoid(np.abs(scores))
    # Of a tie neither response is preferred: right by half whatever the target.
    right = np.where(scores > 0, wanted, np.where(scores < 0, 1 - wanted, 0.5))
    edges = np.linspace(0.5, 1, bins + 1)
    places = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    found = []
    for place in np.unique(places):
        inside = places == place
        interval = share_interval(right[inside], [1.0] * int(inside.sum()), samples=2000)
        means = float(confidence[inside].mean()), float(right[inside].mean())
        found.append(ReliabilityBin(float(edges[place]), float(edges[place + 1]), int(inside.sum()), *means, interval))
    probability = sigmoid(scores)
    return Calibration(
        pairs=len(scores),
        log_loss=float((wanted * np.logaddexp(0, -scores) + (1 - wanted) * np.logaddexp(0, scores)).mean()),
        brier=float(np.square(probability - wanted).mean()),
        ece=sum(one.pairs * abs(one.confidence - one.accuracy) for one in found) / len(scores),
        bins=found,
    )


CALIBRATION_COLUMNS = ("log-loss (nats)", "Brier", "ECE")


def calibration_cells(one: Calibration) -> list[str]:
    """What stands under [`CALIBRATION_COLUMNS`]."""
    return [f"{one.log_loss:.3f}", f"{one.brier:.3f}", f"{one.ece:.3f}"]


def calibration_table(results: dict[str, Calibration]) -> str:
    """A Markdown table with a row per scorer."""
    rows = [[name, one.pairs, *calibration_cells(one)] for name, one in results.items()]
    return markdown_table(["scorer", "pairs", *CALIBRATION_COLUMNS], rows)
