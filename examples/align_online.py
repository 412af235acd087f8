"""
Aligns a policy with a preference model by online General Preference Optimization.

    python examples/align_online.py --policy HuggingFaceTB/SmolLM2-135M-Instruct --preference runs/demo/gpm
"""

import argparse

import torch
from datasets import load_dataset

from gpm_hf import OnlineGPOConfig, OnlineGPOTrainer

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--policy", default="HuggingFaceTB/SmolLM2-135M-Instruct")
parser.add_argument("--preference", default="runs/demo/gpm")
parser.add_argument("--prompts", default="examples/data/prompts.jsonl")
parser.add_argument("--output", default="runs/example-gpo")
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--answer-tokens", type=int, default=48)
options = parser.parse_args()

trainer = OnlineGPOTrainer(
    options.policy,
    options.preference,
    args=OnlineGPOConfig(
        options.output,
        num_generations=4,  # K answers to each prompt, scored against each other
        per_device_train_batch_size=8,
        gpo_beta=0.1,
        learning_rate=1e-5,
        max_steps=options.steps,
        max_completion_length=options.answer_tokens,
        win_rate_prompts=8,  # against the policy as it was at the start
        win_rate_steps=5,
        logging_steps=1,
        save_strategy="no",
        bf16=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
    ),
    train_dataset=load_dataset("json", data_files=options.prompts, split="train"),
)
trainer.train()
trainer.save_model()
rates = [entry["win_rate"] for entry in trainer.state.log_history if entry.get("win_rate") is not None]
print("Win rate against the start, as it went:", " ".join(f"{rate:.3f}" for rate in rates))
