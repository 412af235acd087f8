"""`gpm-hf distill`: a judge made into a preference model, by the launch script that trains one."""

import argparse
from typing import Any

from gpm_hf.cli.training import launch

_EXAMPLE = (
    "gpm-hf distill pair:llm-blender/PairRM-hf --input groups.jsonl --output runs/gpm "
    "--model HuggingFaceTB/SmolLM2-135M-Instruct --train_heads_only --compare_bt"
)


def add_commands(commands: Any) -> None:
    """Adds `distill`."""
    parser = commands.add_parser(
        "distill",
        help="train a preference model on what a judge or any scorer prefers, cycles included",
        usage="gpm-hf distill SCORER --input DATA --output FOLDER --model MODEL [options of gpm-hf train reward]",
        description="Labels groups of responses by a scorer, both orders of a pair averaged, trains a preference "
        "model on its probabilities, and says how much of the scorer the model keeps on held-out prompts. DATA has "
        "`prompt` and `responses`: a file or a data set of the Hub. Labels are kept as they are made, in "
        "FOLDER/labels.jsonl: a run that was stopped goes on.",
        epilog=f"For example `{_EXAMPLE}`. It is `gpm-hf train reward --label_with SCORER`.",
    )
    parser.add_argument("scorer", metavar="SCORER", help="gpm:NAME, reward:NAME, pair:NAME, judge:NAME, ...")
    parser.add_argument(
        "options",
        nargs=argparse.REMAINDER,
        help="--input, --output and --model stand for the script's --dataset_name, --output_dir and "
        "--model_name_or_path; `gpm-hf train reward --help` lists the others, such as --label_options, "
        "--test_split_size and --compare_bt",
    )
    parser.set_defaults(run=_distill)


def _distill(options: argparse.Namespace) -> None:
    names = {"--input": "--dataset_name", "--output": "--output_dir", "--model": "--model_name_or_path"}
    given = []
    for word in options.options:
        name, equals, value = word.partition("=")
        given.append(f"{names.get(name, name)}{equals}{value}")
    launch("reward", [*given, "--label_with", options.scorer])
