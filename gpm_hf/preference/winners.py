"""Winners and orders read off a preference matrix, in the terms of social choice."""

import numpy as np

from .arrays import beats, like, read_scores


def condorcet_winner(scores, min_score: float = 0.0):
    """
    Index of the response preferred to every other one, -1 where there is none; as `gpm_hf.condorcet_winner` of the
    shipped model, for NumPy too, and of a matrix that is checked.

    Args:
        scores: log-odds of shape (..., n, n), NumPy or torch.
        min_score: log-odds at or below this are a tie.

    Returns:
        Indices of shape (...), or -1.

    Raises:
        ValueError: a matrix that is not skew-symmetric or not finite, or a negative `min_score`.
    """
    count = beats(read_scores(scores), min_score).sum(-1)
    return like(np.where(count.max(-1) == count.shape[-1] - 1, count.argmax(-1), -1), scores)


def smith_set(scores, min_score: float = 0.0):
    """
    The Smith set (top cycle): the smallest non-empty set each of whose members is preferred to every response outside.
    A tie with an outsider does not do, so ties make it larger. A Condorcet winner is a Smith set of one.

    Args:
        scores: log-odds of shape (..., n, n), NumPy or torch.
        min_score: log-odds at or below this are a tie.

    Returns:
        Membership, booleans of shape (..., n).

    Raises:
        ValueError: a matrix that is not skew-symmetric or not finite, or a negative `min_score`.
    """
    return like(smith_members(beats(read_scores(scores), min_score)), scores)


def copeland(scores, min_score: float = 0.0):
    """
    Copeland scores: how many others a response beats minus how many beat it.

    Args:
        scores: log-odds of shape (..., n, n), NumPy or torch.
        min_score: log-odds at or below this are a tie, which counts for neither.

    Returns:
        Integers of shape (..., n), from -(n - 1) to n - 1; they sum to 0.

    Raises:
        ValueError: a matrix that is not skew-symmetric or not finite, or a negative `min_score`.
    """
    return like(net_wins(beats(read_scores(scores), min_score)), scores)


def net_wins(wins: np.ndarray) -> np.ndarray:
    """Wins minus losses, shape (..., n), of a relation of shape (..., n, n)."""
    return wins.sum(-1) - wins.sum(-2)


def smith_members(wins: np.ndarray) -> np.ndarray:
    """
    Membership of the Smith set, shape (..., n). A member is beaten or tied by members only, so it has more "not beaten
    by" than any outsider: in that order the set is a prefix, the shortest whose members win all duels with the rest.
    """
    size = wins.shape[-1]
    order = np.argsort(wins.sum(-2), axis=-1, kind="stable")  # by losses, fewest first
    ordered = np.take_along_axis(np.take_along_axis(wins, order[..., :, None], -2), order[..., None, :], -1)
    # Wins of the first k rows over the columns from k on, by two-dimensional cumulative sums.
    sums = ordered.cumsum(-1).cumsum(-2)
    against_rest = sums[..., :, -1] - np.diagonal(sums, axis1=-2, axis2=-1)
    lengths = np.arange(1, size + 1)
    shortest = (against_rest == lengths * (size - lengths)).argmax(-1)
    members = np.zeros(order.shape, dtype=bool)
    np.put_along_axis(members, order, np.arange(size) <= shortest[..., None], -1)
    return members
