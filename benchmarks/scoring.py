"""
What scoring K responses to one prompt costs, in time and memory: with the prompt encoded once (shared), with K
separate encodes by the bare backbone, and with the K(K-1) encodes of a pair preference model, which reads both
responses at once. Also the overhead over the bare backbone on the same tokens, and the growth with K and with the
data's size.

All ways take turns in one process, and figures are ratios of medians. Of a pair model's K(K-1) encodes
`--pair-encodes` are timed and multiplied. Memory is that of tensors, without the weights.

    python benchmarks/scoring.py --output scoring.json                         # SmolLM2-135M, float32, on this machine
    python benchmarks/scoring.py --device cuda --dtype bfloat16 --output scoring.json
    python benchmarks/scoring.py --quick                                       # a tiny model, in seconds: does it run?
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig

from gpm_hf.files import written_whole
from gpm_hf.modeling import EncodedGroup, GPMConfig, GPMForPreference, collate_groups
from gpm_hf.modeling.encoding_gpm import rows_of_groups
from gpm_hf.modeling.engine_gpm import embed_rows
from gpm_hf.recipes.heads import find_base_model
from gpm_hf.scoring import load_or_start_preference_model
from gpm_hf.tables import markdown_table

MEGABYTE = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a language model or preference model (default: SmolLM2-135M-Instruct)")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prompt", type=int, nargs="+", default=[64, 512, 2048], help="prompt lengths in tokens")
    parser.add_argument("--responses", type=int, nargs="+", default=[4, 8, 16], help="K")
    parser.add_argument("--response-length", type=int, default=128, help="in tokens")
    parser.add_argument("--batch-size", type=int, default=8, help="sequences encoded at once, in every way")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pair-encodes", type=int, default=2, help="encodes of a pair model timed, of the K(K-1)")
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"], help="cpu: this process's CPU seconds")
    parser.add_argument("--only", choices=["grid", "overhead", "growth"], nargs="+", help="by default all three")
    parser.add_argument("--quick", action="store_true", help="a tiny model, short texts, one round")
    parser.add_argument("--output", help="a JSON file")
    options = parser.parse_args()
    if options.quick:
        options.prompt, options.responses, options.response_length, options.rounds = [64], [4], 16, 1

    name, model = _model(options)
    parts = options.only or ["grid", "overhead", "growth"]
    report: dict = {
        "model": name,
        "settings": {key: value for key, value in vars(options).items() if key not in ("output", "model")},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": torch.cuda.get_device_name() if model.device.type == "cuda" else "CPU",
    }
    if "grid" in parts:
        report["grid"] = []
        for prompt in options.prompt:
            for count in options.responses:
                report["grid"].append(_grid_point(model, options, prompt, count))
        _show(report["grid"])
    if "overhead" in parts:
        report["overhead"] = [_overhead(model, options, prompt) for prompt in options.prompt]
        _show(report["overhead"])
    if "growth" in parts:
        report["growth"] = [_growth_with_responses(model, options, prompt) for prompt in options.prompt]
        report["growth_with_data"] = [_growth_with_data(model, options)]
        _show(report["growth"])
        _show(report["growth_with_data"])
    if options.output:
        with written_whole(options.output) as file:
            json.dump(report, file, indent=1)


def _model(options: argparse.Namespace) -> tuple[str, GPMForPreference]:
    if options.quick:
        text_config = AutoConfig.for_model(
            "llama", hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=400
        )
        model, name = GPMForPreference(GPMConfig(text_config=text_config, embedding_dim=6)), "tiny Llama, random"
    else:
        base = options.model or find_base_model()
        model, _ = load_or_start_preference_model(base, {"embedding_dim": 6}, dtype=options.dtype)
        name = options.model or "SmolLM2-135M-Instruct"
    return name, model.to(options.device).eval()


def random_group(model: GPMForPreference, prompt: int, response: int, count: int, seed: int = 0) -> EncodedGroup:
    """Random token ids: a prompt of so many tokens and `count` responses."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary = model.config.text_config.vocab_size
    shared = torch.randint(10, vocabulary, (prompt,), generator=generator).tolist()
    tails = torch.randint(10, vocabulary, (count, response), generator=generator).tolist()
    return EncodedGroup([shared + tail for tail in tails], shared)


@torch.no_grad()
def _grid_point(model: GPMForPreference, options: argparse.Namespace, prompt: int, count: int) -> dict:
    length, size = options.response_length, options.batch_size
    group = random_group(model, prompt, length, count)
    pairs = count * (count - 1)
    timed_pairs = min(options.pair_encodes, pairs)
    ways = {
        "shared": lambda: model.embed_groups([group], size),
        "separate": lambda: _backbone(model, count, prompt + length, size),
        "pair": lambda: _backbone(model, timed_pairs, prompt + 2 * length, size),
    }
    times = _medians(model, ways, options, options.rounds)
    times["pair"] *= pairs / timed_pairs
    # A pair model is given the whole batch here: its memory is that of as many encodes as are done at once.
    ways["pair"] = lambda: _backbone(model, min(size, pairs), prompt + 2 * length, size)
    memory = {name: _peak_memory(model, way) for name, way in ways.items()}
    shared_tokens = prompt + count * length
    return {
        "prompt": prompt,
        "K": count,
        "shared, s": round(times["shared"], 3),
        "separate / shared": round(times["separate"] / times["shared"], 2),
        "token bound": round(count * (prompt + length) / shared_tokens, 2),
        "pair model / shared": round(times["pair"] / times["shared"], 1),
        "its token bound": round(pairs * (prompt + 2 * length) / shared_tokens, 1),
        "pairs timed": f"{timed_pairs} of {pairs}",
        "MB, shared": round(memory["shared"], 1),
        "MB, separate": round(memory["separate"], 1),
        "MB, pair model": round(memory["pair"], 1),
    }


