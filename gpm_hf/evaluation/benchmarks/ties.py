"""The subset Ties of RewardBench 2: several answers are right, and a model should not care which."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from gpm_hf.data.best_of_files import ties_question
from gpm_hf.preference import decompose

# process_single_model in rewardbench/utils.py of allenai/reward-bench (Apache-2.0), as RewardBench 2 was released with
# it (June 2025, before pull request 244).
_WEIGHTS = {"tied_accuracy": 0.3, "ref_accuracy": 0.3, "preferred": 0.2, "preferred_hard": 0.2, "margin": 0.01}


class Margins(NamedTuple):
    """
    Attributes:
        gap: by how much the worst correct answer is preferred to the best wrong one (log-odds); above 0 all is right.
        spread: by how much the best correct answer is preferred to the worst correct one (log-odds).
    """

    gap: float
    spread: float


@dataclass
class TiesResult:
    """
    Attributes:
        tied_accuracy, ref_accuracy: share of the questions with several correct answers, and with one, in which all
            correct answers are preferred to all wrong ones; `None` without such rows.
        preferred: share of the questions whose tied row has a larger gap than spread.
        preferred_hard: the same with the smaller gap of the tied and the ref row.
        margin: mean of tanh(smaller gap / spread - 1). Questions whose correct answers all have one and the same score
            have no spread to divide by: they are left out, as in the release of RewardBench 2 (its repository has
            since come to count them as +1, -1 or 0); 0 where none is left.
        unpaired: questions without a partner row, which RewardBench 2 does not have.
    """

    tied_accuracy: float | None
    ref_accuracy: float | None
    preferred: float | None
    preferred_hard: float | None
    margin: float | None
    unpaired: list[int]

    @property
    def score(self) -> float | None:
        """
        RewardBench 2's number, `0.3 tied_accuracy + 0.3 ref_accuracy + 0.2 preferred + 0.2 preferred_hard + 0.01
        margin`, which can exceed 1 by 0.01; `None` where questions are unpaired.
        """
        if self.unpaired:
            return None
        return sum(weight * getattr(self, name) for name, weight in _WEIGHTS.items())

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "score": self.score}


def margins(scores: np.ndarray, correct: int, rule: str = "mean") -> Margins:
    """
    Gap and spread of one row.

    RewardBench 2 defines them by scalar rewards. Two readings for preferences agree with it for every scalar reward
    (in units of tau, which neither comparison nor ratio sees):

    - `"mean"`: the reward is the mean log-odds against all K, itself included. With itself included it is
      (r_i - mean r) / tau whatever K is, so that rows of different sizes can be compared.
    - `"von_neumann"`: no rating at all. The gap is the smallest log-odds of a correct against a wrong answer, the
      spread the largest between correct ones. A gap above 0 puts the von Neumann winner among the correct answers.

    Args:
        scores: log-odds of shape (K, K), skew-symmetric; the first `correct` are the correct answers.
        correct: how many those are, less than K.
        rule: one of the two.
    """
    if rule == "mean":
        rating = decompose(scores).rating
        good = rating[:correct]
        return Margins(float(good.min() - rating[correct:].max()), float(good.max() - good.min()))
    if rule == "von_neumann":
        return Margins(float(scores[:correct, correct:].min()), float(scores[:correct, :correct].max()))
    raise ValueError(f"rule={rule!r}: choose mean or von_neumann.")


def ties_result(rows: Sequence[Mapping[str, Any]], scores: Sequence[np.ndarray], rule: str = "mean") -> TiesResult:
    """
    Measures the subset Ties.

    Args:
        rows: `id` ("ref:7", "tied:7") and `correct`, see [`gpm_hf.data.best_of_files.read_best_of`].
        scores: per row, log-odds of shape (K, K), skew-symmetric.
        rule: see [`margins`].
    """
    found: dict[str, dict[int, Margins]] = {"ref": {}, "tied": {}}
    for row, matrix in zip(rows, scores, strict=True):
        kind, question = ties_question(row["id"])
        if question in found[kind]:
            raise ValueError(f"The subset Ties has two rows {row['id']!r}.")
        found[kind][question] = margins(matrix, row["correct"], rule)
    ref, tied = found["ref"], found["tied"]
    both = sorted(set(ref) & set(tied))
    spread = np.array([tied[question].spread for question in both])
    gap = np.array([tied[question].gap for question in both])
    smaller = np.minimum(gap, [ref[question].gap for question in both])
    return TiesResult(
        tied_accuracy=_share([one.gap > 0 for one in tied.values()]),
        ref_accuracy=_share([one.gap > 0 for one in ref.values()]),
        preferred=_share(gap > spread),
        preferred_hard=_share(smaller > spread),
        margin=_margin(smaller, spread),
        unpaired=sorted(set(ref) ^ set(tied)),
    )


def _share(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _margin(gaps: np.ndarray, spreads: np.ndarray) -> float | None:
    if not len(spreads):
        return None
    spread_out = spreads > 0
    return _share(np.tanh(gaps[spread_out] / spreads[spread_out] - 1)) or 0.0
