"""`gpm-hf score`, `rank` and `compare`."""

import argparse
import json
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from gpm_hf.batch_tokens import BATCH_TOKENS, default_batch_tokens
from gpm_hf.cli.common import is_remote, load_model, model_command
from gpm_hf.cli.outputs import writes
from gpm_hf.files import json_text

# As in gpm_hf.preference, which loads torch: too slow for `gpm-hf --help`.
RULES = ("mean", "von_neumann", "copeland", "smith")


def add_commands(commands: Any) -> None:
    """Adds the commands to the parser's."""
    score = model_command(commands, "score", "log-odds of every response against every other", _score)
    group_arguments(score)
    rank = model_command(commands, "rank", "responses from best to worst, by mean score or another rule", _rank)
    group_arguments(rank)
    for command in (score, rank):
        command.add_argument(
            "--output",
            help="with --input: the .jsonl file to write (default: the screen), in constant memory; a run that was "
            "interrupted goes on, and `accelerate launch -m gpm_hf.cli ...` shares it among processes",
        )
        command.add_argument("--chunk-size", type=int, default=256, help="with --output: rows scored at once")
        command.add_argument(
            "--batch-tokens",
            type=int,
            help="tokens encoded at once, padding included (default, where there is no --batch-size: "
            f"{BATCH_TOKENS['cpu']} on a CPU, {BATCH_TOKENS['other']} elsewhere)",
        )
        command.set_defaults(batch_size=None)
        writes(command, lambda options: [options.output])
    rank.add_argument(
        "--rule",
        choices=RULES,
        default="mean",
        help="mean log-odds (default); probability in the von Neumann winner, the mixture that no response beats on "
        "average; duels won minus duels lost (copeland); members of the Smith set first. Equals go by mean log-odds",
    )
    compare = model_command(commands, "compare", "probability that response A is preferred to response B", _compare)
    compare.add_argument("--prompt", required=True)
    compare.add_argument("--a", required=True, help="response A")
    compare.add_argument("--b", required=True, help="response B")


def group_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that [`read_groups`] reads."""
    parser.add_argument("--prompt")
    parser.add_argument("--response", action="append", default=[], help="give it once for each response")
    parser.add_argument(
        "--responses", action="extend", nargs="+", dest="response", metavar="RESPONSE", help="several at once"
    )
    parser.add_argument(
        "--input",
        help="rows with `prompt` and `responses`, a list or a mapping of names to responses (or `chosen` and "
        "`rejected`) instead: a .jsonl or other data file, or a data set of the Hub",
    )
    parser.add_argument("--input-config", help="the data set's configuration")
    parser.add_argument("--input-split", default="train", help="the data set's split")


def _score(options: argparse.Namespace) -> None:
    def describe(row: dict, scores: Any, bound: float | None) -> dict:
        return {"scores": scores.tolist(), "probabilities": scores.sigmoid().tolist()}

    def show(row: dict, result: dict) -> str:
        return score_table(result["scores"], labels(row))

    _score_groups(options, describe, show, at_least=1, outputs=("scores", "probabilities"))


def score_table(scores: list[list[float]], responses: list) -> str:
    """The matrix for the screen, with the responses' texts or names."""
    width = max(7, *(len(f"{value:+.2f}") for line in scores for value in line))
    lines = ["log-odds that the row is preferred to the column"]
    lines.append("    " + "".join(f"{f'[{j}]':>{width + 1}}" for j in range(len(scores))))
    for i, line in enumerate(scores):
        cells = "".join(f" {value:+{width}.2f}" for value in line)
        lines.append(f"[{i}] {cells}   {shorten(responses[i])}")
    return "\n".join(lines)


def _rank(options: argparse.Namespace) -> None:
    from gpm_hf.modeling import mean_scores, within_rounding
    from gpm_hf.preference import ranking

    def describe(row: dict, scores: Any, bound: float | None) -> dict:
        means = mean_scores(scores)
        found = {"rule": options.rule, "ranking": ranking(scores, options.rule).tolist()}
        found |= {"mean_scores": means.tolist(), "within_rounding": within_rounding(means, bound)}
        return found | _rule_values(options.rule, scores)

    def show(row: dict, result: dict) -> str:
        title, cell = _rule_column(result)
        lines = ["rank  mean log-odds  " + title + "response"]
        texts = labels(row)
        for place, index in enumerate(result["ranking"], 1):
            mean = f"{result['mean_scores'][index]:+.2f}"
            lines.append(f"{place:>4}  {mean:>13}  {cell(index):>{len(title)}}[{index}] {shorten(texts[index])}")
        for a, b in result["within_rounding"]:
            lines.append(f"[{a}] and [{b}] are closer than rounding can tell: their order may change with the batch")
        return "\n".join(lines)

    outputs = ("rule", "ranking", "mean_scores", "within_rounding", "von_neumann_winner", "copeland", "smith_set")
    _score_groups(options, describe, show, at_least=2, outputs=outputs)


