"""`gpm-hf inspect`: who wins, which cycles there are, and how much of it is a ranking."""

import argparse
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from gpm_hf.cli.common import load_model, model_command
from gpm_hf.cli.outputs import writes
from gpm_hf.cli.scoring import (
    group_arguments,
    labels,
    matrices_of,
    names_of,
    read_groups,
    score_table,
    shorten,
    text_of,
)
from gpm_hf.files import json_text, write_rows

if TYPE_CHECKING:
    from gpm_hf.evaluation.reports.inspection import Inspection


def add_commands(commands: Any) -> None:
    """Adds the command to the parser's."""
    inspect = model_command(commands, "inspect", "who wins, which cycles there are, how much is a ranking", _inspect)
    group_arguments(inspect)
    inspect.add_argument("--max-cycles", type=int, default=10, help="list so many cycles, the strongest (default: 10)")
    inspect.add_argument("--output", help="a .jsonl file to write, a line per prompt (default: the screen)")
    inspect.add_argument("--picture", help="a PNG file: heat map, tournament graph, preference planes")
    writes(inspect, lambda options: [options.output, options.picture])
    inspect.add_argument("--row", type=int, help="with --input: draw this row, counted from 1 (default: the first)")


def _inspect(options: argparse.Namespace) -> None:
    from gpm_hf.evaluation.plots.inspection_plots import check_picture
    from gpm_hf.evaluation.reports.inspection import Inspection, inspect_scores

    rows = read_groups(options, at_least=2, outputs=[field.name for field in fields(Inspection)])
    if options.max_cycles < 1:
        raise ValueError(f"--max-cycles {options.max_cycles}: list at least the strongest one.")
    drawn = _drawn_row(options, len(rows))
    if options.picture:
        check_picture(options.picture, len(rows[drawn]["responses"]))
    model, tokenizer = load_model(options)
    matrices = matrices_of(rows, model, tokenizer, batch_size=options.batch_size)
    found = [inspect_scores(scores, options.max_cycles) for scores in matrices]
    if options.picture:
        _draw(options, model, tokenizer, rows[drawn], found[drawn])
    if options.output:
        write_rows(options.output, (row | inspection.to_dict() for row, inspection in zip(rows, found)))
        print(f"{len(rows)} rows written to {options.output}.")
    elif options.format == "json":
        for row, inspection in zip(rows, found):
            print(json_text(names_of(row) | inspection.to_dict()))
    else:
        tables = [_report(labels(row), inspection) for row, inspection in zip(rows, found)]
        if options.input:
            heads = (f"row {number}: {_title(row['prompt'])}" for number, row in enumerate(rows, 1))
            tables = [f"{head}\n{table}" for head, table in zip(heads, tables)]
        print("\n\n".join(tables))


def _drawn_row(options: argparse.Namespace, count: int) -> int:
    """The index of the row to draw."""
    if options.row is None:
        return 0
    if not options.picture or not options.input:
        raise ValueError("--row says which row of --input --picture draws: give all three.")
    if not 1 <= options.row <= count:
        raise ValueError(f"--row {options.row}: the rows of {options.input} are numbered from 1 to {count}.")
    return options.row - 1


def _draw(options: argparse.Namespace, model: Any, tokenizer: Any, row: dict, inspection: "Inspection") -> None:
    from gpm_hf.evaluation.plots.inspection_plots import embedding_panels, plot_inspection

    embeddings, scales = model.embed(tokenizer, row["prompt"], row["responses"], options.batch_size)
    panels = embedding_panels(embeddings, scales, model.config.tau, model.config.reward_head)
    plot_inspection(options.picture, inspection, _title(row["prompt"]), labels(row), panels)


def _title(prompt: Any) -> str:
    return text_of(prompt) if prompt else "(no prompt: the responses contain it)"


def _report(responses: list, found: "Inspection") -> str:
    lines = [score_table(found.scores, responses), ""]
    lines.append("rank  mean log-odds  von Neumann  won - lost  Smith set  response")
    for place, index in enumerate(found.ranking, 1):
        cells = [
            f"{place:>4}",
            f"{found.mean_scores[index]:>+13.2f}",
            f"{found.von_neumann_winner[index]:>11.1%}",
            f"{found.copeland[index]:>+10d}",
            f"{'yes' if index in found.smith_set else 'no':>9}",
            f"[{index}] {shorten(responses[index])}",
        ]
        lines.append("  ".join(cells))
    winner = found.condorcet_winner
    mixture = sorted(range(len(responses)), key=lambda index: -found.von_neumann_winner[index])
    played = [f"{found.von_neumann_winner[i]:.1%} [{i}]" for i in mixture if found.von_neumann_winner[i] > 5e-4]
    lines += [
        "",
        f"Condorcet winner:    {'none' if winner is None else f'[{winner}]'}  (beats every other)",
        f"Smith set:           {' '.join(f'[{index}]' for index in found.smith_set)}  (the fewest that beat the rest)",
        f"von Neumann winner:  {' + '.join(played)}  (the mixture that none beats on average)",
        f"Bradley-Terry:       {found.transitive_share:.1%} of the squared norm is a ranking, "
        f"{found.cyclic_share:.1%} cyclic; the best rating orders {found.pairs_as_rated} of {found.pairs} pairs "
        "as they are",
        *_cycle_lines(found),
    ]
    return "\n".join(lines)


def _cycle_lines(found: "Inspection") -> list[str]:
    if not found.cycles:
        return ["Cycles:              none"]
    lines = [f"Cycles:              {found.three_cycles} of three responses; the strongest, by their weakest edges:"]
    for cycle in found.cycles:
        ring = " > ".join(f"[{index}]" for index in (*cycle.members, cycle.members[0]))
        first, second = cycle.weakest_edge
        votes = "over 100,000" if cycle.votes is None else f"{cycle.votes:,}"
        weakest = f"weakest [{first}] > [{second}], log-odds {cycle.strength:+.2f}"
        lines.append(f"  {ring}   {weakest}, {votes} votes a pair")
    lines.append("  (of people who prefer as these scores say, to tell the cycle from noise in 80% of cases)")
    return lines
