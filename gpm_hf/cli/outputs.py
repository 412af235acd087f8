"""What commands write: nothing that is there already, unless they are told to."""

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from gpm_hf.files import refuse_existing


def writes(
    parser: argparse.ArgumentParser,
    outputs: Callable[[argparse.Namespace], Iterable[str | Path | None]],
    folder: bool = False,
    evaluation: str | None = None,
) -> None:
    """
    Declares what a command writes, and gives it `--overwrite`. A command that goes on where it was stopped declares
    its finished file: what it left of an unfinished one is beside that.

    Args:
        parser: the command's.
        outputs: from the command's options to the files that are there once it has finished.
        folder: whether it writes a whole folder.
        evaluation: what it measures. Numbers of the same evaluation may be replaced: a model is evaluated again.
    """
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier run has written there")
    parser.set_defaults(outputs=outputs, writes_folder=folder, replaces_evaluation=evaluation)


def check_outputs(options: argparse.Namespace) -> None:
    """
    Raises `FileExistsError`, before anything is done, where something is in the way of what a command writes.

    Args:
        options: of any command; what is no option of a user's is taken out.
    """
    names = ("outputs", "writes_folder", "replaces_evaluation")
    outputs, folder, evaluation = (vars(options).pop(name, None) for name in names)
    if outputs is None or options.overwrite:
        return
    for path in (Path(path) for path in outputs(options) if path is not None):
        if (folder and path.exists()) or (path.is_file() and not (evaluation and _evaluation_in(path) == evaluation)):
            refuse_existing(path)


def _evaluation_in(path: Path) -> str | None:
    """What was measured, where a file holds the numbers of an evaluation."""
    if path.suffix != ".json":
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))["evaluation"]
    except (ValueError, KeyError, TypeError):
        return None
