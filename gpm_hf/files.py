"""Files and folders that are either whole or not there, and what is written into them."""

import datetime
import json
import math
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from gpm_hf.masking import masked

# Whose what is not finished yet is: processes of another machine may write to the same disk.
_HOST = re.sub(r"[^A-Za-z0-9-]", "-", platform.node())


@contextmanager
def written_whole(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """
    Opens a file beside `path` for writing and renames it when the block ends well; on an error nothing is left, and
    what a process that was killed has left goes with the next that writes this file.

    Args:
        path: the file to write; missing folders are made.
        mode: "w" or "wb".
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path, "part")
    try:
        with open(aside, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """
    Makes a folder beside `path` to write into and renames it when the block ends well; on an error nothing is left,
    and what a process that was killed has left goes with the next that writes this folder.

    Args:
        path: the folder to write; it may exist empty, but not hold anything.
        overwrite: whether a folder that holds something is replaced, once the new one is whole.

    Raises:
        FileExistsError: there is something at `path` already, and it is not to be replaced; or no folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path, "part")
    _refuse_full(path, overwrite)
    try:
        aside.mkdir()
        yield aside
        # Another run may have been quicker.
        _refuse_full(path, overwrite)
        if path.exists():
            # Renamed, so that a kill leaves nothing by halves: both are whole beside each other for a moment.
            earlier = path.with_name(aside.name.removesuffix("part") + "old")
            path.rename(earlier)
            aside.rename(path)
            shutil.rmtree(earlier)
        else:
            aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _refuse_full(path: Path, overwrite: bool) -> None:
    if path.exists() and not (path.is_dir() and (overwrite or not any(path.iterdir()))):
        raise FileExistsError(f"{path} exists already: name a folder that does not, or remove it.")


def _aside(path: Path, ending: str) -> Path:
    """What this process writes before it takes the place of `path`; removes what others have left of theirs."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(?:{re.escape(_HOST)}-)?(\d+)\.(?:part|old)")
    with os.scandir(path.parent) as entries:
        left = [entry for entry in entries if (found := pattern.fullmatch(entry.name)) and _is_left(int(found[1]))]
    for entry in left:
        if entry.name.endswith(".old") and not path.exists():
            # Killed between two renames: this is what was to be replaced.
            os.rename(entry.path, path)
        elif entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            Path(entry.path).unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{_HOST}-{os.getpid()}.{ending}")


def _is_left(process: int) -> bool:
    """Whether a process will not finish what bears its number: it is gone, or its number is this one's by now."""
    return process == os.getpid() or not _is_running(process)


def _is_running(process: int) -> bool:
    import psutil  # slow, and seldom needed

    return psutil.pid_exists(process)


def refuse_existing(path: str | Path, overwrite: bool = False) -> None:
    """Raises `FileExistsError` for a path that exists, unless it is to be replaced."""
    if os.path.exists(path) and not overwrite:
        raise FileExistsError(f"{path} exists already: name another, or replace it by --overwrite.")


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """
    A temporary folder for as long as the block lasts; those that killed processes have left go.

    Args:
        purpose: for its name, `gpm_hf_PURPOSE_PROCESS_...`.
    """
    own = rf"gpm_hf_{re.escape(purpose)}_{re.escape(_HOST)}-"
    for path in Path(tempfile.gettempdir()).glob(f"gpm_hf_{purpose}_*"):
        found = re.fullmatch(rf"{own}(\d+)_\w+", path.name)
        if found and int(found[1]) != os.getpid() and not _is_running(int(found[1])):
            shutil.rmtree(path, ignore_errors=True)
    prefix = f"gpm_hf_{purpose}_{_HOST}-{os.getpid()}_"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


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


def write_rows(path: str | Path, rows: Iterable[Any]) -> None:
    """Writes JSON Lines, whole: a [`json_text`] for each row."""
    with written_whole(path) as file:
        file.writelines(json_text(row) + "\n" for row in rows)


def json_rows(path: str | Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of one [`json_text`] a line, one at a time. A line ends at a line feed alone."""
    with open(path, "rb") as file:
        yield from map(json.loads, file)


def report_text(value: Any, indent: int | None = None) -> str:
    """
    JSON of what was measured, as every reader of JSON takes it: what is undefined (NaN) or infinite is `null`, and
    secrets are masked.
    """
    return json.dumps(_finite(masked(value)), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
