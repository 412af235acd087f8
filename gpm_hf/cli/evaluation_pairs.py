"""`gpm-hf eval rewardbench` and `gpm-hf eval pairs`."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpm_hf.cli.evaluation_scorers import (
    check_options,
    data_name,
    load_scorers,
    read_datasets,
    scorer_command,
    store_of,
    write_output,
)
from gpm_hf.files import report_text
from gpm_hf.hub.local_paths import without_paths
from gpm_hf.tables import markdown_table

if TYPE_CHECKING:
    from gpm_hf.evaluation import Intransitivity, PairResult, RewardBenchResult
    from gpm_hf.evaluation.reports.cycle_or_noise import CycleOrNoise

_RELIABILITY, _LENGTH = "reliability.png", "length.png"


def add_kinds(kinds: Any) -> None:
    """Adds the kinds to those of `gpm-hf eval`."""
    scorer_command(
        kinds, "rewardbench", "RewardBench v1, whole or in part: accuracy by section, with the cost", _rewardbench
    )
    pairs = scorer_command(
        kinds,
        "pairs",
        "preference pairs: accuracy by subset, cost, calibration, length bias, cycles, disagreements",
        _pairs,
    )
    pairs.add_argument("--pictures", metavar="FOLDER", help=f"draw {_RELIABILITY} and {_LENGTH} into this folder")
    pairs.set_defaults(outputs=_outputs)
    pairs.add_argument(
        "--disagreements", type=int, help="with two scorers: so many pairs on which they differ most (default: 3)"
    )


def _outputs(options: argparse.Namespace) -> list[Any]:
    folder = options.pictures
    return [options.output, *(Path(folder, name) for name in (_RELIABILITY, _LENGTH) if folder)]


def _rewardbench(options: argparse.Namespace) -> None:
    from gpm_hf.evaluation import evaluate_rewardbench, rewardbench_table
    from gpm_hf.evaluation.benchmarks.rewardbench_sections import check_subsets

    check_options(options)
    scorers = load_scorers(options)
    rows, reports = read_datasets(options, scorers)
    check_subsets([row["subset"] for row in rows])
    results = [
        evaluate_rewardbench(rows, scorer, options.chunk_size, store_of(options, scorer), progress=True)
        for scorer in scorers
    ]
    answer = {"read": reports, "results": [result.to_dict() for result in results]}
    if options.format == "json":
        print(report_text(answer))
    else:
        print(rewardbench_table(results))
        _print_reused([result.pairs for result in results])
    write_output(options, "rewardbench", answer, [_section_numbers(result) for result in results])


def _section_numbers(result: "RewardBenchResult") -> dict[str, Any]:
    """For a card. Only whole sections have the benchmark's numbers."""
    found: dict[str, Any] = {"accuracy_interval": result.pairs.total.interval}
    for name, section in result.sections.items():
        if section.is_whole:
            key = f"{name.lower().replace(' ', '_')}_accuracy"
            found |= {key: section.accuracy, f"{key}_interval": section.interval}
    if result.average is not None:
        found |= {
            "average_accuracy": result.average,
            "average_accuracy_interval": result.average_interval,
        }
    return found


