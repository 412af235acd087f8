"""Tiny policies of every kind that `generate` samples from in a way of its own, each with weights that matter."""

import json
from pathlib import Path

import peft
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from gpm_hf.modeling.cache_gpm import cache_argument
from tests.conftest import save_backbone
from tests.training.online import build_policy

CAUSAL = {"task_type": "CAUSAL_LM"}
ADAPTERS = {
    "lora": lambda: peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], **CAUSAL),
    "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=4, **CAUSAL),
    "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=4, **CAUSAL),
    "p-tuning": lambda: peft.PromptEncoderConfig(num_virtual_tokens=4, encoder_hidden_size=16, **CAUSAL),
    "cpt": lambda: peft.CPTConfig(
        cpt_token_ids=[5, 6, 7, 8], cpt_mask=[1] * 4, cpt_tokens_type_mask=[1, 2, 3, 4], **CAUSAL
    ),
    "shadow": lambda: peft.ShadowConfig(**CAUSAL),
}
KINDS = ["plain", "learned positions", "custom", "remote", *ADAPTERS]


class CustomForCausalLM(LlamaForCausalLM):
    """As people write them: the cache by the name that it had, and everything else let through."""

    def forward(
        self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, use_cache=None, **kwargs
    ):
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
            **{cache_argument(self.model): past_key_values},
        )
        kept = output.past_key_values if use_cache else None
        return CausalLMOutputWithPast(logits=self.lm_head(output.last_hidden_state), past_key_values=kept)


REMOTE = """
from transformers import LlamaConfig, LlamaForCausalLM


class FarawayConfig(LlamaConfig):
    model_type = "faraway"


class FarawayForCausalLM(LlamaForCausalLM):
    config_class = FarawayConfig

    def forward(self, input_ids=None, attention_mask=None, past_key_values=None, **kwargs):
        kwargs.pop("cache", None)  # what code that never heard of it does
        if past_key_values is not None:
            kwargs["past_key_values"] = past_key_values
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
"""


def build(kind, folder):
    """A policy of one of `KINDS`; `folder` is empty."""
    if kind == "plain":
        return build_policy()
    if kind == "learned positions":
        return build_policy(backbone="gpt2")
    if kind == "custom":
        plain = build_policy()
        policy = CustomForCausalLM(plain.config)
        policy.load_state_dict(plain.state_dict())
        return policy
    if kind == "remote":
        folder = Path(save_backbone(folder))
        (folder / "modeling_faraway.py").write_text(REMOTE)
        config = json.loads((folder / "config.json").read_text())
        code = {"AutoConfig": "modeling_faraway.FarawayConfig"}
        code["AutoModelForCausalLM"] = "modeling_faraway.FarawayForCausalLM"
        config |= {"model_type": "faraway", "architectures": ["FarawayForCausalLM"], "auto_map": code}
        (folder / "config.json").write_text(json.dumps(config))
        return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    torch.manual_seed(1)
    policy = peft.get_peft_model(build_policy(), ADAPTERS[kind]())
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if weight.requires_grad:
                weight.normal_(std=1.0 if "prompt" in name else 0.3)
    return policy


@torch.no_grad()
def greedy(policy, ids, count, stop):
    """The most probable answer, by the policy's own forward over the whole of one sequence at a time."""
    ids, start = list(ids), len(ids)
    while len(ids) < start + count and (len(ids) == start or ids[-1] != stop):
        ids.append(int(logits(policy, ids)[-1].argmax()))
    return ids[start:]


@torch.no_grad()
def logits(policy, ids):
    mask = torch.ones(1, len(ids), dtype=torch.long)
    return policy(input_ids=torch.tensor([ids]), attention_mask=mask, use_cache=False).logits[0, -len(ids) :]
