"""A LoRA adapter's folder as a policy: its training goes on, from what it says, in each of the trainers."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from gpm_hf.hub.publishing import publish
from gpm_hf.modeling.weight_files_gpm import weight_sets
from gpm_hf.recipes import iterate_training
from gpm_hf.recipes.policies import load_policy
from gpm_hf.scoring.adapters import load_language_adapter
from gpm_hf.training import OfflineGPOConfig, OfflineGPOTrainer, OnlineGPOConfig, OnlineGPOTrainer
from tests.conftest import build_tokenizer, save_backbone
from tests.recipes.test_iterate import options_of, run, world  # noqa: F401 (a fixture)
from tests.training import online, test_offline_gpo
from tests.training.online import chat_prompts, prefer_by_text

IDS = torch.arange(5, 25)[None]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_backbone(tmp_path_factory.mktemp("language") / "base")


@pytest.fixture(scope="module")
def policy(base, tmp_path_factory):
    """An adapter that changes its base a good deal, as a trainer saved it: no configuration of a model beside it."""
    folder = tmp_path_factory.mktemp("adapter") / "policy"
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def train_online(policy, folder, **arguments):
    args = OnlineGPOConfig(str(folder), **{**online.OPTIONS, "max_steps": 1})
    return OnlineGPOTrainer(str(policy), prefer_by_text, args, chat_prompts(), **arguments)


def train_offline(policy, folder, **arguments):
    rows = test_offline_gpo.selected(test_offline_gpo.scored_rows(), "mean")
    args = OfflineGPOConfig(str(folder), **{**test_offline_gpo.OPTIONS, "max_steps": 1})
    return OfflineGPOTrainer(str(policy), args, rows, **arguments)


@pytest.mark.parametrize("make", [train_online, train_offline])
def test_goes_on_from_the_adapter_and_is_saved_as_one(make, policy, base, tmp_path):
    before = logits(load_language_adapter(str(policy)))
    trainer = make(policy, tmp_path / "run")
    assert isinstance(trainer.model, PeftModel)
    torch.testing.assert_close(logits(trainer.model), before)
    assert (before - logits(AutoModelForCausalLM.from_pretrained(base))).abs().max() > 0.1
    trainer.train()
    trainer.save_model()
    after = logits(trainer.model)
    assert not torch.equal(after, before)
    assert len(weight_sets(tmp_path / "run")) == 1
    config = json.loads((tmp_path / "run" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == base
    loaded, tokenizer = load_policy(str(tmp_path / "run"))
    torch.testing.assert_close(logits(loaded), after)
    assert tokenizer.chat_template == build_tokenizer().chat_template
    trained = {name for name, value in trainer.model.named_parameters() if value.requires_grad}
    assert trained and all("lora_" in name for name in trained)


@pytest.mark.parametrize("make", [train_online, train_offline])
def test_a_second_adapter_is_refused(make, policy, tmp_path):
    with pytest.raises(ValueError, match=r"policy is an adapter, whose training goes on: leave `peft_config`"):
        make(policy, tmp_path, peft_config=LoraConfig(r=2, target_modules=["q_proj"]))


@pytest.mark.parametrize("make", [train_online, train_offline])
def test_a_folder_of_two_models_is_refused(make, policy, base, tmp_path):
    shutil.copytree(policy, tmp_path / "both")
    shutil.copytree(base, tmp_path / "both", dirs_exist_ok=True)
    with pytest.raises(ValueError, match="weights of 2 models"):
        make(tmp_path / "both", tmp_path / "run")
    with pytest.raises(ValueError, match="weights of 2 models"):
        load_policy(str(tmp_path / "both"))


@pytest.mark.parametrize("method", ["gpo", "dpo"])
def test_iterations_start_from_an_adapter(method, policy, world, tmp_path, monkeypatch):  # noqa: F811
    seen = []
    name = "OfflineGPOTrainer" if method == "gpo" else "PrecomputedReferenceDPOTrainer"
    original = getattr(iterate_training, name)

    class Watched(original):
        def train(self, **options):
            seen.append(logits(self.model))
            return super().train(**options)

    monkeypatch.setattr(iterate_training, name, Watched)
    run(world, tmp_path / "job", policy=str(policy), method=method, max_steps=1)
    folders = [policy, *(tmp_path / "job" / f"iteration-{t}" / "policy" for t in (1, 2))]
    for started, folder in zip(seen, folders):
        torch.testing.assert_close(started, logits(load_language_adapter(str(folder))))
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in folders[1:])
    assert any(not torch.equal(first[key], second[key]) for key in first)
    assert not (folders[2] / "model.safetensors").exists()


def test_a_merged_policy_is_pushed_whole(policy, tmp_path, monkeypatch):
    from gpm_hf.hub import publishing

    kept = {}

    def look(card, folder):
        kept["model"] = AutoModelForCausalLM.from_pretrained(card.parent)

    monkeypatch.setattr(publishing, "_check_card", look)
    files = publish(policy, "me/policy", merge=True, dry_run=True).files
    assert "model.safetensors" in files and not [name for name in files if "adapter" in name]
    torch.testing.assert_close(logits(kept["model"]), logits(load_language_adapter(str(policy))), atol=1e-4, rtol=0)
