"""
Packed rows by FlashAttention and FlexAttention, whose kernels (and FlexAttention's gradients) need a GPU. Here the
calls that reach them are answered by hand-written attention on the CPU: what is tested is what they are asked.
"""

import copy
import math

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention
from transformers import modeling_flash_attention_utils as flash
from transformers.integrations import flex_attention as flex

from gpm_hf import GPMConfig, GPMForPreference
from gpm_hf.modeling import packing_obstacle
from tests.conftest import backbone_config, draw_gate
from tests.modeling.test_packing import (
    SEEDS,
    assert_same_gradients,
    build,
    draw,
    gradients,
    pack,
    separate_states,
)

BACKBONES = ["llama", "mistral", "gemma2", "gemma3 hybrid", "qwen3 hybrid"]


def softmax_attention(query, key, value, seen, scale, softcap=None):
    """Of (heads, length, size) with fewer heads of keys; `seen` of shape (queries, keys)."""
    key, value = (states.repeat_interleave(len(query) // len(states), dim=0) for states in (key, value))
    scores = query @ key.transpose(1, 2) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    return scores.masked_fill(~seen, -math.inf).softmax(-1) @ value


class FlashByHand:
    """The two functions of the flash_attn library, with its argument names; a window includes both its ends."""

    def __init__(self):
        self.calls = []

    def one(self, query, key, value, scale, causal, window, softcap):
        """Sequences of shape (length, heads, size), of which the queries are the last."""
        assert causal
        place = torch.arange(len(key) - len(query), len(key))[:, None]
        seen = torch.arange(len(key)) <= place
        if window[0] >= 0:
            seen &= place - torch.arange(len(key)) <= window[0]
        states = (states.transpose(0, 1) for states in (query, key, value))
        return softmax_attention(*states, seen, scale, softcap).transpose(0, 1)

    def flash_attn_func(
        self, q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0
    ):
        self.calls.append(("whole", [k.shape[1]] * len(k)))
        scale = softmax_scale or q.shape[-1] ** -0.5
        return torch.stack(
            [self.one(*states, scale, causal, window_size, softcap) for states in zip(q, k, v, strict=True)]
        )

    def flash_attn_varlen_func(
        self,
        q,
        k,
        v,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        dropout_p=0.0,
        softmax_scale=None,
        causal=False,
        window_size=(-1, -1),
        softcap=0.0,
    ):
        assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
        assert (max_seqlen_q, max_seqlen_k) == (cu_seqlens_q.diff().max(), cu_seqlens_k.diff().max())
        assert (len(q), len(k), len(v)) == (cu_seqlens_q[-1], cu_seqlens_k[-1], cu_seqlens_k[-1])
        self.calls.append(("varlen", cu_seqlens_k.diff().tolist()))
        scale = softmax_scale or q.shape[-1] ** -0.5
        queries = q.split(cu_seqlens_q.diff().tolist())
        keys, values = (states.split(cu_seqlens_k.diff().tolist()) for states in (k, v))
        parts = zip(queries, keys, values, strict=True)
        return torch.cat([self.one(*part, scale, causal, window_size, softcap) for part in parts])


class FlexByHand:
    """`flex_attention` with its gradients: every pair of tokens is asked."""

    def __init__(self):
        self.calls = []

    def __call__(self, query, key, value, score_mod, block_mask, scale, **kwargs):
        self.calls.append(block_mask)
        queries, keys = torch.arange(query.shape[2])[:, None], torch.arange(key.shape[2])
        softcap = dict(zip(score_mod.__code__.co_freevars, score_mod.__closure__, strict=True))["softcap"]
        rows = []
        for row in range(len(query)):
            seen = block_mask.mask_mod(torch.tensor(row), torch.tensor(0), queries, keys)
            rows.append(softmax_attention(query[row], key[row], value[row], seen, scale, softcap.cell_contents))
        return torch.stack(rows)


@pytest.fixture(params=["flash_attention_2", "flash_attention_3", "flex_attention"])
def kernel(request, monkeypatch):
    if request.param == "flex_attention":
        by_hand = FlexByHand()
        monkeypatch.setattr(flex, "compile_friendly_flex_attention", by_hand)
        return request.param, by_hand
    by_hand, asked = FlashByHand(), []

    def library(name, *_, **__):
        asked.append(name)
        assert name == request.param
        functions = by_hand.flash_attn_func, by_hand.flash_attn_varlen_func, None
        return *functions, flash._pad_input, flash._unpad_input

    monkeypatch.setattr(flash, "_lazy_imports", library)
    for name in ("_loaded_implementation", "_flash_fn", "_flash_varlen_fn", "_process_flash_kwargs_fn"):
        monkeypatch.setattr(flash, name, None)
    return request.param, by_hand


def build_pair(architecture, attention):
    """The same model twice, by its usual attention and by another."""
    if architecture == "gemma2":
        torch.manual_seed(0)
        options = {"attn_logit_softcapping": 2.0, "sliding_window": 16}
        config = GPMConfig(text_config=backbone_config("gemma2", **options), embedding_dim=4)
        original = draw_gate(GPMForPreference(config)).eval()
    else:
        original = build(architecture)
    model = copy.deepcopy(original)
    # As `from_pretrained(attn_implementation=...)` does, which would look for a GPU.
    model.config.text_config._attn_implementation = attention
    assert model.model.config._attn_implementation == attention != original.model.config._attn_implementation
    return original, model


@pytest.mark.parametrize("architecture", BACKBONES)
def test_states_and_gradients_are_those_of_separate_sequences(architecture, kernel):
    attention, by_hand = kernel
    original, model = build_pair(architecture, attention)
    assert packing_obstacle(model) is None
    layers = model.config.text_config.num_hidden_layers
    for seed in SEEDS:
        groups = draw(seed)
        expected = separate_states(original, groups)
        by_hand.calls.clear()
        output = model(**pack(groups, side="left" if seed % 2 else "right"))
        assert len(by_hand.calls) == layers, "each layer attends once"
        for found, wanted in zip((output.response_states, output.prompt_states), expected, strict=True):
            assert torch.allclose(found, wanted, atol=3e-5, rtol=1e-5)
        found = gradients(model, (output.response_states, output.prompt_states))
        assert_same_gradients(found, gradients(original, expected))


@pytest.mark.parametrize("architecture", ["llama", "gemma3 hybrid"])
def test_gradient_checkpointing(architecture, kernel):
    attention, by_hand = kernel
    original, model = build_pair(architecture, attention)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    groups = draw(2)
    output = model(**pack(groups))
    before = len(by_hand.calls)
    found = gradients(model, (output.response_states, output.prompt_states))
    assert len(by_hand.calls) == 2 * before, "layers were run a second time"
    assert_same_gradients(found, gradients(original, separate_states(original, groups)))


@pytest.mark.parametrize("architecture", BACKBONES)
def test_separate_rows_before_and_after_packed_ones(architecture, kernel):
    attention, by_hand = kernel
    if attention == "flex_attention":
        pytest.skip("transformers compiles the masks of separate rows, which needs a compiler")
    original, model = build_pair(architecture, attention)
    sequences = [prompt + response for prompt, responses in draw(2) for response in responses]
    length = max(map(len, sequences))
    batch = {
        "input_ids": torch.tensor([ids + [7] * (length - len(ids)) for ids in sequences]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (length - len(ids)) for ids in sequences]),
        "prompt_lengths": torch.tensor([len(prompt) for prompt, responses in draw(2) for _ in responses]),
    }
    before = model(**batch)
    assert by_hand.calls[-1] == ("varlen", [len(ids) for ids in sequences]), "no padding is attended"
    model(**pack(draw(0)))
    assert by_hand.calls[-1] == (
        "varlen",
        [
            length
            for prompt, responses in draw(0)
            for length in (len(prompt), *(len(prompt) + len(response) for response in responses))
        ],
    )
    after = model(**batch)
    assert by_hand.calls[-1] == ("varlen", [len(ids) for ids in sequences])
    assert torch.equal(before.embeddings, after.embeddings) and torch.equal(before.scales, after.scales)
    assert torch.allclose(after.embeddings, original(**batch).embeddings, atol=1e-5)
    whole = {"input_ids": batch["input_ids"][:, :5], "prompt_lengths": torch.full((len(sequences),), 2)}
    assert torch.allclose(model(**whole).embeddings, original(**whole).embeddings, atol=1e-5)
    assert by_hand.calls[-1][0] == "whole"


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("architecture", BACKBONES)
def test_the_flex_kernel_itself(architecture, monkeypatch):
    """Forward only, and not compiled: it skips blocks of 128 tokens as the compiled one does."""
    skipped = []

    def eager(query, key, value, training=False, **kwargs):
        skipped.append(kwargs["block_mask"].sparsity())
        return flex_attention(query, key, value, **kwargs)

    monkeypatch.setattr(flex, "compile_friendly_flex_attention", eager)
    original, model = build_pair(architecture, "flex_attention")
    generator = torch.Generator().manual_seed(0)

    def ids(length):
        return torch.randint(3, 400, (length,), generator=generator).tolist()

    groups = [(ids(130), [ids(140), ids(20)]), (ids(40), [ids(3), ids(150)])]
    with torch.no_grad():
        output = model(**pack(groups))
        expected = separate_states(original, groups)
    for found, wanted in zip((output.response_states, output.prompt_states), expected, strict=True):
        assert torch.allclose(found, wanted, atol=3e-5, rtol=1e-5)
    assert min(skipped) > 40, "blocks above the diagonal and of other rows"


def test_a_window_that_the_configuration_does_not_name(kernel):
    """FlashAttention is told the window by the layer; masks are made before."""
    attention, _ = kernel
    original, model = build_pair("qwen3 hybrid", attention)
    model.model.layers[1].self_attn.sliding_window = original.model.layers[1].self_attn.sliding_window = 8
    if attention == "flex_attention":
        with pytest.raises(ValueError, match="window 8, which the backbone's configuration does not name"):
            model(**pack(draw(0)))
    else:
        assert model(**pack(draw(0))).embeddings.isfinite().all()
