"""
The tokenizer's chat template, and what it leaves out.

Templates render what their model was trained on and drop the rest without a word: roles they do not know, tool calls,
reasoning. Two different responses would become the same tokens, and their score exactly 0. So what a template does
with each kind of message is tried once, with marks in the place of the texts, and what it does with the texts
themselves is compared for every response.
"""

import json

from transformers.utils import logging

from .messages_gpm import REASONING_KEYS

logger = logging.get_logger(__name__)

# Kinds of conversations, by template, of which every text is known to be rendered.
_COMPLETE = set()


def render(tokenizer, messages, add_generation_prompt=False):
    """Token ids of a chat, by the tokenizer's template; the template writes BOS itself where it wants one."""
    return apply_template(
        tokenizer, messages, tokenize=True, return_dict=True, add_generation_prompt=add_generation_prompt
    )["input_ids"]


def apply_template(tokenizer, messages, **options):
    """
    `tokenizer.apply_chat_template`.

    Raises:
        ValueError: without a template, or where it refuses the messages; the sentence names their roles.
    """
    if tokenizer.chat_template is None:
        raise ValueError(
            "Chat messages were given, but the tokenizer has no chat template. Set `tokenizer.chat_template`, or give "
            "the prompt and the responses as plain strings."
        )
    try:
        return tokenizer.apply_chat_template(messages, **options)
    except Exception as error:
        roles = [message["role"] for message in messages]
        raise ValueError(f"The chat template cannot render messages with the roles {roles}: {error}") from error


def check_is_rendered(tokenizer, prompt, reply, where):
    """
    Checks that a template renders all of a conversation's texts.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): with a chat template.
        prompt (`list[dict]`): the messages before the reply, which may be none. Templates leave the reasoning of
            earlier turns out on purpose; that is said once and is no error.
        reply (`list[dict]`): the messages that are scored or trained.
        where (`str`): what to call the reply in an error.

    Raises:
        ValueError: a text, a tool call or the reasoning of the reply is left out, or a message is empty once rendered.
    """
    messages = [*prompt, *reply]
    kind = (_key_of(tokenizer), len(prompt), *map(_kind_of, messages))
    if kind not in _COMPLETE:
        _check_kind(tokenizer, messages, len(prompt), where)
        _COMPLETE.add(kind)
    _check_contents(tokenizer, messages, len(prompt), where)


def check_are_distinct(tokenizer, sequences, responses):
    """
    Checks that responses which differ in more than white space have different ids.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): named in the error.
        sequences (`list[list[int]]`): the ids of each response.
        responses (`list[str]` or `list[list[dict]]`): the responses.

    Raises:
        ValueError: naming two responses that have the same ids.
    """
    first = {}
    for index, (ids, response) in enumerate(zip(sequences, responses)):
        other = first.setdefault(tuple(ids), index)
        if _squeezed(responses[other]) != _squeezed(response):
            raise ValueError(
                f"Responses {other} and {index} differ, but {_name_of(tokenizer)} makes the same tokens of both, so "
                "that their score would be 0 whatever the model. It leaves out what they differ in (reasoning before "
                "`</think>`, letters that the tokenizer does not tell apart): take that out of the responses, or use a "
                "template that renders it. Response "
                f"{other} is {_shortened(responses[other])}, response {index} {_shortened(response)}."
            )


def _kind_of(message):
    """All that decides, but for the texts themselves, what a template does with a message."""
    calls = tuple(
        (tuple(sorted(call)), type(_function_of(call).get("arguments")), bool(_function_of(call).get("arguments")))
        for call in message.get("tool_calls", ())
    )
    texts = tuple((key, bool(message[key])) for key in ("content", *REASONING_KEYS) if key in message)
    return message["role"], tuple(sorted(message)), texts, calls


def _key_of(tokenizer):
    template = tokenizer.chat_template
    return template if isinstance(template, str) else tuple(sorted(template.items()))


def _function_of(call):
    """A tool call is written with or without a `function` around its name and arguments."""
    return call.get("function", call)


