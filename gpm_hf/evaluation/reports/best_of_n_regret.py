"""Choosing the best of n responses by the preferences among them, and what the choice loses."""

from itertools import combinations
from math import comb

import numpy as np

from gpm_hf.preference import condorcet_winner, decompose, von_neumann_winner

RULES = ("mean", "von_neumann")
# Beyond this an exact expectation over all subsets takes too long.
_MOST_SUBSETS = 20_000


def choice(scores: np.ndarray, rule: str = "mean") -> np.ndarray:
    """
    With what probability each response is chosen.

    - `"mean"`: the response with the largest mean log-odds against the group; equals share the choice.
    - `"von_neumann"`: drawn from the von Neumann winner (needs SciPy where no response beats
      every other one).

    For a scalar reward both are its best response: S_ij = (r_i - r_j) / tau has the mean (r_i - mean r) / tau. They
    differ where preferences are cyclic, and where one response is better than all others by little but another is
    better than some by much.

    Args:
        scores: log-odds of shape (K, K), skew-symmetric.
        rule: `"mean"` or `"von_neumann"`.

    Returns:
        Probabilities of shape (K,).

    Raises:
        ValueError: an unknown rule, or a matrix that is not skew-symmetric.
    """
    if rule == "mean":
        rating = decompose(scores).rating
        # Mean log-odds of equal responses differ by rounding.
        best = rating >= rating.max() - 1e-9 * max(1.0, float(np.abs(scores).max()))
        return best / best.sum()
    if rule == "von_neumann":
        # Who beats every other one is the only winner: no linear program is needed.
        best = int(condorcet_winner(scores))
        return von_neumann_winner(scores) if best < 0 else np.eye(len(scores))[best]
    raise ValueError(f"rule={rule!r}: choose one of {', '.join(RULES)}.")


def best_of_n_regret(scores: np.ndarray, quality: np.ndarray, n: int | None = None, rule: str = "mean") -> float:
    """
    Best-of-n regret: by how much the best quality among n responses exceeds the expected quality of the chosen one,
    averaged over all sets of n of the K responses (exactly, not by sampling).

    Args:
        scores: log-odds of shape (K, K), skew-symmetric.
        quality: shape (K,): what the choice should maximise; 1 for correct and 0 for wrong answers.
        n: responses to choose among; `None` for all K, where the regret of a 0-1 quality is 1 minus the accuracy.
        rule: see [`choice`].

    Returns:
        The regret, at least 0, in the unit of `quality`.

    Raises:
        ValueError: n not in 1..K, more than 20,000 sets of n, or an unknown rule.
    """
    size = len(scores)
    n = size if n is None else n
    if not 1 <= n <= size:
        raise ValueError(f"n={n}: there are {size} responses to choose among.")
    if comb(size, n) > _MOST_SUBSETS:
        raise ValueError(f"There are {comb(size, n)} sets of {n} out of {size} responses, too many to average over.")
    quality = np.asarray(quality, dtype=float)
    regrets = []
    for members in combinations(range(size), n):
        chosen = choice(scores[np.ix_(members, members)], rule)
        own = quality[list(members)]
        regrets.append(own.max() - chosen @ own)
    return float(np.mean(regrets))
