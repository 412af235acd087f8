"""Helpers for the tests of online training: tiny policies, a preference by text, options that suit a CPU."""

import math
import os
import zlib

import torch
from datasets import Dataset

from tests.conftest import backbone_config, build_tokenizer

OPTIONS = {
    "bf16": False,
    "use_cpu": True,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
    "gradient_checkpointing": False,
    "logging_steps": 1,
    "learning_rate": 0.05,
    "lr_scheduler_type": "constant",
    "optim": "sgd",
    "max_grad_norm": 0.0,
    "max_completion_length": 6,
    "num_generations": 4,
    "per_device_train_batch_size": 4,
    "gpo_beta": 0.5,
    "win_rate_prompts": 0,
}


def chat_prompts(count=6):
    return Dataset.from_list([{"prompt": [{"role": "user", "content": f"Question {i}?"}]} for i in range(count)])


def skew(first, second):
    """Log-odds of one text against another, by their checksums: skew-symmetric, and full of cycles."""

    def angle(text):
        return zlib.crc32(text.encode()) % 1000 / 1000 * 2 * math.pi

    return 3 * math.sin(angle(first) - angle(second))


def text_of(completion):
    return completion if isinstance(completion, str) else completion[-1]["content"]


def prefer_by_text(prompts, groups):
    """A preference function as a user would write one."""
    return [[[skew(text_of(a), text_of(b)) for b in group] for a in group] for group in groups]


def build_policy(seed=0, backbone="llama", **options):
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(backbone_config(backbone, **options))


def tabular_policy(token_ids, probabilities):
    """A policy whose only parameters are the log-probabilities of a few one-token answers."""
    policy = build_policy(num_hidden_layers=1)
    policy.requires_grad_(False)
    head = torch.nn.Linear(32, 400)
    head.weight.requires_grad_(False).zero_()
    with torch.no_grad():
        head.bias.fill_(-1e4)
        head.bias[token_ids] = torch.tensor(probabilities).log()
    policy.set_output_embeddings(head)
    return policy


def make_trainer(folder, policy=None, preference=prefer_by_text, prompts=None, trainer_class=None, **options):
    from gpm_hf.training.online_gpo_config import OnlineGPOConfig
    from gpm_hf.training.online_gpo_trainer import OnlineGPOTrainer

    names = (
        "reward_funcs",
        "reward_processing_classes",
        "peft_config",
        "eval_dataset",
        "preference_processing_class",
        "environment_factory",
        "processing_class",
    )
    arguments = {name: options.pop(name) for name in names if name in options}
    return (trainer_class or OnlineGPOTrainer)(
        build_policy() if policy is None else policy,
        preference,
        OnlineGPOConfig(str(folder), **{**OPTIONS, **options}),
        chat_prompts() if prompts is None else prompts,
        **{"processing_class": build_tokenizer(), **arguments},
    )


def logged(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def recorded_targets(trainer):
    """Runs one step and gives prompts, texts and targets of its generation, in GRPO's order."""
    found = {}
    inner = trainer._generate_and_score_completions

    def record(inputs):
        output = inner(inputs)
        found.setdefault("prompts", [row["prompt"] for row in inputs])
        texts = trainer.processing_class.batch_decode(output["completion_ids"], skip_special_tokens=True)
        found.setdefault("texts", texts)
        found.setdefault("targets", output["targets"].clone())
        return output

    trainer._generate_and_score_completions = record
    trainer.train()
    return found["prompts"], found["texts"], found["targets"]


def report_process(prompts, completions, **columns):
    """A reward function that says nothing about completions and much about the process it runs in."""
    from accelerate.state import AcceleratorState

    state = AcceleratorState()
    with open(os.environ["GPM_HF_REPORT"], "a") as file:
        file.write(f"{state.distributed_type.value} {state.num_processes} {state.process_index}\n")
    return [None] * len(completions)
