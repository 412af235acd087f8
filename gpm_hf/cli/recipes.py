"""`gpm-hf demo`, `gpm-hf table1` and `gpm-hf eval ablation`: whole jobs with a result to look at."""

import argparse
from pathlib import Path
from typing import Any

from gpm_hf.cli.common import arguments_of
from gpm_hf.cli.outputs import writes


def add_commands(commands: Any) -> None:
    """Adds the commands to the parser's."""
    demo = commands.add_parser(
        "demo",
        help="train a preference model that holds a cycle, beside a Bradley-Terry model that cannot",
        description="Trains a general preference model and a Bradley-Terry model on preferences that go round in "
        "circles, compares them on unseen topics, saves the first and loads it back without this package.",
    )
    demo.add_argument("--output", default="runs/demo", help="folder for the model, the picture and the numbers")
    demo.add_argument("--seed", type=int, default=0)
    writes(demo, lambda options: [Path(options.output, "results.json")])
    demo.set_defaults(run=_demo)

    table1 = commands.add_parser(
        "table1",
        help="the paper's table 1 on a small backbone: cyclic preferences by dimension, beside Bradley-Terry",
        description="Trains general preference models of several dimensions and Bradley-Terry models on systematic "
        "cycles and, with --rings, on real ones. Goes on where an interrupted run was.",
    )
    table1.add_argument("--output", default="runs/table1", help="folder for results.jsonl and table1.md")
    table1.add_argument("--base", help="the backbone (default: SmolLM2-135M-Instruct)")
    table1.add_argument("--dimensions", type=int, nargs="+", default=[2, 4, 6, 8])
    table1.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    table1.add_argument("--rings", help="a file of real cycles: `prompt`, `responses` in ring order, `ring: true`")
    table1.add_argument("--keep", metavar="COLUMN=VALUE", help="only those rings whose column has this value")
    table1.set_defaults(run=_table1)


def add_ablation(kinds: Any) -> None:
    """Adds the ablation to the kinds of `gpm-hf eval`."""
    ablation = kinds.add_parser(
        "ablation",
        help="the paper's table 4 on a small backbone: dimension, gate and unit norm, beside Bradley-Terry",
        description="Trains general preference models of several dimensions, with and without scale gate and unit "
        "norm, and a Bradley-Terry model on systematic cycles; 17 models by default. Goes on where an interrupted run "
        "was.",
    )
    ablation.add_argument(
        "--output",
        default="runs/ablation",
        help="folder for results.jsonl, ablation.md, ablation.csv and ablation.png",
    )
    ablation.add_argument("--base", help="the backbone (default: SmolLM2-135M-Instruct)")
    ablation.add_argument("--dimensions", type=int, nargs="+", default=[2, 4, 6, 8])
    ablation.add_argument("--seeds", type=int, nargs="+", default=[0])
    ablation.add_argument(
        "--reward-head", action="store_true", help="each of them again with a scalar reward beside the blocks"
    )
    ablation.set_defaults(run=_ablation)


def _demo(options: argparse.Namespace) -> None:
    from gpm_hf.recipes.demo import run_demo

    run_demo(options.output, seed=options.seed)


def _table1(options: argparse.Namespace) -> None:
    from gpm_hf.recipes.table1 import run_table1

    print(run_table1(**arguments_of(options)))


def _ablation(options: argparse.Namespace) -> None:
    from gpm_hf.recipes.ablation import run_ablation

    print(run_ablation(**arguments_of(options)))
