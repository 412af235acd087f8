"""Files and folders that are either whole or not there, and what is written into them."""

import datetime
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def written_whole(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """
    Opens a file beside `path` for writing and renames it when the block ends well; on an error nothing is left.

    Args:
        path: the file to write; missing folders are made.
        mode: "w" or "wb".
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(aside, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """
    Makes a folder beside `path` to write into and renames it when the block ends well; on an error nothing is left.

    Args:
        path: the folder to write; it may exist empty, but not hold anything.
        overwrite: whether a folder that holds something is replaced, once the new one is whole.

    Raises:
        FileExistsError: there is something at `path` already, and it is not to be replaced; or no folder.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() and (overwrite or not any(path.iterdir()))):
        raise FileExistsError(f"{path} exists already: name a folder that does not, or remove it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        aside.mkdir()
        yield aside
        if path.exists():
            # Renamed, so that a kill leaves nothing by halves: both are whole beside each other for a moment.
            earlier = path.with_name(f".{path.name}.{os.getpid()}.old")
            path.rename(earlier)
            aside.rename(path)
            shutil.rmtree(earlier)
        else:
            aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def json_text(value: Any) -> str:
    """
    JSON on one line, as every reader of JSON takes it. Dates, which tables have, are written in ISO 8601.

    Raises:
        ValueError: a number that JSON does not have (NaN, infinity), or what it has no form for.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except TypeError as error:
        raise ValueError(f"{error}: leave that column out. It is in {str(value)[:200]}.") from error
    except ValueError as error:
        raise ValueError(f"JSON has neither NaN nor infinity: leave them out of {str(value)[:200]}.") from error


def _plain(value: Any) -> str:
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    raise TypeError(f"A {type(value).__name__} cannot be written as JSON")


def json_rows(path: str | Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of one [`json_text`] a line, one at a time. A line ends at a line feed alone."""
    with open(path, "rb") as file:
        yield from map(json.loads, file)
