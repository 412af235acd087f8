"""One text out of a prompt and two responses, for the models that read both at once."""

import re
from typing import Any

_FIELDS = ("prompt", "a", "b")
_FIELD = re.compile(r"\{(prompt|a|b)\}")


def check_template(template: str | list[dict]) -> None:
    """Raises `ValueError` where a template, a text or chat messages, lacks {prompt}, {a} or {b}."""
    text = template if isinstance(template, str) else "".join(message["content"] for message in template)
    missing = [f"{{{field}}}" for field in _FIELDS if f"{{{field}}}" not in text]
    if missing:
        raise ValueError(f"The template {template!r} lacks {', '.join(missing)}: a judge must be shown all three.")


def fill_template(template: str, prompt: str, a: str, b: str) -> str:
    """The template with its fields filled in. In one pass: a response that itself says "{b}" stays as it is."""
    values = {"prompt": prompt, "a": a, "b": b}
    return _FIELD.sub(lambda found: values[found[1]], template)


def as_text(turns: Any, role: str) -> str:
    """
    A prompt or a response as text.

    Args:
        turns (`str` or `list[dict]`): a text, or chat messages.
        role (`str`): the role of the message that needs no name when it is the only one.

    Returns:
        `str`: the text; the content of a single message with that role; otherwise a paragraph "role: content" for each
        message.

    Raises:
        ValueError: for a message whose content is no text.
    """
    if isinstance(turns, str):
        return turns
    if turns is None:
        raise ValueError("A model that reads two responses at once must be shown a prompt, and here there is none.")
    for message in turns:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise ValueError(f"A message without text cannot be put into a template: {message!r}.")
    if len(turns) == 1 and turns[0]["role"] == role:
        return turns[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in turns)
