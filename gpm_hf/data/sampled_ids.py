"""
The token ids of sampled responses, kept beside their texts.

A text does not say what was sampled: a chat template renders an answer again with parts left out, put in front or put
at the end. So a row of samples has, beside `prompt` and `responses`:

- `prompt_ids`: the ids that all its responses follow;
- `response_ids`: K lists of ids as they were sampled, with the token that ended the answer; an answer that was cut by
  the length limit has no such token;
- `policy_log_probs`: K natural logarithms of the policy's probability of exactly these ids, at temperature 1;
- `tokenizer_digest`: whose ids they are, see [`tokenizer_digest`].
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

ID_COLUMNS = ("prompt_ids", "response_ids", "tokenizer_digest")


class SampledIds(NamedTuple):
    """The columns of a row, checked; see the top of this module."""

    prompt_ids: list[int]
    response_ids: list[list[int]]
    tokenizer_digest: str


def tokenizer_digest(tokenizer: Any) -> str:
    """
    What tells a tokenizer from one whose ids mean something else: a digest of its vocabulary and chat template.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): saved and loaded again, it has the same digest.
    """
    told = json.dumps([tokenizer.chat_template, tokenizer.get_vocab()], sort_keys=True)
    return f"sha256:{hashlib.sha256(told.encode()).hexdigest()}"


def read_ids(name: str, row: Mapping[str, Any], count: int) -> SampledIds | None:
    """
    The sampled ids of a row.

    Args:
        name: of the row, for messages.
        row: with all of `ID_COLUMNS`, or none (which may also be null).
        count: K, the number of its responses.

    Returns:
        `None` where the row has none.

    Raises:
        ValueError: naming the row: some of the columns and not all, or what is no list of ids.
    """
    given = [column for column in ID_COLUMNS if row.get(column) is not None]
    if not given:
        return None
    if len(given) < len(ID_COLUMNS):
        raise ValueError(
            f"{name} has {', '.join(given)} without {', '.join(set(ID_COLUMNS) - set(given))}: what was sampled is "
            "told by all of them. Sample it again, or remove them."
        )
    found = SampledIds(*(row[column] for column in ID_COLUMNS))
    if not isinstance(found.response_ids, Sequence) or len(found.response_ids) != count:
        raise ValueError(f"{name} has {count} responses, and `response_ids` that are not as many.")
    check_ids(name, "prompt_ids", found.prompt_ids)
    for ids in found.response_ids:
        check_ids(name, "response_ids", ids)
    return found


def check_ids(name: str, column: str, ids: Any) -> None:
    """Raises `ValueError`, naming the row, for what is no list of one token id or more."""
    if not isinstance(ids, Sequence) or not ids or any(type(one) is not int or one < 0 for one in ids):
        told = repr(ids)
        raise ValueError(
            f"{name} has in `{column}` {told if len(told) <= 40 else told[:37] + '...'}, which is no list of one or "
            "more token ids: sample it again, or remove the row."
        )
