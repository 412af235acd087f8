"""Win rates that do not count length: the regression of length-controlled AlpacaEval on any prompts."""

import numpy as np

from gpm_hf.preference.arrays import sigmoid


def length_controlled_win_rate(
    probabilities: np.ndarray, lengths: np.ndarray, baseline_lengths: np.ndarray
) -> float | None:
    """
    The win rate that a policy would have if its answers were as long as the baseline's, after Dubois et al., "Length-
    Controlled AlpacaEval" (2024): the logistic regression

        P(answer i preferred to the baseline's) = sigmoid(theta + phi * tanh(d_i / std(d))),

    d_i being the difference in length, is fitted to the probabilities, and the result is sigmoid(theta). It is the
    paper's regression without the term for an instruction's difficulty, which is known for AlpacaEval's own 805
    instructions alone: the formula of `length_controlled_minimal` in the package `alpaca_eval`. The fit is another:
    plain maximum likelihood. The package's has an L1 penalty, whose strength it chooses by cross-validation, and which
    may shrink theta to 0 on few prompts, a win rate of exactly 50%.

    Args:
        probabilities: shape (N,), that the policy's answer is preferred.
        lengths, baseline_lengths: shape (N,), in characters.

    Returns:
        The win rate; `None` where the answers do not determine it: d is the same everywhere but not 0, or the
        probabilities are 0 and 1 and length tells them apart.

    Raises:
        ImportError: SciPy is not installed.

    Example:

    >>> half = np.full(4, 0.5)
    >>> length_controlled_win_rate(half, np.array([9, 5, 7, 2]), np.array([3, 5, 1, 8]))
    0.5
    """
    try:
        from scipy.optimize import minimize
    except ImportError as error:
        raise ImportError("Length control needs SciPy: pip install 'gpm-hf[eval]'.") from error
    probabilities = np.asarray(probabilities, float)
    difference = np.asarray(lengths, float) - np.asarray(baseline_lengths, float)
    if not difference.any():
        return float(probabilities.mean())
    spread = difference.std(ddof=1) if len(difference) > 1 else 0.0
    if spread == 0:
        return None
    if np.ptp(probabilities) == 0:
        return float(probabilities[0])
    features = np.column_stack([np.ones(len(difference)), np.tanh(difference / spread)])

    def loss(weights: np.ndarray) -> float:
        logits = features @ weights
        return float(np.mean(np.logaddexp(0, logits) - probabilities * logits))

    def gradient(weights: np.ndarray) -> np.ndarray:
        return features.T @ (sigmoid(features @ weights) - probabilities) / len(features)

    def hessian(weights: np.ndarray) -> np.ndarray:
        chance = sigmoid(features @ weights)
        return (features.T * (chance * (1 - chance))) @ features / len(features)

    found = minimize(loss, np.zeros(2), jac=gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-9})
    # Where the maximum lies at infinity the weights run away until the gradient vanishes.
    return None if np.abs(found.x).max() > 15 else float(sigmoid(found.x[0]))
