"""What a preference matrix says: who wins, which cycles it holds, and how much of it is a ranking at all."""

from dataclasses import asdict, dataclass, field
from heapq import nsmallest
from typing import Any

import numpy as np

from gpm_hf.data.rings import ring_edges
from gpm_hf.preference import (
    condorcet_winner,
    copeland,
    decompose,
    find_cycles,
    is_transitive,
    ranking,
    smith_set,
    von_neumann_winner,
)
from gpm_hf.preference.arrays import read_scores
from gpm_hf.ratings.exact_cycles import votes_to_find


@dataclass(frozen=True)
class FoundCycle:
    """
    A preference cycle.

    Attributes:
        members: indices, the least first; each is preferred to the next and the last to the first.
        strength: log-odds of its weakest edge.
        weakest_edge: (i, j), i preferred to j by `strength`; the first one along the cycle where several are.
        votes: on each of its pairs, by people who prefer as the scores say, so that a test against every ranking finds
            the cycle at level 0.05 in 80% of cases; `None` for more than 100,000.
    """

    members: tuple[int, ...]
    strength: float
    weakest_edge: tuple[int, int]
    votes: int | None = field(default=None, compare=False)

    @property
    def edges(self) -> list[tuple[int, int]]:
        """Pairs (i, j), i preferred to j, around the cycle."""
        return ring_edges(self.members)


@dataclass(frozen=True)
class Inspection:
    """
    The answers of [`inspect_scores`] about n responses, as plain Python values.

    Attributes:
        scores: log-odds (n, n), the row preferred to the column.
        mean_scores: each response's mean log-odds against all n (itself at 0): also the Bradley-Terry rating that
            fits best in least squares.
        ranking: indices, best first, by mean score.
        condorcet_winner: index of the response preferred to every other one, `None` where there is none.
        smith_set: indices of the smallest set whose members are all preferred to everyone outside.
        von_neumann_winner: probabilities (n,) of the mixture that no response beats on average.
        copeland: duels won minus duels lost (n,).
        transitive: whether the preferences are those of a ranking, ties allowed.
        three_cycles: how many cycles of three responses there are.
        cycles: the strongest of them, strongest first; a longer cycle stands first where it is stronger than all of
            three, or where ties leave none of three. Empty where there is no cycle of any length.
        transitive_share: share of the squared norm of `scores` that a Bradley-Terry rating explains, from 0 to 1.
        cyclic_share: 1 minus that.
        pairs: pairs of responses that are not tied.
        pairs_as_rated: those of them that the rating orders as the scores do.
    """

    scores: list[list[float]]
    mean_scores: list[float]
    ranking: list[int]
    condorcet_winner: int | None
    smith_set: list[int]
    von_neumann_winner: list[float]
    copeland: list[int]
    transitive: bool
    three_cycles: int
    cycles: list[FoundCycle]
    transitive_share: float
    cyclic_share: float
    pairs: int
    pairs_as_rated: int

    def to_dict(self) -> dict[str, Any]:
        """The same, for JSON."""
        return asdict(self)


def inspect_scores(scores: Any, max_cycles: int = 10) -> Inspection:
    """
    Everything that a preference matrix says about its responses.

    Args:
        scores: log-odds of shape (n, n), NumPy or torch; `scores[i, j] > 0` means that i is preferred to j.
        max_cycles: list so many cycles; `three_cycles` counts all of three responses in any case.

    Returns:
        [`Inspection`]

    Raises:
        ValueError: not one square skew-symmetric finite matrix of at least two responses, or `max_cycles` below 1.
        ImportError: SciPy, which finds the von Neumann winner, is not installed.

    Example:

    >>> inspect_scores(np.array([[0, 1, -2], [-1, 0, 3], [2, -3, 0]])).cycles
    [FoundCycle(members=(0, 1, 2), strength=1.0, weakest_edge=(0, 1), votes=33)]
    """
    matrix = read_scores(scores)
    if matrix.ndim != 2 or len(matrix) < 2:
        raise ValueError(
            f"inspect_scores takes one matrix of at least two responses, got the shape {matrix.shape}: there is "
            "nothing to compare otherwise."
        )
    if max_cycles < 1:
        raise ValueError(f"max_cycles={max_cycles}: list at least the strongest one.")
    three_cycles = find_cycles(matrix)
    winner = int(condorcet_winner(matrix))
    parts = decompose(matrix)
    above = np.triu(np.ones_like(matrix, dtype=bool), 1) & (matrix != 0)
    return Inspection(
        scores=(matrix + 0.0).tolist(),  # -0.0, which reads oddly, becomes 0.0
        mean_scores=parts.rating.tolist(),
        ranking=ranking(matrix).tolist(),
        condorcet_winner=None if winner < 0 else winner,
        smith_set=np.flatnonzero(smith_set(matrix)).tolist(),
        von_neumann_winner=von_neumann_winner(matrix).tolist(),
        copeland=copeland(matrix).tolist(),
        transitive=bool(is_transitive(matrix)),
        three_cycles=len(three_cycles),
        cycles=_strongest(matrix, [cycle.members for cycle in three_cycles], max_cycles),
        transitive_share=float(parts.transitive_share),
        cyclic_share=float(parts.cyclic_share),
        pairs=int(above.sum()),
        pairs_as_rated=int((above & (np.sign(parts.transitive) == np.sign(matrix))).sum()),
    )


def _strongest(matrix: np.ndarray, three_cycles: list[tuple[int, ...]], count: int) -> list[FoundCycle]:
    def by_strength(members: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
        return -min(matrix[edge] for edge in ring_edges(members)), members

    best = [_found(matrix, members) for members in nsmallest(count, three_cycles, key=by_strength)]
    robust = _most_robust_cycle(matrix)
    if robust is not None and (not best or robust.strength > best[0].strength):
        best = [robust, *best][:count]
    return best


def _most_robust_cycle(matrix: np.ndarray) -> FoundCycle | None:
    """
    The cycle, of any length, whose weakest edge is strongest, the shortest through that edge; None where there is no
    cycle. A cycle of four can be stronger than those of three that its chords make, and with ties there may be none
    of three.
    """
    # widest[i, j]: the weakest edge of the best path from i to j, by Floyd and Warshall's algorithm; 0 for no path.
    widest = np.maximum(matrix, 0.0)
    for via in range(len(matrix)):
        widest = np.maximum(widest, np.minimum(widest[:, via, None], widest[None, via, :]))
    strength = np.minimum(np.maximum(matrix, 0.0), widest.T)
    if not strength.any():
        return None
    # All edges of such a cycle have this strength here; at its weakest one it is the edge's own log-odds.
    weakest = np.argwhere((strength == strength.max()) & (matrix == strength.max()))
    first, second = weakest[0].tolist()
    path = _shortest_path(matrix >= strength.max(), second, first)
    start = path.index(min(path))
    return _found(matrix, (*path[start:], *path[:start]))


def _shortest_path(edges: np.ndarray, start: int, end: int) -> list[int]:
    """Members of a shortest path, breadth first; there is one."""
    paths = {start: [start]}
    queue = [start]
    for node in queue:
        for following in np.flatnonzero(edges[node]).tolist():
            if following not in paths:
                paths[following] = [*paths[node], following]
                queue.append(following)
    return paths[end]


def _found(matrix: np.ndarray, members: tuple[int, ...]) -> FoundCycle:
    edges = ring_edges(members)
    weakest = min(edges, key=lambda edge: matrix[edge])
    votes = votes_to_find([matrix[edge] for edge in edges])
    return FoundCycle(members, float(matrix[weakest]), weakest, votes)
