"""What commands write: nothing that is there already, unless they are told to."""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path


def writes(
    parser: argparse.ArgumentParser,
    outputs: Callable[[argparse.Namespace], Iterable[str | Path | None]],
    folder: bool = False,
) -> None:
    """
    Declares what a command writes, and gives it `--overwrite`. A command that goes on where it was stopped declares
    its finished file: what it left of an unfinished one is beside that.

    Args:
        parser: the command's.
        outputs: from the command's options to the files that are there once it has finished.
        folder: whether it writes a whole folder.
    """
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier run has written there")
    parser.set_defaults(outputs=outputs, writes_folder=folder)


def check_outputs(options: argparse.Namespace) -> None:
    """
    Raises `FileExistsError`, before anything is done, where something is in the way of what a command writes.

    Args:
        options: of any command; what is no option of a user's is taken out.
    """
    outputs, folder = (vars(options).pop(name, None) for name in ("outputs", "writes_folder"))
    if outputs is None or options.overwrite:
        return
    for path in (Path(path) for path in outputs(options) if path is not None):
        if path.is_file() or (folder and path.exists()):
            raise FileExistsError(f"{path} exists already: name another, or replace it by --overwrite.")