def _check_kind(tokenizer, messages, prompt_length, where):
    """Renders marks in the place of texts, names and arguments, and looks for them."""
    marked, marks = [], []
    for number, message in enumerate(messages):
        message = dict(message)
        for key in ("content", *REASONING_KEYS):
            if message.get(key):
                mark = f"zq{number}{key[0]}{key[-1]}qz"
                marks.append((number, key, mark))
                message[key] = mark
        if "tool_calls" in message:
            message["tool_calls"], own = _marked_calls(message["tool_calls"], number)
            marks += own
        marked.append(message)
    text = apply_template(tokenizer, marked, tokenize=False)
    missing = [(number, key) for number, key, mark in marks if mark not in text]
    for number, key in missing:
        message = messages[number]
        what = f"the {key} of message {number} (role {message['role']!r}) of the prompt with {where}"
        if number < prompt_length and key in REASONING_KEYS:
            logger.warning_once(f"{_name_of(tokenizer)} leaves out {key} of messages before the last user's.")
            continue
        if key == "content" and message["role"] not in ("system", "user", "assistant", "tool"):
            remedy = "It does not know this role: name it as the template does, as a rule `user` and `assistant`."
        elif key in REASONING_KEYS:
            remedy = f"Remove `{key}`, name it as the template does, or write the reasoning into `content`."
        elif key == "content" and "tool_calls" in message:
            remedy = "A message has text or tool calls there: give the text in a message of its own, or remove it."
        else:
            remedy = "Remove it, or use a tokenizer whose template renders it."
        raise ValueError(f"{_name_of(tokenizer)} leaves out {what}, so that it would not be read. {remedy}")


def _marked_calls(calls, number):
    """Tool calls with marks for names and arguments, and the list of these marks."""
    marked, marks = [], []
    for place, call in enumerate(calls):
        own = f"zq{number}t{place}"
        function = dict(_function_of(call))
        function["name"] = f"{own}nqz"
        marks.append((number, "tool_calls", function["name"]))
        if function.get("arguments"):
            arguments = {f"{own}aqz": f"{own}vqz"}
            marks.append((number, "tool_calls", f"{own}vqz"))
            is_text = isinstance(function["arguments"], str)
            function["arguments"] = json.dumps(arguments) if is_text else arguments
        marked.append({**call, "function": function} if "function" in call else function)
    return marked, marks


def _check_contents(tokenizer, messages, prompt_length, where):
    """Looks for the texts themselves: a template may cut what stands between certain marks."""
    text = "".join(apply_template(tokenizer, messages, tokenize=False).split())
    for number, message in enumerate(messages):
        content = message.get("content")
        # Results of tools may be written as JSON, with other characters for some.
        if not content or message["role"] not in ("system", "user", "assistant"):
            continue
        if "".join(content.split()) in text:
            continue
        if number < prompt_length and message["role"] == "assistant":
            logger.warning_once(f"{_name_of(tokenizer)} leaves out a part of assistant messages of earlier turns.")
            continue
        without = [*messages[:number], {**message, "content": ""}, *messages[number + 1 :]]
        if "".join(apply_template(tokenizer, without, tokenize=False).split()) == text:
            raise ValueError(
                f"The message {number} (role {message['role']!r}) of the prompt with {where} is empty after rendering: "
                f"{_name_of(tokenizer)} leaves out all of its text, {_shortened(content)}. Remove it, or use a "
                "tokenizer whose template renders it."
            )
        logger.warning_once(
            f"{_name_of(tokenizer)} leaves out a part of the texts (such as reasoning before `</think>`), which is "
            f"neither scored nor trained. One of them is {_shortened(content)}."
        )


def _squeezed(value):
    """A response without white space, to be compared."""
    if isinstance(value, str):
        return "".join(value.split())
    if isinstance(value, dict):
        return {key: _squeezed(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_squeezed(one) for one in value]
    return value


def _shortened(response, length=80):
    text = response if isinstance(response, str) else json.dumps(response, ensure_ascii=False, default=str)
    return repr(text if len(text) <= length else text[:length] + "...")


def _name_of(tokenizer):
    return f"the chat template of {tokenizer.name_or_path}" if tokenizer.name_or_path else "the chat template"
