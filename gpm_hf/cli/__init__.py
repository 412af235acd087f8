"""The command `gpm-hf`."""

import os
import sys

from gpm_hf import __version__
from gpm_hf.cli import (
    calibration,
    conversion,
    data,
    data_conversion,
    distillation,
    evaluation,
    hub,
    inspection,
    policies,
    ratings,
    recipes,
    scoring,
    self_play,
    serving,
    training,
)
from gpm_hf.cli.common import check_options
from gpm_hf.cli.outputs import check_outputs
from gpm_hf.cli.parser import Parser
from gpm_hf.cli.stopping import EXIT_CODE, after_a_stop
from gpm_hf.errors import UsageError, explanation, is_explained
from gpm_hf.news import show_news
from gpm_hf.screens import VERBOSE, quiet_libraries


def command_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(
        prog="gpm-hf",
        description="Preference models that can hold cycles: demonstrate, build data, score, compare, rank, evaluate.",
    )
    parser.add_argument("--version", action="version", version=f"gpm-hf {__version__}")
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    parser.add_argument(
        "--verbose", action="store_true", help="show what the libraries below say, and bars of all that they do"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for part in (
        recipes,
        training,
        distillation,
        policies,
        data,
        data_conversion,
        scoring,
        inspection,
        self_play,
        evaluation,
        calibration,
        ratings,
        hub,
        conversion,
        serving,
    ):
        part.add_commands(commands)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """
    Runs one command; returns the exit code: 1 for an error that its message explains, 2 for options that cannot be,
    130 for Ctrl-C. What is no command line at all ends in `SystemExit(2)`, as argparse does it.
    """
    options = command_parser().parse_args(arguments)
    debug, verbose = (vars(options).pop(name) for name in ("debug", "verbose"))  # of no command
    if verbose:
        os.environ[VERBOSE] = "1"
    quiet_libraries()
    show_news()
    try:
        check_options(options)
        check_outputs(options)
        options.run(options)
    except KeyboardInterrupt:
        print(f"\ngpm-hf {options.command}: stopped. {after_a_stop(options)}", file=sys.stderr)
        return EXIT_CODE
    except Exception as error:
        if debug or not is_explained(error):
            raise
        print(f"gpm-hf {options.command}: {explanation(error)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0
