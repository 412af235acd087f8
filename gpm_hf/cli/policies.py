"""`gpm-hf iterate`, `best-of-n` and `answer`: what needs a policy that answers."""

import argparse
import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from gpm_hf.cli.common import hub_options
from gpm_hf.cli.outputs import writes
from gpm_hf.cli.scoring import RULES, shorten


def add_commands(commands: Any) -> None:
    """Adds the commands to the parser's."""
    iterate = commands.add_parser(
        "iterate",
        help="align a policy in several iterations: sample, score, learn, go on",
        description="Aligns a policy in several iterations: it answers prompts, a preference model scores the "
        "answers, it learns from them. Goes on where an interrupted run was. `gpm-hf train iterate` "
        "is the same on several devices.",
    )
    iterate.add_argument("policy", help="Hub id or folder of the policy to start from (one .gguf file will do)")
    iterate.add_argument(
        "options",
        nargs=argparse.REMAINDER,
        metavar="...",
        help="--scorer SPEC --prompts FILE --iterations N --num-generations K --method METHOD --selection RULE "
        "--output FOLDER --config FILE.yaml, and the trainer's options; `gpm-hf iterate POLICY --help` lists them all",
    )
    iterate.set_defaults(run=_iterate)

    best = _policy_command(commands, "best-of-n", "the best of n answers, by a scorer", _best_of_n)
    best.add_argument("--scorer", required=True, help="gpm:NAME, reward:NAME, pair:NAME, judge:NAME, ...")
    best.add_argument("--prompt", help="one prompt")
    best.add_argument("--input", help="rows with `prompt` instead: a .jsonl or other data file, or a data set")
    best.add_argument("--n", type=int, default=8, help="answers to choose from")
    best.add_argument("--rule", choices=RULES, default="mean", help="as in `gpm-hf rank` (default: mean log-odds)")
    best.add_argument("--output", help="with --input: the .jsonl file to write")
    best.add_argument("--format", choices=["text", "json"], default="text")
    writes(best, lambda options: [options.output])

    answer = _policy_command(commands, "answer", "answers to prompts, in AlpacaEval's format", _answer)
    answer.add_argument("--prompts", required=True, help="rows with `prompt` or `instruction`")
    answer.add_argument("--output", required=True, help="the .json file to write")
    answer.add_argument("--name", help="what to call the policy (default: the folder's name)")
    writes(answer, lambda options: [options.output])


def _policy_command(commands: Any, name: str, text: str, run: Any) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("policy", help="Hub id or folder of a causal language model (one .gguf file will do)")
    parser.add_argument("--revision", help="branch, tag or commit of the policy on the Hub")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--top-p", type=float, default=0.9)
    parser.add_argument("--max-new-tokens", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=16, help="sequences at once")
    parser.add_argument("--shard-size", type=int, default=32, help="prompts answered and written at once")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16, ... of the policy (default: as saved)")
    parser.add_argument("--device", choices=["cpu"], help="stay off a GPU that is there")
    parser.add_argument("--use-vllm", action="store_true", help="sample by vLLM (needs gpm-hf[vllm])")
    parser.add_argument(
        "--vllm-options",
        nargs="+",
        metavar="KEY=VALUE",
        help="of vLLM's engine: max_model_len=4096 tensor_parallel_size=2 gpu_memory_utilization=0.5 ...",
    )
    parser.set_defaults(run=run)
    return parser


def _iterate(options: argparse.Namespace) -> None:
    from transformers.utils import logging

    from gpm_hf.recipes.iterate_config import IterateConfig
    from gpm_hf.scripts.iterate import main
    from gpm_hf.scripts.options import parse_options
    from gpm_hf.training import OfflineGPOConfig

    logging.disable_progress_bar()
    given = ["--policy", options.policy, *options.options]
    main(*parse_options("gpm-hf iterate POLICY", (IterateConfig, OfflineGPOConfig), given))


