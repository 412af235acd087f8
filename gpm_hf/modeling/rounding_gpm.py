"""
How far log-odds move with what else is in the batch: a backbone's kernels sum in another order for another shape, and
division by tau multiplies the rounding of its type.
"""

from itertools import pairwise

# Raw scores of unit-norm embeddings move by so much. The largest that was seen, of a group alone, among others, one
# sequence at a time and behind a shared prompt, times tau = 0.1: 4e-6 in float32 and 0.058 in bfloat16 on SmolLM2-135M
# with trained heads (mean 0.016); 3e-6, 0.0054 and 0.024 on two-layer models; on a GPU, with random weights in 30
# layers, which amplify rounding more than trained ones, 1.8e-5, 0.0088 and 0.12.
_MOVES = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.15}


def rounding_bound(config, dtype):
    """
    How far a log-odds moves with the batch at most, as far as was measured: no proof.

    Args:
        config ([`GPMConfig`]): the model's configuration.
        dtype (`torch.dtype` or `str`): what the backbone computes in.

    Returns:
        `float`: log-odds: 0.001 in float32, 0.2 in float16 and 1.5 in bfloat16 at tau = 0.1. `None` where raw scores
        have no limit (rewards, embeddings without unit norm, scales that do not sum to 1), and for a type in which
        nothing was measured.
    """
    moves = _MOVES.get(str(dtype).removeprefix("torch."))
    sums_to_one = not config.scale_gate or config.gate_activation == "softmax"
    if moves is None or not config.normalize_embeddings or not sums_to_one or config.reward_head:
        return None
    return moves / config.tau


def raw_moves(dtype):
    """How far raw scores (`float`) of unit-norm embeddings move in a type at most, as far as was measured."""
    moves = _MOVES.get(str(dtype).removeprefix("torch."))
    if moves is None:
        raise ValueError(f"Nothing was measured of log-odds in {dtype}: use float32, bfloat16 or float16.")
    return moves


def within_rounding(mean_scores, bound):
    """
    Neighbours in the ranking that are closer than rounding can tell.

    Args:
        mean_scores (`torch.Tensor` of shape `(K,)`): mean log-odds.
        bound (`float` or `None`): see [`rounding_bound`].

    Returns:
        `list[list[int]]`: pairs of indices, the better one first; equal responses are not rounding's doing.
    """
    if bound is None:
        return []
    order = mean_scores.argsort(descending=True, stable=True).tolist()
    values = mean_scores.tolist()
    return [[a, b] for a, b in pairwise(order) if 0 < values[a] - values[b] <= bound]
