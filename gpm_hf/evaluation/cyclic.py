"""How well a preference model holds cycles: pairs right, whole cycles right, and what a scalar reward could reach."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch


@dataclass
class CyclicResult:
    """
    Counts of a model on preference rings.

    Attributes:
        pairs, pairs_right: the rings' pairs, and those whose preferred response has positive log-odds.
        cycles, cycles_right: rings, and those of which every pair is right.
        ceiling: the largest number of the pairs that a scalar reward could have right.
    """

    pairs: int
    pairs_right: int
    cycles: int
    cycles_right: int
    ceiling: int

    @property
    def pair_accuracy(self) -> float:
        """Share of the pairs that are right; a tie is wrong."""
        return self.pairs_right / self.pairs

    @property
    def cycle_accuracy(self) -> float:
        """Share of the cycles that are right as a whole."""
        return self.cycles_right / self.cycles

    @property
    def scalar_ceiling(self) -> float:
        """The largest pair accuracy that a scalar reward could reach."""
        return self.ceiling / self.pairs

    def to_dict(self) -> dict[str, float]:
        """Counts and shares, for JSON."""
        shares = {name: getattr(self, name) for name in ("pair_accuracy", "cycle_accuracy", "scalar_ceiling")}
        return asdict(self) | shares


def evaluate_rings(
    rows: Iterable[Mapping[str, Any]], score: Callable[[list, list], Sequence[torch.Tensor]]
) -> CyclicResult:
    """
    Scores preference rings. Rings of one prompt may share responses, each of which is encoded once, and pairs, each of
    which counts in every ring that has it: so a scalar reward can have at most (n - 1) / n of the pairs right.

    Args:
        rows: `prompt` and `responses` in ring order: each is preferred to the next, the last to the first.
        score: from prompts and their groups of responses to log-odds matrices, such as a model's
            `preference_scores`.
    """
    groups: dict[str, tuple[Any, list, list]] = {}
    for row in rows:
        _, responses, rings = groups.setdefault(str(row["prompt"]), (row["prompt"], [], []))
        for response in row["responses"]:
            if response not in responses:
                responses.append(response)
        rings.append([responses.index(response) for response in row["responses"]])
    if not groups:
        raise ValueError("There are no preference rings to evaluate.")
    matrices = score([prompt for prompt, _, _ in groups.values()], [group for _, group, _ in groups.values()])
    counts = CyclicResult(0, 0, 0, 0, 0)
    for scores, (_, _, rings) in zip(matrices, groups.values()):
        edges = [edge for ring in rings for edge in ring_edges(ring)]
        counts.pairs += len(edges)
        counts.pairs_right += sum(bool(scores[i, j] > 0) for i, j in edges)
        counts.cycles += len(rings)
        counts.cycles_right += sum(all(bool(scores[i, j] > 0) for i, j in ring_edges(ring)) for ring in rings)
        counts.ceiling += scalar_ceiling(edges)
    return counts


def result_table(results: Mapping[str, CyclicResult]) -> str:
    """A Markdown table, one row per model, with the ceiling of any scalar reward below."""
    lines = ["| model | pairs right | whole cycles right |", "|---|---|---|"]
    for name, result in results.items():
        lines.append(
            f"| {name} | {result.pair_accuracy:.1%} ({result.pairs_right}/{result.pairs}) "
            f"| {result.cycle_accuracy:.1%} ({result.cycles_right}/{result.cycles}) |"
        )
    ceiling = max(result.scalar_ceiling for result in results.values())
    lines.append(f"| ceiling of any scalar reward | {ceiling:.1%} | 0.0% |")
    return "\n".join(lines)


def ring_edges(ring: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs (i, j), i preferred to j, of a ring: each member against the next, the last against the first."""
    return [(ring[place], ring[(place + 1) % len(ring)]) for place in range(len(ring))]


def scalar_ceiling(edges: Sequence[tuple[int, int]]) -> int:
    """
    The largest number of the pairs that one ranking, and so any scalar reward, can have right: exact, by dynamic
    programming over the sets of responses that are ranked first.

    Args:
        edges: pairs (i, j), i preferred to j, among at most 16 responses; a pair given twice counts twice.

    Example:

    >>> scalar_ceiling([(0, 1), (1, 2), (2, 0)])
    2
    """
    names = sorted({name for edge in edges for name in edge})
    if len(names) > 16:
        raise ValueError(f"The exact ceiling takes 2^K steps; {len(names)} responses in one group are too many (16).")
    bit = {name: 1 << position for position, name in enumerate(names)}
    beaten: dict[int, list[int]] = {}
    for winner, loser in edges:
        beaten.setdefault(bit[winner], []).append(bit[loser])
    best = [0] * (1 << len(names))
    for ranked in range(1, len(best)):
        # The last of `ranked` wins against whatever is not ranked yet.
        best[ranked] = max(
            best[ranked & ~last] + sum(1 for loser in beaten.get(last, ()) if not ranked & loser)
            for last in bit.values()
            if ranked & last
        )
    return best[-1]
