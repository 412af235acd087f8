"""The authors' checkpoint layout: tiny checkpoints in it, with the numbers that their program gave."""

import json

import numpy as np
import pytest
import torch

from gpm_hf import GPMConfig, GPMForPreference, preference_matrix
from gpm_hf.modeling import encode_group

CHECKPOINTS = ["authors-gemma-dim2-nogate", "authors-gemma-dim6-gate", "authors-llama3-bt", "authors-llama3-dim4-gate"]
NAMES = {"value_head.weight": "embedding_head.weight", "prompt_head.weight": "gate_head.weight"}


def load_reference(folder, prompt_format="reference"):
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoTokenizer

    expected = json.loads((folder / "expected.json").read_text())
    config = GPMConfig(
        text_config=AutoConfig.from_pretrained(folder),
        embedding_dim=expected["dim"],
        scale_gate=expected["scale_gate"],
        normalize_embeddings=expected["l2_normalized"],
        tau=expected["tau"],
        prompt_format=prompt_format,
    )
    model = GPMForPreference(config).eval()
    weights = {
        NAMES.get(name, name): value
        for name, value in load_file(folder / "model.safetensors").items()
        if name != "lm_head.weight"
    }
    model.load_state_dict(weights, strict=True)
    return model, AutoTokenizer.from_pretrained(folder), expected


@pytest.fixture(scope="module")
def loaded():
    return {}


@pytest.fixture(params=CHECKPOINTS)
def reference(request, shared, loaded):
    if request.param not in loaded:
        loaded[request.param] = load_reference(shared / "fixtures" / request.param)
    return loaded[request.param]


def assert_agrees(chat, embeddings, scales):
    if "rewards" in chat:
        np.testing.assert_allclose(embeddings.numpy()[:, 0], chat["rewards"], rtol=1e-6, atol=1e-5)
    else:
        np.testing.assert_allclose(embeddings.numpy(), chat["embeddings"], atol=1e-5)
        scores = preference_matrix(embeddings, scales, tau=1.0)
        np.testing.assert_allclose(scores.numpy(), chat["scores"], atol=1e-5)
    if "scales" in chat:
        np.testing.assert_allclose(scales.numpy(), chat["scales"], atol=1e-5)
    else:
        assert scales is None


def test_each_chat(reference):
    model, tokenizer, expected = reference
    for chat in expected["chats"]:
        assert_agrees(chat, *model.embed(tokenizer, chat["prompt"], chat["responses"], batch_size=1))


@pytest.mark.parametrize("batch_size", [2, 5, 16])
def test_all_chats_in_batches(reference, batch_size):
    model, tokenizer, expected = reference
    groups = [encode_group(tokenizer, chat["prompt"], chat["responses"], "reference") for chat in expected["chats"]]
    for chat, result in zip(expected["chats"], model.embed_groups(groups, batch_size), strict=True):
        assert_agrees(chat, *result)


def test_log_odds_are_their_scores_over_tau(reference):
    model, tokenizer, expected = reference
    chats = expected["chats"]
    scores = model.preference_scores(
        tokenizer, [chat["prompt"] for chat in chats], [chat["responses"] for chat in chats]
    )
    for chat, one in zip(chats, scores, strict=True):
        if "rewards" in chat:
            raw = [[first - second for second in chat["rewards"]] for first in chat["rewards"]]
        else:
            raw = chat["scores"]
        np.testing.assert_allclose(one.numpy(), np.array(raw) / 0.1, atol=2e-4)


def test_clean_format_gives_other_numbers(shared):
    """Else the tests above would not show that the reference format is what makes the numbers agree."""
    model, tokenizer, expected = load_reference(shared / "fixtures/authors-llama3-dim4-gate", prompt_format="clean")
    for chat in expected["chats"]:
        embeddings, scales = model.embed(tokenizer, chat["prompt"], chat["responses"])
        assert np.abs(embeddings.numpy() - np.array(chat["embeddings"])).max() > 1e-3
        assert np.abs(scales.numpy() - np.array(chat["scales"])).max() > 1e-4


def test_format_survives_saving(reference, tmp_path):
    model, tokenizer, expected = reference
    model.save_pretrained(tmp_path)
    again = GPMForPreference.from_pretrained(tmp_path, dtype=torch.float32)
    assert again.config.prompt_format == "reference"
    chat = expected["chats"][0]
    assert_agrees(chat, *again.embed(tokenizer, chat["prompt"], chat["responses"]))
