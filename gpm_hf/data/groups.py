"""Groups of responses to one prompt, out of rows: with names or without, and pairs as groups of two."""

from collections.abc import Collection, Mapping
from typing import Any

from gpm_hf.data.files import MalformedRow
from gpm_hf.data.text import text_problem
from gpm_hf.data.transcripts import is_transcript, part, read_transcript


def named_responses(responses: Any) -> tuple[list[Any], list[str] | None]:
    """
    The responses of a row and, where they are a mapping, their names.

    Args:
        responses: a list of strings or of chat messages, or a mapping of names to such: `{"model-a": "...", ...}`. The
            responses keep their order.

    Raises:
        ValueError: something else, such as one string, or a response that is missing; the message says which.
    """
    if isinstance(responses, Mapping):
        names, texts = [str(name) for name in responses], list(responses.values())
    elif isinstance(responses, (list, tuple)):
        names, texts = None, list(responses)
    else:
        problem = "is one string" if isinstance(responses, str) else text_problem(responses)
        raise ValueError(f"`responses` {problem}: a list of responses is needed, or a mapping of names to them.")
    for number, text in enumerate(texts):
        if problem := text_problem(text):
            raise ValueError(f"response {number if names is None else repr(names[number])} {problem}.")
    return texts, names


def as_group(row: Mapping[str, Any], place: str, outputs: Collection[str] = ()) -> dict[str, Any]:
    """
    A row as a group of responses that can be scored.

    Args:
        row: `responses`, see [`named_responses`], or a preference pair's `chosen` and `rejected`; and `prompt`, or
            none where the responses begin with it (as transcripts of HH-RLHF do).
        place: where the row stands, for messages.
        outputs: names of columns that will be added to the row.

    Returns:
        The row with `prompt`, `responses` (a list; of a pair the chosen one is first) and, where the responses came
        with names, `names`.

    Raises:
        ValueError: a row that is no group, naming it, or that has a column which an output would replace.
    """
    if "responses" in row:
        try:
            responses, names = named_responses(row["responses"])
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
    elif {"chosen", "rejected"} <= row.keys():
        responses, names = [row["chosen"], row["rejected"]], None
        for side in ("chosen", "rejected"):
            if problem := text_problem(row[side]):
                raise ValueError(f"{place}: `{side}` {problem}.")
        if row.get("prompt") is None and all(map(is_transcript, responses)):
            try:
                shared, *responses = part(*map(read_transcript, responses))
            except MalformedRow as reason:
                raise ValueError(f"{place}: {reason}.") from reason
            row = {**row, "prompt": shared}
    else:
        raise ValueError(f"{place} has no `prompt` and `responses` (or `chosen` and `rejected`).")
    prompt = row.get("prompt")
    if prompt is not None and (problem := text_problem(prompt)):
        raise ValueError(f"{place}: `prompt` {problem}.")
    replaced = sorted({*outputs, *(["names"] if names is not None else [])} & row.keys())
    if replaced:
        raise ValueError(f"{place} has {replaced} already, which would be replaced: rename or remove what it has.")
    named = {} if names is None else {"names": names}
    return {**row, "prompt": prompt, "responses": responses, **named}
