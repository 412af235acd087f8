"""The options of a launch script, of the command line and of a recipe, with errors of one sentence."""

import sys
from typing import Any, NoReturn

import yaml
from trl import TrlParser
from typing_extensions import override

from gpm_hf.errors import UsageError, end_with_usage, is_explained, unknown_options


class _Parser(TrlParser):
    @override
    def error(self, message: str) -> NoReturn:
        end_with_usage(self.prog, message)


def parse_options(program: str, options: Any, arguments: list[str] | None = None) -> tuple:
    """
    One object for each dataclass of `options`, filled from the command line and from `--config`.

    Args:
        program: for messages, "gpm-hf train reward".
        options: dataclasses, one of them of training.
        arguments: by default those of the process.

    Raises:
        UsageError: options that contradict each other, or a recipe that cannot be read or has unknown keys.
        SystemExit: with code 2, options that there are not, or values of another type.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _Parser(options, prog=program)
    if given[-1:] == ["--config"]:
        parser.error("--config needs the name of a file.")
    if sys.stderr.isatty():
        # transformers leaves its bar out with its notes, and writes a line for each log in its place.
        parser.set_defaults(disable_tqdm=False)
    try:
        *found, in_file, unknown = parser.parse_args_and_config(
            given, return_remaining_strings=True, separate_remaining_strings=True
        )
    except yaml.YAMLError as error:
        raise UsageError(f"The recipe is no YAML: {' '.join(str(error).split())}") from error
    except Exception as error:
        if not is_explained(error):
            raise
        # transformers asks for a keyword.
        hint = " On a machine without GPU add --use_cpu --bf16 false." if "use_cpu" in str(error) else ""
        raise UsageError(f"{error}{hint}") from error
    if unknown:
        parser.error(unknown_options(unknown, parser.format_usage()))
    if in_file:
        raise UsageError(f"The recipe: {unknown_options(in_file, parser.format_usage())}")
    return tuple(found)
