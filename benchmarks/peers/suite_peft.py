"""PEFT's tests of feature extraction: behind the names of its four small models are preference models."""

import sys
import types
from contextlib import nullcontext
from importlib import import_module
from importlib.util import find_spec

import local_hub

VARIANTS = {"gpm": ["tests/test_feature_extraction_models.py"]}
COMPARED = False
MODELS = {
    "peft-internal-testing/tiny-random-BertModel": "llama",
    "peft-internal-testing/tiny-random-RobertaModel": "qwen3",
    "peft-internal-testing/tiny-random-DebertaModel": "gemma2",
    "peft-internal-testing/tiny-random-DebertaV2Model": "mistral",
}


def prepare(variant, own):
    if find_spec("diffusers") is None:
        # Imported by the common tests, and not used in these.
        sys.modules["diffusers"] = types.SimpleNamespace(StableDiffusionPipeline=None)
    # They go online once for each model, which takes minutes where there is no network.
    import_module("tests.testing_utils").hub_online_once = nullcontext
    # Behind the names of DeBERTa there is none, and its modules would be named for all models after it, too.
    import_module("tests.test_feature_extraction_models").deberta_beft_tests = lambda *_: None
    from peft.utils import constants

    from gpm_hf import GPMConfig, GPMForPreference

    for name, kind in MODELS.items():
        # PEFT's tests give no prompt lengths, which a gate would need.
        config = GPMConfig(text_config=local_hub.config(kind), embedding_dim=4, scale_gate=False)
        local_hub.add(name, GPMForPreference(config))
    # PEFT knows its default modules by the model's type, and "gpm" is none of them; GPMRewardTrainer asks it for the
    # backbone's, which is what stands here.
    for name, mapping in vars(constants).items():
        if name.startswith("TRANSFORMERS_MODELS_TO_") and "llama" in mapping:
            mapping["gpm"] = mapping["llama"]
