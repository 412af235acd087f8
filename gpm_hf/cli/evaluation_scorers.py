"""What `gpm-hf eval rewardbench`, `rewardbench2` and `pairs` share: scorers, pairs to score, files for the numbers."""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpm_hf.cli.outputs import writes
from gpm_hf.files import report_text, written_whole

if TYPE_CHECKING:
    from gpm_hf.scoring import Scorer

# Their first digits are enough to tell commits and digests apart.
_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28,52}\b")
_NO_MODEL = ("function", "random", "constant", "remote")
_PAIRS = (
    "files (.jsonl, .json, .csv, .tsv, also with .gz, .parquet) or data sets of the Hub: `prompt`, `chosen`, "
    "`rejected`, as a model is trained on them, and perhaps `subset`, or RM-Bench's or JudgeBench's columns"
)


def scorer_command(commands: Any, name: str, text: str, run: Callable, data: str = _PAIRS) -> argparse.ArgumentParser:
    """A command whose first arguments are scorers, and which reads pairs, or what `data` says."""
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument(
        "scorers",
        nargs="+",
        metavar="SCORER",
        help="gpm:NAME (this package's models), reward:NAME (a sequence classification reward model), pair:NAME (one "
        "that reads both responses), judge:NAME (a language model that answers A or B), function:MODULE.NAME (a "
        "Python function), random, random:SEED, constant; or a NAME alone, a Hub id or folder of one of the first "
        "two. All are loaded at once",
    )
    parser.add_argument(
        "--dataset",
        required=True,
        nargs="+",
        help=data,
    )
    parser.add_argument("--config", help="the data sets' configuration")
    parser.add_argument("--split", help="the data sets' split (default: the benchmark's own, or the only one)")
    parser.add_argument("--limit", type=int, help="only so many rows of each data set, the first")
    parser.add_argument(
        "--max-tokens",
        type=int,
        help="leave out, and count, rows whose prompt with a response is longer for any of the scorers that read "
        "responses one by one",
    )
    parser.add_argument(
        "--store",
        metavar="FOLDER",
        help="keep scores here, by which a run that was stopped goes on. A folder's are tied to its weights; a Hub "
        "model's to its name and --revision, so name a commit where it may change",
    )
    scoring_options(parser)
    parser.add_argument(
        "--output",
        help="a JSON file for the numbers; of one model in a folder, its card picks it up in FOLDER/results",
    )
    writes(parser, lambda options: [options.output], evaluation=name)
    parser.set_defaults(run=run)
    return parser


def scoring_options(parser: argparse.ArgumentParser) -> None:
    """How scorers are loaded and asked, for [`load_scorers`], and in what form numbers are printed."""
    parser.add_argument("--batch-size", type=int, default=16, help="sequences encoded at once")
    parser.add_argument("--chunk-size", type=int, default=64, help="prompts scored, and stored, at once")
    parser.add_argument("--revision", help="branch, tag or commit of the scorer on the Hub, where there is one")
    parser.add_argument("--dtype", help="float32, bfloat16, ... (default: as saved)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU where there is one)")
    parser.add_argument("--trust-remote-code", action="store_true", help="run the code that a Hub model brings along")
    parser.add_argument("--format", choices=["text", "json"], default="text")


def check_options(options: argparse.Namespace) -> None:
    """Raises `ValueError` for what would fail only after the work."""
    if options.output and Path(options.output).is_dir():
        raise ValueError(f"--output {options.output} is a folder: name a file in it.")
    if options.store and Path(options.store).is_file():
        raise ValueError(f"--store {options.store} is a file: name a folder, which is made where there is none.")
    if options.revision and len(options.scorers) > 1:
        raise ValueError("--revision belongs to one model: measure the scorers one by one, with one --store.")


def load_scorers(options: argparse.Namespace) -> list["Scorer"]:
    """
    The scorers that the arguments of [`scorer_command`] name.

    Raises:
        ValueError: two of one name, or a description that names none.
        FileNotFoundError: with `--store`, a folder without weights that the scores could be tied to.
    """
    from transformers.utils import logging

    from gpm_hf.scoring import load_scorer

    logging.disable_progress_bar()
    found: dict[str, Scorer] = {}
    for spec in options.scorers:
        scorer = load_scorer(spec, **_options_of(spec, options))
        if scorer.name in found:
            raise ValueError(f"The scorer {spec} is given twice, or has the name of another, {scorer.name!r}.")
        found[scorer.name] = scorer
    return list(found.values())


def _options_of(spec: str, options: argparse.Namespace) -> dict[str, Any]:
    if _model_of(spec) is None:
        return {"name": _name_of(spec, options)} if spec.startswith(("function:", "remote:")) and options.store else {}
    given = {name: vars(options)[name] for name in ("device", "dtype", "revision") if vars(options)[name]}
    if options.trust_remote_code:
        given["trust_remote_code"] = True
    return {"name": _name_of(spec, options), "batch_size": options.batch_size, **given}


def _model_of(spec: str) -> str | None:
    """The Hub id or folder in a scorer's description; `None` for a scorer without a model."""
    kind, colon, name = spec.partition(":")
    return None if kind in _NO_MODEL else name if colon else spec


