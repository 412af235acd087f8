"""
From chats to token ids: the one place that tokenises, for training and for inference alike.

A *group* is one prompt and the responses to it. Each response becomes one sequence of token ids, prompt included. The
eigenvalue scale gate reads the prompt's last token. In nearly every tokenisation that token sits inside the sequences,
so the gate costs nothing. Where it does not (a response that merges into the prompt's last token, a template that
renders a prompt differently when a reply follows, the reference format), the prompt is encoded as a sequence of its
own, so that the scales depend on the prompt alone.
"""

from dataclasses import dataclass, field

import torch

from .messages_gpm import as_messages, read_group
from .template_date_gpm import TEMPLATE_DATE
from .template_gpm import ChatTemplate, check_distinct


@dataclass
class EncodedGroup:
    """
    Token ids of one prompt with its responses.

    Attributes:
        sequences (`list[list[int]]`): one per response: prompt and response.
        prompt_ids (`list[int]` or `None`): the prompt alone, up to where a response begins; `None` when there is no
            prompt.
        why_no_prompt (`str`): the reason, where there is none.
    """

    sequences: list
    prompt_ids: list | None
    why_no_prompt: str = field(default="", compare=False)

    def check_prompt(self):
        """Raises `ValueError` where there is no prompt for a scale gate to read, saying why."""
        if self.prompt_ids is None:
            reason = f" ({self.why_no_prompt})" if self.why_no_prompt else ""
            raise ValueError(
                f"The scale gate reads the prompt, and here there is none{reason}. Give an explicit prompt, or use a "
                "model with `scale_gate=False`."
            )

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


def encode_group(tokenizer, prompt, responses, prompt_format="clean", template_date=TEMPLATE_DATE, must_differ=True):
    """
    Tokenises one prompt with its responses.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): tokenizer of the preference model.
        prompt (`str`, `list[dict]` or `None`): a string (one user message when the tokenizer has a chat template, else
            plain text), chat messages (several turns and a system message are fine), or `None` when every response
            is a whole conversation or text, prompt included; what the conversations begin with is then the prompt.
        responses (`list[str]` or `list[list[dict]]`): replies to the prompt, as text or as chat messages, in any of
            the shapes that [`read_group`] knows: also whole conversations that begin with the prompt.
        prompt_format (`str`, defaults to `"clean"`): `"clean"` renders and tokenises in one step, so there is one
            BOS at most; plain text ends with EOS. `"reference"` repeats what the paper authors' program does: the
            chat is rendered to text, tokenised with special tokens (so BOS comes twice where the template writes one),
            the last token is overwritten by EOS, and the gate reads the last token of the first message.
        template_date (`str`, *optional*): the date that a chat template writes, see [`GPMConfig`]; `None` is the
            clock's, which is for policies alone.
        must_differ (`bool`, defaults to `True`): whether to refuse two responses that differ and have the same tokens,
            so that no model could tell them apart. Where a policy samples, such are no fault, and their score is 0.

    Returns:
        [`EncodedGroup`]

    Raises:
        ValueError: no responses, an empty response, a shape that is not understood, messages without a chat template,
            or a template that cannot render the messages, leaves out a part of them, or (`must_differ`) makes the same
            tokens of two responses that differ in more than white space.
    """
    group = read_group(prompt, responses)
    prompt, responses = group.prompt, group.responses
    if prompt_format != "reference":
        if isinstance(prompt, str) and tokenizer.chat_template is None:
            return _encode_text(tokenizer, prompt, responses, group.why_no_prompt, must_differ)
        if prompt is None and isinstance(responses[0], str):
            return _encode_text(tokenizer, prompt, responses, group.why_no_prompt, must_differ)
    elif prompt is None:
        raise ValueError(
            'prompt_format="reference" needs an explicit prompt, as its gate reads the first message: here '
            f"{group.why_no_prompt}."
        )

    template = ChatTemplate(tokenizer, template_date)
    prompt = prompt if prompt is None else as_messages(prompt)
    replies = [as_messages(response, "assistant") for response in responses]
    for index, reply in enumerate(replies):
        # Of a conversation that is read whole, the last message is the reply.
        template.check(*((reply[:-1], reply[-1:]) if prompt is None else (prompt, reply)), index)
    conversations = [(prompt or []) + reply for reply in replies]
    if prompt_format == "reference":
        encoded = _encode_reference(template, prompt, conversations)
    else:
        prompt_ids = None if prompt is None else template.ids(prompt, add_generation_prompt=True)
        encoded = EncodedGroup(list(map(template.ids, conversations)), prompt_ids, group.why_no_prompt)
    if must_differ:
        check_distinct(encoded.sequences, replies, template.name)
    return encoded


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
            group.check_prompt()
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


def _encode_text(tokenizer, prompt, responses, why_no_prompt, must_differ):
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
    if must_differ:
        check_distinct(sequences, responses)
    prompt_ids = tokenizer(prompt)["input_ids"] if prompt else None
    if prompt_ids and prompt_ids[-1] == tokenizer.eos_token_id:
        prompt_ids = prompt_ids[:-1]
    return EncodedGroup(sequences, prompt_ids, why_no_prompt)


def _encode_reference(template, prompt, conversations):
    def encode(messages):
        return template.tokenizer(template.text(messages), add_special_tokens=True)["input_ids"]

    sequences = [[*encode(messages)[:-1], template.tokenizer.eos_token_id] for messages in conversations]
    return EncodedGroup(sequences, encode(prompt[:1]))
