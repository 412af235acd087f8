"""Preference rows in TRL's formats, turned into token ids by the model's own encoding."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from gpm_hf.modeling import TEMPLATE_DATE, encode_group

TEXT_COLUMNS = ("chosen", "rejected")
TOKEN_COLUMNS = ("chosen_ids", "rejected_ids")
LABEL_COLUMNS = ("margin", "target_score", "preference_probability")


def check_columns(columns: Sequence[str], needs_prompt: bool, needs_target: bool, name: str = "train") -> None:
    """
    Checks that a preference data set can train the model that is asked for.

    Args:
        columns: the data set's column names.
        needs_prompt: whether the model has a scale gate, which reads the prompt.
        needs_target: whether the loss is a regression, which needs `target_score`.
        name: what to call the data set in an error.

    Raises:
        ValueError: naming the columns that are missing.
    """
    tokenized = set(TOKEN_COLUMNS) <= set(columns)
    if not tokenized and not set(TEXT_COLUMNS) <= set(columns):
        raise ValueError(
            f"The {name} data set has the columns {sorted(columns)}. A preference data set needs `chosen` and "
            "`rejected` (and, but for conversations, `prompt`), or `chosen_ids` and `rejected_ids`."
        )
    if tokenized and needs_prompt and "prompt_ids" not in columns:
        raise ValueError(
            f"The {name} data set is tokenised already and has no `prompt_ids`, which the scale gate reads. Add them, "
            "or train with `scale_gate=False`."
        )
    if needs_target and "target_score" not in columns:
        raise ValueError(
            f'loss_type="regression" needs the column `target_score` (log-odds), but the {name} data set has the '
            f"columns {sorted(columns)}."
        )
    unsupported = {"tools", "chat_template_kwargs", "images"} & set(columns)
    if unsupported:
        raise ValueError(
            f"The {name} data set has the columns {sorted(unsupported)}, which a preference model cannot be given "
            "when it scores. Render them into the messages, or remove them."
        )


def encode_preference(
    row: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    prompt_format: str = "clean",
    needs_prompt: bool = True,
    template_date: str = TEMPLATE_DATE,
) -> dict[str, list[int]]:
    """
    Token ids of one preference row, by the same encoding that scores responses later.

    A string prompt is one user message where the tokenizer has a chat template, and plain text where it has none. A
    conversation without `prompt` is split where `chosen` and `rejected` part; where these are two conversations from
    the first message on, a model without a gate reads each as a whole.

    Args:
        row: `chosen`, `rejected` and optionally `prompt`, each a string or a list of chat messages.
        tokenizer: the preference model's tokenizer.
        prompt_format: the model's `prompt_format`.
        needs_prompt: whether the model has a scale gate.
        template_date: the model's `template_date`.

    Returns:
        `chosen_ids`, `rejected_ids`, each the whole sequence, and `prompt_ids` where there is a prompt.
    """
    prompt, chosen, rejected = split_preference(row, needs_prompt)
    try:
        group = encode_group(tokenizer, prompt, [chosen, rejected], prompt_format, template_date)
    except ValueError as error:
        raise ValueError(
            f"The row with the prompt {str(prompt)[:80]!r} (chosen is response 0, rejected response 1) cannot be "
            f"used: {error} Mend the row or filter it out of the data set."
        ) from error
    encoded = {"chosen_ids": group.sequences[0], "rejected_ids": group.sequences[1]}
    if group.prompt_ids is not None:
        encoded["prompt_ids"] = group.prompt_ids
    return encoded


def split_preference(row: Mapping[str, Any], needs_prompt: bool = True) -> tuple[Any, Any, Any]:
    """
    Prompt, chosen and rejected response of a preference row, as they are encoded: the reading that training and
    scoring share. See [`encode_preference`] for the forms of a row.

    Args:
        row: `chosen`, `rejected` and optionally `prompt`, each a string or a list of chat messages.
        needs_prompt: whether the model has a scale gate.

    Returns:
        The prompt, `None` where the responses contain it and a model without a gate reads them whole; then the two
        responses, without the prompt where it is given.

    Raises:
        ValueError: a row without the prompt that the gate reads, or with a prompt that would be encoded twice.
    """
    chosen, rejected = row["chosen"], row["rejected"]
    prompt = row.get("prompt")
    if prompt is not None:
        for name in ("chosen", "rejected"):
            if not isinstance(row[name], str) and row[name] and row[name][0]["role"] in ("system", "user"):
                raise ValueError(
                    f"`{name}` begins with a {row[name][0]['role']} message although the row has a `prompt`, which "
                    f"would be encoded twice: remove the column `prompt`, or leave only the reply in `{name}`. The "
                    f"prompt begins {str(prompt)[:80]!r}."
                )
    if prompt is None and not isinstance(chosen, str):
        shared = _shared_messages(chosen, rejected)
        if shared:
            prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
        elif needs_prompt:
            raise ValueError(
                "`chosen` and `rejected` are conversations that differ from the first message on, so there is no "
                "prompt to which both respond and that the scale gate could read. Add a `prompt` column, filter such "
                "rows out of the data set, or train with `scale_gate=False`. `chosen` begins "
                f"{str(chosen[:1])[:120]}."
            )
    if prompt is None and needs_prompt:
        raise ValueError(
            "The scale gate reads the prompt, and plain text without a `prompt` column does not say where it ends. "
            f"Add the column, or train with `scale_gate=False`. The row begins {chosen[:60]!r}."
        )
    return prompt, chosen, rejected


def _shared_messages(chosen, rejected):
    """How many messages two conversations begin with alike; the last message is always a response."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    return shared
