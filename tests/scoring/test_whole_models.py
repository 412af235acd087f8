"""Models of remote code whose buffers or weights loading leaves as the memory was: one sentence on every road."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from gpm_hf import load_preference_model
from gpm_hf.modeling import GPMForPreference
from gpm_hf.recipes.policies import load_policy
from gpm_hf.scoring import load_scorer
from gpm_hf.scoring.preference_model import load_or_start_preference_model
from gpm_hf.scoring.whole_models import check_whole, loaded_whole
from gpm_hf.training import OnlineGPOConfig, OnlineGPOTrainer
from tests.conftest import build_tokenizer, save_backbone
from tests.remote_backbone import save_remote_backbone
from tests.training.online import OPTIONS, chat_prompts, prefer_by_text

CODE = """
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, LlamaModel
from transformers.models.llama.modeling_llama import LlamaPreTrainedModel


class FarawayConfig(LlamaConfig):
    model_type = "faraway"


class FarawayModel(LlamaModel):
    config_class = FarawayConfig

    def __init__(self, config):
        super().__init__(config)
        {line}
        self.post_init()
        {after}

    {method}


class FarawayForCausalLM(LlamaForCausalLM):
    config_class = FarawayConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = FarawayModel(config)
        self.post_init()


class FarawayForSequenceClassification(LlamaForSequenceClassification):
    config_class = FarawayConfig

    def __init__(self, config):
        LlamaPreTrainedModel.__init__(self, config)
        self.num_labels = config.num_labels
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.model = FarawayModel(config)
        self.post_init()
"""
BUFFER = 'self.register_buffer("scale", torch.full((64,), 2.0), persistent=False)'
INTEGERS = 'self.register_buffer("places", torch.arange(64), persistent=False)'
WEIGHT = "self.extra = nn.Parameter(torch.ones(32))"


def save(folder, line, method="", after="", classifier=False):
    folder = Path(save_backbone(folder))
    kind = "ForSequenceClassification" if classifier else "ForCausalLM"
    if classifier:
        AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).save_pretrained(folder)
    (folder / "modeling_faraway.py").write_text(CODE.format(line=line, method=method, after=after))
    config = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "FarawayConfig", "AutoModel": "FarawayModel", f"AutoModel{kind}": f"Faraway{kind}"}
    code = {auto: f"modeling_faraway.{name}" for auto, name in classes.items()}
    config |= {"model_type": "faraway", "architectures": [f"Faraway{kind}"], "auto_map": code, "pad_token_id": 0}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def policy_trainer(folder, tmp_path):
    args = OnlineGPOConfig(str(tmp_path / "run"), **OPTIONS, trust_remote_code=True)
    return OnlineGPOTrainer(folder, prefer_by_text, args, chat_prompts(), processing_class=build_tokenizer())


@pytest.mark.parametrize("line, name", [(BUFFER, "scale"), (INTEGERS, "places"), (WEIGHT, "extra")])
def test_policies(line, name, tmp_path):
    folder = save(tmp_path / "policy", line)
    message = rf"policy: loading leaves 1 tensors of this model, such as 'model.{name}'"
    with pytest.raises(ValueError, match=message):
        load_policy(folder, trust_remote_code=True)
    with pytest.raises(ValueError, match=message):
        policy_trainer(folder, tmp_path)
    assert not torch.are_deterministic_algorithms_enabled()


def test_preference_and_reward_models(tmp_path):
    folder = save(tmp_path / "backbone", BUFFER)
    message = "loading leaves 1 tensors of this model, such as 'model.scale'"
    with pytest.raises(ValueError, match=message):
        load_or_start_preference_model(folder, {"embedding_dim": 4}, trust_remote_code=True)
    model = GPMForPreference.from_backbone(folder, embedding_dim=4, trust_remote_code=True)
    model.save_pretrained(tmp_path / "gpm")
    with pytest.raises(ValueError, match=message):
        load_preference_model(str(tmp_path / "gpm"), trust_remote_code=True)
    folder = save(tmp_path / "reward", BUFFER, classifier=True)
    with pytest.raises(ValueError, match=message):
        load_scorer(f"reward:{folder}", trust_remote_code=True)


def test_models_that_are_filled_are_loaded(tmp_path):
    filled = """def _init_weights(self, module):
        super()._init_weights(module)
        if module is self:
            nn.init.constant_(self.scale, 2.0)"""
    folder = save(tmp_path / "filled", BUFFER, filled)
    model, _ = load_policy(folder, trust_remote_code=True)
    assert (model.model.scale == 2).all()
    remote = save_remote_backbone(tmp_path / "remote")
    load_policy(remote, trust_remote_code=True)
    load_or_start_preference_model(remote, {"embedding_dim": 4}, trust_remote_code=True)


def test_nan_that_a_model_is_made_of_is_its_own(tmp_path):
    folder = Path(save(tmp_path / "policy", "", after=""))
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    with torch.no_grad():
        model.lm_head.weight[3] = torch.nan
    model.save_pretrained(folder)
    check_whole("policy", lambda: AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True))


def test_a_model_of_transformers_is_loaded_once(tmp_path):
    folder, loads = save_backbone(tmp_path), []

    def load():
        loads.append(AutoModelForCausalLM.from_pretrained(folder))
        return loads[-1]

    assert loaded_whole(folder, load) is loads[0] and len(loads) == 1
