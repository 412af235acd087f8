"""How often a scorer prefers the chosen response: pairs of any benchmark, by subset."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpm_hf.evaluation.reports.scored_groups import ResponseGroup, score_groups
from gpm_hf.evaluation.statistics.bootstrap import interval_text, share_interval
from gpm_hf.preference.arrays import sigmoid
from gpm_hf.scoring.scorer import Scorer
from gpm_hf.tables import markdown_table

# Fewer than the bootstrap's default: a resample takes a number for every prompt, and benchmarks have thousands.
_RESAMPLES = 2000


class PairCounts(NamedTuple):
    """
    Attributes:
        pairs, right, ties: a tie is not right, as in RewardBench.
        interval: 95% bootstrap interval, over prompts, of the share that is right; `None` for fewer than five.
    """

    pairs: int
    right: int
    ties: int
    interval: tuple[float, float] | None

    @property
    def accuracy(self) -> float:
        """Share of the pairs that are right."""
        return self.right / self.pairs

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self._asdict(), "accuracy": self.accuracy}


@dataclass
class PairResult:
    """
    A scorer on pairs.

    Attributes:
        scorer: its name.
        rows: as given.
        log_odds: shape (N,): that the chosen response is preferred. Where a scorer's two orders of presentation
            disagree, their average.
        asymmetry, forward_passes, reused: see [`gpm_hf.evaluation.reports.scored_groups.ScoredGroups`].
    """

    scorer: str
    rows: list[Mapping[str, Any]]
    log_odds: np.ndarray
    asymmetry: float | None
    forward_passes: int
    reused: int = 0

    @cached_property
    def right(self) -> np.ndarray:
        """Booleans of shape (N,): log-odds above 0."""
        return self.log_odds > 0

    @property
    def probabilities(self) -> np.ndarray:
        """Shape (N,): P(chosen is preferred to rejected)."""
        return sigmoid(self.log_odds)

    @property
    def total(self) -> PairCounts:
        """Counts of all pairs."""
        return self._count(range(len(self.rows)))

    def by(self, field: str | Callable[[Mapping[str, Any]], Any] = "subset") -> dict[Any, PairCounts]:
        """Counts by the value of a field of the rows, or of a function of a row; in order of appearance."""
        places: dict[Any, list[int]] = {}
        for place, row in enumerate(self.rows):
            places.setdefault(field(row) if callable(field) else row[field], []).append(place)
        return {value: self._count(chosen) for value, chosen in places.items()}

    def clusters(self, places: Iterable[int]) -> tuple[list[int], list[int]]:
        """Of the rows at these places: right and all, by prompt, for [`share_interval`]."""
        counts: dict[str, list[int]] = {}
        for place in places:
            prompt = self.rows[place]["prompt"]
            sums = counts.setdefault(f"row {place}" if prompt is None else str(prompt), [0, 0])
            sums[0] += int(self.right[place])
            sums[1] += 1
        return [right for right, _ in counts.values()], [total for _, total in counts.values()]

    def _count(self, places: Sequence[int]) -> PairCounts:
        right, total = self.clusters(places)
        return PairCounts(
            pairs=len(places),
            right=sum(right),
            ties=int((self.log_odds[list(places)] == 0).sum()),
            interval=share_interval(right, total, samples=_RESAMPLES),
        )

    def to_dict(self) -> dict[str, Any]:
        """Counts, shares and 95% intervals, for JSON; by subset and, where the rows have it, by difficulty."""
        found = {
            "scorer": self.scorer,
            **self.total.to_dict(),
            "asymmetry": self.asymmetry,
            "forward_passes": self.forward_passes,
            "subsets": {str(name): counts.to_dict() for name, counts in self.by("subset").items()},
        }
        if all("difficulty" in row for row in self.rows):
            found["difficulty"] = {name: counts.to_dict() for name, counts in self.by("difficulty").items()}
        return found


def score_pairs(
    rows: Iterable[Mapping[str, Any]],
    scorer: Scorer,
    chunk_size: int = 64,
    store: str | Path | None = None,
    progress: bool = False,
) -> PairResult:
    """
    Scores preference pairs. Rows with one `group` are scored together, each response once; all others pair by pair.

    Args:
        rows: `prompt`, `chosen`, `rejected`, `subset` and perhaps `id`, `group` and `difficulty`, as
            [`gpm_hf.data.pair_files.read_pairs`] returns them.
        scorer, chunk_size, store, progress: see [`score_groups`].

    Raises:
        ValueError: no rows, rows of one `group` with several prompts, or a row that the scorer refuses.
    """
    rows = list(rows)
    if not rows:
        raise ValueError("There are no pairs to score.")
    groups: dict[Any, ResponseGroup] = {}
    places = []
    for number, row in enumerate(rows):
        # A pair of its own has no name that a `group` of the data could have.
        key = ("group", row["group"]) if "group" in row else ("row", number)
        group = groups.setdefault(key, ResponseGroup(str(row.get("id", f"row {number + 1}")), row["prompt"], []))
        if group.prompt != row["prompt"]:
            raise ValueError(f"The rows of the group {row['group']!r} have several prompts.")
        places.append((key, _place(group.responses, row["chosen"]), _place(group.responses, row["rejected"])))
    scored = score_groups(list(groups.values()), scorer, chunk_size, store, progress)
    by_key = dict(zip(groups, scored.scores))
    log_odds = np.array([by_key[key][i, j] for key, i, j in places])
    return PairResult(scorer.name, rows, log_odds, scored.asymmetry, scored.forward_passes, scored.reused)


def _place(responses: list, response: Any) -> int:
    if response not in responses:
        responses.append(response)
    return responses.index(response)


def pairs_table(results: Sequence[PairResult], field: str = "subset") -> str:
    """A Markdown table with a row per scorer and a column per value of `field`, all pairs first, cost last."""
    by_scorer = [result.by(field) for result in results]
    values = list(dict.fromkeys(value for counts in by_scorer for value in counts))
    if len(values) == 1:  # all pairs again
        values = []
    rows = []
    for result, counts in zip(results, by_scorer):
        cells = [_cell(counts[value]) if value in counts else "-" for value in values]
        asymmetry = "unknown" if result.asymmetry is None else f"{result.asymmetry:.2g}"
        rows.append([result.scorer, _cell(result.total), *cells, asymmetry, result.forward_passes])
    return markdown_table(["scorer", "all pairs", *map(str, values), "asymmetry", "forward passes"], rows)


def _cell(counts: PairCounts) -> str:
    return f"{counts.accuracy:.1%}{interval_text(counts.interval)} ({counts.right}/{counts.pairs})"
