"""Adapters of three kinds on their base models: right, or one sentence that names both."""

import json
import logging
import shutil

import peft
import pytest
import torch
import transformers
from packaging.version import Version
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from gpm_hf import GPMForPreference, load_preference_model
from gpm_hf.scoring import RewardModelScorer, load_scorer
from gpm_hf.scoring.adapters import load_classifier_adapter, load_language_adapter
from tests.conftest import backbone_config, build_tokenizer, save_backbone

HEADS = ["embedding_head", "gate_head"]
LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}
PAIR = ("What is red?", ["Blood is red.", "Grass is green."])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_backbone(tmp_path_factory.mktemp("language") / "base")


def save_preference_adapter(base, folder):
    model = GPMForPreference.from_backbone(base, embedding_dim=4)
    config = LoraConfig(task_type="FEATURE_EXTRACTION", modules_to_save=HEADS, **LORA)
    adapter = get_peft_model(model, config).eval()
    torch.nn.init.normal_(model.gate_head.weight, std=0.3)
    adapter.save_pretrained(folder, save_embedding_layers=False)
    model.save_config_and_code(folder)
    build_tokenizer().save_pretrained(folder)
    return adapter


@pytest.fixture
def preference(base, tmp_path):
    return tmp_path / "adapter", save_preference_adapter(base, tmp_path / "adapter")


def save_classifier_adapter(base, folder, labels=1, **options):
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)
    adapter = get_peft_model(model, LoraConfig(**{"task_type": "SEQ_CLS", **LORA, **options})).eval()
    adapter.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return adapter


def rewrite(folder, change):
    weights = load_file(folder / "adapter_model.safetensors")
    change(weights)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})


class TestPreferenceModel:
    def test_scores_and_gives_no_alarm(self, preference, tokenizer, caplog):
        """What the heads' weights in the base's checkpoint would be is of no interest: the adapter brings them."""
        folder, adapter = preference
        logger = logging.getLogger("transformers")
        level, logger.propagate = logger.level, True
        logger.setLevel(logging.WARNING)
        try:
            with caplog.at_level(logging.WARNING):
                found = load_preference_model(str(folder))
        finally:
            logger.setLevel(level)
            logger.propagate = False
        assert not [record for record in caplog.records if "MISSING" in record.getMessage()], caplog.text
        expected = adapter.get_base_model().preference_scores(tokenizer, *PAIR)
        assert torch.equal(found.preference_scores(tokenizer, *PAIR), expected)

    def test_new_heads_are_told_still(self, base, caplog):
        logger = logging.getLogger("transformers")
        level, logger.propagate = logger.level, True
        logger.setLevel(logging.WARNING)
        try:
            with caplog.at_level(logging.WARNING):
                GPMForPreference.from_backbone(base, embedding_dim=4)
        finally:
            logger.setLevel(level)
            logger.propagate = False
        assert "embedding_head" in caplog.text and "MISSING" in caplog.text

    @pytest.mark.parametrize("gone", ["embedding_head", "gate_head", "lora_A"])
    def test_weights_missing_in_the_file_are_an_error(self, gone, preference):
        """The configuration says that the adapter has them; PEFT would leave random numbers."""
        folder, _ = preference
        rewrite(folder, lambda weights: [weights.pop(name) for name in list(weights) if gone in name])
        with pytest.raises(ValueError, match=rf"{folder} lacks weights.*{gone}.*would be random numbers"):
            load_preference_model(str(folder))

    def test_base_that_is_gone(self, preference, base, tmp_path):
        folder, _ = preference
        config = json.loads((folder / "adapter_config.json").read_text())
        gone = str(tmp_path / "gone")
        (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": gone}))
        with pytest.raises(ValueError, match=rf"{folder} is an adapter of {gone}, which cannot be loaded: put"):
            load_preference_model(str(folder))

    @pytest.mark.parametrize(
        ("options", "reason"),
        [({"hidden_size": 64, "head_dim": 16}, "size mismatch"), ({"num_hidden_layers": 1}, "no place for")],
        ids=["wider", "fewer layers"],
    )
    def test_base_that_is_another(self, options, reason, base, tmp_path):
        shutil.copytree(base, tmp_path / "base")
        save_preference_adapter(tmp_path / "base", tmp_path / "adapter")
        shutil.rmtree(tmp_path / "base")
        save_backbone(tmp_path / "base", **options)
        config = json.loads((tmp_path / "adapter" / "config.json").read_text())
        if "num_hidden_layers" in options:
            config["text_config"] |= {"num_hidden_layers": 1, "layer_types": ["full_attention"]}
        else:
            config["text_config"] |= options
        (tmp_path / "adapter" / "config.json").write_text(json.dumps(config))
        expected = rf"{tmp_path}/adapter is an adapter of another model than {tmp_path}/base"
        with pytest.raises(ValueError, match=expected) as error:
            load_preference_model(str(tmp_path / "adapter"))
        assert reason in str(error.value)

    def test_adapter_that_names_no_base(self, preference):
        folder, _ = preference
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": None}))
        with pytest.raises(ValueError, match="names no base model"):
            load_preference_model(str(folder))


class TestClassifier:
    def expected(self, adapter):
        tokenizer = build_tokenizer()
        rewards = []
        for response in PAIR[1]:
            messages = [{"role": "user", "content": PAIR[0]}, {"role": "assistant", "content": response}]
            ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)["input_ids"]
            with torch.no_grad():
                rewards.append(adapter(input_ids=ids).logits[0, 0].item())
        return rewards[0] - rewards[1]

    @pytest.mark.parametrize("spec", ["reward:{}", "{}"])
    def test_scores_as_it_was_trained(self, spec, base, tmp_path):
        adapter = save_classifier_adapter(base, tmp_path / "reward")
        scores = load_scorer(spec.format(tmp_path / "reward")).score([PAIR[0]], [PAIR[1]])[0].scores
        expected = self.expected(adapter)
        assert abs(expected) > 0.1
        assert scores[0, 1].item() == pytest.approx(expected, abs=1e-4)

    def test_of_a_reward_model_without_its_own_head(self, base, tmp_path):
        """The base brings the head, the adapter adapts its layers."""
        torch.manual_seed(1)
        AutoModelForSequenceClassification.from_pretrained(base, num_labels=1).save_pretrained(tmp_path / "base")
        adapter = save_classifier_adapter(tmp_path / "base", tmp_path / "reward", task_type=None)
        found = load_classifier_adapter(str(tmp_path / "reward"))
        ids = torch.arange(5, 25)[None]
        with torch.no_grad():
            torch.testing.assert_close(found.eval()(ids).logits, adapter(ids).logits, atol=1e-4, rtol=0)

    def test_without_any_head(self, base, tmp_path):
        """What TRL's RewardTrainer saves with a LoRA that names no task."""
        save_classifier_adapter(base, tmp_path / "reward", task_type=None)
        with pytest.raises(ValueError, match=r"adapter of .* without the weights of 'score.weight'.*SEQ_CLS"):
            load_scorer(f"reward:{tmp_path / 'reward'}")

    def test_with_two_labels(self, base, tmp_path):
        save_classifier_adapter(base, tmp_path / "reward", labels=2)
        with pytest.raises(ValueError, match="num_labels=2"):
            load_scorer(f"reward:{tmp_path / 'reward'}")


