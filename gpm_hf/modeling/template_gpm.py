"""
The tokenizer's chat template, and what it leaves out.

Templates render what their model was trained on and drop the rest without a word: roles they do not know, tool calls,
reasoning. Two different responses would become the same tokens, and their score exactly 0. So what a template does
with each kind of message is tried once, with marks in the place of the texts, and what it does with the texts
themselves is compared for every response.
"""

import json

from transformers.utils import logging

from .errors_gpm import EmptyResponseError
from .messages_gpm import REASONING_KEYS
from .template_date_gpm import asks_for_date, fixed_templates

logger = logging.get_logger(__name__)

# Kinds of conversations, by template, of which every text is known to be rendered.
_COMPLETE: set[tuple] = set()


class ChatTemplate:
    """
    A tokenizer's chat template, with a fixed date.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): whose template it is.
        date (`str`, *optional*): the date that it writes, see [`GPMConfig`]; `None` is the clock's.
    """

    def __init__(self, tokenizer, date):
        self.tokenizer = tokenizer
        self.date = date

    @property
    def name(self):
        """What to call it in a sentence."""
        path = self.tokenizer.name_or_path
        return f"the chat template of {path}" if path else "the chat template"

    def ids(self, messages, add_generation_prompt=False):
        """Token ids of a chat; the template writes BOS itself where it wants one."""
        options = {"tokenize": True, "return_dict": True, "add_generation_prompt": add_generation_prompt}
        return self._apply(messages, options)["input_ids"]

    def text(self, messages, add_generation_prompt=False):
        """A chat as the template renders it."""
        return self._apply(messages, {"tokenize": False, "add_generation_prompt": add_generation_prompt})

    def _apply(self, messages, options):
        """Every rendering goes through here: what the template writes does not depend on the day."""
        if self.tokenizer.chat_template is None:
            raise ValueError(
                "Chat messages were given, but the tokenizer has no chat template. Set `tokenizer.chat_template`, or "
                "give the prompt and the responses as plain strings."
            )
        try:
            if self.date is not None and asks_for_date(self.tokenizer.chat_template):
                # Of several templates, the tokenizer's own choice.
                options["chat_template"] = fixed_templates(self.tokenizer.get_chat_template(), self.date)
            return self.tokenizer.apply_chat_template(messages, **options)
        except Exception as error:
            roles = [message["role"] for message in messages]
            raise ValueError(f"The chat template cannot render messages with the roles {roles}: {error}") from error

    def check(self, prompt, reply, index):
        """
        Checks that all of a conversation's texts are rendered.

        Args:
            prompt (`list[dict]`): the messages before the reply, which may be none. Templates leave the reasoning of
                earlier turns out on purpose; that is said once and is no error.
            reply (`list[dict]`): the messages that are scored or trained.
            index (`int`): the reply's number in its group, for an error.

        Raises:
            EmptyResponseError: nothing of the reply is left once it is rendered.
            ValueError: a text, a tool call or the reasoning of the reply, or a message of the prompt is left out.
        """
        messages = [*prompt, *reply]
        template = self.tokenizer.chat_template
        template = tuple(sorted(template.items())) if isinstance(template, dict) else template
        kind = (template, len(prompt), *map(_kind_of, messages))
        if kind not in _COMPLETE:
            self._check_kind(messages, len(prompt), index)
            _COMPLETE.add(kind)
        self._check_contents(messages, len(prompt), index)

    def _check_kind(self, messages, prompt_length, index):
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
        text = self.text(marked)
        missing = [(number, key) for number, key, mark in marks if mark not in text]
        for number, key in missing:
            message = messages[number]
            what = f"the {key} of message {number} (role {message['role']!r}) of the prompt with response {index}"
            if number < prompt_length and key in REASONING_KEYS:
                logger.warning_once(f"Not read: {self.name} leaves out the {key} of earlier turns.")
                continue
            if key == "content" and message["role"] not in ("system", "user", "assistant", "tool"):
                remedy = "It does not know this role: name it as the template does, as a rule `user` and `assistant`."
            elif key in REASONING_KEYS:
                remedy = f"Remove `{key}`, name it as the template does, or write the reasoning into `content`."
            elif key == "content" and "tool_calls" in message:
                remedy = "A message has text or tool calls there: give the text in a message of its own, or remove it."
            else:
                remedy = "Remove it, or use a tokenizer whose template renders it."
            raise ValueError(f"This would not be read: {self.name} leaves out {what}. {remedy}")

    def _check_contents(self, messages, prompt_length, index):
        """Looks for the texts themselves: a template may cut what stands between certain marks."""
        text = "".join(self.text(messages).split())
        for number, message in enumerate(messages):
            content = message.get("content")
            # Results of tools may be written as JSON, with other characters for some.
            if not content or message["role"] not in ("system", "user", "assistant"):
                continue
            if "".join(content.split()) in text:
                continue
            if number < prompt_length and message["role"] == "assistant":
                logger.warning_once(f"Not read: {self.name} leaves out parts of the assistant's earlier turns.")
                continue
            without = [*messages[:number], {**message, "content": ""}, *messages[number + 1 :]]
            if "".join(self.text(without).split()) == text:
                sentence = (
                    f"Message {number} (role {message['role']!r}) of the prompt with response {index} is empty after "
                    f"rendering: {self.name} leaves out all of its text, {_shortened(content)}. Remove it, or use "
                    "a tokenizer whose template renders it."
                )
                raise ValueError(sentence) if number < prompt_length else EmptyResponseError(index, sentence)
            logger.warning_once(
                f"Neither scored nor trained: {self.name} leaves out parts of the texts, such as reasoning before "
                "`</think>`."
            )


def check_distinct(sequences, responses, who="the tokenizer"):
    """
    Checks that responses which differ in more than white space have different ids.

    Args:
        sequences (`list[list[int]]`): the ids of each response.
        responses (`list[str]` or `list[list[dict]]`): the responses.
        who (`str`): what made the ids, for the error.

    Raises:
        ValueError: naming two responses that have the same ids.
    """
    first = {}
    for index, (ids, response) in enumerate(zip(sequences, responses)):
        other = first.setdefault(tuple(ids), index)
        if _squeezed(responses[other]) != _squeezed(response):
            raise ValueError(
                f"Responses {other} and {index} differ, but {who} makes the same tokens of both, so that their score "
                "would be 0 whatever the model. It leaves out what they differ in (reasoning before `</think>`, "
                "letters that the tokenizer does not tell apart): take that out of the responses, or use a template "
                f"that renders it. Response {other} is {_shortened(responses[other])}, response {index} "
                f"{_shortened(response)}."
            )


def _kind_of(message):
    """All that decides, but for the texts themselves, what a template does with a message."""
    calls = tuple(
        (tuple(sorted(call)), type(_function_of(call).get("arguments")), bool(_function_of(call).get("arguments")))
        for call in message.get("tool_calls", ())
    )
    texts = tuple((key, bool(message[key])) for key in ("content", *REASONING_KEYS) if key in message)
    return message["role"], tuple(sorted(message)), texts, calls


def _function_of(call):
    """A tool call is written with or without a `function` around its name and arguments."""
    return call.get("function", call)


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
