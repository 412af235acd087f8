"""
A training step on groups of K responses, three ways with one backbone: TRL's RewardTrainer on all pairs of the group,
GPMRewardTrainer on the same pairs, packed two by two, and GPMRewardTrainer on the group.

    python benchmarks/group_step.py --output group_step.json
    OMP_NUM_THREADS=1 python benchmarks/group_step.py --clock cpu --layers 6    # modest, on a machine that others use
    python benchmarks/group_step.py --model tiny --lengths 64/16 --rounds 2     # a random backbone, in seconds

A group of 3 is a ring, larger ones are rankings, with K (K - 1) / 2 pairs each. A step is as in `reward_step.py`,
whose parts this uses: the ways alternate in one process, and ratios are those of medians. The bounds count tokens
alone. "User" leaves out the seconds that the kernel took: most of these go to memory that a step of many sequences
fetches anew and gives back, which no count of tokens knows.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from itertools import combinations
from pathlib import Path

import torch
from datasets import Dataset
from reward_step import Way, model_folder, ready
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import RewardConfig, RewardTrainer

from gpm_hf.data.group_rows import group_of_pairs
from gpm_hf.files import written_whole
from gpm_hf.tables import markdown_table
from gpm_hf.training import GPMRewardConfig, GPMRewardTrainer


def random_group(size: int, prompt: int, response: int) -> tuple[list[dict], dict]:
    """Token ids of all pairs of a group, and of the group."""
    generator = torch.Generator().manual_seed(size)

    def ids(length: int) -> list[int]:
        return torch.randint(10, 500, (length,), generator=generator).tolist()

    shared = ids(prompt)
    responses = [shared + ids(response) for _ in range(size)]
    edges = [(0, 1), (1, 2), (2, 0)] if size == 3 else list(combinations(range(size), 2))
    pairs = [{"prompt_ids": shared, "chosen_ids": responses[i], "rejected_ids": responses[j]} for i, j in edges]
    return pairs, group_of_pairs(pairs, is_regression=False, length_column=None)


def first_layers(name: str, count: int, folder: str) -> str:
    """A folder with a language model of the first layers of another."""
    model = AutoModelForCausalLM.from_pretrained(name)
    model.model.layers = model.model.layers[:count]
    model.config.num_hidden_layers = count
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[:count]
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(name).save_pretrained(folder)
    return folder


def make_ways(name: str, options: argparse.Namespace, folder: str) -> dict[str, Way]:
    if options.layers:
        name = first_layers(name, options.layers, f"{folder}/backbone")
    settings = {
        "output_dir": folder,
        "model_init_kwargs": {"dtype": options.dtype},
        "max_length": None,
        "gradient_checkpointing": options.gradient_checkpointing,
        "learning_rate": 0.0,
        "bf16": False,
        "use_cpu": options.device == "cpu",
        "report_to": "none",
    }
    rows = Dataset.from_list(random_group(3, 8, 4)[0])
    clock = time.process_time if options.clock == "cpu" else time.perf_counter

    trl = RewardTrainer(name, RewardConfig(**settings), train_dataset=rows.remove_columns("prompt_ids"))
    arguments = GPMRewardConfig(**settings, embedding_dim=6, group_pairs=False)
    ours = ready(GPMRewardTrainer(name, arguments, train_dataset=rows))
    collator = ours[0].data_collator
    return {
        "TRL": Way(*ready(trl), trl.data_collator, clock),
        "pairs": Way(*ours, collator, clock),
        "group": Way(*ours, collator, clock),
    }


def first_step(way: Way, rows: list[dict]) -> tuple[int, int]:
    """Warms up: bytes kept for the backward pass, and places of the batch that pass the backbone, padding included."""
    counts = []
    embeddings = way.trainer.model.get_input_embeddings()
    handle = embeddings.register_forward_hook(lambda module, inputs, output: counts.append(output.shape[:-1].numel()))
    kept = way.memory(rows)
    handle.remove()
    return kept, sum(counts)


def timed_step(way: Way, rows: list[dict]) -> tuple[float, float]:
    """Seconds of a step by its clock, and of computing outside of the kernel."""
    before = os.times().user
    return way.step(rows), os.times().user - before


def measure(ways: dict[str, Way], size: int, lengths: str, options: argparse.Namespace) -> dict:
    prompt, response = map(int, lengths.split("/"))
    pairs, group = random_group(size, prompt, response)
    rows = {"TRL": pairs, "pairs": pairs, "group": [group]}
    memory, passed = {}, {}
    for name, way in ways.items():
        memory[name], passed[name] = first_step(way, rows[name])
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(options.rounds):
        names = list(ways)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            seconds[name].append(timed_step(ways[name], rows[name]))
    median, user = (
        {name: statistics.median(step[kind] for step in steps) for name, steps in seconds.items()} for kind in (0, 1)
    )
    tokens = prompt + size * response
    return {
        "K": size,
        "pairs": len(pairs),
        "prompt/response": lengths,
        "TRL, seconds": round(median["TRL"], 3),
        "TRL / group": round(median["TRL"] / median["group"], 2),
        "bound": round(2 * len(pairs) * (prompt + response) / tokens, 2),
        "user, TRL / group": round(user["TRL"] / user["group"], 2),
        "tokens, TRL / group": round(passed["TRL"] / passed["group"], 2),
        "pairs / group": round(median["pairs"] / median["group"], 2),
        "user, pairs / group": round(user["pairs"] / user["group"], 2),
        "tokens, pairs / group": round(passed["pairs"] / passed["group"], 2),
        "memory, TRL / group": round(memory["TRL"] / memory["group"], 2),
        "memory, pairs / group": round(memory["pairs"] / memory["group"], 2),
        "seconds": seconds,
        "bytes kept": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a language model, or `tiny` (default: SmolLM2-135M-Instruct)")
    parser.add_argument("--layers", type=int, help="only the backbone's first layers")
    parser.add_argument("--lengths", nargs="+", default=["512/128", "128/128", "512/32"], help="in tokens")
    parser.add_argument("--sizes", nargs="+", type=int, default=[3, 4, 7], help="K")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"], help="cpu: seconds of computing alone")
    parser.add_argument("--dtype", default="float32", help="of the weights")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--output", type=Path, help="a JSON file")
    options = parser.parse_args()

    with model_folder(options.model) as name, tempfile.TemporaryDirectory() as folder:
        ways = make_ways(name, options, folder)
        rows = []
        for lengths in options.lengths:
            for size in options.sizes:
                rows.append(measure(ways, size, lengths, options))
                print(f"{lengths}, K = {size}: {rows[-1]['seconds']}", flush=True)
    header = [name for name in rows[0] if name not in ("seconds", "bytes kept")]
    print(markdown_table(header, [[row[name] for name in header] for row in rows]))
    if options.output:
        settings = {name: str(value) for name, value in vars(options).items()}
        versions = {"torch": torch.__version__, "threads": torch.get_num_threads()}
        with written_whole(options.output) as file:
            json.dump({"settings": settings, **versions, "rows": rows}, file)


if __name__ == "__main__":
    main()
