"""What is text and what is not: a number or a date where text belongs is never trained on or scored."""

import datetime
from collections.abc import Mapping
from typing import Any


def text_problem(value: Any) -> str:
    """
    Why a value is neither a text, nor chat messages, nor a list of texts or messages; "" for what is one.

    Args:
        value: of a text column (`prompt`, `chosen`, `responses`, ...). Of chat messages, or a single one, this looks
            at the content alone, which is text, parts of several kinds, or nothing.

    Example:

    >>> text_problem([{"role": "assistant", "content": 7}])
    'has a message whose content is the number 7, where text belongs'
    """
    if isinstance(value, str):
        return "" if _is_whole(value) else "holds half of a character (a lone surrogate)"
    if value is None:
        return "is missing (null)"
    if not isinstance(value, (list, tuple, Mapping)):
        return f"is {_described(value)}, where text belongs"
    for item in [value] if isinstance(value, Mapping) else value:
        if isinstance(item, Mapping):
            content = item.get("content")
            parts = content if isinstance(content, (list, tuple)) else [content]
            texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
            for text in texts:
                if text is not None and not isinstance(text, str):
                    return f"has a message whose content is {_described(text)}, where text belongs"
                if text is not None and not _is_whole(text):
                    return "has a message whose content holds half of a character (a lone surrogate)"
        elif found := text_problem(item):
            return f"has an element that {found}"
    return ""


def _is_whole(text: str) -> bool:
    """Whether a text can be encoded: bytes of another encoding on the command line become halves of characters."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _described(value: Any) -> str:
    if isinstance(value, bool):
        return f"the truth value {value}"
    if isinstance(value, (int, float)):
        return f"the number {value!r:.40}"
    if isinstance(value, (datetime.date, datetime.time)):
        return f"the date {value}"
    return f"a {type(value).__name__}"