def _rule_values(rule: str, scores: Any) -> dict:
    """What a rule ranks by, beside the mean scores, for JSON."""
    from gpm_hf.preference import copeland, smith_set, von_neumann_winner

    if rule == "von_neumann":
        return {"von_neumann_winner": von_neumann_winner(scores).tolist()}
    if rule == "copeland":
        return {"copeland": copeland(scores).tolist()}
    if rule == "smith":
        return {"smith_set": [index for index, inside in enumerate(smith_set(scores).tolist()) if inside]}
    return {}


def _rule_column(result: dict) -> tuple[str, Callable[[int], str]]:
    """The same for the screen: a column's title and its cells."""
    if result["rule"] == "von_neumann":
        return "probability  ", lambda index: f"{result['von_neumann_winner'][index]:.1%}  "
    if result["rule"] == "copeland":
        return "won - lost  ", lambda index: f"{result['copeland'][index]:+d}  "
    if result["rule"] == "smith":
        return "in Smith set  ", lambda index: f"{'yes' if index in result['smith_set'] else 'no'}  "
    return "", lambda index: ""


def _score_groups(
    options: argparse.Namespace, describe: Callable, show: Callable, at_least: int, outputs: Collection[str]
) -> None:
    if options.batch_size is not None and options.batch_tokens is not None:
        raise ValueError("Give --batch-size, in sequences, or --batch-tokens, in tokens, not both.")
    if options.output:
        _score_to_file(options, describe, at_least, outputs)
        return
    rows = read_groups(options, at_least)
    model, tokenizer = load_model(options)
    for row, scores in zip(rows, matrices_of(rows, model, tokenizer, **_batch(options, model))):
        result = describe(row, scores, model.rounding_bound)
        if options.format == "json":
            print(json_text(names_of(row) | result))
        else:
            print(show(row, result))
    _say_rounding(model)


def _say_rounding(model: Any) -> None:
    """On standard error, where the model computes in less than float32."""
    import torch

    if model.dtype != torch.float32:
        bound = model.rounding_bound
        size = "with the batch" if bound is None else f"by up to {bound:.2g} with the batch (measured)"
        dtype = str(model.dtype).removeprefix("torch.")
        print(f"Computed in {dtype}: log-odds move {size}; --precise computes in float32.", file=sys.stderr)


def matrices_of(rows: list[dict], model: Any, tokenizer: Any, **batch: int) -> list:
    """The log-odds of groups; a `ValueError` for a group that is refused names its row where there are several."""
    from gpm_hf.data.scored_rows import score_in_chunks

    def score(prompts: list, groups: list[list]) -> list:
        return model.preference_scores(tokenizer, prompts, groups, **batch)

    if len(rows) == 1:
        return score([rows[0]["prompt"]], [rows[0]["responses"]])
    named = [(f"Row {number}", row) for number, row in enumerate(rows, 1)]
    # At once, that sequences of like length share a batch.
    return [matrix for chunk in score_in_chunks(named, score, len(rows)) for _, _, matrix in chunk]


def _batch(options: argparse.Namespace, model: Any) -> dict[str, int]:
    """How much is encoded at once, as the model's methods take it."""
    if options.batch_size is not None:
        return {"batch_size": options.batch_size}
    if options.batch_tokens is not None:
        return {"max_batch_tokens": options.batch_tokens}
    return {"max_batch_tokens": default_batch_tokens(model.device.type)}


