"""Saves models, adapters and checkpoints, or loads and resumes them; both say the numbers (test_other_release.py)."""

import json
import shutil
import sys
from pathlib import Path

import peft
import torch
import transformers
from transformers import AutoModelForCausalLM

from gpm_hf import load_preference_model
from gpm_hf.scoring.preference_model import load_tokenizer
from tests.conftest import save_backbone
from tests.training import online
from tests.training.test_reward_trainer import make_trainer, ring_rows

PROMPT, ANSWERS = "How do I bake bread?", ["Mix flour.", "In an oven.", "Ask a baker, or two."]
STEPS = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "optim": "adamw_torch", "learning_rate": 1e-2}
LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}


def scores(folder):
    model = load_preference_model(str(folder))
    return model.preference_scores(load_tokenizer(str(folder)), PROMPT, ANSWERS).flatten().tolist()


def logits(model):
    with torch.no_grad():
        return model.eval()(torch.arange(5, 25)[None]).logits[0, -1].tolist()


def reward_run(folder, base, adapter):
    config = peft.LoraConfig(**LORA) if adapter else None
    return make_trainer(folder, str(base), ring_rows(), peft_config=config, **STEPS)


def policy_run(folder, base):
    torch.manual_seed(0)
    config = peft.LoraConfig(**LORA, task_type="CAUSAL_LM")
    return online.make_trainer(folder, str(base), peft_config=config, **STEPS)


RUNS = {
    "reward": lambda folder, base: reward_run(folder, base, False),
    "reward-lora": lambda folder, base: reward_run(folder, base, True),
    "policy-lora": policy_run,
}


def numbers(trainer, name, folder):
    found = {"losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]}
    trainer.save_model(str(folder))
    if name.startswith("reward"):
        return found | {"scores": scores(folder)}
    return found | {"logits": logits(trainer.model)}


def write(folder):
    save_backbone(folder / "base")
    found = {}
    for name, make in RUNS.items():
        trainer = make(folder / name, folder / "base")
        trainer.train()
        found[name] = numbers(trainer, name, folder / f"{name}-saved")
    return found


def read(folder):
    """What was saved, loaded; and the runs from their checkpoints of step 2."""
    found = {}
    for name, make in RUNS.items():
        saved = folder / f"{name}-saved"
        shutil.copytree(folder / name, folder / f"{name}-resumed")
        trainer = make(folder / f"{name}-resumed", folder / "base")
        trainer.train(resume_from_checkpoint=str(folder / f"{name}-resumed" / "checkpoint-2"))
        found[name] = {"resumed": numbers(trainer, name, folder / f"{name}-resumed-saved")}
        if name.startswith("reward"):
            found[name]["loaded"] = scores(saved)
        else:
            base = AutoModelForCausalLM.from_pretrained(folder / "base")
            found[name]["loaded"] = logits(peft.PeftModel.from_pretrained(base, saved))
    return found


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    found = {"write": write, "read": read}[sys.argv[1]](folder)
    report = {"transformers": transformers.__version__, "found": found}
    (folder / f"{sys.argv[1]}.json").write_text(json.dumps(report))
