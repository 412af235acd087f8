"""Temperature and tie width of a scorer on one data set: probabilities of win, tie and loss from its log-odds."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpm_hf.evaluation.statistics.bootstrap import bootstrap_interval, interval_text
from gpm_hf.ratings.outcomes import Outcomes, outcome_probabilities
from gpm_hf.tables import markdown_table

_FOLDS, _STEPS = 5, 100
# A normal prior on 1 / temperature around 1, of standard deviation 10: pairs that are all right ask for infinity.
_PRECISION = 0.01


@dataclass(frozen=True)
class TieModel:
    """
    Davidson's model of log-odds S: P(win) : P(tie) : P(loss) = exp(S / 2T) : nu : exp(-S / 2T).

    Attributes:
        temperature: T. Above 1 the scorer is too sure, below 1 not sure enough.
        log_tie: log nu; minus infinity where the data have no ties.
    """

    temperature: float
    log_tie: float

    @property
    def tie_width(self) -> float:
        """
        Log-odds of the scorer within which a tie is the likeliest outcome, `2 T log nu`; 0 where it nowhere is.
        """
        return 2 * self.temperature * max(self.log_tie, 0.0)

    @property
    def even_tie_probability(self) -> float:
        """P(tie) at log-odds of 0, its largest value."""
        return float(self.probabilities(0.0).tie)

    def probabilities(self, log_odds) -> Outcomes:
        """P(win), P(tie) and P(loss) of the scorer's log-odds, any shape."""
        return outcome_probabilities(np.asarray(log_odds) / self.temperature, self.log_tie)


@dataclass(frozen=True)
class TieCalibration:
    """
    Attributes:
        pairs, tie_share: of the data.
        model: fitted to all pairs.
        log_loss_before, log_loss: mean cross entropy of win and loss in nats, a tie half of both: of the scorer as it
            is, and calibrated on other prompts.
        gain_interval: 95% bootstrap interval of the difference, over prompts; `None` for fewer than five.
        tie_log_loss: mean cross entropy of win, tie and loss, calibrated on other prompts; `None` without ties.
        frequency_log_loss: the same of a scorer that says the frequencies of the outcomes to all pairs.
    """

    pairs: int
    tie_share: float
    model: TieModel
    log_loss_before: float
    log_loss: float
    gain_interval: tuple[float, float] | None
    tie_log_loss: float | None
    frequency_log_loss: float | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "pairs": self.pairs,
            "tie_share": self.tie_share,
            "temperature": self.model.temperature,
            "tie_width": self.model.tie_width,
            "tie_probability_when_even": self.model.even_tie_probability,
            "log_loss_before": self.log_loss_before,
            "log_loss": self.log_loss,
            "log_loss_gain": self.log_loss_before - self.log_loss,
            "log_loss_gain_interval": self.gain_interval,
            "tie_log_loss": self.tie_log_loss,
            "frequency_log_loss": self.frequency_log_loss,
        }


def calibrate_ties(log_odds: Sequence[float], targets: Sequence[float], prompts: Sequence[Hashable]) -> TieCalibration:
    """
    Fits temperature and tie width by maximum likelihood, and measures both on held-out prompts (five folds).

    Args:
        log_odds: shape (N,): that the chosen response is preferred.
        targets: shape (N,): 1 where it is, 1/2 for a tie, 0 where the other is; any other probability is a vote
            that is split between the two.
        prompts: of each pair: the pairs of one are held out together.

    Raises:
        ValueError: lists of different lengths, numbers that are not finite, targets outside of 0 to 1, fewer than five
            prompts, nothing but ties, or scores that say nothing about the data, or its opposite.
    """
    scores, wanted = np.asarray(log_odds, dtype=float), np.asarray(targets, dtype=float)
    if scores.shape != wanted.shape or len(scores) != len(prompts):
        raise ValueError(f"There are {len(scores)} log-odds, {len(wanted)} targets and {len(prompts)} prompts.")
    if not np.isfinite(scores).all() or not ((wanted >= 0) & (wanted <= 1)).all():
        raise ValueError("Log-odds are finite, and targets are probabilities from 0 to 1.")
    number = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    cluster = np.array([number[prompt] for prompt in prompts])
    if len(number) < _FOLDS:
        raise ValueError(f"Pairs of {len(number)} prompts are too few to hold some out: {_FOLDS} are needed.")
    tied = (wanted == 0.5).astype(float)
    if tied.all():
        raise ValueError("Every pair is a tie: there is no temperature to find.")
    model = _fit(scores, wanted, tied)
    fold = np.random.default_rng(0).permutation(len(number))[cluster] % _FOLDS
    after, in_three = np.empty_like(scores), np.empty_like(scores)
    constant = np.empty_like(scores)
    for one in range(_FOLDS):
        seen, held = fold != one, fold == one
        found = _fit(scores[seen], wanted[seen], tied[seen]).probabilities(scores[held])
        after[held] = _cross_entropy(wanted[held], found.score)
        in_three[held] = _three_way(wanted[held], tied[held], found)
        share = tied[seen].mean()
        even = Outcomes(*(np.full(held.sum(), part) for part in ((1 - share) / 2, share, (1 - share) / 2)))
        constant[held] = _three_way(wanted[held], tied[held], even)
    before = _cross_entropy(wanted, outcome_probabilities(scores).score)
    sums = np.bincount(cluster, before - after), np.bincount(cluster)
    return TieCalibration(
        pairs=len(scores),
        tie_share=float(tied.mean()),
        model=model,
        log_loss_before=float(before.mean()),
        log_loss=float(after.mean()),
        gain_interval=bootstrap_interval(sums[0].tolist(), sums[1].tolist(), samples=2000),
        tie_log_loss=float(in_three.mean()) if tied.any() else None,
        frequency_log_loss=float(constant.mean()) if tied.any() else None,
    )


