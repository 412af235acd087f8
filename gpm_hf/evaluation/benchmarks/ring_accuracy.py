"""
How well a preference model holds cycles: pairs right, whole cycles right, and what a scalar reward could reach (the
paper's table 1).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from gpm_hf.data.judged_groups import ring_of
from gpm_hf.data.rings import ring_edges
from gpm_hf.evaluation.statistics.bootstrap import interval_text, share_interval
from gpm_hf.tables import markdown_table

# More responses in one knot of cycles than this take too long for an exact ceiling.
_MOST_RESPONSES = 18
RESULT_COLUMNS = ["model", "pairs right", "whole cycles right"]
_CEILING = "ceiling of any scalar reward"


class PromptCounts(NamedTuple):
    """The counts of [`CyclicResult`] for one prompt."""

    pairs: int
    pairs_right: int
    cycles: int
    cycles_right: int
    ceiling: int


@dataclass
class CyclicResult:
    """
    Counts of a model on cyclic preferences.

    Attributes:
        prompts: counts by prompt; the properties below are their sums.
        skew_error: largest |S_ij + S_ji| (log-odds), zero for a general preference model by construction; `None`
            where only one order was scored.
    """

    prompts: list[PromptCounts]
    skew_error: float | None

    def _sum(self, name: str) -> int:
        return sum(getattr(counts, name) for counts in self.prompts)

    @property
    def pairs(self) -> int:
        """Pairs of responses."""
        return self._sum("pairs")

    @property
    def pairs_right(self) -> int:
        """Pairs whose preferred response has positive log-odds."""
        return self._sum("pairs_right")

    @property
    def cycles(self) -> int:
        """Cycles all of whose pairs are in the data."""
        return self._sum("cycles")

    @property
    def cycles_right(self) -> int:
        """Cycles all of whose pairs are right."""
        return self._sum("cycles_right")

    @property
    def ceiling(self) -> int:
        """The largest number of the pairs that a scalar reward could have right, exactly."""
        return self._sum("ceiling")

    @property
    def pair_accuracy(self) -> float:
        """Share of the pairs that are right; a tie is wrong."""
        return self.pairs_right / self.pairs

    @property
    def cycle_accuracy(self) -> float | None:
        """Share of the cycles that are right as a whole; `None` where the data has no whole cycle."""
        return self.cycles_right / self.cycles if self.cycles else None

    @property
    def scalar_ceiling(self) -> float:
        """The largest pair accuracy that a scalar reward could reach."""
        return self.ceiling / self.pairs

    def interval(self, of: str = "pairs") -> tuple[float, float] | None:
        """
        95% interval of the accuracy of `"pairs"` or `"cycles"`, prompts resampled as
        [`~gpm_hf.evaluation.statistics.bootstrap.share_interval`] does; `None` where fewer than five prompts have any.
        """
        right = [getattr(counts, f"{of}_right") for counts in self.prompts]
        return share_interval(right, [getattr(counts, of) for counts in self.prompts])

    def to_dict(self) -> dict[str, Any]:
        """Counts, shares and 95% intervals, for JSON."""
        names = ("pairs", "pairs_right", "cycles", "cycles_right", "ceiling")
        shares = ("pair_accuracy", "cycle_accuracy", "scalar_ceiling", "skew_error")
        found: dict[str, Any] = {name: getattr(self, name) for name in (*names, *shares)}
        found["prompts"] = len(self.prompts)
        found["pair_accuracy_interval"] = self.interval("pairs")
        found["cycle_accuracy_interval"] = self.interval("cycles") if self.cycles else None
        return found


class CyclicGroup:
    """
    Responses to one prompt, with the preferences among them.

    Attributes:
        prompt, responses: as in the data; each response once.
        edges: pairs (i, j), response i preferred to response j; as often as the data has them.
        cycles: the edges of each cycle that is there as a whole, in ring order.
    """

    def __init__(self, prompt: Any):
        self.prompt = prompt
        self.responses: list[Any] = []
        self.edges: list[tuple[int, int]] = []
        self.cycles: list[list[tuple[int, int]]] = []
        self._open: dict[Any, list[tuple[int, int, int]]] = {}

    def _number(self, response: Any) -> int:
        if response not in self.responses:
            self.responses.append(response)
        return self.responses.index(response)

    def _add_ring(self, responses: Sequence[Any]) -> None:
        if len({str(response) for response in responses}) < max(3, len(responses)):
            raise ValueError(f"A ring has three or more responses, all different; got {list(responses)!r:.200}.")
        edges = ring_edges([self._number(response) for response in responses])
        self.edges += edges
        self.cycles.append(edges)

    def _add_pair(self, row: Mapping[str, Any]) -> None:
        edge = (self._number(row["chosen"]), self._number(row["rejected"]))
        self.edges.append(edge)
        if "cycle_id" in row and "edge" in row:
            self._open.setdefault(row["cycle_id"], []).append((row["edge"], *edge))

    def _close(self) -> None:
        """Pairs of one `cycle_id` are a whole cycle where each begins with what the one before ends with."""
        for pairs in self._open.values():
            edges = [(better, worse) for _, better, worse in sorted(pairs)]
            if len(edges) > 2 and edges == ring_edges([better for better, _ in edges]):
                self.cycles.append(edges)


def rings_by_prompt(rows: Iterable[Mapping[str, Any]]) -> list[CyclicGroup]:
    """Gathers rings or pairs, as [`evaluate_cyclic`] takes them, by prompt."""
    groups: dict[str, CyclicGroup] = {}
    for number, row in enumerate(rows):
        prompt = row.get("prompt")
        # Responses that begin with their prompt are only compared within their row's cycle.
        key = str(prompt) if prompt is not None else f"{row.get('cycle_id', number)!r}"
        group = groups.setdefault(key, CyclicGroup(prompt))
        if "responses" in row:
            try:
                group._add_ring(ring_of(row))
            except ValueError as error:
                raise ValueError(f"Row {number}: {error}") from error
        else:
            group._add_pair(row)
    for group in groups.values():
        group._close()
    return list(groups.values())


def evaluate_cyclic(
    rows: Iterable[Mapping[str, Any]], score: Callable[[list, list], Sequence[torch.Tensor]]
) -> CyclicResult:
    """
    Scores cyclic preferences, each response of a prompt encoded once.

    Args:
        rows: either rings, `prompt`, `responses`, a list or a mapping of names to them, in ring order and
            `ring: true` (each is preferred to the next, the last to the first; a pair counts in every ring that has
            it), or pairs, `prompt`, `chosen`, `rejected` and, for whole cycles, `cycle_id` and `edge`.
        score: from prompts and their groups of responses to log-odds matrices, such as a model's
            `preference_scores`.

    Raises:
        ValueError: no rows.
    """
    groups = rings_by_prompt(rows)
    if not groups:
        raise ValueError("There are no cyclic preferences to evaluate.")
    matrices = score([group.prompt for group in groups], [group.responses for group in groups])
    skew_error = max(float((scores + scores.mT).abs().max()) for scores in matrices)
    return CyclicResult(_count(groups, matrices), skew_error)


def evaluate_pairs(rows: Sequence[Mapping[str, Any]], log_odds: Sequence[float]) -> CyclicResult:
    """
    As [`evaluate_cyclic`], of pairs whose log-odds are known already, say from a trainer's `predict`.

    Args:
        rows: `prompt`, `chosen`, `rejected` and, for whole cycles, `cycle_id` and `edge`.
        log_odds: one number per row.
    """
    if len(rows) != len(log_odds) or not len(rows):
        raise ValueError(f"There are {len(rows)} pairs and {len(log_odds)} log-odds.")
    groups = rings_by_prompt(rows)
    matrices = {str(group.prompt): torch.zeros(len(group.responses), len(group.responses)) for group in groups}
    responses = {str(group.prompt): group.responses for group in groups}
    for row, value in zip(rows, log_odds):
        prompt = str(row["prompt"])
        i, j = (responses[prompt].index(row[side]) for side in ("chosen", "rejected"))
        matrices[prompt][i, j], matrices[prompt][j, i] = float(value), -float(value)
    return CyclicResult(_count(groups, list(matrices.values())), None)


def _count(groups: Sequence[CyclicGroup], matrices: Sequence[torch.Tensor]) -> list[PromptCounts]:
    counts = []
    for scores, group in zip(matrices, groups):
        right = (scores > 0).tolist()
        counts.append(
            PromptCounts(
                pairs=len(group.edges),
                pairs_right=sum(right[i][j] for i, j in group.edges),
                cycles=len(group.cycles),
                cycles_right=sum(all(right[i][j] for i, j in cycle) for cycle in group.cycles),
                ceiling=scalar_ceiling(group.edges),
            )
        )
    return counts


def result_table(results: Mapping[str, CyclicResult]) -> str:
    """A Markdown table of models on one data set, with the ceiling of any scalar reward below."""
    return markdown_table(RESULT_COLUMNS, result_rows(results))


def result_rows(results: Mapping[str, CyclicResult]) -> list[list[str]]:
    """The rows of [`result_table`], of the columns `RESULT_COLUMNS`."""
    rows = []
    for name, result in results.items():
        pairs = f"{result.pair_accuracy:.1%} ({result.pairs_right}/{result.pairs})"
        cycles = f"{result.cycle_accuracy:.1%} ({result.cycles_right}/{result.cycles})" if result.cycles else "-"
        rows.append([name, pairs, cycles])
    ceiling = max(result.scalar_ceiling for result in results.values())
    has_cycles = any(result.cycles for result in results.values())
    rows.append([_CEILING, f"{ceiling:.1%}", "0.0%" if has_cycles else "-"])
    return rows


def comparison_table(results: Mapping[str, Mapping[str, CyclicResult]]) -> str:
    """
    A Markdown table in the shape of the paper's table 1: a row per model, a column per data set. Cells hold the pair
    accuracy with its 95% bootstrap interval over prompts, and the share of whole cycles.

    Args:
        results: by model, then by data set. A model may lack data sets.
    """
    datasets = list(dict.fromkeys(name for by_dataset in results.values() for name in by_dataset))
    # Where models were given different preferences under one name, those of the first.
    ceilings = dict.fromkeys(datasets, "")
    rows = []
    for model, by_dataset in results.items():
        cells = dict.fromkeys(datasets, "-")
        for name, result in by_dataset.items():
            cycles = f"; cycles {result.cycle_accuracy:.1%}" if result.cycles else ""
            cells[name] = f"{result.pair_accuracy:.1%}{interval_text(result.interval('pairs'))}{cycles}"
            ceilings[name] = ceilings[name] or f"{result.scalar_ceiling:.1%}" + (
                "; cycles 0.0%" if result.cycles else ""
            )
        rows.append([model, *cells.values()])
    return markdown_table(["model", *datasets], [*rows, [_CEILING, *ceilings.values()]])


def scalar_ceiling(edges: Sequence[tuple[int, int]]) -> int:
    """
    The largest number of the pairs that one ranking, and so any scalar reward, can have right. Exact: dynamic
    programming over the sets of responses that are ranked first, within each part whose responses all beat each other
    in a roundabout way; all pairs between such parts can be right.

    Args:
        edges: pairs (i, j), i preferred to j; a pair given twice counts twice.

    Raises:
        ValueError: more than 18 responses in one such part.

    Example:

    >>> scalar_ceiling([(0, 1), (1, 2), (2, 0)])
    2
    """
    names = {name: place for place, name in enumerate(sorted({name for edge in edges for name in edge}))}
    wins = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(wins, tuple(np.array([[names[i], names[j]] for i, j in edges]).T), 1)
    reach = np.eye(len(names), dtype=bool) | (wins > 0)
    for middle in range(len(names)):
        reach |= reach[:, middle, None] & reach[middle]
    parts = reach & reach.T
    between = int(wins[~parts].sum())
    first_members = sorted(set(np.argmax(parts, axis=1).tolist()))
    return between + sum(_best_ranking(wins[np.ix_(parts[first], parts[first])]) for first in first_members)


def _best_ranking(wins: np.ndarray) -> int:
    size = len(wins)
    if size > _MOST_RESPONSES:
        raise ValueError(
            f"{size} responses to one prompt beat each other in a roundabout way: the exact ceiling of a scalar "
            f"reward takes 2^K steps, too many above {_MOST_RESPONSES}. Evaluate fewer cycles per prompt."
        )
    ranked_sets = np.arange(1 << size)
    members = (ranked_sets[:, None] >> np.arange(size)) & 1
    # What the last of a ranked set wins against all that is not ranked yet.
    gains = wins.sum(1) - members @ wins.T
    best = np.zeros(1 << size, dtype=int)
    sizes = members.sum(1)
    for count in range(1, size + 1):
        now = ranked_sets[sizes == count]
        candidates = [
            np.where(members[now, last], best[now & ~(1 << last)] + gains[now, last], -1) for last in range(size)
        ]
        best[now] = np.max(candidates, axis=0)
    return int(best[-1])
