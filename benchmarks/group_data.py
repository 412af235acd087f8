"""
Held-out accuracy after training on people's rankings or ratings of several responses to a prompt: general preference
models and Bradley-Terry, on whole groups and on the same pairs one by one.

    python benchmarks/group_data.py qa_feedback_4way.jsonl --model SMOLLM2
    python benchmarks/group_data.py ratings.jsonl --model SMOLLM2 --seeds 0 --output group_data.json

The data are read in their own form, as by `gpm-hf train reward`, whose options the settings are. The prompts are
parted in two halves; models train on the one and are judged on the other, so that every prompt is held out once. The
heads alone are trained, on stored states. A batch of pairs has as many as a batch of groups has in the mean: as many
steps, on other batches. Intervals resample prompts, over all seeds, and so do not know what another training gives,
which the column by seed shows; the last column is a difference on the same prompts. The control takes the longer
response, in characters.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from gpm_hf.data.judged_groups import read_judged_group
from gpm_hf.data.overlap import hold_out
from gpm_hf.data.splits import load_preference_dataset, split_of
from gpm_hf.evaluation.statistics.bootstrap import bootstrap_interval
from gpm_hf.files import written_whole
from gpm_hf.scripts.held_out import right_by_prompt
from gpm_hf.tables import markdown_table
from gpm_hf.training import GPMRewardConfig, GPMRewardTrainer

GPM, REWARD = "general preference model", "Bradley-Terry"
# By prompt, how many pairs are right and of how many; over seeds these add up.
Counts = dict[str, tuple[float, int]]


def longer_is_better(rows: Dataset) -> Counts:
    """Of the control; of two that are equally long half a pair is right."""
    found = {}
    for row in rows:
        group = read_judged_group(row)
        decided = [pair for pair in group.pairs if pair.probability != 0.5]
        longer = [np.sign(len(group.responses[one.first]) - len(group.responses[one.second])) for one in decided]
        agreed = [sign * np.sign(pair.probability - 0.5) for sign, pair in zip(longer, decided, strict=True)]
        if decided:
            found[str(row["prompt"])] = (float(sum(1 + one for one in agreed)) / 2, len(decided))
    return found


def train(
    rows: tuple[Dataset, Dataset], dimension: int, grouped: bool, seed: int, options: argparse.Namespace
) -> tuple[Counts, Counts]:
    """What a model has right of what it was trained on, and of what was held out."""
    pairs = [len(read_judged_group(row).pairs) for row in rows[0]]
    size = options.groups if grouped else round(options.groups * sum(pairs) / len(pairs))
    with tempfile.TemporaryDirectory() as folder:
        args = GPMRewardConfig(
            folder,
            embedding_dim=dimension,
            train_heads_only=True,
            group_pairs=None if grouped else False,
            per_device_train_batch_size=size,
            num_train_epochs=options.epochs,
            learning_rate=options.learning_rate,
            seed=seed,
            use_cpu=True,
            bf16=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = GPMRewardTrainer(options.model, args, train_dataset=rows[0], eval_dataset=rows[1])
        trainer.train()
        return tuple(
            right_by_prompt(dataset, trainer.predict(dataset).predictions, regression=False)
            for dataset in (trainer.train_dataset, trainer.eval_dataset)
        )


def add_up(counts: Iterable[Counts]) -> Counts:
    found: Counts = {}
    for one in counts:
        for prompt, (right, pairs) in one.items():
            before = found.get(prompt, (0, 0))
            found[prompt] = (before[0] + right, before[1] + pairs)
    return found


def accuracy(counts: Counts) -> float:
    return sum(right for right, _ in counts.values()) / sum(pairs for _, pairs in counts.values())


def share(counts: Counts) -> str:
    """Accuracy with its interval over prompts."""
    low, high = bootstrap_interval(*zip(*counts.values(), strict=True))
    return f"{accuracy(counts):.1%} ({low:.1%} to {high:.1%})"


def difference(first: Counts, second: Counts) -> str:
    """Of two accuracies on the same prompts, in points."""
    totals = [pairs for _, pairs in first.values()]
    gaps = [right - second[prompt][0] for prompt, (right, _) in first.items()]
    low, high = bootstrap_interval(gaps, totals)
    return f"{100 * sum(gaps) / sum(totals):+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a file of groups, in any form that the launch script reads")
    parser.add_argument("--model", required=True, help="a language model to start from")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the training")
    parser.add_argument("--groups", type=int, default=2, help="in a batch")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--output", type=Path, help="a JSON file")
    options = parser.parse_args()

    rows = split_of(load_preference_dataset(options.data, report=print), "train")
    halves = hold_out(rows, 0.5)
    found: dict[tuple[str, str], list[tuple[Counts, Counts]]] = {}
    for name, dimension in ((GPM, 6), (REWARD, 1)):
        for way in ("groups", "pairs"):
            runs = [
                train(parts, dimension, way == "groups", seed, options)
                for seed in options.seeds
                for parts in (halves, halves[::-1])
            ]
            found[name, way] = runs
            print(f"{name}, {way}: {share(add_up(test for _, test in runs))}", flush=True)

    held_out = {key: add_up(test for _, test in runs) for key, runs in found.items()}
    control = longer_is_better(rows)
    lines: list[list[Any]] = [["the longer response", "-", "-", share(control), "-", "-"]]
    for (name, way), runs in found.items():
        own = held_out[name, way]
        apart = "-" if way == "groups" else difference(held_out[name, "groups"], own)
        # Runs are seed by seed, with both halves of each.
        seeds = [add_up(test for _, test in runs[place : place + 2]) for place in range(0, len(runs), 2)]
        by_seed = ", ".join(f"{100 * accuracy(one):.1f}" for one in seeds)
        lines.append([name, way, share(add_up(train for train, _ in runs)), share(own), by_seed, apart])
    print(
        f"{len(rows)} prompts, {sum(pairs for _, pairs in control.values())} pairs with a side; seeds {options.seeds}."
    )
    print(f"GPM less Bradley-Terry, groups: {difference(held_out[GPM, 'groups'], held_out[REWARD, 'groups'])} points.")
    header = ["model", "trained on", "of the training", "held out (95%)", "by seed", "groups less pairs, points"]
    print(markdown_table(header, lines))
    if options.output:
        with written_whole(options.output) as file:
            json.dump({"settings": {name: str(value) for name, value in vars(options).items()}, "rows": lines}, file)


if __name__ == "__main__":
    main()
