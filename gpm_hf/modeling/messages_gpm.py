"""
What people give as a prompt with responses, as one shape: chat messages with a role and a text, or plain strings.

Data sets and other tools write the same conversation in many ways: content in parts, messages with `from` and `value`,
a single message in place of a list, keys that a table fills with nulls, a whole conversation beside its prompt. What
can mean one thing only is read as that; everything else is an error that says what was found.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from transformers.utils import logging

from .errors_gpm import EmptyResponseError

logger = logging.get_logger(__name__)

# ShareGPT's names for who speaks; its other ones (tools and their results) have no single counterpart.
_SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")


@dataclass
class MessageGroup:
    """
    One prompt with its responses, in one shape.

    Attributes:
        prompt (`str`, `list[dict]` or `None`): text, or chat messages; `None` where there is none.
        responses (`list[str]` or `list[list[dict]]`): what follows the prompt.
        why_no_prompt (`str`): where there is none, the reason.
    """

    prompt: str | list | None
    responses: list
    why_no_prompt: str = ""


def read_group(prompt, responses):
    """
    A prompt with its responses in any of the usual shapes, as one.

    Args:
        prompt (`str`, chat messages or `None`): `None` where every response is a whole conversation or text. What two
            or more conversations begin with alike is then their prompt, if it holds a question.
        responses (any sequence or mapping of names to responses): each a string, chat messages, or one message. Where
            there is a prompt, a response may be the whole conversation, if that begins with the prompt: what follows
            it is the response. A string prompt may stand there as the first user message, after a system message.

    Returns:
        [`MessageGroup`]

    Raises:
        ValueError: no responses; a shape that is not understood; a conversation that does not begin with the prompt.
    """
    prompt = _read_prompt(prompt)
    responses = as_responses(responses)
    if not responses:
        raise ValueError("`responses` must be a list with at least one response, got [].")
    responses = [_read_response(response, index) for index, response in enumerate(responses)]
    if prompt is None:
        return _split_shared(responses)
    whole = [index for index, response in enumerate(responses) if _is_whole_conversation(response)]
    if not whole:
        return MessageGroup(prompt, responses)
    starts = {index: _start_of(responses[index], prompt, index) for index in whole}
    first = starts[whole[0]]
    for index, start in starts.items():
        if start != first:
            raise ValueError(
                f"Responses {whole[0]} and {index} are whole conversations whose beginnings differ (in their system "
                "messages), so they do not answer one prompt. Leave only the replies in the responses."
            )
    if len(whole) < len(responses) and first != as_messages(prompt):
        reply = next(index for index in range(len(responses)) if index not in starts)
        raise ValueError(
            f"Response {whole[0]} is a whole conversation with a system message that the prompt does not have, and "
            f"response {reply} is a reply alone. Put the system message into the prompt."
        )
    for index, start in starts.items():
        responses[index] = responses[index][len(start) :]
    return MessageGroup(first, responses)


def is_empty(response):
    """Whether a response, a string or chat messages, holds neither text nor a tool call."""
    if isinstance(response, str):
        return not response.strip()
    messages = _read_messages(response, "a response")
    return not any(
        message.get("tool_calls") or any((message.get(key) or "").strip() for key in ("content", *REASONING_KEYS))
        for message in messages
    )


def as_messages(text_or_messages, role="user"):
    """Chat messages out of a string, which one message of this role says, or of messages."""
    if isinstance(text_or_messages, str):
        return [{"role": role, "content": text_or_messages}]
    return list(text_or_messages)


def as_responses(responses):
    """
    A list out of whatever holds the responses to one prompt: any sequence but a string, or a mapping of names to
    responses, whose values they are.

    Raises:
        ValueError: for a string or one message.
    """
    if isinstance(responses, Mapping) and not _is_message(responses):
        responses = responses.values()
    if isinstance(responses, (str, Mapping)) or not isinstance(responses, Iterable):
        raise ValueError(f"`responses` must be a list with at least one response, got {responses!r}.")
    return list(responses)


def listed(values):
    """A list out of any sequence or generator; a string, a mapping or `None` as it is."""
    if isinstance(values, (str, Mapping)) or not isinstance(values, Iterable):
        return values
    return list(values)


def is_list_of_prompts(prompt):
    """Whether this, out of [`listed`], is many prompts and not the messages of one."""
    return isinstance(prompt, list) and len(prompt) > 0 and not isinstance(prompt[0], Mapping)


def _read_prompt(prompt):
    if prompt is None or isinstance(prompt, str):
        return prompt
    messages = _read_messages(prompt, "the prompt")
    if not messages:
        raise ValueError("The prompt has no messages; where there is no prompt, give None.")
    for number, message in enumerate(messages):
        if message.get("content") is None and not message.get("tool_calls"):
            raise ValueError(f"Message {number} of the prompt ({message['role']}) has no content.")
    return messages


def _read_response(response, index):
    if isinstance(response, str):
        empty, messages = not response.strip(), response
    elif isinstance(response, Iterable):
        messages = _read_messages(response, f"response {index}")
        empty = is_empty(messages)
    else:
        raise ValueError(f"Response {index} is a {type(response).__name__}; give a string or chat messages.")
    if empty:
        raise EmptyResponseError(
            index, f"Response {index} is empty: there is nothing to prefer. Leave it out of the group."
        )
    return messages


def _read_messages(value, where):
    """Messages in one shape; `where` names them in an error."""
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError(f"{where.capitalize()} is a {type(value).__name__}; give a string or chat messages.")
    return [_read_message(message, number, where) for number, message in enumerate(value)]


def _read_message(message, number, where):
    where = f"message {number} of {where}"
    if not isinstance(message, Mapping):
        raise ValueError(
            f"{where.capitalize()} is a {type(message).__name__}; a chat message has a `role` and a `content`."
        )
    # What a table fills up with, where other rows have such a key. A content of None goes with a tool call.
    message = {key: value for key, value in message.items() if value is not None or key == "content"}
    if "role" not in message and "from" in message:
        message = _from_sharegpt(message, where)
    if not isinstance(message.get("role"), str):
        raise ValueError(
            f"The chat template cannot render {where}: a chat message has a `role` and a `content`, and this one has "
            f"the keys {sorted(message)}."
        )
    calls = message.pop("tool_calls", None)
    if calls is not None and len(calls) > 0:
        message["tool_calls"] = [_without_nulls(call) for call in calls]
    if "content" in message:
        message["content"] = _read_content(message["content"], where)
    if (
        "tool_calls" not in message
        and message.get("content") is None
        and any(key in message for key in REASONING_KEYS)
    ):
        message["content"] = ""
    return message


def _from_sharegpt(message, where):
    role = _SHAREGPT_ROLES.get(message["from"])
    if role is None or "value" not in message:
        raise ValueError(
            f"{where.capitalize()} has the keys {sorted(message)} and comes from {message['from']!r}; of messages "
            f"with `from` and `value` those from {sorted(_SHAREGPT_ROLES)} are understood. Give it a `role` and a "
            "`content`."
        )
    logger.warning_once("Messages with `from` and `value` are read as chat messages with `role` and `content`.")
    others = {key: value for key, value in message.items() if key not in ("from", "value")}
    return {"role": role, "content": message["value"], **others}


def _read_content(content, where):
    """The text of a message, whose content may come in parts."""
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, Mapping) or not isinstance(content, Iterable):
        raise ValueError(f"The content of {where} is a {type(content).__name__}; give a string.")
    texts = []
    for part in content:
        if isinstance(part, Mapping) and part.get("type", "text") == "text":
            part = part.get("text")
        if not isinstance(part, str):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise ValueError(f"The content of {where} has a part of the type {kind!r}, which is no text: remove it.")
        texts.append(part)
    return "".join(texts)


def _without_nulls(value):
    if isinstance(value, Mapping):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    if isinstance(value, (list, tuple)):
        return [_without_nulls(one) for one in value]
    return value


def _is_message(value):
    return "role" in value or ("from" in value and "value" in value)


def _is_instruction(message):
    return message["role"] in ("system", "developer")


def _is_whole_conversation(response):
    return not isinstance(response, str) and (_is_instruction(response[0]) or response[0]["role"] == "user")


def _start_of(conversation, prompt, index):
    """The messages of a whole conversation that are the prompt, and any system message before it."""
    wanted = as_messages(prompt)
    skipped = 0
    while (
        skipped < len(conversation) - 1
        and _is_instruction(conversation[skipped])
        and conversation[skipped] != wanted[0]
    ):
        skipped += 1
    length = skipped + len(wanted)
    begins = conversation[skipped:length] == wanted
    if begins and length < len(conversation) and not _is_whole_conversation(conversation[length:]):
        return conversation[:length]
    if begins:
        reason = "what follows the prompt there is no reply of the assistant"
    elif _squeezed(conversation[skipped:length]) == _squeezed(wanted):
        reason = "the two differ in white space"
    else:
        reason = f"that conversation does not begin with the prompt, {str(prompt)[:80]!r}"
    raise ValueError(
        f"Response {index} begins with a {conversation[0]['role']} message although there is a prompt, which would be "
        f"encoded twice, and {reason}. Leave out the prompt, or leave only the reply in the response."
    )


def _split_shared(responses):
    """Whole conversations or texts without a prompt: what conversations share is their prompt, if it is one."""
    if any(isinstance(response, str) for response in responses):
        return MessageGroup(None, responses, "plain text without a prompt does not say where it ends")
    if len(responses) == 1:
        return MessageGroup(None, responses, "one conversation alone does not say where its prompt ends")
    shared = 0
    # The last message is always a response.
    while shared < min(map(len, responses)) - 1 and all(
        response[shared] == responses[0][shared] for response in responses
    ):
        shared += 1
    start = responses[0][:shared]
    heads = [response[shared] for response in responses]
    asked = [head for head in heads if _is_whole_conversation([head])]
    if not asked and not all(map(_is_instruction, start)):
        return MessageGroup(start, [response[shared:] for response in responses])
    if len(asked) == len(heads) and len({_squeezed([head]) for head in heads}) == 1:
        what = f"are conversations whose questions differ in white space ({heads[0]['content']!r} and another)"
    elif start and all(map(_is_instruction, start)):
        what = "are conversations that share only a system message, which asks nothing"
    elif start:
        what = f"are conversations whose questions differ after {shared} messages that they share"
    else:
        what = "are conversations that differ from the first message on"
    return MessageGroup(
        None,
        responses,
        f"the responses {what}, so there is no prompt to which both respond. The first begins "
        f"{str(responses[0][:2])[:160]}",
    )


def _squeezed(messages):
    return "\n".join("".join(f"{message['role']}:{message.get('content')}".split()) for message in messages)