def _name_of(spec: str, options: argparse.Namespace) -> str:
    """The description with all that tells this model's scores from others: stored scores are found again by it."""
    details = [detail for detail in (options.revision, options.dtype) if detail]
    folder = _folder_of(spec)
    if folder is not None and any(folder.glob("*.safetensors")):
        from gpm_hf.identity import model_digest

        details.append(f"files {model_digest(folder)[:12]}")
    elif folder is not None and options.store:
        raise FileNotFoundError(
            f"--store ties scores to a folder's .safetensors files, and {folder} has none: save the model as "
            "safetensors, or leave --store out."
        )
    elif options.store:
        from gpm_hf.identity import scorer_identity

        # Of a model on the Hub its commit, of a function a digest of its module.
        _, _, version = scorer_identity(spec, revision=options.revision).partition("@")
        details += [_DIGEST.sub(r"\1", version)] if version else []
    return f"{spec} ({', '.join(details)})" if details else spec


def _folder_of(spec: str) -> Path | None:
    """The model's folder; `None` for a model on the Hub, or no model."""
    model = _model_of(spec)
    return Path(model) if model and Path(model).is_dir() else None


def store_of(options: argparse.Namespace, scorer: "Scorer") -> Path | None:
    """The file with a scorer's stored scores."""
    if not options.store:
        return None
    # The end of the name, which has the weights' digest; what else may collide, the scores' own keys tell apart.
    return Path(options.store) / f"{re.sub(r'[^A-Za-z0-9.-]+', '_', scorer.name)[-120:]}.jsonl"


def read_datasets(options: argparse.Namespace, scorers: list["Scorer"]) -> tuple[list[dict], list[dict]]:
    """
    The pairs of all data sets, and reports of what was read, for JSON; what was left out is said on standard error.

    Raises:
        ValueError: nothing left of a data set, or `--max-tokens` without a scorer that could count.
    """
    from gpm_hf.data.pair_files import read_pairs
    from gpm_hf.scoring import ScorerBase

    needs_prompt = any(not isinstance(scorer, ScorerBase) or scorer.needs_prompt for scorer in scorers)
    count_tokens = token_counter_of(scorers) if options.max_tokens else None
    rows, reports = [], []
    for source in options.dataset:
        pairs, report = read_pairs(
            source,
            options.split,
            options.config,
            count_tokens=count_tokens,
            max_tokens=options.max_tokens,
            needs_prompt=needs_prompt,
        )
        print(report, file=sys.stderr)
        for pair in pairs[: options.limit]:
            # Groups are counted in each file.
            rows.append(pair | {"group": f"{source}, {pair['group']}"} if "group" in pair else pair)
        reports.append({**report.to_dict(), "pairs": len(pairs[: options.limit])})
    return rows, reports


def token_counter_of(scorers: list["Scorer"]) -> Callable[[Any, Any], int]:
    """
    What `--max-tokens` counts: of a prompt with a response, the most tokens for any scorer.

    Raises:
        ValueError: no scorer that reads responses one by one.
    """
    from gpm_hf.data.pair_files import token_counter
    from gpm_hf.scoring import GPMScorer, RewardModelScorer

    counters = []
    for scorer in scorers:
        if isinstance(scorer, GPMScorer):
            counters.append(token_counter(scorer.tokenizer, **scorer.model.config.encoding_options))
        elif isinstance(scorer, RewardModelScorer):
            counters.append(token_counter(scorer.tokenizer))
    if not counters:
        raise ValueError(
            "--max-tokens counts as a model that reads responses one by one does (gpm:NAME, reward:NAME), and no "
            "scorer is one: leave it out."
        )
    return lambda prompt, response: max(count(prompt, response) for count in counters)


def data_name(options: argparse.Namespace) -> str:
    """What was measured on, for a card."""
    sources = [Path(source).name if Path(source).exists() else source for source in options.dataset]
    limits = [
        f"first {options.limit} {'rows' if options.kind == 'rewardbench2' else 'pairs'}" if options.limit else None,
        f"up to {options.max_tokens} tokens" if options.max_tokens else None,
    ]
    return ", ".join(part for part in (*sources, options.config, options.split, *limits) if part)


def write_output(
    options: argparse.Namespace,
    evaluation: str,
    answer: dict[str, Any],
    card_numbers: list[dict[str, Any]],
    picture: Path | None = None,
) -> None:
    """
    Writes `--output`: of one model in a folder (of safetensors) as its card reads it, tied to its weights; else all
    as it is.

    Args:
        evaluation: "rewardbench", "rewardbench2" or "pairs".
        answer: everything, with a list `results`, one per scorer.
        card_numbers: per scorer, numbers to stand beside its result's own, for the card.
        picture: for the card.
    """
    if not options.output:
        return
    folder = _folder_of(options.scorers[0]) if len(options.scorers) == 1 else None
    if folder is not None and any(folder.glob("*.safetensors")):
        rest = {name: value for name, value in answer.items() if name != "results"}
        result = {**answer["results"][0], **card_numbers[0], **rest}
        beside = picture is not None and picture.parent.resolve() == Path(options.output).parent.resolve()
        from gpm_hf.hub.results import dataset_of, save_result

        only = options.dataset[0] if len(options.dataset) == 1 else None
        save_result(
            options.output,
            folder,
            evaluation,
            data_name(options),
            result,
            picture=picture if beside else None,
            dataset=dataset_of(only, options.config, options.split) if only is not None else None,
        )
        return
    with written_whole(options.output) as file:
        file.write(report_text({"evaluation": evaluation, "data": data_name(options), **answer}, indent=1))
