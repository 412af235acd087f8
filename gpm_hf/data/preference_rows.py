"""Preference rows made ready for training, each checked first: what is wrong with one is said with its number."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpm_hf.data.preference import LABEL_COLUMNS, TOKEN_COLUMNS, encode_preference
from gpm_hf.identity import text_versions

# Whether chosen and rejected response are the same tokens, so that there is nothing to prefer.
IDENTICAL = "identical"
# TRL's earlier names of tokenised columns.
LEGACY_COLUMNS = {f"{side}_input_ids": f"{side}_ids" for side in ("chosen", "rejected", "prompt")}
_LARGEST = float(np.finfo(np.float32).max)


def prepare_row(
    row: dict[str, Any],
    number: int,
    encoding: Mapping[str, Any],
    vocabulary_size: int,
    length_column: str | None = None,
    version: str = "",
) -> dict[str, Any]:
    """
    One preference row as [`~gpm_hf.training.GPMRewardTrainer`] reads it.

    Args:
        row: token ids (`chosen_ids`, `rejected_ids` and, for a gate, `prompt_ids`) or texts (see
            [`encode_preference`]), and labels.
        number: the row's in its data set, counted from 0.
        encoding: the further arguments of [`encode_preference`].
        vocabulary_size: rows of the model's token embeddings.
        length_column: where to put the length of the pair's longer sequence, in tokens.
        version: [`preparation_version`], for `Dataset.map`: `datasets` keeps the rows of earlier runs by a function's
            name and arguments, so what else changes token ids must be one.

    Returns:
        Token ids, the labels as floats, and `identical`.

    Raises:
        ValueError: naming the row, a text that cannot be encoded, ids outside the vocabulary or of another type, a
            label that is no number, or a probability outside [0, 1].
    """
    if not set(TOKEN_COLUMNS) <= set(row):
        row = {**row, **encode_preference(row, **encoding, index=number)}
    has_prompt = encoding["needs_prompt"] or row.get("prompt_ids") is not None
    try:
        names = [*TOKEN_COLUMNS, *(["prompt_ids"] if has_prompt else [])]
        prepared: dict[str, Any] = {name: read_ids(row[name], name, vocabulary_size) for name in names}
        prepared |= {name: read_label(row[name], name) for name in LABEL_COLUMNS if name in row}
    except ValueError as error:
        raise ValueError(f"Row {number}: {error}") from error
    prepared[IDENTICAL] = prepared["chosen_ids"] == prepared["rejected_ids"]
    if length_column is not None:
        prepared[length_column] = max(len(prepared[name]) for name in TOKEN_COLUMNS)
    return prepared


def preparation_version() -> str:
    """A digest of what decides, beside the arguments of [`prepare_row`], what a row becomes."""
    return hashlib.sha256(Path(__file__).read_bytes() + json.dumps(text_versions()).encode()).hexdigest()


def read_label(value: Any, name: str) -> float:
    """
    A label as a number; numeric strings and `Decimal` are read as what they say.

    Raises:
        ValueError: a value that is no finite number, or a probability outside [0, 1].
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    # A truth value says that chosen is preferred, and nothing in log-odds.
    is_number = name == "preference_probability" or not isinstance(value, bool)
    if not is_number or not abs(number) <= _LARGEST:
        raise ValueError(f"`{name}` is {value!r}: a label must be a finite number. Mend the row or filter it out.")
    if name == "preference_probability" and not 0 <= number <= 1:
        raise ValueError(f"`{name}` is {value!r}: a probability lies between 0 and 1. Mend the row or filter it out.")
    return number


def read_ids(value: Any, name: str, vocabulary_size: int) -> list[int]:
    """
    Token ids as a list.

    Raises:
        ValueError: what is no list of token ids, or ids that the model has no embedding for.
    """
    try:
        ids = np.asarray(value)
    except ValueError:  # lists of different lengths
        ids = np.array(None)
    if ids.ndim != 1 or len(ids) == 0 or ids.dtype.kind not in "iu":
        raise ValueError(
            f"`{name}` is {str(value)[:60]}: it must be a list of token ids. Mend the row or filter it out."
        )
    outside = ids[(ids < 0) | (ids >= vocabulary_size)]
    if len(outside):
        raise ValueError(
            f"`{name}` holds the token id {outside[0]}, and the model has embeddings for 0 to {vocabulary_size - 1}: "
            "the row was tokenised for another model. Tokenise it with this model's tokenizer."
        )
    return ids.tolist()
