"""The linear heads on top of the backbone."""

import torch
from torch import nn


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
