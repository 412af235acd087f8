"""Choosing among responses by a rule."""

import numpy as np

from .arrays import beats, like, read_scores
from .equilibrium import von_neumann_winner
from .winners import net_wins, smith_members

RULES = ("mean", "von_neumann", "copeland", "smith")
# Probabilities of the von Neumann winner are exact to about 1e-15; equal ones must tie in spite of that.
DECIMALS = 9


def ranking(scores, rule: str = "mean"):
    """
    Responses from best to worst by a rule. Equals under the rule are ordered by mean log-odds, then by index.

    - `"mean"`: mean log-odds against all, s_hat of equation 5.2; also the order of the rating that fits best,
      `decompose(S).rating`, and Borda's with log-odds as points.
    - `"von_neumann"`: probability in the von Neumann winner. Needs SciPy and some milliseconds a matrix.
    - `"copeland"`: duels won minus duels lost.
    - `"smith"`: the Smith set before all others.

    Args:
        scores: log-odds of shape (..., n, n), NumPy or torch.
        rule: one of the four.

    Returns:
        Indices of shape (..., n).

    Raises:
        ValueError: a matrix that is not skew-symmetric or not finite, or an unknown rule.
    """
    matrix = read_scores(scores)
    mean = matrix.mean(-1)
    if rule == "mean":
        first = np.zeros_like(mean)
    elif rule == "von_neumann":
        first = von_neumann_winner(matrix).round(DECIMALS)
    elif rule == "copeland":
        first = net_wins(beats(matrix, 0.0))
    elif rule == "smith":
        first = smith_members(beats(matrix, 0.0)).astype(int)
    else:
        raise ValueError(f"rule={rule!r}: choose one of {', '.join(RULES)}.")
    # lexsort is stable and takes the first key last.
    return like(np.lexsort((-mean, -first), axis=-1), scores)


def select(scores, rule: str = "mean"):
    """
    The response to choose: the first of `ranking(scores, rule)`. A Condorcet winner is chosen by every rule but the
    mean, which weighs by how much a response is preferred. `"von_neumann"` takes the winner's most probable response;
    to draw from it instead, use `von_neumann_winner`.

    Args:
        scores: log-odds of shape (..., n, n), NumPy or torch.
        rule: `"mean"`, `"von_neumann"`, `"copeland"` or `"smith"`.

    Returns:
        Indices of shape (...).

    Raises:
        ValueError: a matrix that is not skew-symmetric or not finite, or an unknown rule.

    Example:

    >>> int(select(np.array([[0.0, 0.1, 0.1], [-0.1, 0, 5], [-0.1, -5, 0]]), rule="copeland"))
    0
    """
    return ranking(scores, rule)[..., 0]