@torch.no_grad()
def _overhead(model: GPMForPreference, options: argparse.Namespace, prompt: int) -> dict:
    """Embeddings, scales and what else we do, over the backbone's forward on the same tokens in the same batch."""
    group = random_group(model, prompt, options.response_length, 4)
    batch = collate_groups([group], pad_token_id=0)
    rows, prompt_lengths, _ = rows_of_groups([group])
    ids, mask = batch["input_ids"].to(model.device), batch["attention_mask"].to(model.device)
    ways = {
        "ours": lambda: embed_rows(model, rows, prompt_lengths, 4),
        "backbone": lambda: model.model(ids, attention_mask=mask, use_cache=False),
    }
    times = _medians(model, ways, options, 2 * options.rounds)
    return {
        "prompt": prompt,
        "rows": 4,
        "backbone, s": round(times["backbone"], 3),
        "ours / backbone": round(times["ours"] / times["backbone"], 3),
        "at most": 1.05,
    }


@torch.no_grad()
def _growth_with_responses(model: GPMForPreference, options: argparse.Namespace, prompt: int) -> dict:
    """From 4 to 16 responses, the pass over the prompt not counted."""
    few, many = 4, 16
    seconds: dict[int, list[float]] = {few: [], many: []}
    groups = {count: random_group(model, prompt, options.response_length, count) for count in seconds}
    ends: list[float] = []

    def note(*_) -> None:
        ends.append(_now(model, options))

    hook = model.model.register_forward_hook(note)
    for round_number in range(options.rounds + 1):
        for count, group in groups.items():
            ends.clear()
            model.embed_groups([group], options.batch_size)
            duration = _now(model, options) - ends[0]  # the first pass is the prompt's
            if round_number:
                seconds[count].append(duration)
            assert len(ends) == 1 + -(-count // options.batch_size), "the prompt was not encoded once"
    hook.remove()
    medians = {count: statistics.median(values) for count, values in seconds.items()}
    return {
        "prompt": prompt,
        f"K={few}, s": round(medians[few], 3),
        f"K={many}, s": round(medians[many], 3),
        f"time(K={many}) / time(K={few})": round(medians[many] / medians[few], 2),
        "at most": 4.2,
    }


@torch.no_grad()
def _growth_with_data(model: GPMForPreference, options: argparse.Namespace) -> dict:
    """Pairs of ordinary length, from 16 of them to 64."""
    few, many = 16, 64
    groups = [random_group(model, 16, 32, 2, seed=seed) for seed in range(many)]
    ways = {
        "few": lambda: model.embed_groups(groups[:few], max_batch_tokens=1024),
        "many": lambda: model.embed_groups(groups, max_batch_tokens=1024),
    }
    times = _medians(model, ways, options, options.rounds)
    return {
        f"{few} pairs, s": round(times["few"], 3),
        f"{many} pairs, s": round(times["many"], 3),
        f"time({many}) / time({few})": round(times["many"] / times["few"], 2),
        "at most": 4.2,
    }


def _backbone(model: GPMForPreference, rows: int, tokens: int, size: int) -> None:
    """The backbone's forward alone, on random ids."""
    for start in range(0, rows, size):
        shape = (min(size, rows - start), tokens)
        ids = torch.randint(10, model.config.text_config.vocab_size, shape, device=model.device)
        model.model(ids, attention_mask=torch.ones_like(ids), use_cache=False)


def _medians(
    model: GPMForPreference, ways: dict[str, Callable], options: argparse.Namespace, rounds: int
) -> dict[str, float]:
    """Median seconds of each way; they take turns, and the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(rounds + 1):
        for name, way in ways.items():
            start = _now(model, options)
            way()
            duration = _now(model, options) - start
            if round_number:
                seconds[name].append(duration)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _peak_memory(model: GPMForPreference, way: Callable) -> float:
    """Megabytes of tensors at most alive at once during a call, over those that were alive before."""
    if model.device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        way()
        return (torch.cuda.max_memory_allocated() - before) / MEGABYTE
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        way()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    return most / MEGABYTE


def _now(model: GPMForPreference, options: argparse.Namespace) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.process_time() if options.clock == "cpu" else time.perf_counter()


def _show(rows: list[dict]) -> None:
    header = list(rows[0])
    print("\n" + markdown_table(header, [list(row.values()) for row in rows]), flush=True)


if __name__ == "__main__":
    main()
