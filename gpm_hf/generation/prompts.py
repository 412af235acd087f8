"""The prompts that a policy answers: read from a file, and rendered by its chat template."""

from typing import Any

from gpm_hf.data.raw_rows import MalformedRow, read_rows
from gpm_hf.data.text import text_problem
from gpm_hf.modeling import read_group
from gpm_hf.modeling.messages_gpm import as_messages
from gpm_hf.modeling.template_gpm import ChatTemplate


def read_prompts(source: str, split: str | None = None) -> list[Any]:
    """
    Prompts of a file or data set.

    Args:
        source: a local file (`.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet`) or a data set of the Hub. A row has a
            `prompt`, a string or chat messages, or AlpacaEval's `instruction`; its other columns are not read.
        split: of a Hub data set, see [`gpm_hf.data.raw_rows.read_rows`].

    Returns:
        Strings or lists of chat messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no rows, or a row without a prompt, naming it.
    """
    found = []
    for name, row in read_rows(source, split):
        if isinstance(row, MalformedRow):
            raise ValueError(f"{source}, {name} is {row}.")
        prompt = row.get("prompt", row.get("instruction"))
        if prompt is not None and (problem := text_problem(prompt)):
            raise ValueError(f"{source}, {name}: `prompt` {problem}.")
        if not prompt:
            raise ValueError(
                f"{source}, {name} has no prompt to answer: it has the columns {sorted(row)}, and needs `prompt`, a "
                "string or chat messages (or `instruction`)."
            )
        try:
            prompt_messages(prompt)
        except ValueError as error:
            raise ValueError(f"{source}, {name}: {error}") from error
        found.append(prompt)
    if not found:
        raise ValueError(f"{source} holds no prompts.")
    return found


def prompt_messages(prompt: Any) -> list[dict[str, Any]]:
    """
    A prompt as chat messages: a string is one user message, and other tools' shapes are read as
    [`gpm_hf.modeling.read_group`] reads them.

    Raises:
        ValueError: a shape that is not understood, or messages that end with an answer.
    """
    messages = as_messages(read_group(prompt, ["any answer"]).prompt)
    if messages[-1]["role"] == "assistant":
        raise ValueError("the prompt ends with a message of the assistant, so there is nothing left to answer.")
    return messages


def encode_prompt(tokenizer: Any, prompt: Any, name: str | None = None) -> list[int]:
    """
    Token ids of a prompt, up to where the answer begins. The template alone writes BOS, and the day's date where it
    writes one.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): the policy's.
        prompt: a string or chat messages.
        name: of the prompt, for messages.

    Raises:
        ValueError: the tokenizer has no chat template, or one that cannot render the prompt or leaves a text of it
            out.
    """
    if tokenizer.chat_template is None:
        raise ValueError(
            f"The tokenizer of {tokenizer.name_or_path or 'this policy'} has no chat template, by which a prompt is "
            "put to it: use a chat model, or set `tokenizer.chat_template` and save it."
        )
    template = ChatTemplate(tokenizer, date=None)
    try:
        messages = prompt_messages(prompt)
        template.check(messages, [], 0)
        return template.ids(messages, add_generation_prompt=True)
    except ValueError as error:
        raise ValueError(f"{name}: {error}" if name else str(error)) from error


def check_prompts(
    tokenizer: Any,
    prompts: list,
    source: str,
    max_new_tokens: int | None = None,
    context_length: int | None = None,
) -> list[int]:
    """
    Makes sure, before anything is sampled, that every prompt can be put to a policy.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): the policy's.
        prompts: strings or chat messages, as [`read_prompts`] gives them.
        source: where they are from, for messages.
        max_new_tokens: the longest answer.
        context_length: of the policy; without one its context is not looked at.

    Returns:
        The numbers of tokens of the prompts.

    Raises:
        ValueError: a prompt that cannot be rendered, or that leaves no room for the answer; the message names its row.
    """
    lengths = []
    for number, prompt in enumerate(prompts, start=1):
        name = f"{source}, row {number}"
        lengths.append(len(encode_prompt(tokenizer, prompt, name)))
        check_room(lengths[-1], max_new_tokens or 0, context_length, name)
    return lengths


def context_length(config: Any) -> int | None:
    """The most tokens of prompt and answer by a policy's configuration; `None` where it does not say."""
    return config.get_text_config().to_dict().get("max_position_embeddings")


def check_room(prompt_length: int, max_new_tokens: int, context_length: int | None, name: str) -> None:
    """Raises `ValueError` where prompt and answer do not fit into the model's context."""
    if context_length is not None and prompt_length + max_new_tokens > context_length:
        raise ValueError(
            f"{name} has {prompt_length} tokens; with max_new_tokens={max_new_tokens} for the answer that is more "
            f"than the policy's context of {context_length}. Lower `max_new_tokens`, or leave the prompt out."
        )