class TestLanguageModel:
    def save(self, base, folder):
        model = AutoModelForCausalLM.from_pretrained(base)
        adapter = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **LORA)).eval()
        adapter.save_pretrained(folder)
        return adapter

    def test_same_logits_and_trainable_where_asked_for(self, base, tmp_path):
        adapter = self.save(base, tmp_path / "policy")
        ids = torch.arange(5, 25)[None]
        found = load_language_adapter(str(tmp_path / "policy"), is_trainable=True)
        assert any(parameter.requires_grad for parameter in found.parameters())
        with torch.no_grad():
            assert torch.equal(found.eval()(ids).logits, adapter(ids).logits)
        assert not any(p.requires_grad for p in load_language_adapter(str(tmp_path / "policy")).parameters())

    def test_base_that_is_gone(self, base, tmp_path):
        shutil.copytree(base, tmp_path / "base")
        self.save(tmp_path / "base", tmp_path / "policy")
        shutil.rmtree(tmp_path / "base")
        expected = rf"{tmp_path}/policy is an adapter of {tmp_path}/base, which cannot be loaded"
        with pytest.raises(ValueError, match=expected):
            load_language_adapter(str(tmp_path / "policy"))

    def test_beside_a_whole_model(self, base, tmp_path):
        shutil.copytree(base, tmp_path / "policy")
        self.save(base, tmp_path / "policy")
        with pytest.raises(ValueError, match="weights of 2 models"):
            load_language_adapter(str(tmp_path / "policy"))


def test_backbone_configuration_has_two_layers():
    """The test of fewer layers relies on it."""
    assert backbone_config().num_hidden_layers == 2


@pytest.mark.parametrize("method", ["PromptTuningConfig", "PrefixTuningConfig"])
def test_a_reward_model_with_virtual_tokens_scores_as_one_sequence_alone(method, tmp_path):
    """PEFT gives another reward to a row that is padded: the scorer pads none, from a folder and as an object."""
    torch.manual_seed(0)
    tokenizer, base = build_tokenizer(), save_backbone(tmp_path / "base")
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    model.config.pad_token_id = 0
    config = getattr(peft, method)(num_virtual_tokens=3, task_type="SEQ_CLS")
    model = peft.get_peft_model(model, config).eval()
    model.save_pretrained(tmp_path / "reward")
    tokenizer.save_pretrained(tmp_path / "reward")
    answers = ["Short.", "A much longer answer, with an example.", "It is."]
    if method == "PrefixTuningConfig" and Version(transformers.__version__) >= Version("5.24"):
        # PEFT 0.21 looks for the cache under the name that it had before, and says so.
        with pytest.raises(ValueError, match="does not support past key values"):
            load_scorer(f"reward:{tmp_path / 'reward'}")(["Why?"], [answers])
        return
    rewards = []
    for answer in answers:
        messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": answer}]
        ids = torch.tensor([tokenizer.apply_chat_template(messages)["input_ids"]])
        with torch.no_grad():
            rewards.append(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, 0])
    rewards = torch.stack(rewards)
    for scorer in (load_scorer(f"reward:{tmp_path / 'reward'}"), RewardModelScorer(model, tokenizer)):
        (found,) = scorer(["Why?"], [answers])
        torch.testing.assert_close(found, rewards[:, None] - rewards[None], atol=1e-4, rtol=0)
