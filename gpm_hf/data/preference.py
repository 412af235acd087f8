"""Preference rows in TRL's formats, turned into token ids by the model's own encoding."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from gpm_hf.data.judged_groups import is_grouped
from gpm_hf.modeling import TEMPLATE_DATE, EncodedGroup, encode_group, read_group

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
        ValueError: naming the columns that are missing, or that would be ignored although they change the meaning.
    """
    tokenized = set(TOKEN_COLUMNS) <= set(columns)
    grouped = is_grouped(columns)
    if not tokenized and not grouped and not set(TEXT_COLUMNS) <= set(columns):
        raise ValueError(
            f"The {name} data set has the columns {sorted(columns)}. A preference data set needs `chosen` and "
            "`rejected` (and, but for conversations, `prompt`), `chosen_ids` and `rejected_ids`, or `responses` and "
            "who of them beats whom."
        )
    if grouped and (labels := sorted(set(LABEL_COLUMNS) & set(columns))):
        raise ValueError(
            f"The {name} data set has groups of `responses` and the columns {labels}, which are labels of a pair: "
            "state them of each pair, by `preferences`, `preference_matrix` or `target_scores`."
        )
    if tokenized and needs_prompt and "prompt_ids" not in columns:
        raise ValueError(
            f"The {name} data set is tokenised already and has no `prompt_ids`, which the scale gate reads. Add them, "
            "or give the texts."
        )
    if needs_target and not grouped and "target_score" not in columns:
        raise ValueError(
            f'loss_type="regression" needs the column `target_score` (log-odds), but the {name} data set has the '
            f"columns {sorted(columns)}."
        )
    beside = {"system", "system_prompt"} & set(columns)
    if beside and not tokenized:
        raise ValueError(
            f"The {name} data set has the column {sorted(beside)}, which would not be read. Put its text into the "
            'prompt, as a first message with the role "system", or remove the column.'
        )
    unsupported = {"tools", "chat_template_kwargs", "images"} & set(columns)
    if unsupported:
        raise ValueError(
            f"The {name} data set has the columns {sorted(unsupported)}, which a preference model cannot be given "
            "when it scores. Render them into the messages, or remove them."
        )


def encode_preference(
    row: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    prompt_format: str = "clean",
    needs_prompt: bool = True,
    template_date: str = TEMPLATE_DATE,
    index: int | None = None,
) -> dict[str, list[int]]:
    """
    Token ids of one preference row, by the same encoding that scores responses later.

    A string prompt is one user message where the tokenizer has a chat template, and plain text where it has none. In
    which shapes prompt and responses may come, [`~gpm_hf.modeling.read_group`] says; a conversation without `prompt`
    is split where `chosen` and `rejected` part, and where these are two conversations with different questions, a
    model without a gate reads each as a whole.

    Args:
        row: `chosen`, `rejected` and optionally `prompt`, each a string or chat messages.
        tokenizer: the preference model's tokenizer.
        prompt_format: the model's `prompt_format`.
        needs_prompt: whether the model has a scale gate.
        template_date: the model's `template_date`.
        index: the row's number in its data set, for the error.

    Returns:
        `chosen_ids`, `rejected_ids`, each the whole sequence, and `prompt_ids` where there is a prompt.

    Raises:
        ValueError: a row that cannot be used, with its number and the beginning of its prompt.
    """
    try:
        responses = [row["chosen"], row["rejected"]]
        group = encode_responses(row.get("prompt"), responses, tokenizer, prompt_format, needs_prompt, template_date)
    except ValueError as error:
        number = "The row" if index is None else f"Row {index}"
        raise ValueError(
            f"{number}, with the prompt {str(row.get('prompt'))[:80]!r} (chosen is response 0, rejected response 1), "
            f"cannot be used: {error} Mend the row or filter it out of the data set."
        ) from error
    encoded = {"chosen_ids": group.sequences[0], "rejected_ids": group.sequences[1]}
    if group.prompt_ids is not None:
        encoded["prompt_ids"] = group.prompt_ids
    return encoded


def encode_responses(
    prompt: Any,
    responses: Sequence[Any],
    tokenizer: PreTrainedTokenizerBase,
    prompt_format: str = "clean",
    needs_prompt: bool = True,
    template_date: str = TEMPLATE_DATE,
) -> EncodedGroup:
    """
    Token ids of a prompt with K responses to be trained on, as of pairs; see [`encode_preference`] for the arguments.

    Raises:
        ValueError: what cannot be encoded, without the row's name.
    """
    group = read_group(prompt, list(responses))
    if group.prompt is None and needs_prompt:
        raise ValueError(
            f"The scale gate reads the prompt, and here there is none: {group.why_no_prompt}. Add a `prompt` column "
            "(`--columns prompt=COLUMN` where it has another name), or filter such rows out of the data set."
        )
    return encode_group(tokenizer, group.prompt, group.responses, prompt_format, template_date)


def split_preference(row: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """
    Prompt, chosen and rejected response of a preference row, as they are encoded.

    Args:
        row: `chosen`, `rejected` and optionally `prompt`, each a string or chat messages.

    Returns:
        The prompt, `None` where there is none that goes alone; then the two responses, without the prompt where it is
        given.

    Raises:
        ValueError: a row with a prompt that would be encoded twice.
    """
    group = read_group(row.get("prompt"), [row["chosen"], row["rejected"]])
    return group.prompt, *group.responses
