"""
From chats to token ids: the one place that tokenises, for training and for inference alike.

A *group* is one prompt and the responses to it. Each response becomes one sequence of token ids, prompt included. The
eigenvalue scale gate reads the prompt's last token. In nearly every tokenisation that token sits inside the sequences,
so the gate costs nothing. Where it does not (a response that merges into the prompt's last token, a template that
renders a prompt differently when a reply follows, the reference format), the prompt is encoded as a sequence of its
own, so that the scales depend on the prompt alone.
"""

from dataclasses import dataclass

import torch

from .template_date_gpm import TEMPLATE_DATE, asks_for_date, fixed_templates


@dataclass
class EncodedGroup:
    """
    Token ids of one prompt with its responses.

    Attributes:
        sequences (`list[list[int]]`): one per response: prompt and response.
        prompt_ids (`list[int]` or `None`): the prompt alone, up to where a response begins; `None` when there is no
            explicit prompt.
    """

    sequences: list
    prompt_ids: list | None

    @property
    def prompt_is_inside(self):
        """Whether every sequence begins with the prompt's ids, so that the gate can read them there."""
        return all(ids[: len(self.prompt_ids)] == self.prompt_ids for ids in self.sequences)

    @property
    def prompt_is_worth_sharing(self):
        """
        Whether encoding the prompt once, in a pass of its own, saves at least a third of the group's tokens. Below
        that the second pass costs what it saves.
        """
        if not self.prompt_ids or len(self.sequences) < 2 or not self.prompt_is_inside:
            return False
        if any(len(ids) == len(self.prompt_ids) for ids in self.sequences):
            return False  # nothing is left to encode
        saved = len(self.prompt_ids) * (len(self.sequences) - 1)
        return 3 * saved >= sum(len(ids) for ids in self.sequences)


def encode_group(tokenizer, prompt, responses, prompt_format="clean", template_date=TEMPLATE_DATE):
    """
    Tokenises one prompt with its responses.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): tokenizer of the preference model.
        prompt (`str`, `list[dict]` or `None`): a string (one user message when the tokenizer has a chat template, else
            plain text), chat messages (several turns and a system message are fine), or `None` when every response
            is a whole conversation or text, prompt included. `None` allows no scale gate.
        responses (`list[str]` or `list[list[dict]]`): replies to the prompt, as text or as chat messages.
        prompt_format (`str`, defaults to `"clean"`): `"clean"` renders and tokenises in one step, so there is one
            BOS at most; plain text ends with EOS. `"reference"` repeats what the paper authors' program does: the
            chat is rendered to text, tokenised with special tokens (so BOS comes twice where the template writes one),
            the last token is overwritten by EOS, and the gate reads the last token of the first message.
        template_date (`str`, *optional*): the date that a chat template writes, see [`GPMConfig`]; `None` is the
            clock's, which is for policies alone.

    Returns:
        [`EncodedGroup`]

    Raises:
        ValueError: no responses, an empty response, messages without a chat template, or a template that cannot
            render the messages.
    """
    if isinstance(responses, str) or len(responses) == 0:
        raise ValueError(f"`responses` must be a list with at least one response, got {responses!r}.")
    for index, response in enumerate(responses):
        if not isinstance(response, (str, list, tuple)):
            raise ValueError(f"Response {index} is a {type(response).__name__}; give a string or chat messages.")
        if is_empty(response):
            raise ValueError(f"Response {index} is empty: there is nothing to prefer. Leave it out of the group.")
    if prompt_format == "reference":
        return _encode_reference(tokenizer, prompt, responses, template_date)

    if isinstance(prompt, str) and tokenizer.chat_template is not None:
        prompt = [{"role": "user", "content": prompt}]
    if isinstance(prompt, str) or (prompt is None and isinstance(responses[0], str)):
        return _encode_text(tokenizer, prompt, responses)
    conversations = [(prompt or []) + _as_messages(response) for response in responses]
    return EncodedGroup(
        sequences=[_render(tokenizer, messages, template_date) for messages in conversations],
        prompt_ids=None if prompt is None else _render(tokenizer, prompt, template_date, add_generation_prompt=True),
    )


def is_empty(response):
    """Whether a response, a string or chat messages, holds neither text nor a tool call."""
    if isinstance(response, str):
        return not response.strip()
    contents = [message.get("content") for message in response if not message.get("tool_calls")]
    has_calls = len(contents) < len(response)
    return not has_calls and all(not c or (isinstance(c, str) and not c.strip()) for c in contents)


