"""Cycles in a preference matrix: NumPy or torch in, plain Python out."""

from typing import NamedTuple

import numpy as np


class Cycle(NamedTuple):
    """
    A preference cycle.

    Attributes:
        members: indices, the least first; each is preferred to the next and the last to the first.
        weakest: the smallest log-odds along the cycle: how strong it is.
    """

    members: tuple[int, ...]
    weakest: float


def find_cycles(scores, max_length: int = 3, limit: int | None = None, min_score: float = 0.0) -> list[Cycle]:
    """
    Lists the preference cycles of a score matrix, each once, shorter ones first.

    Args:
        scores: log-odds of shape (n, n), a NumPy array or a torch tensor; `scores[i, j] > min_score` means that i is
            preferred to j.
        max_length: the longest cycle to look for, at least 3.
        limit: stop after so many.
        min_score: edges at or below these log-odds do not count.

    Returns:
        Cycles by length, then by members.

    Raises:
        ValueError: a matrix that is not square, or `max_length` below 3.

    Example:

    >>> find_cycles(np.array([[0, 1, -2], [-1, 0, 3], [2, -3, 0]]))
    [Cycle(members=(0, 1, 2), weakest=1.0)]
    """
    matrix = np.asarray(scores, dtype=float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"find_cycles takes one square matrix, got the shape {matrix.shape}.")
    if max_length < 3:
        raise ValueError(f"max_length={max_length}: a cycle has at least three members.")
    beats = matrix > min_score
    successors = [np.flatnonzero(row) for row in beats]
    found: list[Cycle] = []
    for length in range(3, max_length + 1):
        for start in range(len(matrix)):
            for members in _paths_back(start, length, successors, beats):
                weakest = min(matrix[i, j] for i, j in zip(members, (*members[1:], start)))
                found.append(Cycle(members, float(weakest)))
                if limit is not None and len(found) == limit:
                    return found
    return found


def _paths_back(start, length, successors, beats):
    """Simple paths of `length` members, all above `start`, from `start` back to `start`, in order."""
    path = [start]

    def extend():
        if len(path) == length:
            if beats[path[-1], start]:
                yield tuple(path)
            return
        for candidate in successors[path[-1]]:
            if candidate > start and candidate not in path:
                path.append(int(candidate))
                yield from extend()
                path.pop()

    return extend()
