"""A language model whose code lies beside its weights, as on the Hub: a Llama under another name."""

from pathlib import Path

from tests.conftest import build_tokenizer

CONFIGURATION = """
from transformers import LlamaConfig


class FarawayConfig(LlamaConfig):
    model_type = "faraway"
"""

MODELING = """
from transformers import LlamaForCausalLM, LlamaModel

from .configuration_faraway import FarawayConfig


class FarawayModel(LlamaModel):
    config_class = FarawayConfig


class FarawayForCausalLM(LlamaForCausalLM):
    config_class = FarawayConfig
"""

AUTO_MAP = {
    "AutoConfig": "configuration_faraway.FarawayConfig",
    "AutoModel": "modeling_faraway.FarawayModel",
    "AutoModelForCausalLM": "modeling_faraway.FarawayForCausalLM",
}


def save_remote_backbone(folder, seed=0):
    """Weights, code and tokenizer in a folder; `trust_remote_code=True` loads it."""
    import json

    from tests.conftest import save_backbone

    folder = Path(save_backbone(folder, seed=seed, tokenizer=build_tokenizer()))
    (folder / "configuration_faraway.py").write_text(CONFIGURATION)
    (folder / "modeling_faraway.py").write_text(MODELING)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "faraway", "architectures": ["FarawayForCausalLM"], "auto_map": AUTO_MAP}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)
