"""`gpm-hf convert`."""

import argparse
from typing import Any

from gpm_hf.cli.common import arguments_of
from gpm_hf.cli.outputs import writes


def add_commands(commands: Any) -> None:
    """Adds the command to the parser's."""
    convert = commands.add_parser(
        "convert",
        help="convert a checkpoint of the paper's authors to this package's format",
        description="Converts a checkpoint of the paper's authors, such as general-preference/GPM-Llama-3.1-8B, to a "
        "folder that transformers loads and that scores as their program does. Needs the memory of one output shard.",
    )
    convert.add_argument("source", help="Hub id or folder of the checkpoint")
    convert.add_argument("output", help="the folder to write")
    convert.add_argument("--revision", help="branch, tag or commit of the checkpoint on the Hub")
    convert.add_argument("--tau", type=float, default=0.1, help="temperature of the log-odds (default: the paper's)")
    convert.add_argument("--max-shard-size", default="5GB", help="the most that one weight file holds")
    writes(convert, lambda options: [options.output], folder=True)
    convert.set_defaults(run=_convert)


def _convert(options: argparse.Namespace) -> None:
    from gpm_hf.hub.conversion import convert_reference_checkpoint

    given = arguments_of(options)
    print(convert_reference_checkpoint(given.pop("source"), given.pop("output"), **given))