def _pairs(options: argparse.Namespace) -> None:
    from gpm_hf.data.pair_files import follow_labels
    from gpm_hf.evaluation import (
        calibration_report,
        disagreement_table,
        disagreements,
        intransitivity_table,
        length_report,
        pairs_table,
        score_pairs,
    )
    from gpm_hf.evaluation.reports.length_bias import LENGTH_COLUMNS, length_cells
    from gpm_hf.evaluation.statistics.calibration import CALIBRATION_COLUMNS, calibration_cells

    check_options(options)
    if options.disagreements is not None:
        if options.disagreements < 1:
            raise ValueError(f"--disagreements {options.disagreements}: at least 1 is needed.")
        if len(options.scorers) != 2:
            raise ValueError(
                f"--disagreements compares two scorers, and {len(options.scorers)} "
                f"{'is' if len(options.scorers) == 1 else 'are'} given: name two, or leave it out."
            )
    scorers = load_scorers(options)
    all_rows, reports = read_datasets(options, scorers)
    rows, ties = follow_labels(all_rows)
    if ties:
        print(f"Left out: {ties} ties, in which nobody is right.", file=sys.stderr)
    if not rows:
        raise ValueError("All pairs are ties: there is nothing to be right about. `gpm-hf calibrate` reads ties.")
    results = [
        score_pairs(rows, scorer, options.chunk_size, store_of(options, scorer), progress=True) for scorer in scorers
    ]
    calibration = {result.scorer: calibration_report(result.log_odds.tolist()) for result in results}
    lengths = {result.scorer: length_report(result) for result in results}
    cycles = _cycles(options, rows, scorers)
    of_data = _cycles_of_data(all_rows) if cycles else None
    differ = disagreements(results[0], results[1], options.disagreements or 3) if len(results) == 2 else []

    found = [
        {
            **result.to_dict(),
            "calibration": calibration[result.scorer].to_dict(),
            "length": lengths[result.scorer].to_dict(),
            "intransitivity": cycles[result.scorer].to_dict() if cycles else None,
        }
        for result in results
    ]
    answer = {
        "read": reports,
        "ties_left_out": ties,
        "results": found,
        "disagreements": [one.to_dict() for one in differ],
        "cycles_of_the_data": None if of_data is None else of_data.to_dict(),
    }
    if options.format == "json":
        print(report_text(answer))
    else:
        tables = {"Pairs right": pairs_table(results)}
        if all("difficulty" in row for row in rows):
            tables["Pairs right by difficulty"] = pairs_table(results, "difficulty")
        # In one table, so that all of two scorers is one screen.
        tables["Calibration, and bias for length"] = markdown_table(
            ["scorer", *CALIBRATION_COLUMNS, *LENGTH_COLUMNS],
            [[name, *calibration_cells(calibration[name]), *length_cells(lengths[name])] for name in calibration],
        )
        tables["Cycles among the responses of one prompt"] = (
            intransitivity_table(list(cycles.values())) if cycles else "No prompt has three different responses."
        )
        said = [f"{title}:\n{table}" for title, table in tables.items()]
        if of_data is not None:
            said.append(f"Cycles in the data's own preferences: {of_data.sentence()}")
        if differ:
            table = disagreement_table(differ, results[0].scorer, results[1].scorer)
            said.append(f"Where the two disagree most:\n{table}")
        print("\n\n".join(said))
        _print_reused(results)
    picture = _draw(options, calibration, lengths) if options.pictures else None
    write_output(options, "pairs", answer, [_report_numbers(one) for one in found], picture)


def _report_numbers(result: dict[str, Any]) -> dict[str, Any]:
    """For a card: one number of each report."""
    found = {"accuracy_interval": result["interval"]}
    found |= {name: result["calibration"][name] for name in ("log_loss", "brier", "ece")}
    found["prefers_longer"] = result["length"]["prefers_longer"]
    if result["intransitivity"]:
        found |= {name: result["intransitivity"][name] for name in ("cyclic_triples", "cyclic_share")}
    return found


def _cycles(options: argparse.Namespace, rows: list[dict], scorers: list) -> dict[str, "Intransitivity"]:
    """Of the prompts whose pairs hold three different responses or more; by scorer, empty where there are none."""
    from gpm_hf.evaluation import intransitivity_report

    groups: dict[str, dict[str, Any]] = {}
    for row in (row for row in rows if row["prompt"] is not None):
        group = groups.setdefault(json.dumps(row["prompt"]), {"prompt": row["prompt"], "responses": []})
        group["responses"] += [row[side] for side in ("chosen", "rejected") if row[side] not in group["responses"]]
    several = [group for group in groups.values() if len(group["responses"]) >= 3]
    if not several:
        return {}
    return {
        scorer.name: intransitivity_report(
            several, scorer, options.chunk_size, store_of(options, scorer), progress=True
        )
        for scorer in scorers
    }


def _cycles_of_data(rows: list[dict]) -> "CycleOrNoise":
    """Of the pairs whose prompt is known."""
    from gpm_hf.evaluation.reports.cycle_or_noise import data_cycles

    return data_cycles((f"row {number}", row) for number, row in enumerate(rows, 1) if row["prompt"] is not None)


def _draw(options: argparse.Namespace, calibration: dict[str, Any], lengths: dict[str, Any]) -> Path:
    """The picture for a card."""
    from gpm_hf.evaluation.plots.report_plots import plot_accuracy_by_length, plot_reliability

    folder = Path(options.pictures)
    folder.mkdir(parents=True, exist_ok=True)
    plot_reliability(folder / _RELIABILITY, _labelled(calibration), data_name(options))
    plot_accuracy_by_length(folder / _LENGTH, _labelled(lengths), data_name(options))
    return folder / _RELIABILITY


def _labelled(results: dict[str, Any], width: int = 40) -> dict[str, Any]:
    """By the ends of the scorers' names, which fit into a legend; digests of their files tell folders apart."""
    return {_ending(without_paths(name), width): result for name, result in results.items()}


def _ending(name: str, width: int) -> str:
    return name if len(name) <= width else f"...{name[3 - width :]}"


def _print_reused(results: list["PairResult"]) -> None:
    for result in results:
        if result.reused:
            print(f"\n{result.scorer}: the scores of {result.reused} prompts were stored already.")
