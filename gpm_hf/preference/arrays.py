"""NumPy or torch in, the same kind out; what every function of this room asks of a preference matrix."""

import numpy as np
import torch

# Skew-symmetry is asked for up to this, relative to the largest entry: log-odds computed as logit(p) and logit(1 - p)
# are not exact negatives in float64. Coarser types are given a few of their own units.
RELATIVE_TOLERANCE = 1e-8
UNITS_IN_LAST_PLACE = 8


def as_array(values) -> np.ndarray:
    """The values of a NumPy array, a torch tensor (any device, gradient cut) or nested lists, as a NumPy array."""
    if not isinstance(values, torch.Tensor):
        return np.asarray(values)
    tensor = values.detach().cpu().resolve_conj().resolve_neg()
    # NumPy has no bfloat16; float32 holds its values exactly.
    return tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def like(array, template):
    """
    A result in the kind of the input: a torch tensor on the same device, or a NumPy array (a NumPy scalar where it has
    no axes). Real and complex numbers take the input's precision (double for integers), indices and masks keep theirs.
    """
    array = np.asarray(array)
    if isinstance(template, torch.Tensor):
        result = torch.from_numpy(np.array(array)).to(template.device)
        if array.dtype.kind not in "fc":
            return result
        dtype = template.real.dtype if template.is_floating_point() or template.is_complex() else torch.float64
        if array.dtype.kind == "c":
            dtype = torch.complex128 if dtype == torch.float64 else torch.complex64
        return result.to(dtype)
    given = np.asarray(template).real.dtype
    if given.kind == "f" and given.itemsize < 8 and array.dtype.kind in "fc":
        array = array.astype(given if array.dtype.kind == "f" else np.complex64)
    return array[()]


def read_scores(scores) -> np.ndarray:
    """
    Checks a preference matrix and returns it in float64, exactly skew-symmetric.

    Args:
        scores: log-odds of shape (..., n, n), NumPy, torch or nested lists.

    Returns:
        The skew-symmetric part `(S - S^T) / 2`, which is S itself, bit for bit, where S is exactly skew-symmetric.

    Raises:
        ValueError: not square, empty, complex, not finite, or not skew-symmetric beyond rounding; the message names
            the offending entry.
    """
    given = as_array(scores)
    if given.ndim < 2 or given.shape[-1] != given.shape[-2] or given.size == 0:
        raise ValueError(f"A preference matrix is square, of shape (..., n, n) and not empty; got {given.shape}.")
    if given.dtype.kind == "c":
        raise ValueError(f"A preference matrix holds real log-odds; got {given.dtype}.")
    matrix = given.astype(np.float64)
    if not np.isfinite(matrix).all():
        place = tuple(np.argwhere(~np.isfinite(matrix))[0].tolist())
        raise ValueError(f"The preference matrix has the non-finite entry {matrix[place]} at {place}.")
    half = matrix / 2  # halved first: the difference of two huge entries stays finite
    violation = np.abs(half + half.swapaxes(-1, -2)) * 2
    largest = np.abs(matrix).max((-1, -2), keepdims=True)
    if (violation > max(RELATIVE_TOLERANCE, UNITS_IN_LAST_PLACE * _unit(scores)) * largest).any():
        place = tuple(map(int, np.unravel_index(violation.argmax(), violation.shape)))
        mirror = (*place[:-2], place[-1], place[-2])
        raise ValueError(
            f"The preference matrix is not skew-symmetric: S{list(place)} + S{list(mirror)} = {matrix[place]:.6g} + "
            f"{matrix[mirror]:.6g}, the largest violation; log-odds of i over j and of j over i are opposite numbers."
        )
    # Half of the smallest subnormal is 0: entries that are exact opposites stay as they are.
    return np.where(matrix == -matrix.swapaxes(-1, -2), matrix, half - half.swapaxes(-1, -2))


def read_strategy(strategy, size: int) -> np.ndarray:
    """
    Checks mixed strategies of shape (..., n) and returns them in float64.

    Raises:
        ValueError: not of length `size`, a negative or non-finite probability, or a sum other than 1 beyond rounding.
    """
    values = as_array(strategy).astype(np.float64)
    if values.ndim < 1 or values.shape[-1] != size:
        raise ValueError(f"A mixed strategy over {size} responses has the shape (..., {size}); got {values.shape}.")
    tolerance = 1e-6 + size * UNITS_IN_LAST_PLACE * _unit(strategy)
    # Written so that NaN fails.
    if not ((values >= -tolerance).all() and (np.abs(values.sum(-1) - 1) <= tolerance).all()):
        raise ValueError("A mixed strategy is a probability vector: entries at least 0 that sum to 1.")
    return values


def beats(matrix: np.ndarray, min_score: float) -> np.ndarray:
    """Whether i is preferred to j by more than `min_score` log-odds; at or below it, the two tie."""
    if not min_score >= 0:
        raise ValueError(f"min_score={min_score}: a threshold below zero would have i and j beat each other.")
    return matrix > min_score


def sigmoid(log_odds) -> np.ndarray:
    """Probabilities of log-odds, an array of any shape, without an overflow."""
    return np.exp(-np.logaddexp(0, -np.asarray(log_odds)))


def _unit(values) -> float:
    """The relative spacing of the floating type that the values came in."""
    if isinstance(values, torch.Tensor):
        return torch.finfo(values.dtype).eps if values.is_floating_point() else 0.0
    dtype = np.asarray(values).dtype
    return float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0
