"""Any method of PEFT: its own default modules for the backbone, the heads beside them, or a sentence that says no."""

import copy

import peft
import pytest
import torch

from tests.conftest import build_gpm, build_tokenizer, save_backbone
from tests.training.test_reward_trainer import make_trainer

# hidden_size 32, head_dim 8, four heads of which two for keys and values, two layers.
QUERY_AND_VALUE = 2 * ((32 + 32) + (32 + 16))
QUESTION = ("Question 1?", ["The answer is red.", "It may be green.", "I do not know."])
METHODS = {
    "LNTuningConfig": ({}, (2 * 2 + 1) * 32),
    "LoraConfig": ({"r": 4}, 4 * QUERY_AND_VALUE),
    "VeraConfig": ({"r": 4}, 2 * ((4 + 32) + (4 + 16))),
    "LoHaConfig": ({"r": 4}, 2 * 4 * QUERY_AND_VALUE),
    "IA3Config": ({}, 2 * (16 + 16 + 64)),
    "RandLoraConfig": ({"r": 4}, None),
    "AdaLoraConfig": ({"total_step": 3}, None),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_without_modules_adapts_what_peft_does(tmp_path, method):
    """As under TRL's trainer, where the language model itself is what PEFT sees: its numbers, written out by hand."""
    from transformers import AutoModel

    from gpm_hf import load_preference_model

    options, count = METHODS[method]
    base = save_backbone(tmp_path / "base")
    config = getattr(peft, method)(**options)
    trainer = make_trainer(tmp_path / "out", base, embedding_dim=4, peft_config=config)
    trained = {name: value for name, value in trainer.model.named_parameters() if value.requires_grad}
    heads = {name for name in trained if "_head." in name}
    assert {name.split(".")[2] for name in heads} == {"embedding_head", "gate_head"}
    assert all("modules_to_save" in name for name in heads)
    # On the language model itself PEFT must choose the same.
    alone = peft.get_peft_model(AutoModel.from_pretrained(base), getattr(peft, method)(**options))
    expected = sum(value.numel() for value in alone.parameters() if value.requires_grad)
    found = sum(value.numel() for name, value in trained.items() if name not in heads)
    assert found == expected and count in (None, found)

    before = trainer.gpm.preference_scores(build_tokenizer(), *QUESTION)
    trainer.train()
    trainer.save_model()
    after = trainer.gpm.preference_scores(build_tokenizer(), *QUESTION)
    again = load_preference_model(str(tmp_path / "out")).preference_scores(build_tokenizer(), *QUESTION)
    assert (after - before).abs().max() > 1e-2 and torch.allclose(again, after, atol=1e-5)


def test_all_linear_is_for_those_who_ask(tmp_path):
    config = peft.LoraConfig(r=4, target_modules="all-linear")
    model = make_trainer(tmp_path, peft_config=config).model
    adapted = {name.split(".lora_A")[0].rsplit(".", 1)[-1] for name, _ in model.named_parameters() if "lora_A" in name}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert config.modules_to_save is None and config.task_type is None  # the caller's own is left as it is


def test_a_backbone_that_peft_does_not_know(tmp_path, monkeypatch):
    gpm = build_gpm(embedding_dim=4)
    monkeypatch.setattr(type(gpm.config.text_config), "model_type", "novel")
    with pytest.raises(ValueError, match=r'no default modules of LoraConfig for a novel backbone.*"all-linear"'):
        make_trainer(tmp_path, gpm, peft_config=peft.LoraConfig())


REFUSED = {
    "PromptTuningConfig": ({"num_virtual_tokens": 3}, "virtual tokens"),
    "PrefixTuningConfig": ({"num_virtual_tokens": 3}, "virtual tokens"),
    "PromptEncoderConfig": ({"num_virtual_tokens": 3}, "virtual tokens"),
    "TrainableTokensConfig": ({"token_indices": [5]}, "no `modules_to_save`"),
    "AdaptionPromptConfig": ({"adapter_len": 2, "adapter_layers": 1}, "no `modules_to_save`"),
    "PolyConfig": ({}, "`task_ids`"),
}


@pytest.mark.parametrize("method", REFUSED)
def test_methods_that_cannot_train_a_preference_model(tmp_path, method):
    options, reason = REFUSED[method]
    with pytest.raises(ValueError, match=rf"^{method} .*{reason}"):
        make_trainer(tmp_path, peft_config=getattr(peft, method)(**options))


@pytest.mark.parametrize("method", ["PromptTuningConfig", "PrefixTuningConfig", "PromptEncoderConfig"])
@pytest.mark.parametrize("options", [{"embedding_dim": 4}, {"embedding_dim": 1}], ids=str)
def test_virtual_tokens_are_refused_wherever_a_model_gets_them(method, options):
    """Neither `preference_scores` would see them nor would the gate read the prompt's last token."""
    config = getattr(peft, method)(num_virtual_tokens=3, task_type="FEATURE_EXTRACTION")
    with pytest.raises(ValueError, match="virtual tokens"):
        peft.get_peft_model(build_gpm(**options), config)


def test_an_adapter_of_virtual_tokens_is_not_loaded(tmp_path):
    from transformers import AutoModelForCausalLM

    from gpm_hf import load_preference_model

    base = save_backbone(tmp_path / "base")
    config = peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(tmp_path / "tuned")
    with pytest.raises(ValueError, match=r"tuned holds virtual tokens \(PROMPT_TUNING\)"):
        load_preference_model(str(tmp_path / "tuned"))


def test_modules_named_by_the_user_stay(tmp_path):
    config = peft.LoraConfig(target_modules=["o_proj"], modules_to_save=["norm"])
    trainer = make_trainer(tmp_path, peft_config=config)
    saved = trainer.model.peft_config["default"]
    assert set(saved.target_modules) == {"o_proj"}
    assert set(saved.modules_to_save) == {"norm", "embedding_head", "gate_head"}


@pytest.mark.parametrize("targets", [["q_proj", "gate_proj", "up_proj", "down_proj"], "all-linear"], ids=str)
def test_experts_are_adapted_as_in_the_language_model(tmp_path, targets):
    """Their projections are one parameter of all experts, which PEFT finds by the type of the model."""
    from transformers import AutoModelForCausalLM

    from gpm_hf import load_preference_model

    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "decoder_sparse_step": 1}
    base = save_backbone(tmp_path / "base", "qwen3_moe", **experts)

    def adapted(model):
        names = (name for name, _ in model.named_parameters() if "lora_A" in name)
        return {name.split(".lora_A")[0].split("layers.")[-1] for name in names}

    config = peft.LoraConfig(r=2, target_modules=targets)
    alone = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), copy.deepcopy(config))
    trainer = make_trainer(tmp_path / "out", base, embedding_dim=4, peft_config=config)
    assert adapted(trainer.model) == adapted(alone)
    assert any("experts" in name for name in adapted(trainer.model))
    trainer.train()
    trainer.save_model()
    expected = trainer.gpm.preference_scores(build_tokenizer(), *QUESTION)
    found = load_preference_model(str(tmp_path / "out")).preference_scores(build_tokenizer(), *QUESTION)
    assert torch.allclose(found, expected, atol=1e-5)