def collate_groups(groups, pad_token_id, with_prompts=True, pad_to_multiple_of=None):
    """
    Pads groups into one right-padded batch for [`GPMForPreference.forward`].

    Args:
        groups (`list[EncodedGroup]`): G groups.
        pad_token_id (`int`): any id of the vocabulary; padded positions are masked.
        with_prompts (`bool`, defaults to `True`): whether the model has a scale gate and so needs the prompts.
        pad_to_multiple_of (`int`, *optional*): pads the sequence length further.

    Returns:
        `dict` of tensors: `input_ids` and `attention_mask` of shape (rows, length), the groups' sequences one after
        the other, then the prompts that need a row of their own; with prompts also `prompt_lengths` of shape
        (rows,) and `gate_rows` of shape (G,), the row at which each group's scales are to be read.
    """
    rows, lengths, gate_rows = rows_of_groups(groups, with_prompts)
    length = max(len(row) for row in rows)
    if pad_to_multiple_of:
        length = -(-length // pad_to_multiple_of) * pad_to_multiple_of
    input_ids = torch.full((len(rows), length), pad_token_id, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for index, row in enumerate(rows):
        input_ids[index, : len(row)] = torch.tensor(row)
        attention_mask[index, : len(row)] = 1
    batch = {"input_ids": input_ids, "attention_mask": attention_mask}
    if with_prompts:
        batch["prompt_lengths"] = torch.tensor(lengths)
        batch["gate_rows"] = torch.tensor(gate_rows)
    return batch


def rows_of_groups(groups, with_prompts=True):
    """
    The sequences of groups one after the other, then the prompts that the gate must read in a row of their own.

    Returns:
        `tuple`: the rows of token ids; for each row its number of prompt tokens; for each group the row at which its
        scales are to be read (no such rows without prompts).
    """
    rows = [sequence for group in groups for sequence in group.sequences]
    lengths, gate_rows = [0] * len(rows), []
    if with_prompts:
        first = 0
        for group in groups:
            if group.prompt_ids is None:
                raise ValueError(
                    "The scale gate reads the prompt, and here there is none. Give an explicit prompt, or use a "
                    "model with `scale_gate=False`."
                )
            size = len(group.prompt_ids)
            if group.prompt_is_inside:
                gate_rows.append(first)
                lengths[first : first + len(group.sequences)] = [size] * len(group.sequences)
            else:
                gate_rows.append(len(rows))
                # The gate is computed at every row; where it is not used any token of the row will do.
                lengths[first : first + len(group.sequences)] = [1] * len(group.sequences)
                rows.append(group.prompt_ids)
                lengths.append(size)
            first += len(group.sequences)
    return rows, lengths, gate_rows


def _as_messages(response):
    return [{"role": "assistant", "content": response}] if isinstance(response, str) else list(response)


def _render(tokenizer, messages, template_date, add_generation_prompt=False):
    """Token ids of a chat, by the tokenizer's template; the template writes BOS itself where it wants one."""
    return _apply_template(
        tokenizer,
        messages,
        template_date,
        tokenize=True,
        return_dict=True,
        add_generation_prompt=add_generation_prompt,
    )["input_ids"]


def _apply_template(tokenizer, messages, template_date, **options):
    """Every rendering goes through here: what the template writes does not depend on the day."""
    if tokenizer.chat_template is None:
        raise ValueError(
            "Chat messages were given, but the tokenizer has no chat template. Set `tokenizer.chat_template`, or give "
            "the prompt and the responses as plain strings."
        )
    try:
        if template_date is not None and asks_for_date(tokenizer.chat_template):
            # Of several templates, the tokenizer's own choice.
            template = tokenizer.get_chat_template(tools=options.get("tools"))
            options["chat_template"] = fixed_templates(template, template_date)
        return tokenizer.apply_chat_template(messages, **options)
    except Exception as error:
        roles = [message.get("role") if isinstance(message, dict) else message for message in messages]
        raise ValueError(f"The chat template cannot render messages with the roles {roles}: {error}") from error


def _encode_text(tokenizer, prompt, responses):
    """Plain text: prompt and response concatenated, EOS at the end."""
    if tokenizer.eos_token_id is None:
        raise ValueError("Plain text ends with EOS, and the tokenizer has none: set `tokenizer.eos_token`.")
    prompt = prompt or ""
    sequences = []
    for response in responses:
        if not isinstance(response, str):
            raise ValueError(f"The prompt is plain text, but a response is a {type(response).__name__}, not a string.")
        ids = tokenizer(prompt + response)["input_ids"]
        # The tokenizer may add EOS itself.
        sequences.append(ids if ids[-1] == tokenizer.eos_token_id else [*ids, tokenizer.eos_token_id])
    prompt_ids = tokenizer(prompt)["input_ids"] if prompt else None
    if prompt_ids and prompt_ids[-1] == tokenizer.eos_token_id:
        prompt_ids = prompt_ids[:-1]
    return EncodedGroup(sequences, prompt_ids)


def _encode_reference(tokenizer, prompt, responses, template_date):
    if prompt is None:
        raise ValueError('prompt_format="reference" needs an explicit prompt: its gate reads the first message.')
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]

    def encode(messages):
        text = _apply_template(tokenizer, messages, template_date, tokenize=False)
        return tokenizer(text, add_special_tokens=True)["input_ids"]

    sequences = [encode(prompt + _as_messages(response)) for response in responses]
    return EncodedGroup([[*ids[:-1], tokenizer.eos_token_id] for ids in sequences], encode(prompt[:1]))
