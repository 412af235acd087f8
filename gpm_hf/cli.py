"""The command `gpm-hf`."""

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gpm_hf.files import written_whole


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit code, 1 for an error that the message explains."""
    options = _parser().parse_args(arguments)
    # What the libraries below will do in their next version is no news to whoever types a command.
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        options.run(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"gpm-hf {options.command}: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpm-hf",
        description="Preference models that can hold cycles: demonstrate, score, compare, rank, evaluate.",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    demo = commands.add_parser(
        "demo",
        help="train a preference model that holds a cycle, beside a Bradley-Terry model that cannot",
        description="Trains a general preference model and a Bradley-Terry model on preferences that go round in "
        "circles, compares them on unseen topics, saves the first and loads it back without this package.",
    )
    demo.add_argument("--output", default="runs/demo", help="folder for the model, the picture and the numbers")
    demo.add_argument("--seed", type=int, default=0)
    demo.set_defaults(run=_demo)

    score = _model_command(commands, "score", "log-odds of every response against every other", _score)
    _group_arguments(score)
    rank = _model_command(commands, "rank", "responses from best to worst by mean score", _rank)
    _group_arguments(rank)
    compare = _model_command(commands, "compare", "probability that response A is preferred to response B", _compare)
    compare.add_argument("--prompt", required=True)
    compare.add_argument("--a", required=True, help="response A")
    compare.add_argument("--b", required=True, help="response B")

    evaluate = commands.add_parser("eval", help="measure a model on a data set")
    kinds = evaluate.add_subparsers(dest="kind", required=True)
    cyclic = _model_command(kinds, "cyclic", "preference rings: pairs right, whole cycles right", _evaluate_cyclic)
    cyclic.add_argument("--dataset", required=True, help="rows with `prompt` and `responses` in ring order (.jsonl)")
    cyclic.add_argument("--split", default="train")
    cyclic.add_argument("--keep", metavar="COLUMN=VALUE", help="only the rows whose column has this value")
    return parser


def _model_command(commands: Any, name: str, text: str, run: Callable) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("model", help="Hub id or folder of a preference model or of its LoRA adapter")
    parser.add_argument("--revision", help="branch, tag or commit of the model on the Hub")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16, ... (default: as saved)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU where there is one)")
    parser.add_argument("--batch-size", type=int, default=16, help="sequences encoded at once")
    parser.add_argument("--format", choices=["text", "json"], default="text")
    parser.set_defaults(run=run)
    return parser


def _group_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompt")
    parser.add_argument("--response", action="append", default=[], help="give it once for each response")
    parser.add_argument("--input", help="a .jsonl file instead, each row with `prompt` and `responses`")
    parser.add_argument("--output", help="with --input: the .jsonl file to write (default: the screen)")


def _demo(options: argparse.Namespace) -> None:
    from gpm_hf.recipes.demo import run_demo

    run_demo(options.output, seed=options.seed)


def _score(options: argparse.Namespace) -> None:
    def describe(row: dict, scores: Any) -> dict:
        return {"scores": scores.tolist(), "probabilities": scores.sigmoid().tolist()}

    def show(row: dict, result: dict) -> str:
        width = max(7, *(len(f"{value:+.2f}") for line in result["scores"] for value in line))
        lines = ["log-odds that the row is preferred to the column"]
        lines.append("    " + "".join(f"{f'[{j}]':>{width + 1}}" for j in range(len(result["scores"]))))
        for i, line in enumerate(result["scores"]):
            cells = "".join(f" {value:+{width}.2f}" for value in line)
            lines.append(f"[{i}] {cells}   {_short(row['responses'][i])}")
        return "\n".join(lines)

    _score_groups(options, describe, show, at_least=1)


def _rank(options: argparse.Namespace) -> None:
    from gpm_hf.modeling import mean_scores, rank_responses

    def describe(row: dict, scores: Any) -> dict:
        return {"ranking": rank_responses(scores).tolist(), "mean_scores": mean_scores(scores).tolist()}

    def show(row: dict, result: dict) -> str:
        lines = ["rank  mean log-odds  response"]
        for place, index in enumerate(result["ranking"], 1):
            mean = result["mean_scores"][index]
            lines.append(f"{place:>4}  {mean:>+13.2f}  [{index}] {_short(row['responses'][index])}")
        return "\n".join(lines)

    _score_groups(options, describe, show, at_least=2)


def _score_groups(options: argparse.Namespace, describe: Callable, show: Callable, at_least: int) -> None:
    rows = list(_rows(options))
    for number, row in enumerate(rows, 1):
        if len(row["responses"]) < at_least:
            raise ValueError(f"Row {number}: `gpm-hf {options.command}` needs at least {at_least} responses.")
    model, tokenizer = _load(options)
    matrices = model.preference_scores(
        tokenizer, [row["prompt"] for row in rows], [row["responses"] for row in rows], options.batch_size
    )
    results = [describe(row, scores) for row, scores in zip(rows, matrices)]
    if options.output:
        with written_whole(options.output) as file:
            for row, result in zip(rows, results):
                file.write(json.dumps(row | result, ensure_ascii=False) + "\n")
        print(f"{len(rows)} rows written to {options.output}.")
        return
    for row, result in zip(rows, results):
        print(json.dumps(result) if options.format == "json" else show(row, result))


def _compare(options: argparse.Namespace) -> None:
    model, tokenizer = _load(options)
    scores = model.preference_scores(tokenizer, options.prompt, [options.a, options.b], options.batch_size)
    log_odds = float(scores[0, 1])
    probability = float(scores[0, 1].sigmoid())
    if options.format == "json":
        print(json.dumps({"probability": probability, "log_odds": log_odds}))
    else:
        print(f"A is preferred to B with probability {probability:.1%} (log-odds {log_odds:+.2f})")


def _evaluate_cyclic(options: argparse.Namespace) -> None:
    from gpm_hf.data.loading import load_splits, split_of
    from gpm_hf.evaluation.cyclic import evaluate_rings, result_table

    splits = load_splits(options.dataset, keep=options.keep)
    rows = split_of(splits, options.split)
    if "responses" not in rows.column_names:
        raise ValueError(f"{options.dataset} has no column `responses`, but {rows.column_names}.")
    model, tokenizer = _load(options)
    result = evaluate_rings(
        rows, lambda prompts, groups: model.preference_scores(tokenizer, prompts, groups, options.batch_size)
    )
    if options.format == "json":
        print(json.dumps(result.to_dict()))
    else:
        print(result_table({Path(options.model).name: result}))


def _rows(options: argparse.Namespace) -> Iterator[dict]:
    """The groups to score, from the command line or from a file."""
    if (options.input is None) == (options.prompt is None):
        raise ValueError("Give either --prompt with --response, or --input FILE.jsonl.")
    if options.input is None:
        if options.output:
            raise ValueError("--output belongs to --input.")
        yield {"prompt": options.prompt, "responses": options.response}
        return
    with open(options.input, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{options.input}, line {number} is not JSON: {error}") from error
            if not isinstance(row, dict) or not {"prompt", "responses"} <= row.keys():
                raise ValueError(f"{options.input}, line {number} has no `prompt` and `responses`.")
            yield row


def _load(options: argparse.Namespace) -> tuple[Any, Any]:
    import torch
    from transformers.utils import logging

    from gpm_hf.scoring import load_preference_model, load_tokenizer

    logging.disable_progress_bar()
    hub_options = {"revision": options.revision} if options.revision else {}
    model = load_preference_model(options.model, dtype=options.dtype, **hub_options)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return model.to(device), load_tokenizer(options.model, **hub_options)


def _short(response: Any, width: int = 60) -> str:
    text = response if isinstance(response, str) else response[-1]["content"]
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 3] + "..."


if __name__ == "__main__":
    sys.exit(main())
