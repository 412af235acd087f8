"""Language models whose weights have other names on disk than in memory become preference models whole."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, conversion_mapping
from transformers.core_model_loading import WeightRenaming

from gpm_hf.modeling import GPMForPreference
from tests.conftest import save_backbone

# Rules as transformers writes them for whole language models, and what makes a checkpoint of the kind.
KINDS = {
    "another prefix": (
        [(r"^backbone\.", "model."), (r"\.embeddings\.", ".embed_tokens.")],
        [("model.", "backbone."), (".embed_tokens.", ".embeddings.")],
    ),
    "the whole name": (
        [(r"^model\.word_embeddings\.", "model.embed_tokens.")],
        [("model.embed_tokens.", "model.word_embeddings.")],
    ),
    "one more level": (
        [(r"model\.llm\.", "model."), (r"emb\.weight", "embed_tokens.weight")],
        [("model.", "model.llm."), ("embed_tokens.weight", "emb.weight")],
    ),
    "a rule that would match its own result": ([(r"attn\.", "self_attn.")], [("self_attn.", "attn.")]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_weights_are_read_and_come_back(monkeypatch, tmp_path, kind):
    rules, renamings = KINDS[kind]
    folder = save_backbone(tmp_path / "backbone")
    expected = AutoModelForCausalLM.from_pretrained(folder).model.state_dict()
    weights = load_file(f"{folder}/model.safetensors")
    for old, new in renamings:
        weights = {name.replace(old, new, 1): value for name, value in weights.items()}
    save_file(weights, f"{folder}/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="not a complete checkpoint"):
        GPMForPreference.from_backbone(folder)

    conversion_mapping.get_checkpoint_conversion_mapping("llama")  # fills the table
    known = {
        **conversion_mapping._checkpoint_conversion_mapping_cache,
        "llama": [WeightRenaming(*one) for one in rules],
    }
    monkeypatch.setattr(conversion_mapping, "_checkpoint_conversion_mapping_cache", known)
    model = GPMForPreference.from_backbone(folder, embedding_dim=4)
    found = model.model.state_dict()
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)
    model.save_pretrained(tmp_path / "saved")
    again = GPMForPreference.from_pretrained(tmp_path / "saved").state_dict()
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())
