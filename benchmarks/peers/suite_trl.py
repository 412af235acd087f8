"""TRL's reward tests, with GPMRewardTrainer for RewardTrainer."""

import os
from importlib import import_module

import local_hub

FILES = ["tests/test_reward_trainer.py"]
VARIANTS = ("bradley_terry", "gpm")
MODELS = {
    "trl-internal-testing/tiny-Qwen2ForCausalLM-2.5": "qwen2",
    "trl-internal-testing/tiny-Qwen3MoeForCausalLM": "qwen3_moe",
    "trl-internal-testing/tiny-LlamaForCausalLM-3.2": "llama",
    "trl-internal-testing/tiny-GPTNeoXForCausalLM": "gpt_neox",
}
OPTIONS = {"embedding_dim": 6 if os.environ.get("PEERS_VARIANT") == "gpm" else 1}


def prepare(variant):
    import datasets
    import transformers
    import trl
    from transformers.models.auto import modeling_auto

    from gpm_hf import GPMForPreference, GPMRewardConfig, GPMRewardTrainer

    for name, kind in MODELS.items():
        local_hub.add(name, transformers.AutoModelForCausalLM.from_config(local_hub.config(kind)))
    classifier = local_hub.config("qwen2", num_labels=1)
    classifier = transformers.AutoModelForSequenceClassification.from_config(classifier)
    local_hub.add("trl-internal-testing/tiny-Qwen2ForSequenceClassification-2.5", classifier)
    # A checkout that is older or newer than the package asks for packages that this one does not.
    import_module("trl.import_utils").__getattr__ = _no_such_package
    trl.RewardTrainer, trl.RewardConfig = GPMRewardTrainer, GPMRewardConfig
    own = GPMRewardConfig.__post_init__

    def with_options(config):
        config.embedding_dim = config.embedding_dim or OPTIONS["embedding_dim"]
        own(config)

    GPMRewardConfig.__post_init__ = with_options
    # The suite makes its models by this class; here they are preference models.
    modeling_auto.AutoModelForSequenceClassification.from_pretrained = classmethod(
        lambda cls, name, num_labels=1, **given: GPMForPreference.from_backbone(name, **OPTIONS, **given)
    )

    def load_dataset(name, form=None, split=None, streaming=False):
        if name != "trl-internal-testing/zen":
            raise FileNotFoundError(f"{name} is on the Hub only")
        if split is None:
            return datasets.DatasetDict({part: load_dataset(name, form, part) for part in ("train", "test")})
        rows = local_hub.zen(form, split, variant)
        return rows.to_iterable_dataset() if streaming else rows

    datasets.load_dataset = load_dataset


def _no_such_package(name):
    if name.startswith("is_") and name.endswith("_available"):
        return lambda *_: False
    raise AttributeError(name)
