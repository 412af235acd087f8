"""Texts out of rows, each checked: what is wrong with one is a reason, fit for counting."""

from collections.abc import Mapping
from typing import Any

from gpm_hf.data.files import MalformedRow
from gpm_hf.data.text import text_problem
from gpm_hf.modeling import is_empty


def text_field(row: Mapping[str, Any], name: str) -> Any:
    """A string or chat messages out of a row; a [`MalformedRow`] where it is missing or empty."""
    value = row.get(name)
    if value is None:
        raise MalformedRow(f"no `{name}`")
    if not isinstance(value, str) and not _is_messages(value):
        raise MalformedRow(f"`{name}` is neither a string nor chat messages")
    if problem := text_problem(value):
        raise MalformedRow(f"`{name}` {problem}")
    try:
        empty = is_empty(value)
    except ValueError as error:
        raise MalformedRow(f"`{name}`: {str(error).rstrip('.')}") from error
    if empty:
        raise MalformedRow(f"empty `{name}`")
    return value


def text_list_field(row: Mapping[str, Any], name: str) -> list[str]:
    """A list of strings out of a row; a [`MalformedRow`] where it is missing or one is empty."""
    values = row.get(name)
    if not values:
        raise MalformedRow(f"no `{name}`")
    if not is_text_list(values):
        raise MalformedRow(f"`{name}` is not a list of strings")
    if any(is_empty(value) for value in values):
        raise MalformedRow(f"empty `{name}`")
    return list(values)


def is_text_list(value: Any) -> bool:
    """Whether this is a list of strings."""
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


def _is_messages(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, (list, tuple)) and all(isinstance(item, Mapping) for item in value)
    )
