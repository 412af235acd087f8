"""Names in place of local paths: where something lies on a machine says nothing to others, and too much."""

import os
import re
from pathlib import Path
from typing import Any

# What may be a path stands between these. A colon ends a scorer's kind (`gpm:runs/model`) and a URL's scheme.
_WORD = re.compile(r"""[^\s"'`(),;:|<>\[\]{}=]+""")
_PATH_KEY = re.compile(r"(.*_)?(path|file|dir|base_model)")


def is_local(name: str) -> bool:
    """Whether a name is a path of this machine, or of the one that it was written on, rather than a Hub id."""
    if name.startswith("//"):
        return False  # the rest of a URL
    if name.startswith(("~/", "./", "../")) or re.match(r"[A-Za-z]:\\", name):
        return True
    if os.path.isabs(name) and len(Path(name).parts) > 2:
        return True
    return bool(name) and os.path.exists(name)


def name_of(path: str) -> str:
    """The last part of a path."""
    return Path(path).expanduser().resolve().name.split("\\")[-1]


def without_paths(text: str) -> str:
    """A text in which every local path is its last part: `gpm:runs/model` becomes `gpm:model`."""
    return _WORD.sub(lambda word: name_of(word[0]) if "/" in word[0] and is_local(word[0]) else word[0], text)


def strip_paths(value: Any, every_text: bool = False, place: str = "") -> tuple[Any, list[str]]:
    """
    Replaces the local paths in what a JSON file holds.

    Args:
        value: of any depth.
        every_text: whether paths are looked for in every text, or only where a key says that the value is one
            (`_name_or_path`, `tokenizer_file`, ...): a vocabulary may well have a token `/usr/bin`.
        place: the key.

    Returns:
        The value without paths, and what was replaced, in words.
    """
    if isinstance(value, dict):
        stripped = {name: strip_paths(one, every_text, name) for name, one in value.items()}
        return {name: one for name, (one, _) in stripped.items()}, [
            told for _, more in stripped.values() for told in more
        ]
    if isinstance(value, list):
        parts = [strip_paths(one, every_text, place) for one in value]
        return [one for one, _ in parts], [told for _, more in parts for told in more]
    if not isinstance(value, str) or not (every_text or _PATH_KEY.fullmatch(place)):
        return value, []
    new = without_paths(value) if every_text else name_of(value) if is_local(value) else value
    return (new, []) if new == value else (new, [f"{place}: {value} -> {new}"])
