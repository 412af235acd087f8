"""Command lines whose mistakes are one sentence and a way on, and whose help says what is the default."""

import argparse
from typing import Any, NoReturn

from typing_extensions import override

from gpm_hf.errors import end_with_usage, unknown_options


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Says each default that is one and that the help does not say itself."""

    @override
    def _get_help_string(self, action: argparse.Action) -> str | None:
        is_said = action.help is None or "default" in action.help
        if is_said or action.default in (None, False, argparse.SUPPRESS):
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """
    A parser, and the parsers of its subcommands: an unknown option is an error of the subcommand that was given it,
    and an error is what is wrong and where the options are listed, not all of them.
    """

    def __init__(self, *arguments: Any, **options: Any):
        options.setdefault("formatter_class", _Defaults)
        super().__init__(*arguments, **options)

    @override
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(unknown_options(unknown, self.format_usage()))
        return found, unknown

    @override
    def error(self, message: str) -> NoReturn:
        end_with_usage(self.prog, message)
