"""Weights that wait on the CPU or the disk, and are brought where they are computed: texts are scored as ever."""

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model

from gpm_hf import GPMForPreference
from gpm_hf.scoring import PairCompletionScorer, RewardModelScorer
from tests.conftest import build_gpm
from tests.scoring.models import build_language_model, build_llama_classifier

LONG = "How do I bake bread? Mix flour, water, salt and yeast, let the dough rest, then bake it in a hot oven. " * 2
PROMPTS = ["What is the capital of France?", LONG]  # the second is worth being encoded once for all its responses
RESPONSES = [["Paris.", "A city on the river Seine", "Bake it in a hot oven"], ["Mix.", "Let it rest.", "Bake it."]]


@pytest.mark.parametrize("where", ["cpu", "disk", "embeddings"])
@pytest.mark.parametrize("backbone", ["llama", "gpt2"])
def test_offloaded_weights(tokenizer, tmp_path, where, backbone):
    model = build_gpm(backbone, embedding_dim=4, reward_head=True)
    expected = model.preference_scores(tokenizer, PROMPTS, RESPONSES)
    if where == "cpu":
        cpu_offload(model, execution_device=torch.device("cpu"))
    elif where == "disk":
        disk_offload(model, tmp_path, execution_device=torch.device("cpu"))
    else:
        embeddings = next(name for name, module in model.named_modules() if module is model.get_input_embeddings())
        rest = [name for name, _ in model.named_modules() if name and not list(model.get_submodule(name).children())]
        device_map = dict.fromkeys(rest, "cpu") | {embeddings: "disk"}
        dispatch_model(model, device_map, main_device="cpu", offload_dir=tmp_path)
    assert model.get_input_embeddings().weight.is_meta
    for found, right in zip(model.preference_scores(tokenizer, PROMPTS, RESPONSES), expected):
        assert torch.equal(found, right)
    assert model.rank(tokenizer, PROMPTS[0], RESPONSES[0]) == expected[0].mean(-1).argsort(descending=True).tolist()


def test_loaded_with_a_device_map(tokenizer, tmp_path):
    model = build_gpm(embedding_dim=4)
    expected = model.preference_scores(tokenizer, PROMPTS, RESPONSES)
    model.save_pretrained(tmp_path / "model")
    device_map = {"model.embed_tokens": "disk", "model.layers": "cpu", "model.norm": "disk", "embedding_head": "cpu"}
    device_map |= {"gate_head": "cpu", "model.rotary_emb": "cpu"}
    model = GPMForPreference.from_pretrained(
        tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offload"
    )
    assert model.get_input_embeddings().weight.is_meta
    for found, right in zip(model.preference_scores(tokenizer, PROMPTS, RESPONSES), expected):
        assert torch.equal(found, right)


def test_scorers_of_other_models(tokenizer):
    """A reward model, and a language model that answers A or B."""
    models = build_llama_classifier(pad_token_id=0), build_language_model()
    for scorer in (RewardModelScorer(models[0], tokenizer), PairCompletionScorer(models[1], tokenizer)):
        expected = scorer(PROMPTS[:1], RESPONSES[:1])
        cpu_offload(scorer.model, execution_device=torch.device("cpu"))
        assert torch.equal(scorer(PROMPTS[:1], RESPONSES[:1])[0], expected[0])
