"""Locks beside what is written, so that of two runs on one output one is told."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from gpm_hf.files import refuse_existing

# By this process: a job takes its output before it loads models, and the loop that writes it asks again.
_held: set[tuple[str, int]] = set()
# Where launchers tell a process its number, as accelerate reads it.
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


@contextmanager
def only_run(output: str | Path, overwrite: bool = True) -> Iterator[None]:
    """
    Keeps every other run off an output as long as the block lasts. Under a launcher the first process does so for all.

    Args:
        output: the file or folder.
        overwrite: whether what is there already may be replaced. It is looked at when no other run can write it.

    Raises:
        ValueError: another run has it.
        FileExistsError: it is a file that is there already, and is not to be replaced.
    """
    path = Path(os.path.abspath(output))
    own = (str(path), threading.get_ident())
    if own in _held or any(os.environ.get(name, "0") != "0" for name in _RANKS):
        yield
        return
    with _locked(path.with_name(f".{path.name}.run.lock"), timeout=0) as is_locked:
        if not is_locked:
            raise ValueError(f"Another run is writing {output}: wait until it has ended, or name another output.")
        if path.is_file():
            refuse_existing(output, overwrite)
        _held.add(own)
        try:
            yield
        finally:
            _held.remove(own)


@contextmanager
def appending(path: str | Path) -> Iterator[None]:
    """Keeps others from adding to a file as long as the block lasts; waits for those who do."""
    path = Path(path)
    with _locked(path.with_name(f".{path.name.lstrip('.')}.append.lock"), timeout=-1):
        yield


@contextmanager
def _locked(path: Path, timeout: float) -> Iterator[bool]:
    """Whether the lock was to be had. Its file, and folders that were made for it alone, go with it."""
    made = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        while True:
            # A file that its holder has removed can still be locked by whoever opened it before. The lock is on the
            # one that lies here if that is the same before and after: as long as it is open, none has its number.
            path.touch()
            before = _inode(path)
            try:
                lock.acquire(timeout=timeout, poll_interval=0.01)
            except Timeout:
                yield False
                return
            if before is not None and _inode(path) == before:
                break
            lock.release()
        try:
            yield True
        finally:
            if os.name == "posix":
                path.unlink(missing_ok=True)
            lock.release()
    finally:
        for folder in made:
            with suppress(OSError):  # something is in it
                folder.rmdir()


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None
