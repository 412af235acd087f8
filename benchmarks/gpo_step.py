"""
One optimizer step of OnlineGPOTrainer against one of TRL's GRPOTrainer with a scalar reward model of the same
backbone.

    python benchmarks/gpo_step.py --rounds 20 --out gpo_step.json
    python benchmarks/gpo_step.py --model HuggingFaceTB/SmolLM2-135M-Instruct --completion_tokens 64

Both trainers have the same policy, the same prompts and K, and at each round the same random state, so that they
sample the same completions of the same length; the learning rate is 0, so that this stays so. A step is generation,
scoring, loss, backward pass and optimizer. Steps alternate in one process and swap their order at each round; the
ratio is that of the medians. What the preference model takes of a step is told beside it.
"""

import argparse
import json
import statistics
import tempfile
import time
from copy import deepcopy
from pathlib import Path

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    PreTrainedTokenizerFast,
)
from trl import GRPOConfig, GRPOTrainer

from gpm_hf.modeling import GPMConfig, GPMForPreference
from gpm_hf.training.online_gpo_config import OnlineGPOConfig
from gpm_hf.training.online_gpo_trainer import OnlineGPOTrainer


def build_models(name, hidden_size, layers):
    """A function that makes the policy, a GPM and a scalar reward model of one architecture, and a tokenizer."""
    if name is None:
        config = LlamaConfig(
            vocab_size=512,
            hidden_size=hidden_size,
            intermediate_size=3 * hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=8,
            num_key_value_heads=4,
            max_position_embeddings=1024,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
        torch.manual_seed(0)
        # A configuration for each: trainers write into it, and what one turned off (the cache) slows the other down.
        gpm = GPMForPreference(GPMConfig(text_config=deepcopy(config)))
        reward_config = deepcopy(config)
        reward_config.num_labels = 1
        reward_model = AutoModelForSequenceClassification.from_config(reward_config)
        return lambda: AutoModelForCausalLM.from_config(deepcopy(config)), gpm, reward_model, byte_tokenizer()
    gpm = GPMForPreference.from_backbone(name, dtype=torch.float32)
    reward_model = AutoModelForSequenceClassification.from_pretrained(name, num_labels=1, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(name)
    return lambda: AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32), gpm, reward_model, tokenizer


def byte_tokenizer():
    """One token per byte, and a chat template: nothing to download."""
    specials = ["<pad>", "<eos>"]
    alphabet = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<eos>{% endfor %}"
    template += "{% if add_generation_prompt %}assistant: {% endif %}"
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", chat_template=template
    )


class Stepper:
    """Takes optimizer steps of a trainer one by one, as its training loop does."""

    def __init__(self, trainer):
        self.trainer = trainer
        trainer.create_optimizer()
        trainer.model_wrapped, trainer.optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
        trainer.current_gradient_accumulation_steps = 1
        self.batch = next(iter(trainer.get_train_dataloader()))
        self.tokens = None
        self.scoring = 0.0

    def time_scoring(self):
        """From now on `scoring` is what the preference model took of the last step, in seconds."""
        signal = self.trainer.preference_signal

        def timed(*arguments):
            synchronize()
            start = time.perf_counter()
            matrices = signal(*arguments)
            synchronize()
            self.scoring = time.perf_counter() - start
            return matrices

        self.trainer.preference_signal = timed

    def step(self, seed):
        """Seconds of one step."""
        torch.manual_seed(seed)
        synchronize()
        start = time.perf_counter()
        self.trainer.model_wrapped.train()
        self.trainer.training_step(self.trainer.model_wrapped, self.batch, None)
        self.trainer.optimizer.step()
        self.trainer.optimizer.zero_grad()
        synchronize()
        seconds = time.perf_counter() - start
        self.tokens = torch.cat([inputs["completion_ids"] for inputs in self.trainer._buffered_inputs])
        return seconds


def synchronize():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a causal language model; by default a small Llama with random weights")
    parser.add_argument("--hidden_size", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--prompts", type=int, default=4, help="prompts per step")
    parser.add_argument("--num_generations", type=int, default=4)
    parser.add_argument("--prompt_words", type=int, default=40)
    parser.add_argument("--completion_tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("gpo_step.json"))
    arguments = parser.parse_args()

    build_policy, gpm, reward_model, tokenizer = build_models(arguments.model, arguments.hidden_size, arguments.layers)
    text = " ".join(["water"] * arguments.prompt_words)
    dataset = Dataset.from_list(
        [{"prompt": [{"role": "user", "content": f"{text} {i}?"}]} for i in range(arguments.prompts)]
    )
    options = {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": arguments.prompts * arguments.num_generations,
        "num_generations": arguments.num_generations,
        "num_iterations": 1,
        "max_completion_length": arguments.completion_tokens,
        "generation_kwargs": {"min_new_tokens": arguments.completion_tokens},
        "gradient_checkpointing": False,
        "disable_dropout": True,
        "bf16": False,
        "learning_rate": 0.0,
        "report_to": "none",
    }
    steppers = {}
    for name in ("GRPO", "GPO"):
        torch.manual_seed(1)
        policy = build_policy()
        if name == "GRPO":
            trainer = GRPOTrainer(
                policy,
                reward_model,
                GRPOConfig(**options),
                dataset,
                processing_class=tokenizer,
                reward_processing_classes=tokenizer,
            )
        else:
            trainer = OnlineGPOTrainer(
                policy,
                gpm,
                OnlineGPOConfig(**options, win_rate_prompts=0),
                dataset,
                processing_class=tokenizer,
                preference_processing_class=tokenizer,
            )
        steppers[name] = Stepper(trainer)
    steppers["GPO"].time_scoring()

    seconds, scoring = {name: [] for name in steppers}, []
    for number in range(arguments.rounds + 1):
        order = list(steppers) if number % 2 else list(steppers)[::-1]
        for name in order:
            duration = steppers[name].step(seed=number)
            if number > 0:  # the first round warms up
                seconds[name].append(duration)
                if name == "GPO":
                    scoring.append(steppers[name].scoring)
        first, second = (stepper.tokens for stepper in steppers.values())
        if not torch.equal(first.sort(0).values, second.sort(0).values):
            raise RuntimeError("The two trainers sampled different completions: their times cannot be compared.")

    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians["GPO"] / medians["GRPO"]
    print(f"{'trainer':24}{'median s/step':>14}{'min':>9}{'max':>9}")
    labels = {"GRPO": "GRPO, scalar reward", "GPO": "OnlineGPO, GPM"}
    for name, values in seconds.items():
        print(f"{labels[name]:24}{medians[name]:14.3f}{min(values):9.3f}{max(values):9.3f}")
    print(f"{'  its preference model':24}{statistics.median(scoring):14.3f}{min(scoring):9.3f}{max(scoring):9.3f}")
    print(f"{'ratio':24}{ratio:14.3f}")
    report = {
        "ratio": ratio,
        "preference_model": scoring,
        "seconds": seconds,
        "medians": medians,
        "settings": {name: str(value) for name, value in vars(arguments).items()},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": str(steppers["GPO"].trainer.accelerator.device),
    }
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
