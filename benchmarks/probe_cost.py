"""
What it costs to ask a backbone which roads it takes (causality, prompts in a cache, packed rows), against loading the
preference model by `load_preference_model`, in CPU seconds of a process of its own that has imported this package:
asked for the first time, answered from disk as in every later process, and left out. The three take turns; medians.

    OMP_NUM_THREADS=1 python benchmarks/probe_cost.py                # SmolLM2-135M, float32
    python benchmarks/probe_cost.py --rounds 1                       # does it run?
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time

from gpm_hf.modeling import GPMForPreference, packing_obstacle, sharing_obstacle
from gpm_hf.recipes.heads import find_base_model, unpacked_backbone
from gpm_hf.scoring.preference_model import load_preference_model
from gpm_hf.tables import markdown_table

WAYS = ("asked for the first time", "answered from disk", "left out")


def seconds(work):
    begin = time.process_time()
    made = work()
    return made, time.process_time() - begin


def measure(folder, answers, switch):
    os.environ |= {"GPM_HF_PROBE": switch, "GPM_HF_PROBE_CACHE": answers}
    model, load = seconds(lambda: load_preference_model(folder, dtype="float32"))
    found, ask = seconds(lambda: [sharing_obstacle(model), packing_obstacle(model)])
    assert found == [None, None], found
    return load, ask


def save_model(base, folder):
    """In a process of its own: those that are measured have loaded nothing before."""
    with unpacked_backbone(base) as unpacked:
        GPMForPreference.from_backbone(unpacked(), dtype="float32").save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    fork = multiprocessing.get_context("fork")
    loads, asks = [], {way: [] for way in WAYS}
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory() as kept,
        fork.Pool(1, maxtasksperchild=1) as processes,
    ):
        processes.apply(save_model, (find_base_model(), folder))
        processes.apply(measure, (folder, kept, "1"))
        for _ in range(options.rounds):
            for way in WAYS:
                with tempfile.TemporaryDirectory() as empty:
                    answers = empty if way == WAYS[0] else kept
                    load, ask = processes.apply(measure, (folder, answers, "0" if way == WAYS[2] else "1"))
                loads.append(load)
                asks[way].append(1000 * ask)
    load = statistics.median(loads)
    rows = [
        [
            way,
            f"{statistics.median(asks[way]):.2f}",
            f"{min(asks[way]):.2f} to {max(asks[way]):.2f}",
            f"{statistics.median(asks[way]) / 1000 / load:.2%}",
        ]
        for way in WAYS
    ]
    cost = statistics.median(asks[WAYS[1]]) - statistics.median(asks[WAYS[2]])
    print(f"Loading: {load:.2f} s ({min(loads):.2f} to {max(loads):.2f}), {len(loads)} loads.\n")
    print(markdown_table(["the questions", "CPU, ms", "of the rounds", "of loading"], rows))
    print(f"\nFrom disk less left out: {cost:.2f} ms, {cost / 1000 / load:.2%} of loading.")


if __name__ == "__main__":
    main()
