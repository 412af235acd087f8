"""`gpm-hf calibrate`."""

import argparse
from pathlib import Path
from typing import Any

from gpm_hf.cli.evaluation_scorers import (
    check_options,
    load_scorers,
    read_datasets,
    scorer_command,
    store_of,
    write_output,
)
from gpm_hf.files import report_text


def add_commands(commands: Any) -> None:
    """Adds the command to the parser's."""
    parser = scorer_command(
        commands,
        "calibrate",
        "temperature and tie width of a model on pairs of a data set; no weights are changed",
        _calibrate,
        "files or data sets of the Hub: `prompt`, `chosen`, `rejected` and, for ties, `preference_probability` (1/2) "
        "or `tie`",
    )
    parser.add_argument("--card", action="store_true", help="the model's folder: write the numbers into its card too")
    parser.set_defaults(kind="calibrate")


def _calibrate(options: argparse.Namespace) -> None:
    from gpm_hf.evaluation import score_pairs
    from gpm_hf.evaluation.statistics.tie_calibration import calibrate_ties, tie_calibration_table

    check_options(options)
    if options.card:
        _point_at_card(options)
    scorers = load_scorers(options)
    rows, reports = read_datasets(options, scorers)
    results = [
        score_pairs(rows, scorer, options.chunk_size, store_of(options, scorer), progress=True) for scorer in scorers
    ]
    targets = [row.get("preference_probability", 1.0) for row in rows]
    prompts = [f"row {number}" if row["prompt"] is None else str(row["prompt"]) for number, row in enumerate(rows)]
    found = {one.scorer: calibrate_ties(one.log_odds.tolist(), targets, prompts) for one in results}
    numbers = [{"scorer": name, **one.to_dict()} for name, one in found.items()]
    answer = {"read": reports, "results": numbers}
    if options.format == "json":
        print(report_text(answer))
    else:
        print(tie_calibration_table(found))
        print("\nDivide log-odds by the temperature; a tie is the likeliest outcome within the tie width of 0.")
    write_output(options, "calibrate", answer, [{} for _ in numbers])
    if options.card:
        from gpm_hf.hub.cards import write_card

        print(f"The card is {write_card(Path(options.output).parent.parent)}.")


def _point_at_card(options: argparse.Namespace) -> None:
    """`--output` becomes the file that the card of the model's folder reads."""
    kind, colon, name = options.scorers[0].rpartition(":")
    if len(options.scorers) != 1 or not Path(name).is_dir() or (colon and kind != "gpm"):
        raise ValueError("--card writes into the folder of one model of this package: name it, gpm:FOLDER.")
    if options.output:
        raise ValueError("--card names the file itself, FOLDER/results/calibration.json: leave --output out.")
    from gpm_hf.hub.cards import card_was_edited

    if card_was_edited(name):
        raise ValueError(f"The card in {name} was edited by hand and would be written anew: leave --card out.")
    options.output = str(Path(name) / "results" / "calibration.json")
