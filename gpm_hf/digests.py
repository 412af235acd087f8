"""Digests of a model's files, by which records, results and adapters know the model that they are about."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from gpm_hf.modeling import check_one_model, is_weight_file


def file_digest(path: str | Path) -> bytes:
    """SHA-256 of a file, read once as long as it does not change."""
    path = os.path.realpath(path)
    status = os.stat(path)
    return _digest(path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@lru_cache(maxsize=4096)
def _digest(path: str, *version: int) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def joint_digest(paths: list[Path]) -> str:
    """SHA-256 over files, by name and content."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode())
        digest.update(file_digest(path))
    return digest.hexdigest()


def weights_digest(folder: str | Path, both_formats: bool = False) -> str:
    """
    SHA-256 over the weights in a folder, a whole model's or an adapter's, by name and content; "" if there are none.

    Raises:
        ValueError: for the weights of several models; see [`~gpm_hf.modeling.check_one_model`] for `both_formats`.
    """
    check_one_model(folder, both_formats)
    found = sorted(path for path in Path(folder).glob("*") if is_weight_file(path.name))
    return joint_digest(found) if found else ""
