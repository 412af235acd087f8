"""The linear heads on top of the backbone."""

import torch
from torch import nn

from .scores_gpm import unit_norm


class Float32Linear(nn.Linear):
    """
    A bias-free linear map computed in float32 whatever the backbone's type, also under autocast: a rounding error of a
    bfloat16 embedding, divided by tau = 0.1, is a visible error of the log-odds.
    """

    def __init__(self, in_features, out_features):
        super().__init__(in_features, out_features, bias=False, dtype=torch.float32)

    def forward(self, states):
        with torch.autocast(device_type=states.device.type, enabled=False):
            states, weight = states.float(), self.weight.float()
            if self.out_features == 1:
                # How a matrix times one vector is rounded depends on where the vector lies in memory: a saved model
                # would not score as itself to the last bit.
                return (states * weight).sum(-1, keepdim=True)
            return nn.functional.linear(states, weight)


def embeddings_of_heads(config, vectors, rewards=None):
    """
    Embeddings out of what the heads give.

    Args:
        config: whatever has the options `normalize_embeddings` and `reward_head` of [`GPMConfig`].
        vectors (`torch.FloatTensor` of shape `(..., embedding_dim)`): the embedding head's.
        rewards (`torch.FloatTensor` of shape `(..., 1)`, *optional*): the reward head's, where there is one.

    Returns:
        `torch.FloatTensor` of shape `(..., output_dim)`.
    """
    if config.normalize_embeddings:
        vectors = unit_norm(vectors)
    if not config.reward_head:
        return vectors
    # <R (r_i, 1), (r_j, 1)> = r_i - r_j: rewards are one block more, of scale 1, and all that gathers, compares or
    # draws embeddings holds for them too.
    return torch.cat([vectors, rewards, torch.ones_like(rewards)], -1)


def scales_of_gate(config, gate):
    """
    The scales lambda(x) out of what the gate gives.

    Args:
        config: whatever has the options `gate_activation` and `reward_head` of [`GPMConfig`].
        gate (`torch.FloatTensor` of shape `(..., embedding_dim / 2)`): at the prompts' last tokens.

    Returns:
        `torch.FloatTensor` of shape `(..., output_dim / 2)`, 1 for the block of a reward head.
    """
    scales = gate.softmax(-1) if config.gate_activation == "softmax" else nn.functional.softplus(gate)
    return torch.cat([scales, torch.ones_like(scales[..., :1])], -1) if config.reward_head else scales
