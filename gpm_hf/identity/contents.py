"""Digests of files by their content, each file read once."""

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub.constants import HF_HOME

from gpm_hf.files import written_whole
from gpm_hf.modeling import check_one_model, is_weight_file

T = TypeVar("T")
# Below this a file is read as fast as what is kept of it.
_WORTH_KEEPING = 2**20
# The clock of some file systems stands still for so long: a younger file may change once more without a trace.
_SETTLED_SECONDS = 2
_BLOCK = 2**20


def file_digest(path: str | Path) -> str:
    """
    SHA-256 of a file's content, in hex. Of a large file it is kept under Hugging Face's cache, `gpm_hf/digests/`, by
    path, inode, size and times to the nanosecond, and taken from there as long as these are the same; of a file that
    changed within the last two seconds it is not.
    """
    path = os.path.realpath(path)
    before = _state(path)
    if before["size"] < _WORTH_KEEPING:
        return _read(path)
    kept = Path(HF_HOME, "gpm_hf", "digests", hashlib.sha256(path.encode()).hexdigest()[:32] + ".json")
    try:
        found = json.loads(kept.read_text(encoding="utf-8"))
        if {**found, "sha256": ""} == {**before, "sha256": ""}:
            return found["sha256"]
    except (OSError, ValueError, TypeError, KeyError):
        pass  # not there, or of no use: it is read again
    now = time.time_ns()
    digest = _read(path)
    settled = now - max(before["changed"], before["modified"]) > _SETTLED_SECONDS * 10**9
    if settled and _state(path) == before:
        try:
            with written_whole(kept) as file:
                json.dump({**before, "sha256": digest}, file)
        except OSError:
            pass  # a cache that cannot be written costs time alone
    return digest


def _state(path: str) -> dict[str, Any]:
    status = os.stat(path)
    return {
        "path": path,
        "device": status.st_dev,
        "inode": status.st_ino,
        "size": status.st_size,
        "modified": status.st_mtime_ns,
        "changed": status.st_ctime_ns,
    }


def _read(path: str) -> str:
    # Blocks let go of the interpreter while they are read and hashed, so that a model loads meanwhile.
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def files_digest(root: str | Path, paths: Iterable[Path]) -> str:
    """SHA-256 over files, in hex, by their places below `root` and their content."""
    digest = hashlib.sha256()
    for place, path in sorted((path.relative_to(root).as_posix(), path) for path in paths):
        digest.update(place.encode() + bytes.fromhex(file_digest(path)))
    return digest.hexdigest()


def weights_digest(folder: str | Path, both_formats: bool = False) -> str:
    """
    SHA-256 over the weights in a folder, a whole model's or an adapter's, by name and content; "" if there are none.

    Raises:
        ValueError: for the weights of several models; see [`~gpm_hf.modeling.check_one_model`] for `both_formats`.
    """
    check_one_model(folder, both_formats)
    found = [path for path in Path(folder).glob("*") if is_weight_file(path.name)]
    return files_digest(folder, found) if found else ""


def in_background(function: Callable[..., T], *arguments: Any, **options: Any) -> Callable[[], T]:
    """
    Begins a call in a thread, so that files are hashed while a model is loaded from them. What is returned waits for
    it, and returns or raises what it did.
    """
    result: Future[T] = Future()

    def call() -> None:
        try:
            result.set_result(function(*arguments, **options))
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return result.result
