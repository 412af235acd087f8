"""
The algebra of general preference scores (paper section 4): pure functions on embeddings and on score matrices.

Shape suffixes: K responses to one prompt, D = 2k embedding dimension, k blocks; `...` any batch dimensions.
"""

import torch


def pair_scores(first, second, scales=None, tau=1.0):
    """
    Log-odds that `first` is preferred to `second`: `<R D(x) v_i, v_j> / tau` (paper section 4, R has blocks
    [[0, -1], [1, 0]]), which spelled out is `sum_l lambda_l (v_i[2l] v_j[2l+1] - v_i[2l+1] v_j[2l]) / tau`. For
    embeddings of dimension 1 (Bradley-Terry) it is `(r_i - r_j) / tau`.

    Args:
        first (`torch.Tensor` of shape `(..., D)`): embeddings v_i.
        second (`torch.Tensor` of shape `(..., D)`): embeddings v_j.
        scales (`torch.Tensor` of shape `(..., k)`, *optional*): lambda(x); all ones when absent.
        tau (`float`, defaults to 1): temperature.

    Returns:
        `torch.Tensor` of shape `(...)`: log-odds; exchanging the arguments flips the sign exactly.

    Example:

    >>> pair_scores(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])).item()
    1.0
    """
    _check_embeddings(first, scales)
    if first.shape[-1] != second.shape[-1]:
        raise ValueError(f"Embeddings of dimensions {first.shape[-1]} and {second.shape[-1]} cannot be compared.")
    # One product per direction, subtracted: a - b and b - a are exact negatives in floating point.
    return (_half_scores(first, second, scales) - _half_scores(second, first, scales)) / tau


def preference_matrix(embeddings, scales=None, tau=1.0):
    """
    Log-odds of every response against every other: `S[i, j] = pair_scores(v_i, v_j)`, so P(i > j) = sigmoid(S[i, j]).

    Args:
        embeddings (`torch.Tensor` of shape `(..., K, D)`): one embedding per response.
        scales (`torch.Tensor` of shape `(..., k)`, *optional*): the prompt's scales; all ones when absent.
        tau (`float`, defaults to 1): temperature.

    Returns:
        `torch.Tensor` of shape `(..., K, K)`: log-odds; exactly skew-symmetric in floating point.

    Raises:
        ValueError: finite embeddings whose log-odds are beyond the type's largest number.

    Example:

    >>> preference_matrix(torch.tensor([[1.0], [3.0]]), tau=2.0)  # dimension 1: Bradley-Terry
    tensor([[ 0., -1.],
            [ 1.,  0.]])
    """
    _check_embeddings(embeddings, scales)
    scores = _matrix(embeddings, scales, tau)
    if torch.compiler.is_compiling() or bool(scores.isfinite().all()) or not bool(embeddings.isfinite().all()):
        return scores
    # Products that overflow need not have a difference that does.
    scores = _matrix(embeddings.double(), None if scales is None else scales.double(), tau).to(scores.dtype)
    if not bool(scores.isfinite().all()):
        raise ValueError(
            f"The log-odds are beyond what {scores.dtype} can hold, with embeddings of up to "
            f"{float(embeddings.abs().max()):.3g} and tau = {tau}: check the checkpoint and `tau`."
        )
    return scores


def unit_norm(embeddings):
    """
    Embeddings of L2 norm 1, however small or large they are; a zero stays zero.

    Args:
        embeddings (`torch.FloatTensor` of shape `(..., D)`): float32.

    Returns:
        `torch.FloatTensor` of the same shape.
    """
    # Squares of numbers under 1e-23 or over 1e19 are not float32 numbers. Divided by a power of two, which rounds
    # nothing, an embedding has a norm whatever its size: the bits of a float32's exponent are that power.
    peak = embeddings.detach().abs().amax(-1, keepdim=True)
    power = (peak.view(torch.int32) & 0x7F800000).view(torch.float32).clamp(2.0**-126, 2.0**126)
    return torch.nn.functional.normalize(embeddings / power, dim=-1)


def mean_scores(scores, include_self=True):
    """
    Mean log-odds of each response against the group, the paper's s_hat (equation 5.2).

    Args:
        scores (`torch.Tensor` of shape `(..., K, K)`): log-odds.
        include_self (`bool`, defaults to `True`): divide by K as the paper does (a response scores 0 against itself),
            or by K - 1.

    Returns:
        `torch.Tensor` of shape `(..., K)`: log-odds.
    """
    mean = scores.mean(-1)
    if include_self:
        return mean
    size = scores.shape[-1]
    if size < 2:
        raise ValueError("mean_scores(include_self=False) needs at least two responses: there is no other to compare.")
    return mean * (size / (size - 1))


def rank_responses(scores):
    """
    Responses from best to worst by mean score; equal responses keep their order.

    Args:
        scores (`torch.Tensor` of shape `(..., K, K)`): log-odds.

    Returns:
        `torch.Tensor` of shape `(..., K)`: indices.
    """
    return mean_scores(scores).argsort(dim=-1, descending=True, stable=True)


def condorcet_winner(scores):
    """
    Index of the response preferred to every other, -1 where there is none. (The model is shipped alone, so this is its
    own; for NumPy, and with a threshold for ties, see `gpm_hf.preference.condorcet_winner`.)

    Args:
        scores (`torch.Tensor` of shape `(..., K, K)`): log-odds.

    Returns:
        `torch.Tensor` of shape `(...)`: indices, or -1.
    """
    wins = (scores > 0).sum(-1)
    best, index = wins.max(-1)
    return torch.where(best == scores.shape[-1] - 1, index, -1)


def has_cycle(scores):
    """
    Whether three responses beat each other in a ring, i > j > l > i. Without ties every preference cycle, however
    long, contains such a ring.

    Args:
        scores (`torch.Tensor` of shape `(..., K, K)`): log-odds.

    Returns:
        `torch.Tensor` of shape `(...)` and type bool.
    """
    beats = (scores > 0).to(torch.float32)
    # (beats @ beats)[i, l] counts the paths i > j > l; one that returns by l > i closes a ring.
    return ((beats @ beats) * beats.transpose(-1, -2)).sum((-1, -2)) > 0


def _matrix(embeddings, scales, tau):
    if scales is not None:
        scales = scales[..., None, None, :]
    half = _half_scores(embeddings[..., :, None, :], embeddings[..., None, :, :], scales)
    return (half - half.transpose(-1, -2)) / tau


def _half_scores(first, second, scales):
    """`sum_l lambda_l v_i[2l] v_j[2l+1]`, or r_i at dimension 1: half of a score, the other has i and j exchanged."""
    if first.shape[-1] == 1:
        return (first + torch.zeros_like(second))[..., 0]
    even = first[..., 0::2] if scales is None else first[..., 0::2] * scales
    # An elementwise product, not a matrix product: the blocks are few, and no autocast or TF32 mode touches it.
    return (even * second[..., 1::2]).sum(-1)


def _check_embeddings(embeddings, scales):
    dim = embeddings.shape[-1]
    if dim != 1 and dim % 2:
        raise ValueError(f"Embeddings have dimension {dim}; it must be even, or 1 for Bradley-Terry rewards.")
    if scales is not None and scales.shape[-1] * 2 != dim:
        raise ValueError(
            f"Embeddings of dimension {dim} have {dim // 2} two-dimensional blocks, but scales of shape "
            f"{tuple(scales.shape)} were given; one scale per block is needed."
        )
