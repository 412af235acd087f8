"""Data by what they hold."""

from pathlib import Path
from typing import Any

from gpm_hf.identity.contents import file_digest, files_digest
from gpm_hf.identity.software import versions


def data_identity(name: str | Path) -> str:
    """
    What tells data from all others.

    Args:
        name: a file, a folder, or a data set of the Hub.

    Returns:
        `"sha256:..."` of a file's content, or of a folder's files by their places and content; `"NAME@COMMIT"` of a
        data set of the Hub, as `load_dataset` reads it.
    """
    path = Path(name)
    if path.is_file():
        return f"sha256:{file_digest(path)}"
    if path.is_dir():
        files = [one for one in path.rglob("*") if one.is_file() and not _is_hidden(one.relative_to(path))]
        return f"sha256:{files_digest(path, files)}"
    from datasets import load_dataset_builder

    return f"{name}@{load_dataset_builder(str(name)).hash}"


def tied_to_versions(dataset: Any) -> Any:
    """
    The same rows (`Dataset` or `IterableDataset`). What `datasets` keeps of work on them is from now on found again by
    runs with the same [`versions`] alone: it knows a function of a module by its name, whatever that does today.
    """
    from datasets import Dataset
    from datasets.fingerprint import Hasher

    if not isinstance(dataset, Dataset):
        return dataset  # a stream, of which nothing is kept
    fingerprint = Hasher.hash([dataset._fingerprint, versions()])
    return dataset.select(range(len(dataset)), new_fingerprint=fingerprint)


def _is_hidden(path: Path) -> bool:
    """As `load_dataset` passes over them."""
    return any(part.startswith((".", "__")) for part in path.parts)
