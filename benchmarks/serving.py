"""
What a server adds to scoring: groups scored in this process as `gpm-hf score` does, by the small server through
`remote:`, and by 32 clients at once that post texts to its `/score`, one group in each request.

    python benchmarks/serving.py --output serving.json
    OMP_NUM_THREADS=1 python benchmarks/serving.py --layers 6          # modest, on a machine that others use
    python benchmarks/serving.py --model tiny --groups 4 --rounds 1    # a random backbone, in seconds

CPU seconds are counted, of the server and this process together; seconds of waiting stand beside them. The ways take
turns, on the same groups, and ratios are those of medians. Starting and loading are not counted.
"""

import argparse
import contextlib
import json
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import requests
import torch
from group_step import first_layers
from reward_step import model_folder

from gpm_hf.batch_tokens import default_batch_tokens
from gpm_hf.files import written_whole
from gpm_hf.scoring import load_or_start_preference_model, load_preference_model, load_scorer, load_tokenizer
from gpm_hf.tables import markdown_table
from tests.conftest import draw_gate, save_backbone

WORDS = ["time", "people", "water", "light", "house", "work", "place", "point", "night", "paper", "story", "river"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a language model, or `tiny` (default: SmolLM2-135M-Instruct)")
    parser.add_argument("--layers", type=int, help="only the backbone's first layers")
    parser.add_argument("--groups", type=int, default=32)
    parser.add_argument("--responses", type=int, default=8, help="K")
    parser.add_argument("--lengths", default="512/128", help="of prompt and responses, in words")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="a JSON file")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        report = measure(options, save_preference_model(options, folder))
    print(
        markdown_table(
            ["way", *report["ways"]["score"]], [[way, *row.values()] for way, row in report["ways"].items()]
        )
    )
    print(f"Largest difference of log-odds: {report['largest difference of log-odds']:.1e}")
    if options.output:
        settings = {name: str(value) for name, value in vars(options).items()}
        versions = {"torch": torch.__version__, "threads": torch.get_num_threads()}
        with written_whole(options.output) as file:
            json.dump({"settings": settings, **versions, **report}, file, indent=1)


@contextlib.contextmanager
def backbone(name: str | None) -> Iterator[str]:
    """The folder or Hub id of a language model with a chat template."""
    if name == "tiny":
        with tempfile.TemporaryDirectory() as folder:
            yield str(save_backbone(Path(folder), max_position_embeddings=2048))
    else:
        with model_folder(name) as folder:
            yield folder


def save_preference_model(options: argparse.Namespace, folder: str) -> str:
    """Seeded heads on the backbone, with its tokenizer; returns where they are."""
    with backbone(options.model) as base:
        if options.layers:
            base = first_layers(base, options.layers, f"{folder}/backbone")
        torch.manual_seed(0)
        model, _ = load_or_start_preference_model(base, {"embedding_dim": 6})
        draw_gate(model).save_pretrained(f"{folder}/gpm")
        load_tokenizer(base).save_pretrained(f"{folder}/gpm")
    return f"{folder}/gpm"


def random_groups(options: argparse.Namespace) -> tuple[list[str], list[list[str]]]:
    prompt_words, response_words = map(int, options.lengths.split("/"))
    rng = random.Random(0)

    def text(words: int) -> str:
        return " ".join(rng.choices(WORDS, k=words))

    prompts = [text(prompt_words) for _ in range(options.groups)]
    return prompts, [[text(response_words) for _ in range(options.responses)] for _ in prompts]


@contextlib.contextmanager
def server(folder: str, engine: str, *options: str) -> Iterator[tuple[str, psutil.Process]]:
    """`gpm-hf serve` in a process of its own: its address, and the process."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [sys.executable, "-m", "gpm_hf.cli", "serve", folder, "--engine", engine]
    command += ["--port", str(port), *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
        finally:
            process.terminate()


def measure(options: argparse.Namespace, folder: str) -> dict[str, Any]:
    prompts, groups = random_groups(options)
    model, tokenizer = load_preference_model(folder), load_tokenizer(folder)
    tokens = {"max_batch_tokens": default_batch_tokens(model.device.type)}
    with server(folder, "app") as (url, process), ThreadPoolExecutor(options.clients) as pool:
        scorer = load_scorer(f"remote:{url}", connections=options.clients)  # waits until the server is there

        def posted(number: int) -> torch.Tensor:
            request = {"groups": [{"prompt": prompts[number], "responses": groups[number]}]}
            answer = requests.post(url + "/score", json=request, timeout=3600)
            answer.raise_for_status()
            return torch.tensor(answer.json()["results"][0]["scores"])

        ways: dict[str, Callable[[slice], list]] = {
            "score": lambda part: model.preference_scores(tokenizer, prompts[part], groups[part], **tokens),
            "remote": lambda part: scorer(prompts[part], groups[part]),
            "clients": lambda part: list(pool.map(posted, range(*part.indices(len(prompts))))),
        }
        spent: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
        found: dict[str, list] = {}
        for way in ways.values():
            way(slice(1))  # warms up
        for number in range(options.rounds):
            names = list(ways)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                before = clocks(process)
                found[name] = ways[name](slice(None))
                spent[name].append(tuple(after - start for after, start in zip(clocks(process), before)))
                print(
                    f"round {number + 1}, {name}: " + ", ".join(f"{value:.2f}" for value in spent[name][-1]),
                    flush=True,
                )
    return {
        "ways": {name: described(values, spent["score"]) for name, values in spent.items()},
        "largest difference of log-odds": max(
            float((one - other).abs().max()) for name in ways for one, other in zip(found[name], found["score"])
        ),
        "seconds (here, server, waited)": spent,
    }


def clocks(process: psutil.Process) -> tuple[float, float, float]:
    """CPU seconds of this process and of the server, and the time."""
    there = process.cpu_times()
    return time.process_time(), there.user + there.system, time.perf_counter()


def described(values: list, score: list) -> dict[str, Any]:
    def median(rows: list, cpu: bool) -> float:
        return statistics.median(here + there if cpu else waited for here, there, waited in rows)

    return {
        "CPU, s": round(median(values, True), 2),
        "of it here": round(statistics.median(here for here, _, _ in values), 2),
        "CPU / score": round(median(values, True) / median(score, True), 3),
        "waited, s": round(median(values, False), 2),
        "waited / score": round(median(values, False) / median(score, False), 3),
    }


if __name__ == "__main__":
    main()
