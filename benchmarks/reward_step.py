"""
A training step of GPMRewardTrainer, with separate and with packed rows, against one of TRL's RewardTrainer on the same
backbone and the same pairs.

    python benchmarks/reward_step.py --output reward_step.json
    python benchmarks/reward_step.py --model tiny --lengths 64/16 --rounds 2     # a random backbone, in seconds
    OMP_NUM_THREADS=1 python benchmarks/reward_step.py --clock cpu       # on a machine that others use too
    python benchmarks/reward_step.py --device cuda --dtype bfloat16 --pairs 16 --attention flex_attention

A step is collation, forward and backward pass and optimizer. The ways alternate in one process, each round begins with
another one, and ratios are those of medians. The ways of ours with one attention share a trainer and its weights; the
learning rate is 0, so that these stay what they are.
"""

import argparse
import json
import statistics
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast
from trl import RewardConfig, RewardTrainer

from gpm_hf.files import written_whole
from gpm_hf.recipes.heads import find_base_model, unpacked_backbone
from gpm_hf.tables import markdown_table
from gpm_hf.training import GPMRewardConfig, GPMRewardTrainer


def save_tiny_model(folder: str) -> None:
    """A random Llama of two layers with a tokenizer."""
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        **ids,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words = Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>").save_pretrained(folder)


def random_pairs(count: int, prompt: int, response: int, spread: float, seed: int = 0) -> list[dict]:
    """Token ids of pairs; lengths are uniform within `spread` of the given ones."""
    generator = torch.Generator().manual_seed(seed)

    def ids(length: int) -> list[int]:
        factor = 1 + spread * (2 * torch.rand((), generator=generator).item() - 1)
        return torch.randint(10, 500, (max(1, round(factor * length)),), generator=generator).tolist()

    pairs = []
    for _ in range(count):
        shared = ids(prompt)
        pairs.append(
            {"prompt_ids": shared, "chosen_ids": shared + ids(response), "rejected_ids": shared + ids(response)}
        )
    return pairs


class Way:
    """A trainer's optimizer steps with the batches of one collator."""

    def __init__(self, trainer, model, optimizer, collator, clock):
        self.trainer, self.model, self.optimizer = trainer, model, optimizer
        self.collator, self.clock = collator, clock

    def step(self, pairs: list[dict]) -> float:
        """Seconds of one step."""
        self._wait()
        start = self.clock()
        self.model.train()
        self.trainer.training_step(self.model, self.collator(pairs), None)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._wait()
        return self.clock() - start

    def memory(self, pairs: list[dict]) -> int:
        """Bytes that the forward pass keeps for the backward pass, weights not counted."""
        weights = {parameter.untyped_storage().data_ptr() for parameter in self.model.parameters()}
        kept = {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            self.step(pairs)
        return sum(kept.values())

    def _wait(self):
        if self.trainer.args.device.type == "cuda":
            torch.cuda.synchronize()


def ready(trainer: RewardTrainer) -> tuple:
    """A trainer as it stands before its first step, with the model and the optimizer that it steps."""
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1
    return trainer, *trainer.accelerator.prepare(trainer.model, trainer.optimizer)


def make_ways(name: str, options: argparse.Namespace, folder: str) -> dict[str, Way]:
    settings = {
        "output_dir": folder,
        "model_init_kwargs": {"dtype": options.dtype},
        "max_length": None,
        "per_device_train_batch_size": options.pairs,
        "gradient_checkpointing": options.gradient_checkpointing,
        "learning_rate": 0.0,
        "bf16": False,
        "use_cpu": options.device == "cpu",
        "report_to": "none",
    }
    rows = Dataset.from_list(random_pairs(options.pairs, 8, 4, 0.0))
    clock = time.process_time if options.clock == "cpu" else time.perf_counter

    trl = RewardTrainer(name, RewardConfig(**settings), train_dataset=rows.remove_columns("prompt_ids"))
    ways = {"TRL": Way(*ready(trl), trl.data_collator, clock)}
    for attention in ("sdpa", *options.attention):
        settings["model_init_kwargs"]["attn_implementation"] = attention
        arguments = GPMRewardConfig(**settings, embedding_dim=6, packing=True)
        trainer = ready(GPMRewardTrainer(name, arguments, train_dataset=rows))
        packed = trainer[0].data_collator
        label = "" if attention == "sdpa" else f", {attention}"
        ways[f"separate{label}"] = Way(*trainer, packed.separate, clock)
        ways[f"packed{label}"] = Way(*trainer, packed, clock)
        if attention == "sdpa":
            ways["automatic"] = Way(*trainer, replace(packed, always=False), clock)
    return ways


def measure(ways: dict[str, Way], prompt: int, response: int, options: argparse.Namespace) -> dict:
    pairs = random_pairs(options.pairs, prompt, response, options.spread)
    memory = {name: way.memory(pairs) for name, way in ways.items()}  # and the first step, which warms up
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds):
        names = list(ways)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            seconds[name].append(ways[name].step(pairs))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    chosen = "packed" if "response_lengths" in ways["automatic"].collator(pairs) else "separate"
    return {
        "prompt/response": f"{prompt}/{response}",
        "TRL, seconds": round(median["TRL"], 3),
        "separate / TRL": round(median["separate"] / median["TRL"], 3),
        "separate / packed": round(median["separate"] / median["packed"], 3),
        "separate / automatic": round(median["separate"] / median["automatic"], 3),
        "chosen": chosen,
        "TRL / automatic": round(median["TRL"] / median["automatic"], 3),
        "memory, packed / separate": round(memory["packed"] / memory["separate"], 3),
        **{
            f"separate / {name}": round(median["separate"] / seconds, 3)
            for name, seconds in median.items()
            if ", " in name
        },
        "seconds": seconds,
        "bytes kept": memory,
    }


@contextmanager
def model_folder(name: str | None):
    if name == "tiny":
        with tempfile.TemporaryDirectory() as folder:
            save_tiny_model(folder)
            yield folder
    else:
        with unpacked_backbone(name or find_base_model()) as unpacked:
            yield unpacked()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a language model, or `tiny` (default: SmolLM2-135M-Instruct)")
    parser.add_argument("--lengths", nargs="+", default=["512/128", "512/32", "128/128", "64/256"], help="in tokens")
    parser.add_argument("--spread", type=float, default=0.0, help="lengths vary by this part, such as 0.5")
    parser.add_argument("--pairs", type=int, default=2, help="pairs in a batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"], help="cpu: seconds of computing alone")
    parser.add_argument("--dtype", default="float32", help="of the weights")
    parser.add_argument("--attention", nargs="+", default=[], help="implementations to compare besides sdpa")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--output", type=Path, help="a JSON file")
    options = parser.parse_args()

    with model_folder(options.model) as name, tempfile.TemporaryDirectory() as folder:
        ways = make_ways(name, options, folder)
        rows = []
        for lengths in options.lengths:
            prompt, response = map(int, lengths.split("/"))
            rows.append(measure(ways, prompt, response, options))
            print(f"{lengths}: {rows[-1]['seconds']}", flush=True)
    header = [name for name in rows[0] if name not in ("seconds", "bytes kept")]
    print(markdown_table(header, [[row[name] for name in header] for row in rows]))
    if options.output:
        settings = {name: str(value) for name, value in vars(options).items()}
        with written_whole(options.output) as file:
            json.dump(
                {"settings": settings, "torch": torch.__version__, "threads": torch.get_num_threads(), "rows": rows},
                file,
            )


if __name__ == "__main__":
    main()
