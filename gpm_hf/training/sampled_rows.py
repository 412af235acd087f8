"""Rows of sampled responses for a trainer: the ids that were sampled, or texts whose rendering is what was sampled."""

import json
from collections.abc import Collection
from typing import Any

from gpm_hf.data.sampled_ids import check_ids


def has_sampled_ids(columns: Collection[str], sides: tuple[str, ...], name: str) -> bool:
    """
    Whether rows have the ids that were sampled.

    Args:
        columns: of a data set.
        sides: the responses in a row, "chosen" and perhaps "rejected".
        name: what to call the data set in an error.

    Raises:
        ValueError: some of the columns and not all.
    """
    needed = {"prompt_ids", *(f"{side}_ids" for side in sides), "tokenizer_digest"}
    given = needed & set(columns)
    if given and given != needed:
        raise ValueError(
            f"The {name} data set has {', '.join(sorted(given))} without {', '.join(sorted(needed - given))}: what "
            "was sampled is told by all of them. Add them (`gpm_hf.data.sampled_ids.tokenizer_digest` says whose ids "
            "they are), or remove the columns to train the texts as the chat template renders them."
        )
    return bool(given)


def check_row_ids(row: dict[str, Any], number: int, sides: tuple[str, ...], digest: str) -> None:
    """
    Checks that the ids in a row are this tokenizer's.

    Args:
        row: `prompt_ids`, `tokenizer_digest`, and the ids of each side.
        number: of the row, counted from 0.
        sides: "chosen" and perhaps "rejected".
        digest: of the policy's tokenizer, see [`gpm_hf.data.sampled_ids.tokenizer_digest`].

    Raises:
        ValueError: naming the row.
    """
    for column in ("prompt_ids", *(f"{side}_ids" for side in sides)):
        check_ids(f"Row {number}", column, row[column])
    if row["tokenizer_digest"] != digest:
        raise ValueError(
            f"Row {number} was sampled with another tokenizer or chat template than this policy's, where its ids may "
            "mean something else: give the tokenizer that sampled it as `processing_class`, or sample again."
        )


def check_rendering(row: dict[str, Any], number: int, sides: tuple[str, ...], tokenizer: Any) -> None:
    """
    Checks that what a row without sampled ids is rendered to is what a policy would have sampled: the prompt as it is
    put to it, the answer, and its end.

    Args:
        row: `prompt` and each side, as strings or chat messages, and the ids that TRL made of them.
        number, sides: as in [`check_row_ids`].
        tokenizer (`PreTrainedTokenizerBase`): the policy's.

    Raises:
        ValueError: naming the row.
    """
    for side in sides:
        fault = _fault(row, side, tokenizer)
        if fault:
            raise ValueError(
                f"Row {number}: {fault}, so the tokens of `{side}` are not what a policy sampled. Sample the "
                "responses with their ids (`gpm-hf iterate` and `gpm-hf best-of-n` keep `prompt_ids`, `response_ids` "
                "and `tokenizer_digest`), or leave the row out."
            )


def _fault(row: dict[str, Any], side: str, tokenizer: Any) -> str | None:
    prompt, response = row["prompt"], row[side]
    if isinstance(prompt, str):
        before = tokenizer(prompt)["input_ids"]
        # The tokenizer may add EOS itself.
        alone = before[:-1] if before and before[-1] == tokenizer.eos_token_id else before
        if row["prompt_ids"] not in (before, alone):
            return "the end of the prompt and the beginning of a response become one token"
        return None
    answer, *further = response
    given = {name for name, value in answer.items() if value}
    if further or given - {"role", "content"} or not isinstance(answer.get("content"), str):
        return f"`{side}` is more than one text of the assistant"
    tools = row.get("tools")
    options = {
        "tools": json.loads(tools) if isinstance(tools, str) else tools,
        **(row.get("chat_template_kwargs") or {}),
    }
    fault = rendering_fault(tokenizer, prompt, answer["content"], **options)
    ids = tokenizer.apply_chat_template(prompt, return_dict=True, add_generation_prompt=True, **options)["input_ids"]
    if fault is None and row["prompt_ids"] != ids:
        return "the end of the prompt and the beginning of a response become one token"
    return fault


def rendering_fault(tokenizer: Any, prompt: list[dict[str, Any]], answer: str, **options: Any) -> str | None:
    """
    Why the rendering of an answer is not the prompt as it is put to a policy, then the answer (white space at its ends
    aside), then its end. Templates drop reasoning, put an empty think block or a channel in front, or render a prompt
    differently when an answer follows; what such a text was sampled as, nobody can tell.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): the policy's, with a chat template.
        prompt: chat messages.
        answer: the assistant's text.
        options: of the template (`tools`, `enable_thinking`, ...).

    Returns:
        A half sentence, or `None` where the rendering is whole.
    """
    conversation = [*prompt, {"role": "assistant", "content": answer}]
    before = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **options)
    whole = tokenizer.apply_chat_template(conversation, tokenize=False, **options)
    if not whole.startswith(before):
        return "the chat template renders the prompt differently when a response follows"
    written, text = whole[len(before) :].strip(), answer.strip()
    if not written.startswith(text):
        return f"the chat template writes {_beginning(written)} after the prompt where {_beginning(text)} was given"
    return None


def _beginning(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
