"""`gpm-hf eval rewardbench2`."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from gpm_hf.cli.evaluation_scorers import (
    check_options,
    load_scorers,
    scorer_command,
    store_of,
    token_counter_of,
    write_output,
)
from gpm_hf.files import report_text

if TYPE_CHECKING:
    from gpm_hf.evaluation import RewardBench2Result
    from gpm_hf.scoring import Scorer

# As in gpm_hf.evaluation, which loads torch: too slow for `gpm-hf --help`.
RULES = ("mean", "von_neumann")


def add_kinds(kinds: Any) -> None:
    """Adds the kind to those of `gpm-hf eval`."""
    parser = scorer_command(
        kinds,
        "rewardbench2",
        "RewardBench 2, whole or in part: the best of four, Ties, regret of best of n, with the cost",
        _rewardbench2,
        data="allenai/reward-bench-2, or files of its form: `id`, `prompt`, `chosen` and `rejected` (lists of "
        "responses), `subset`",
    )
    parser.add_argument(
        "--rule",
        nargs="+",
        choices=RULES,
        default=list(RULES),
        help="how preferences choose a response: the largest mean log-odds (for a reward model the benchmark's own "
        "rule), or the von Neumann winner (default: both, scored once; a card states the first)",
    )


def _rewardbench2(options: argparse.Namespace) -> None:
    from gpm_hf.evaluation import evaluate_rewardbench2, rewardbench2_table

    check_options(options)
    scorers = load_scorers(options)
    rows, reports = _read(options, scorers)
    by_scorer = [
        evaluate_rewardbench2(rows, scorer, options.rule, options.chunk_size, store_of(options, scorer), progress=True)
        for scorer in scorers
    ]
    results = [
        {"scorer": scorer.name, "rules": {rule: result.to_dict() for rule, result in found.items()}}
        for scorer, found in zip(scorers, by_scorer)
    ]
    answer = {"read": reports, "results": results}
    if options.format == "json":
        print(report_text(answer))
    else:
        print(rewardbench2_table(result for found in by_scorer for result in found.values()))
        for scorer, found in zip(scorers, by_scorer):
            reused = found[options.rule[0]].reused
            if reused:
                print(f"\n{scorer.name}: the scores of {reused} rows were stored already.")
    write_output(options, "rewardbench2", answer, [_card_numbers(found[options.rule[0]]) for found in by_scorer])


def _read(options: argparse.Namespace, scorers: list["Scorer"]) -> tuple[list[dict], list[dict]]:
    """The rows of all data sets and reports of what was read; what was left out is said on standard error."""
    from gpm_hf.data.best_of_files import read_best_of

    count_tokens = token_counter_of(scorers) if options.max_tokens else None
    rows, reports = [], []
    for source in options.dataset:
        found, report = read_best_of(
            source, options.split, options.config, count_tokens=count_tokens, max_tokens=options.max_tokens
        )
        print(report, file=sys.stderr)
        rows += found[: options.limit]
        reports.append({**report.to_dict(), "used": len(found[: options.limit])})
    return rows, reports


def _card_numbers(result: "RewardBench2Result") -> dict[str, Any]:
    """For a card: shares by subset with their intervals, Ties, and the average of the whole benchmark."""
    found: dict[str, Any] = {"rule": result.rule}
    for subset, (accuracy, interval, _) in result.accuracies.items():
        key = f"{subset.lower().replace(' ', '_')}_accuracy"
        found |= {key: accuracy, f"{key}_interval": interval}
    if result.ties is not None and result.ties.score is not None:
        found["ties_score"] = result.ties.score
    if result.average is not None:
        found["average_accuracy"] = result.average
    return found | {"forward_passes": result.forward_passes}
