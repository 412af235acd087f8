"""QLoRA on a 4-bit backbone: the heads stay in full precision, and the adapter loads on a base quantised as before."""

import json

import pytest
import torch
from datasets import Dataset

from tests.conftest import build_tokenizer, save_backbone
from tests.training.test_reward_trainer import config, ring_rows

bitsandbytes = pytest.importorskip("bitsandbytes")

PROMPT, RESPONSES = "Question 3?", ["The answer is red.", "It may well be blue, I think.", "Ask again."]
HEADS = ("embedding_head", "gate_head")


def in_float32(model):
    """
    The same weights without bfloat16 arithmetic: TRL trains adapters of quantised models in bfloat16, and on a CPU
    that has instructions for it the kernels of bitsandbytes compute in bfloat16 too.
    """
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
    return model


def scores_of(model):
    return model.preference_scores(build_tokenizer(), PROMPT, RESPONSES)


@pytest.fixture(scope="module", params=["a language model", "a saved preference model"])
def trained(request, tmp_path_factory):
    """Folder of the adapter, log-odds in memory, the heads before and after training."""
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig

    from gpm_hf import GPMForPreference, GPMRewardTrainer

    root = tmp_path_factory.mktemp("qlora")
    # Rows of a multiple of 64 entries, the blocks that are quantised together.
    base = save_backbone(root / "lm", hidden_size=64, intermediate_size=128, head_dim=16)
    if request.param == "a saved preference model":
        GPMForPreference.from_backbone(base, embedding_dim=4).save_pretrained(root / "gpm")
        build_tokenizer().save_pretrained(root / "gpm")
        base = str(root / "gpm")
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
        bnb_4bit_use_double_quant=True,
    )
    trainer = GPMRewardTrainer(
        base,
        config(root / "run", embedding_dim=4, max_steps=4),
        train_dataset=Dataset.from_list(ring_rows()),
        quantization_config=quantization,
        peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"]),
    )

    def trained_weights():
        return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}

    before = trained_weights()
    trainer.train()
    after = trained_weights()
    trainer.save_model()
    trainer.model.eval()
    return trainer, str(root / "run"), before, after, scores_of(in_float32(trainer.gpm))


def test_backbone_is_quantised_and_heads_are_not(trained):
    trainer, _, before, after, _ = trained
    layers = trainer.gpm.model.layers
    assert all(type(layer.self_attn.q_proj.base_layer) is bitsandbytes.nn.Linear4bit for layer in layers)
    assert all(type(layer.mlp.up_proj) is bitsandbytes.nn.Linear4bit for layer in layers)
    heads = {name: value for name, value in after.items() if name.split(".")[2] in HEADS}
    assert len(heads) == 2 and len(after) == 2 + 2 * 4
    assert {value.dtype for value in heads.values()} == {torch.float32}
    for name, value in after.items():
        assert (value - before[name]).abs().max() > 1e-4, name


def test_reloaded_log_odds_are_equal(trained):
    from gpm_hf import load_preference_model

    _, folder, _, after, scores = trained
    model = load_preference_model(folder)
    assert type(model.get_base_model().model.layers[0].mlp.up_proj) is bitsandbytes.nn.Linear4bit
    parameters = dict(model.named_parameters())
    for name, value in after.items():
        assert torch.equal(parameters[name], value.float()), name
    torch.testing.assert_close(scores_of(in_float32(model)), scores, atol=1e-4, rtol=0)


def test_merged_log_odds_are_equal(trained, tmp_path):
    """Merged into what the base was in training, not into what it had been before it was quantised."""
    from gpm_hf import GPMForPreference, load_preference_model

    _, folder, _, _, scores = trained
    load_preference_model(folder, merge=True).save_pretrained(tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    merged = load_preference_model(str(tmp_path))
    assert type(merged) is GPMForPreference
    assert {value.dtype for value in merged.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(scores_of(merged), scores, atol=1e-4, rtol=0)


def test_the_base_is_left_as_it_is_where_that_is_asked_for(trained):
    from gpm_hf import load_preference_model

    _, folder, _, after, scores = trained
    model = load_preference_model(folder, quantization_config=None)
    assert type(model.get_base_model().model.layers[0].mlp.up_proj) is torch.nn.Linear
    assert torch.equal(
        dict(model.named_parameters())[f"base_model.model.{HEADS[0]}.modules_to_save.default.weight"],
        after[f"base_model.model.{HEADS[0]}.modules_to_save.default.weight"],
    )
    assert (scores_of(model) - scores).abs().max() > 1e-3


def test_an_evaluation_before_the_training_takes_no_gradients(tmp_path):
    """As without one, on any CPU: the first layer's adapter learns through the layers above it."""
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig

    from gpm_hf import GPMRewardTrainer

    base = save_backbone(tmp_path / "lm", hidden_size=64, intermediate_size=128, head_dim=16)
    gradients = {}
    for evaluated in (False, True):
        torch.manual_seed(0)
        trainer = GPMRewardTrainer(
            base,
            config(tmp_path / "run", embedding_dim=4, max_steps=1),
            train_dataset=Dataset.from_list(ring_rows()),
            eval_dataset=Dataset.from_list(ring_rows()[:2]),
            quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32),
            peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"]),
        )
        if evaluated:
            trainer.evaluate()
        trainer.model.train()
        batch = trainer.data_collator([trainer.train_dataset[0], trainer.train_dataset[1]])
        trainer.compute_loss(trainer.model, batch).backward()
        gradients[evaluated] = {n: p.grad.float() for n, p in trainer.model.named_parameters() if p.grad is not None}
    assert gradients[False].keys() == gradients[True].keys()
    assert any(gradient.abs().max() > 1e-4 for name, gradient in gradients[False].items() if "layers.0." in name)
    for name, gradient in gradients[False].items():
        torch.testing.assert_close(gradients[True][name], gradient, atol=1e-5, rtol=1e-3, msg=name)
