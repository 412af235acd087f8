"""Versions of what computes: libraries by their numbers, this package by its source."""

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
# Whatever reads a tokenizer's files or renders its chat template.
_TEXT_LIBRARIES = ("transformers", "tokenizers", "jinja2", "sentencepiece", "tiktoken")
_TEXT_FILES = (
    "data/preference.py",
    "modeling/encoding_gpm.py",
    "modeling/messages_gpm.py",
    "modeling/template_date_gpm.py",
    "modeling/template_gpm.py",
)
_LIBRARIES = ("torch", "peft", "trl")


def text_versions() -> dict[str, str]:
    """What decides, beside a tokenizer, which ids a text becomes: libraries, and our encoding by a digest."""
    return {**_numbers(_TEXT_LIBRARIES), "gpm_hf encoding": _source_digest(_TEXT_FILES)}


def versions(*parts: str) -> dict[str, str]:
    """
    What decides, beside models and data, what is computed: libraries, and this package by a digest of its source.

    Args:
        parts: the rooms or files of this package that compute it, such as "scoring"; default: all.
    """
    return {**_numbers((*_TEXT_LIBRARIES, *_LIBRARIES)), "gpm_hf": _source_digest(parts)}


def _numbers(libraries: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in libraries:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # an optional one; installed later it may read what nothing read before
            found[name] = "absent"
    return found


@cache
def _source_digest(parts: tuple[str, ...]) -> str:
    """Of the named files and rooms of this package, by default of all."""
    named = [_PACKAGE / name for name in parts or ("",)]
    digest = hashlib.sha256()
    for path in sorted(file for one in named for file in ([one] if one.is_file() else one.rglob("*.py"))):
        digest.update(f"{path.relative_to(_PACKAGE).as_posix()} ".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
