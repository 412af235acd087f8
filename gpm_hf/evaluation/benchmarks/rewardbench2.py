"""RewardBench 2 with any scorer: the best of four, and Ties."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gpm_hf.data.best_of_files import TIES
from gpm_hf.evaluation.benchmarks.ties import TiesResult, ties_result
from gpm_hf.evaluation.reports.best_of_n_regret import RULES, best_of_n_regret, choice
from gpm_hf.evaluation.reports.scored_groups import ResponseGroup, score_groups
from gpm_hf.evaluation.statistics.bootstrap import interval_text, share_interval
from gpm_hf.scoring.scorer import Scorer
from gpm_hf.tables import markdown_table

# Of the published test split.
SUBSETS = ("Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties")
_ROWS = 1865


@dataclass
class RewardBench2Result:
    """
    A scorer on RewardBench 2 under one rule.

    Attributes:
        scorer: its name.
        rule: how a response is chosen by preferences, see [`evaluate_rewardbench2`].
        rows, scores: the rows, and their log-odds of shape (K, K), exactly skew-symmetric.
        asymmetry, forward_passes, reused: see [`gpm_hf.evaluation.reports.scored_groups.ScoredGroups`].
    """

    scorer: str
    rule: str
    rows: list[Mapping[str, Any]]
    scores: list[np.ndarray]
    asymmetry: float | None
    forward_passes: int
    reused: int = 0

    @cached_property
    def accuracies(self) -> dict[str, tuple[float, tuple[float, float] | None, int]]:
        """By subset other than Ties: the probability of choosing a correct answer, its 95% interval, rows."""
        credits: dict[str, list[float]] = {}
        for row, matrix in self._best_of():
            credits.setdefault(row["subset"], []).append(float(choice(matrix, self.rule)[: row["correct"]].sum()))
        return {
            subset: (float(np.mean(values)), share_interval(values, [1] * len(values)), len(values))
            for subset, values in credits.items()
        }

    @cached_property
    def ties(self) -> TiesResult | None:
        """The subset Ties; `None` where there is none."""
        rows = [row for row in self.rows if _is_tie(row)]
        scores = [matrix for row, matrix in zip(self.rows, self.scores) if _is_tie(row)]
        return ties_result(rows, scores, self.rule) if rows else None

    @property
    def average(self) -> float | None:
        """The leaderboard's: the plain mean of the six subsets. `None` unless all 1,865 rows are there."""
        if len(self.rows) != _ROWS or {row["subset"] for row in self.rows} != set(SUBSETS):
            return None
        if self.ties is None or self.ties.score is None:
            return None
        return (sum(accuracy for accuracy, *_ in self.accuracies.values()) + self.ties.score) / len(SUBSETS)

    def regret(self, n: int | None = None) -> float:
        """
        Mean best-of-n regret over the rows other than Ties, where a correct answer is worth 1 and a wrong one 0: over
        all sets of n of a row's responses, see [`best_of_n_regret`]. At n = 1 it is 0 by definition.

        Raises:
            ValueError: no such rows, or fewer than n responses in one.
        """
        regrets = [
            best_of_n_regret(matrix, np.arange(len(matrix)) < row["correct"], n, self.rule)
            for row, matrix in self._best_of()
        ]
        if not regrets:
            raise ValueError("Only Ties is here: there is nothing to choose the best of.")
        return float(np.mean(regrets))

    @cached_property
    def regrets(self) -> dict[int, float]:
        """[`regret`] by n, from 2 up to what every row has responses for; empty where there is only Ties."""
        sizes = [len(matrix) for _, matrix in self._best_of()]
        return {n: self.regret(n) for n in range(2, min(sizes, default=1) + 1)}

    def _best_of(self) -> list[tuple[Mapping[str, Any], np.ndarray]]:
        return [(row, matrix) for row, matrix in zip(self.rows, self.scores) if not _is_tie(row)]

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `average` is null unless the benchmark is whole."""
        return {
            "benchmark": "RewardBench 2",
            "scorer": self.scorer,
            "rule": self.rule,
            "rows": len(self.rows),
            "subsets": {
                subset: {"accuracy": accuracy, "interval": interval, "rows": rows}
                for subset, (accuracy, interval, rows) in self.accuracies.items()
            },
            "ties": None if self.ties is None else self.ties.to_dict(),
            "average": self.average,
            "regret": {str(n): regret for n, regret in self.regrets.items()},
            "asymmetry": self.asymmetry,
            "forward_passes": self.forward_passes,
        }


def evaluate_rewardbench2(
    rows: Iterable[Mapping[str, Any]],
    scorer: Scorer,
    rules: Sequence[str] = RULES,
    chunk_size: int = 16,
    store: str | Path | None = None,
    progress: bool = False,
) -> dict[str, RewardBench2Result]:
    """
    Measures a scorer on RewardBench 2, each row's responses scored once for all rules.

    The benchmark gives a row to a model whose reward is largest for the correct answer; a correct answer that shares
    the largest reward with m - 1 others counts 1/m. A preference model has no reward, so a rule chooses:

    - `"mean"`, the default of every comparison: the largest mean log-odds against the group, the paper's score of a
      response (5.2). For a Bradley-Terry model it is the benchmark's own rule, so scalar and general models stand in
      one table. A row counts 1/m as above.
    - `"von_neumann"`: the probability of a correct answer in the von Neumann winner, what a policy would answer that
      cannot be beaten under these preferences. A correct answer that beats every other one counts 1 however small the
      margins; in a cycle the row is shared.

    For Ties both rules reproduce the published score of a scalar reward, see [`gpm_hf.evaluation.benchmarks.ties`].

    Args:
        rows: as [`gpm_hf.data.best_of_files.read_best_of`] returns them.
        rules: which to apply. `"von_neumann"` needs SciPy and some milliseconds a row.
        scorer, chunk_size, store, progress: see [`score_groups`].

    Returns:
        By rule.

    Raises:
        ValueError: no rows, an unknown rule, or a row that the scorer refuses, by name.
    """
    rows = list(rows)
    unknown = sorted(set(rules) - set(RULES))
    if unknown or not rules:
        raise ValueError(f"rules={list(rules)}: choose among {', '.join(RULES)}.")
    if not rows:
        raise ValueError("There are no rows to evaluate.")
    groups = [ResponseGroup(row["id"], row["prompt"], list(row["responses"])) for row in rows]
    scored = score_groups(groups, scorer, chunk_size, store, progress)
    return {
        rule: RewardBench2Result(
            scorer.name, rule, rows, scored.scores, scored.asymmetry, scored.forward_passes, scored.reused
        )
        for rule in rules
    }


def _is_tie(row: Mapping[str, Any]) -> bool:
    return row["subset"].lower() == TIES


def rewardbench2_table(results: Iterable[RewardBench2Result]) -> str:
    """A Markdown table with a row per scorer and rule: subsets with 95% intervals, Ties, average, regret, cost."""
    results = list(results)
    subsets = list(dict.fromkeys(subset for result in results for subset in result.accuracies))
    rows = []
    for result in results:
        cells = dict.fromkeys(subsets, "-")
        for subset, (accuracy, interval, _) in result.accuracies.items():
            cells[subset] = f"{accuracy:.1%}{interval_text(interval)}"
        ties = None if result.ties is None else result.ties.score
        regret = ", ".join(f"{n}: {regret:.3f}" for n, regret in result.regrets.items()) or "-"
        shares = ["-" if share is None else f"{share:.1%}" for share in (ties, result.average)]
        rows.append([result.scorer, result.rule, *cells.values(), *shares, regret, result.forward_passes])
    columns = [*subsets, "Ties", "average", "regret of best of n", "forward passes"]
    return markdown_table(["scorer", "rule", *columns], rows)