def _fit(scores: np.ndarray, wanted: np.ndarray, tied: np.ndarray) -> TieModel:
    """Newton's method in 1 / T and log nu, in which the log-likelihood is concave."""
    has_ties = bool(tied.any())
    lead = np.where(tied == 1, 0.0, 2 * wanted - 1)
    inverse, log_tie = 1.0 / max(1.0, float(np.abs(scores).mean())), 0.0 if has_ties else -np.inf

    def value(inverse: float, log_tie: float) -> float:
        found = outcome_probabilities(inverse * scores, log_tie)
        return -float(_three_way(wanted, tied, found).sum()) - _PRECISION / 2 * (inverse - 1) ** 2

    best = value(inverse, log_tie)
    for _ in range(_STEPS):
        found = outcome_probabilities(inverse * scores, log_tie)
        slope = np.array([((lead - (found.win - found.loss)) * scores / 2).sum() - _PRECISION * (inverse - 1), 0.0])
        curve = np.diag([(found.information * scores**2).sum() + _PRECISION, 1.0])
        if has_ties:
            slope[1] = (tied - found.tie).sum()
            curve[1, 1] = (found.tie * (1 - found.tie)).sum()
            curve[0, 1] = curve[1, 0] = -(found.tie * (found.win - found.loss) * scores / 2).sum()
        step = np.linalg.solve(curve, slope)
        factor = 1.0
        while factor > 1e-9 and value(inverse + factor * step[0], log_tie + factor * step[1]) < best - 1e-12:
            factor /= 2
        inverse, log_tie = inverse + factor * step[0], log_tie + factor * step[1]
        best = value(inverse, log_tie)
        if np.abs(step).max() < 1e-9:
            break
    if not inverse > 1e-6:
        raise ValueError(
            "The scores say nothing about these pairs, or the opposite: no temperature makes probabilities of them. "
            "Look at the accuracy first (`gpm-hf eval pairs`)."
        )
    return TieModel(1 / float(inverse), float(log_tie))


def _cross_entropy(wanted: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    tiny = np.finfo(float).tiny
    return -(wanted * np.log(np.maximum(predicted, tiny)) + (1 - wanted) * np.log(np.maximum(1 - predicted, tiny)))


def _three_way(wanted: np.ndarray, tied: np.ndarray, found: Outcomes) -> np.ndarray:
    win, tie, loss = (np.log(np.maximum(part, np.finfo(float).tiny)) for part in found)
    return -np.where(tied == 1, tie, wanted * win + (1 - wanted) * loss)


def tie_calibration_table(results: dict[str, TieCalibration]) -> str:
    """Markdown, a row per scorer."""
    rows = []
    for name, one in results.items():
        spread = interval_text(one.gain_interval, " ({:+.4f} to {:+.4f})")
        ties = ["", ""]
        if one.tie_log_loss is not None:
            ties = [f"{one.tie_log_loss:.4f}", f"{one.frequency_log_loss:.4f}"]
        rows.append(
            [
                name,
                one.pairs,
                f"{one.tie_share:.1%}",
                f"{one.model.temperature:.3f}",
                f"{one.model.tie_width:.3f}",
                f"{one.model.even_tie_probability:.1%}",
                f"{one.log_loss_before:.4f}",
                f"{one.log_loss:.4f}{spread}",
                *ties,
            ]
        )
    columns = ["pairs", "ties", "temperature", "tie width (log-odds)", "P(tie) when even", "log loss as it is"]
    columns += ["calibrated (gain, 95%)", "with ties", "frequencies alone"]
    return markdown_table(["scorer", *columns], rows)
