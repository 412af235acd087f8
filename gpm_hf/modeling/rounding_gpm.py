"""
How far log-odds move with what else is in the batch: a backbone's kernels sum in another order for another shape, and
division by tau multiplies the rounding of its type.
"""

from itertools import pairwise

# Raw scores of unit-norm embeddings move by so much. Measured on tiny Llama, Qwen3 and GPT-2 backbones and on
# SmolLM2-135M, groups alone, together, one sequence at a time and behind a shared prompt: at most 3e-6, 0.0054 and
# 0.024, to which twice and more is added.
_MOVES = {"float32": 2e-5, "float16": 0.0125, "bfloat16": 0.05}


def rounding_bound(config, dtype, scores=None):
    """
    A measured bound, not a proven one, of how far a log-odds moves with the batch.

    Args:
        config ([`GPMConfig`]): the model's configuration.
        dtype (`torch.dtype` or `str`): what the backbone computes in.
        scores (`torch.Tensor` of shape `(K, K)`, *optional*): log-odds, whose size counts where they have no limit:
            rewards, embeddings without unit norm, scales that do not sum to 1.

    Returns:
        `float`: log-odds: 0.0002 in float32, 0.125 in float16 and 0.5 in bfloat16 with unit norm and tau = 0.1. `None`
        without a limit and without `scores`, and for a type in which nothing was measured.
    """
    moves = _MOVES.get(str(dtype).removeprefix("torch."))
    sums_to_one = not config.scale_gate or config.gate_activation == "softmax"
    has_limit = config.normalize_embeddings and sums_to_one and not config.reward_head
    if moves is None or (scores is None and not has_limit):
        return None
    size = 0.0 if scores is None else float(scores.abs().max())
    return moves * max(size, 1 / config.tau if config.normalize_embeddings else 0.0)


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
