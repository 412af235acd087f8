"""
Trains a Bradley-Terry model and a general preference model on the same rings, and says what each has right of them.

    python examples/train.py --model HuggingFaceTB/SmolLM2-135M-Instruct --output runs/example
"""

import argparse

from datasets import load_dataset

from gpm_hf import GPMRewardConfig, GPMRewardTrainer

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
parser.add_argument("--data", default="examples/data/rings.jsonl")
parser.add_argument("--output", default="runs/example")
parser.add_argument("--steps", type=int, default=200)
options = parser.parse_args()

rows = load_dataset("json", data_files=options.data, split="train").train_test_split(test_size=6, seed=0)
for name, dimension in (("bradley-terry", 1), ("gpm", 6)):
    trainer = GPMRewardTrainer(
        options.model,
        args=GPMRewardConfig(
            f"{options.output}/{name}",
            embedding_dim=dimension,
            train_heads_only=True,  # the backbone stays as it is, so each text is encoded once
            max_steps=options.steps,
            learning_rate=5e-4,
            bf16=False,
            report_to="none",
        ),
        train_dataset=rows["train"],
        eval_dataset=rows["test"],
    )
    trainer.train()
    trainer.save_model()
    trainer.create_model_card()
    measured = trainer.evaluate()
    print(f"{name}: {measured['eval_accuracy']:.1%} of the pairs, {measured['eval_cycles_right']:.1%} of the cycles")