def _score_to_file(options: argparse.Namespace, describe: Callable, at_least: int, outputs: Collection[str]) -> None:
    if not options.input:
        raise ValueError("--output belongs to --input.")
    from accelerate import PartialState

    from gpm_hf.identity import in_background, model_identity, scorer_identity, versions
    from gpm_hf.locks import only_run
    from gpm_hf.scoring.streaming import score_stream

    with only_run(options.output, options.overwrite):
        # What the scores depend on beside the rows; where those lie and what is printed is none of it.
        names = ("command", "model", "revision", "dtype", "precise", "batch_size", "batch_tokens", "rule")
        settings = {name: vars(options)[name] for name in names if name in vars(options)}
        of_what = scorer_identity if is_remote(options) else model_identity
        identity = in_background(of_what, options.model, revision=options.revision)
        if Path(options.input).is_file():
            # Every row, before the first is scored. (A data set of the Hub would be read twice over the net.)
            for _ in _groups(options, at_least, outputs):
                pass
        model, tokenizer = load_model(options)
        settings["template_date"], settings["computed_in"] = model.config.template_date, str(model.dtype)
        settings |= {"model": identity(), "versions": versions()}
        batch = _batch(options, model)
        count = score_stream(
            _groups(options, at_least, outputs),
            lambda prompts, groups: model.preference_scores(tokenizer, prompts, groups, **batch),
            lambda row, scores: describe(row, scores, model.rounding_bound),
            options.output,
            settings,
            options.chunk_size,
            options.overwrite,
        )
    if PartialState().is_main_process:
        print(f"{count} rows written to {options.output}.")
        _say_rounding(model)


def _compare(options: argparse.Namespace) -> None:
    model, tokenizer = load_model(options)
    scores = model.preference_scores(tokenizer, options.prompt, [options.a, options.b], options.batch_size)
    log_odds = float(scores[0, 1])
    probability = float(scores[0, 1].sigmoid())
    if options.format == "json":
        print(json.dumps({"probability": probability, "log_odds": log_odds}))
    else:
        print(f"A is preferred to B with probability {probability:.1%} (log-odds {log_odds:+.2f})")
    _say_rounding(model)


def read_groups(options: argparse.Namespace, at_least: int, outputs: Collection[str] = ()) -> list[dict]:
    """
    The groups to score, from the command line or from a file, see [`gpm_hf.data.groups.as_group`].

    Args:
        at_least: so many responses.
        outputs: columns that are added to the rows when they are written.

    Raises:
        ValueError: neither or both given, a row that is no group, fewer responses than `at_least`, or an empty file.
    """
    if (options.input is None) == (options.prompt is None):
        raise ValueError("Give either --prompt with --response, or --input FILE.jsonl.")
    if options.input is not None and options.response:
        raise ValueError("--response belongs to --prompt; the responses of --input are in its rows.")
    rows = list(_groups(options, at_least, outputs))
    if not rows:
        raise ValueError(f"{options.input} is empty: each of its lines should have a `prompt` and `responses`.")
    return rows


def _groups(options: argparse.Namespace, at_least: int, outputs: Collection[str]) -> Iterator[dict]:
    from gpm_hf.data.groups import as_group
    from gpm_hf.data.raw_rows import read_sure_rows

    if options.input is None:
        rows: Iterator = iter([("Row 1", {"prompt": options.prompt, "responses": options.response})])
    else:
        rows = read_sure_rows(options.input, options.input_split, options.input_config)
    for place, row in rows:
        group = as_group(row, place, outputs if options.output else ())
        if len(group["responses"]) < at_least:
            raise ValueError(f"{place}: `gpm-hf {options.command}` needs at least {at_least} responses.")
        yield group


def names_of(row: dict) -> dict[str, list[str]]:
    """The column `names`, where it says how the responses are called."""
    names = row.get("names")
    return {"names": names} if isinstance(names, list) and len(names) == len(row["responses"]) else {}


def labels(row: dict) -> list[str]:
    """The responses for the screen, with their names where they have such."""
    texts = [text_of(response) for response in row["responses"]]
    return [f"{name}: {text}" for name, text in zip(names_of(row)["names"], texts)] if names_of(row) else texts


def shorten(response: Any, width: int = 60) -> str:
    """A response, text or chat messages, on one line of at most `width` characters."""
    text = text_of(response)
    return text if len(text) <= width else text[: width - 3] + "..."


def text_of(text: Any) -> str:
    """A prompt or response on one line: a string, or the last one of chat messages."""
    if isinstance(text, str):
        return " ".join(text.split())
    message = text if isinstance(text, dict) else text[-1]
    content = message.get("content")
    # Tool calls, and parts of several kinds, have no text of their own.
    return " ".join((content if isinstance(content, str) else json.dumps(message, ensure_ascii=False)).split())
