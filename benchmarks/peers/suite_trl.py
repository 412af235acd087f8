"""
TRL's tests of its trainers, with this package's in their places: GPMRewardTrainer for RewardTrainer (as Bradley-Terry
and as a general preference model), OnlineGPOTrainer for GRPOTrainer, OfflineGPOTrainer for DPOTrainer. Each runs with
TRL's own trainer first: what fails there too is of the suite (a checkout of another version, models of images), and
no difference.
"""

import unittest
from importlib import import_module

import local_hub

VARIANTS = {
    "bradley_terry": ["tests/test_reward_trainer.py"],
    "gpm": ["tests/test_reward_trainer.py"],
    "grpo": ["tests/test_grpo_trainer.py"],
    "dpo": ["tests/test_dpo_trainer.py"],
}
COMPARED = True
MODELS = {
    "Qwen2ForCausalLM-2.5": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3_moe",
    "LlamaForCausalLM-3.2": "llama",
    "GPTNeoXForCausalLM": "gpt_neox",
    "Qwen2ForSequenceClassification-2.5": "qwen2",
    "Qwen3ForSequenceClassification": "qwen3",
    "LlamaForSequenceClassification-3.2": "llama",
}


def prepare(variant, own):
    import trl

    _make_models()
    _serve_data(variant)
    _admit_other_versions()
    _compute_where_there_is_no_gpu()
    if own:
        return
    import gpm_hf

    if variant == "grpo":
        trl.GRPOTrainer, trl.GRPOConfig = gpm_hf.OnlineGPOTrainer, gpm_hf.OnlineGPOConfig
    elif variant == "dpo":
        trl.DPOTrainer, trl.DPOConfig = gpm_hf.OfflineGPOTrainer, gpm_hf.OfflineGPOConfig
    else:
        trl.RewardTrainer, trl.RewardConfig = gpm_hf.GPMRewardTrainer, gpm_hf.GPMRewardConfig
        _make_preference_models({"embedding_dim": 6 if variant == "gpm" else 1})


def _make_models():
    import transformers

    for name, kind in MODELS.items():
        classifies = "Classification" in name
        config = local_hub.config(kind, **({"num_labels": 1} if classifies else {}))
        made = transformers.AutoModelForSequenceClassification if classifies else transformers.AutoModelForCausalLM
        local_hub.add(f"trl-internal-testing/tiny-{name}", made.from_config(config))


def _make_preference_models(options):
    """The suite names no dimension, and makes its models by a class of transformers."""
    from transformers.models.auto import modeling_auto

    from gpm_hf import GPMForPreference, GPMRewardConfig

    own = GPMRewardConfig.__post_init__

    def with_options(config):
        config.embedding_dim = config.embedding_dim or options["embedding_dim"]
        own(config)

    GPMRewardConfig.__post_init__ = with_options
    modeling_auto.AutoModelForSequenceClassification.from_pretrained = classmethod(
        lambda cls, name, num_labels=1, **given: GPMForPreference.from_backbone(name, **options, **given)
    )


def _serve_data(variant):
    import datasets

    def load_dataset(name, form=None, split=None, streaming=False):
        if name != "trl-internal-testing/zen":
            raise FileNotFoundError(f"{name} is on the Hub only")
        if split is None:
            return datasets.DatasetDict({part: load_dataset(name, form, part) for part in ("train", "test")})
        rows = local_hub.zen(form, split, variant)
        return rows.to_iterable_dataset() if streaming else rows

    datasets.load_dataset = load_dataset


def _compute_where_there_is_no_gpu():
    """TRL's options ask for bfloat16 on a GPU, and the suite leaves them as they are."""
    import torch
    import transformers

    own = transformers.TrainingArguments.__post_init__

    def on_cpu(args):
        args.use_cpu, args.bf16 = True, False
        own(args)

    if not torch.cuda.is_available():
        transformers.TrainingArguments.__post_init__ = on_cpu


def _admit_other_versions():
    """A checkout of another version imports names that the package has not; no test gains by them."""
    import trl

    def no_such_package(name):
        if name.startswith("is_") and name.endswith("_available"):
            return lambda *_: False
        raise AttributeError(name)

    def no_such_requirement(name):
        if name.startswith("require_"):
            return unittest.skip(f"{name} is unknown to this version of transformers")
        raise AttributeError(name)

    import_module("trl.import_utils").__getattr__ = no_such_package
    import_module("transformers.testing_utils").__getattr__ = no_such_requirement
    known = type(trl).__getattr__

    def known_or_empty(module, name):
        try:
            return known(module, name)
        except AttributeError:
            if not name[0].isupper():
                raise
            return type(name, (), {})

    type(trl).__getattr__ = known_or_empty
