"""`gpm-hf ratings`."""

import argparse
import json
from typing import Any

from gpm_hf.cli.outputs import writes
from gpm_hf.files import written_whole


def add_commands(commands: Any) -> None:
    """Adds the command to the parser's."""
    parser = commands.add_parser(
        "ratings",
        help="rate items by votes: is it more than a ranking, by how much, is it real, which model to use",
        description="Rates items (models, players, responses) by votes. Bradley-Terry, a reward with skew-symmetric "
        "blocks, and blocks alone are compared on held-out votes; the cycles that the votes show are tested against "
        "those that a ranking would show with the same votes, ties and noise.",
    )
    parser.add_argument(
        "votes",
        help="a file, or a data set of the Hub, with columns of Chatbot Arena (`model_a`, `model_b`, `winner`), of "
        "AlpacaEval's annotations, `winner` and `loser`, `a`, `b` and `p_a` (or `wins`, `ties`, `losses`), judgements "
        "by prompt, or pairs (`prompt`, `chosen`, `rejected`)",
    )
    parser.add_argument("--config", help="of a Hub data set")
    parser.add_argument("--split", help="of a Hub data set (default: the only one)")
    parser.add_argument("--judge", help="rows hold judgements by several judges: take this one's")
    parser.add_argument(
        "--within-prompts",
        action="store_true",
        help="the responses to a prompt compete with each other, not the models that gave them: cycles are looked for "
        "within prompts",
    )
    parser.add_argument("--blocks", type=int, default=1, help="of the model with a reward")
    parser.add_argument(
        "--ties",
        choices=["davidson", "half"],
        default="davidson",
        help="an outcome of its own (Davidson's model), or half a win for both",
    )
    parser.add_argument("--quick", action="store_true", help="ratings alone: nothing held out, nothing simulated")
    parser.add_argument("--simulations", type=int, default=400, help="rankings drawn for the test of cycles")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="print so many items, the best")
    parser.add_argument("--picture", help="a PNG file: the axis of the ranking, and the plane of what it leaves")
    parser.add_argument("--output", help="a JSON file for all numbers")
    parser.add_argument("--format", choices=["text", "json"], default="text")
    writes(parser, lambda options: [options.output, options.picture], evaluation="ratings")
    parser.set_defaults(run=_ratings)


def _ratings(options: argparse.Namespace) -> None:
    from gpm_hf.ratings.report import model_table, rate, rating_table, sentences
    from gpm_hf.ratings.vote_rows import read_votes, vote_rows

    for name, least in (("blocks", 1), ("simulations", 20)):
        if vars(options)[name] < least:
            raise ValueError(f"--{name} {vars(options)[name]}: at least {least} is needed.")
    votes = read_votes(vote_rows(options.votes, options.split, options.config), options.judge)
    if options.within_prompts and votes.group.max() == 0:
        votes = votes.within_prompts()
    report = rate(votes, options.blocks, options.ties, options.quick, options.simulations, options.seed)
    answer = report.to_dict()
    if options.format == "json":
        print(json.dumps(answer))
    else:
        if votes.group.max() == 0:
            print(f"{rating_table(report, options.limit)}\n")
        for comparison in report.comparisons.values():
            print(f"{model_table(comparison)}\n")
        print(f"{votes.total:g} votes on {len(votes.by_pair().a)} pairs of {len(votes.items)} items.")
        print("\n".join(sentences(report)))
    if options.picture:
        from gpm_hf.evaluation.plots.rating_plots import plot_ratings

        plot_ratings(options.picture, report, f"{len(votes.items)} items by {votes.total:g} votes")
    if options.output:
        with written_whole(options.output) as file:
            json.dump({"evaluation": "ratings", **answer}, file, indent=1)
