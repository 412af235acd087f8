"""Options as dataclasses for TRL's parser: what the docstring says of one is its help, and a choice is checked."""

import dataclasses
import inspect
import re
from typing import Any, TypeVar

Options = TypeVar("Options", bound=type)

# "name (`type`, *optional*): text", or the text on the lines below, further in.
_ENTRY = re.compile(r"^ {4}(\w+)(?: \(.*?\))?:(.*(?:\n {8}.*)*)", re.MULTILINE)
_LINK = re.compile(r"\[`~?([^`]+)`\]")


def described(options: Options) -> Options:
    """
    Class decorator for a dataclass: gives each of its own options the help that its docstring has of it.

    Raises:
        TypeError: an option that the docstring leaves out.
    """
    if options.__doc__ is None:  # python -OO
        return options
    texts = dict(_ENTRY.findall(inspect.cleandoc(options.__doc__)))
    for field in dataclasses.fields(options):
        if field.name in inspect.get_annotations(options):
            if field.name not in texts:
                raise TypeError(f"The docstring of {options.__name__} says nothing of {field.name}.")
            told = _LINK.sub(r"`\1`", " ".join(texts[field.name].split()))
            # argparse fills in what follows a per cent sign.
            field.metadata = {**field.metadata, "help": told.replace("%", "%%")}  # type: ignore[assignment]
    return options


def choice(*choices: str, default: str | None) -> Any:
    """An option that takes one of some words."""
    return dataclasses.field(default=default, metadata={"choices": list(choices)})


def check_choices(options: Any) -> None:
    """Raises `ValueError` for an option of the class's own that is none of its choices (nor its default)."""
    own = inspect.get_annotations(type(options))
    for field in dataclasses.fields(options):
        value, choices = getattr(options, field.name), field.metadata.get("choices")
        if field.name in own and choices is not None and value != field.default and value not in choices:
            named = ", ".join(f'"{one}"' for one in choices)
            raise ValueError(f"{field.name}={value!r} is unknown: choose one of {named}.")
