"""`gpm-hf self-play`."""

import argparse
from typing import Any

from gpm_hf.cli.outputs import writes
from gpm_hf.files import report_text


def add_commands(commands: Any) -> None:
    """Adds the command to the parser's."""
    play = commands.add_parser(
        "self-play",
        help="Theorem 5.1 by simulation: how fast the average of self-play nears the von Neumann winner",
        description="Plays multiplicative weights against itself on random games and fits the rate at which the "
        "averaged policy's duality gap (what the best reply gains on it; 0 at a von Neumann winner) falls, beside the "
        "theorem's bound.",
    )
    play.add_argument("--sizes", type=int, nargs="+", default=[3, 5, 10], help="numbers of responses")
    play.add_argument("--games", type=int, default=200, help="random games of each size")
    play.add_argument("--seed", type=int, default=0)
    play.add_argument("--picture", help="a PNG file")
    writes(play, lambda options: [options.picture])
    play.add_argument("--format", choices=["text", "json"], default="text")
    play.set_defaults(run=_self_play)


def _self_play(options: argparse.Namespace) -> None:
    from gpm_hf.preference import random_games, self_play_rate
    from gpm_hf.tables import markdown_table

    rates = {size: self_play_rate(random_games(options.games, size, seed=options.seed)) for size in options.sizes}
    if options.picture:
        from gpm_hf.evaluation.plots.preference_plots import plot_self_play

        plot_self_play(options.picture, {f"{size} responses": rate for size, rate in rates.items()})
    if options.format == "json":
        for size, rate in rates.items():
            found = {"responses": size, "exponent": rate.exponent, "coefficient": rate.coefficient}
            gaps = rate.gaps.reshape(len(rate.rounds), -1)
            curves = {"rounds": rate.rounds.tolist(), "gaps": gaps.mean(1).tolist(), "bound": rate.bound.tolist()}
            print(report_text(found | curves))
        return
    rows = [
        [
            size,
            f"{rate.exponent:.3f}",
            f"{rate.coefficient:.2f}",
            rate.rounds[-1],
            f"{rate.gaps[-1].mean():.4f}",
            f"{rate.gaps[-1].max():.4f}",
            f"{rate.bound[-1]:.4f}",
        ]
        for size, rate in rates.items()
    ]
    header = ["responses", "fitted exponent of T", "coefficient", "T", "mean gap", "largest gap", "bound"]
    print(markdown_table(header, rows))
