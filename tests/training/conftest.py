"""Fixtures of the trainers' tests."""

import pytest
import torch


@pytest.fixture
def double(monkeypatch):
    """
    Trainers in float64, where a formula written out by hand leaves no room for rounding: numbers without a type are
    float64, new models too, and TRL's fused head, which is float32 whatever it is given, is plain torch.
    """
    from trl.trainer import utils

    def log_probs_and_entropy(hidden, weight, bias, labels, temperature, chunk, softcap, scale, outputs):
        assert bias is None and softcap is None and scale == 1.0
        log_probs = (hidden @ weight.T / temperature).log_softmax(-1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        return log_probs.gather(-1, labels[:, None])[:, 0], entropy, None, None, None

    monkeypatch.setattr(utils._ChunkedLogProbFunction, "apply", log_probs_and_entropy)
    torch.set_default_dtype(torch.float64)
    yield torch.float64
    torch.set_default_dtype(torch.float32)