def _best_of_n(options: argparse.Namespace) -> None:
    if (options.prompt is None) == (options.input is None):
        raise ValueError("Give either --prompt, or --input FILE.jsonl.")
    if (options.input is None) != (options.output is None):
        raise ValueError("--input and --output belong together: a file of prompts, and the file to write.")
    if options.n < 2:
        raise ValueError(f"--n {options.n}: there is a best of at least two answers.")
    from accelerate import PartialState

    from gpm_hf.generation import read_prompts, shard_seed
    from gpm_hf.identity import scorer_identity
    from gpm_hf.locks import only_run
    from gpm_hf.recipes.best_of_n import choose_best
    from gpm_hf.recipes.policies import check_readable, load_placed_scorer
    from gpm_hf.shards import Stage, map_in_shards, written_rows

    def sample(number: int, shard: list[dict]) -> list[dict]:
        groups = sampler.sample([row["prompt"] for row in shard], shard_seed(options.seed, number))
        return [row | group.columns() for row, group in zip(shard, groups)]

    def choose(number: int, shard: list[dict]) -> list[dict]:
        return choose_best(shard, scorer, options.rule)

    prompts = [options.prompt] if options.input is None else read_prompts(options.input)
    rows = [{"prompt": prompt} for prompt in prompts]
    with only_run(options.output, options.overwrite) if options.output else nullcontext():
        sampler = _load(options, options.n)
        sampler.check(prompts, options.input or "--prompt")
        scorer = load_placed_scorer(options.scorer, options.batch_size)
        check_readable(scorer, prompts, options.input or "--prompt")
        if options.output is None:
            (row,) = choose(0, sample(0, rows))
            print(json.dumps(row, ensure_ascii=False) if options.format == "json" else _best_text(row))
            return
        settings = _settings(options)
        # The answers do not depend on who chooses among them: another scorer, or rule, does not cost them.
        sampling = Stage("samples", sample, settings)
        settings = settings | {"scorer": scorer_identity(options.scorer), "rule": options.rule}
        count = map_in_shards(
            rows, choose, options.output, settings, options.shard_size, options.overwrite, first=sampling
        )
    if PartialState().is_main_process:
        empty = sum(row["index"] is None for row in written_rows(options.output))
        told = f" To {empty} of the prompts no answer has text: the best is empty." if empty else ""
        print(f"{count} rows written to {options.output}.{told}")


def _best_text(row: dict) -> str:
    if row["index"] is None:
        return "No answer has text: sample more, or raise the temperature."
    lines = [f"[{row['index']}] {row['best']}", "", "mean log-odds  answer"]
    for index, (value, response) in enumerate(zip(row["mean_scores"], row["responses"])):
        lines.append(f"{value:>+13.2f}  [{index}] {shorten(response)}")
    return "\n".join(lines)


def _answer(options: argparse.Namespace) -> None:
    from accelerate import PartialState

    from gpm_hf.evaluation.reports.policy_answers import PolicyAnswers, write_alpaca_eval
    from gpm_hf.generation import read_prompts, shard_seed
    from gpm_hf.locks import only_run
    from gpm_hf.shards import map_in_shards

    output = Path(options.output)
    if output.suffix != ".json":
        raise ValueError(f"--output {output}: AlpacaEval's format is a .json file.")
    prompts = read_prompts(options.prompts)
    for number, prompt in enumerate(prompts, 1):
        if not isinstance(prompt, str):
            raise ValueError(f"{options.prompts}, row {number}: AlpacaEval's format has one string for a prompt.")
    names = [f"row {number}" for number in range(1, len(prompts) + 1)]
    rows = ({"prompt": prompt} for prompt in prompts)

    def reply(number: int, shard: list[dict]) -> list[dict]:
        answers = sampler([row["prompt"] for row in shard], shard_seed(options.seed, number))
        return [row | {"output": output} for row, (output,) in zip(shard, answers)]

    def write(rows: Iterator[dict]) -> None:
        name = options.name or Path(options.policy).resolve().name
        write_alpaca_eval(output, PolicyAnswers(name, prompts, [row["output"] for row in rows], names))

    with only_run(output, options.overwrite):
        sampler = _load(options, 1)
        sampler.check(prompts, options.prompts)
        map_in_shards(rows, reply, output, _settings(options), options.shard_size, options.overwrite, write=write)
    if PartialState().is_main_process:
        print(f"{len(prompts)} answers written to {output}.")


def _load(options: argparse.Namespace, count: int) -> Any:
    """The policy as a sampler, on this process's device."""
    import torch
    from accelerate import PartialState
    from transformers.utils import logging

    from gpm_hf.generation import SamplingOptions, read_engine_options
    from gpm_hf.recipes.policies import load_sampler

    logging.disable_progress_bar()
    PartialState(cpu=options.device == "cpu" or not torch.accelerator.is_available())
    sampling = SamplingOptions(count, options.temperature, options.top_p, options.max_new_tokens, options.batch_size)
    engine = read_engine_options(options.vllm_options)
    return load_sampler(options.policy, sampling, options.dtype, options.use_vllm, engine, **hub_options(options))


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """What the answers depend on beside their prompts."""
    from gpm_hf.data.sampled_ids import ID_COLUMNS
    from gpm_hf.generation import import_vllm
    from gpm_hf.identity import model_identity, versions

    names = ["revision", "temperature", "top_p", "max_new_tokens", "seed", "batch_size", "dtype", "n"]
    names += ["use_vllm", "vllm_options"]
    settings = {name: vars(options)[name] for name in names if name in vars(options)}
    if options.use_vllm:
        settings["vllm"] = import_vllm().__version__
    # Earlier versions wrote answers without their ids, and without the special tokens inside them.
    settings["columns"] = list(ID_COLUMNS)
    return settings | {"policy": model_identity(options.policy, revision=options.revision), "versions": versions()}
