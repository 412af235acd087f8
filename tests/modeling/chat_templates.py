"""
Real chat templates, as TRL ships them, on tiny tokenizers that hold their special tokens; and what each makes of a
conversation, written out by hand: a text, or [`Refused`] where it leaves something out.
"""

import json
import re
from functools import cache
from pathlib import Path

# The full-width bar of DeepSeek's marks.
BAR = "\uff5c"


class Refused(Exception):
    """The template does not render all of these messages."""


def template(name):
    import trl

    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


@cache
def tokenizer_for(name):
    """A byte-level tokenizer with the template of this name, whose marks are single tokens."""
    from tests.conftest import build_tokenizer

    tokenizer = build_tokenizer()
    text = template(name)
    marks = rf"<[|{BAR}][^<>\s'\"+]*?[|{BAR}]>|<start_of_turn>|<end_of_turn>|\[gMASK\]|<sop>"
    marks = sorted(set(re.findall(marks, text)))
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = text
    return tokenizer


def render(name, messages, open_reply=False):
    """The text that the template of this name makes of messages, by hand."""
    return _RENDERERS[name](messages, open_reply)


def names():
    return list(_RENDERERS)


def _calls_of(message):
    return [call["function"] for call in message.get("tool_calls", ())]


def _no_calls(message):
    if message.get("tool_calls"):
        raise Refused("tool calls")


def _no_reasoning(messages):
    if any(message.get(key) for message in messages for key in ("reasoning_content", "thinking", "reasoning")):
        raise Refused("reasoning")


def _reasoning_of(message):
    """transformers shows a template that knows one of these names the other, too."""
    return message.get("reasoning_content", message.get("thinking", ""))


def _last_user(messages):
    return max((number for number, message in enumerate(messages) if message["role"] == "user"), default=-1)


def _without_reasoning(content):
    """R1 and V3 keep what follows the last `</think>`."""
    content = content.rpartition("</think>")[2]
    if not content.strip():
        raise Refused("empty")
    return content


def _alternate(messages):
    for number, message in enumerate(messages):
        if (message["role"] == "user") != (number % 2 == 0):
            raise Refused("roles must alternate")


def _llama3(messages, open_reply):
    _no_reasoning(messages)
    text = "<bos>"
    for message in messages:
        _no_calls(message)
        text += f"<|start_header_id|>{message['role']}<|end_header_id|>\n\n{message['content'].strip()}<|eot_id|>"
    return text + ("<|start_header_id|>assistant<|end_header_id|>\n\n" if open_reply else "")


def _llama3_later(messages, open_reply):
    _no_reasoning(messages)
    system = ""
    if messages[0]["role"] == "system":
        system, messages = messages[0]["content"].strip(), messages[1:]
    text = "<bos><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    text += f"Today Date: 26 Jul 2024\n\n{system}<|eot_id|>"
    for message in messages:
        if message.get("tool_calls"):
            (call,) = _calls_of(message)
            if message.get("content"):
                raise Refused("text beside a tool call")
            call = f'{{"name": "{call["name"]}", "parameters": {json.dumps(call["arguments"])}}}'
            text += f"<|start_header_id|>assistant<|end_header_id|>\n\n{call}<|eot_id|>"
            continue
        text += f"<|start_header_id|>{message['role']}<|end_header_id|>\n\n{message['content'].strip()}<|eot_id|>"
    return text + ("<|start_header_id|>assistant<|end_header_id|>\n\n" if open_reply else "")


def _gemma(has_system):
    def render(messages, open_reply):
        _no_reasoning(messages)
        prefix = ""
        if messages[0]["role"] == "system":
            if not has_system:
                raise Refused("system")
            prefix, messages = messages[0]["content"] + "\n\n", messages[1:]
        _alternate(messages)
        text = "<bos>"
        for message in messages:
            _no_calls(message)
            role = "model" if message["role"] == "assistant" else message["role"]
            text += f"<start_of_turn>{role}\n{prefix}{message['content'].strip()}<end_of_turn>\n"
            prefix = ""
        return text + ("<start_of_turn>model\n" if open_reply else "")

    return render


def _chatml_call(call):
    return f'<tool_call>\n{{"name": "{call["name"]}", "arguments": {json.dumps(call["arguments"])}}}\n</tool_call>'


def _qwen2_5(messages, open_reply):
    _no_reasoning(messages)
    text = ""
    if messages[0]["role"] != "system":
        text = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    for message in messages:
        if message["role"] not in ("system", "user", "assistant"):
            raise Refused("role")
        parts = [message["content"], *map(_chatml_call, _calls_of(message))]
        text += f"<|im_start|>{message['role']}\n" + "\n".join(part for part in parts if part) + "<|im_end|>\n"
    return text + ("<|im_start|>assistant\n" if open_reply else "")


def _qwen3(thinks):
    def render(messages, open_reply):
        text = ""
        last_user = _last_user(messages)
        for number, message in enumerate(messages):
            if message["role"] not in ("system", "user", "assistant"):
                raise Refused("role")
            content, before = message["content"], ""
            reasoning = _reasoning_of(message)
            if reasoning and not thinks:
                raise Refused("reasoning")
            if thinks and message["role"] == "assistant":
                if "</think>" in content:
                    reasoning, content = content.removeprefix("<think>").split("</think>")
                if number > last_user and number == len(messages) - 1:
                    before = f"<think>\n{reasoning}\n</think>\n\n"
            parts = [content, *map(_chatml_call, _calls_of(message))]
            body = before + "\n".join(part for part in parts if part)
            text += f"<|im_start|>{message['role']}\n{body}<|im_end|>\n"
        return text + ("<|im_start|>assistant\n" if open_reply else "")

    return render


def _deepseek(messages, open_reply):
    _no_reasoning(messages)
    text = "<bos>" + "".join(message["content"] for message in messages if message["role"] == "system")
    for message in messages:
        if message["role"] not in ("system", "user", "assistant"):
            raise Refused("role")
        if message.get("tool_calls"):
            # Both need a `type` beside each call and arguments as a string; a mapping cannot be concatenated.
            raise Refused("arguments that are no string")
        if message["role"] == "user":
            text += f"<{BAR}User{BAR}>{message['content']}"
        elif message["role"] == "assistant":
            text += f"<{BAR}Assistant{BAR}>{_without_reasoning(message['content'])}<{BAR}end▁of▁sentence{BAR}>"
    return text + (f"<{BAR}Assistant{BAR}><think>\n" if open_reply else "")


def _phi3(messages, open_reply):
    _no_reasoning(messages)
    text = ""
    for message in messages:
        _no_calls(message)
        if message["role"] not in ("system", "user", "assistant"):
            raise Refused("role")
        text += f"<|{message['role']}|>\n{message['content']}<|end|>\n"
    return text + ("<|assistant|>\n" if open_reply else "<eos>")


def _cohere(messages, open_reply):
    _no_reasoning(messages)
    text = "<bos>"
    if messages[0]["role"] == "system":
        text += f"<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{messages[0]['content']}<|END_OF_TURN_TOKEN|>"
        messages = messages[1:]
    _alternate(messages)
    for message in messages:
        _no_calls(message)
        if message["role"] not in ("user", "assistant"):
            raise Refused("role")
        who = "USER" if message["role"] == "user" else "CHATBOT"
        text += f"<|START_OF_TURN_TOKEN|><|{who}_TOKEN|>{message['content'].strip()}<|END_OF_TURN_TOKEN|>"
    return text + ("<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>" if open_reply else "")


def _lfm2(messages, open_reply):
    _no_reasoning(messages)
    text = "<bos>"
    for message in messages:
        _no_calls(message)
        text += f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n"
    return text + ("<|im_start|>assistant\n" if open_reply else "")


def _glm4moe(messages, open_reply):
    text = "[gMASK]<sop>"
    last_user = _last_user(messages)
    for number, message in enumerate(messages):
        if message["role"] not in ("system", "user", "assistant"):
            raise Refused("role")
        content, thought = message["content"], ""
        if message["role"] == "assistant":
            reasoning = _reasoning_of(message)
            if "</think>" in content:
                reasoning, content = content.removeprefix("<think>").split("</think>")
            thought = f"\n<think>{reasoning if number > last_user else ''}</think>"
        text += f"<|{message['role']}|>{thought}" + (f"\n{content.strip()}" if content.strip() else "")
        for call in _calls_of(message):
            text += f"\n<tool_call>{call['name']}\n"
            text += "".join(
                f"<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n"
                for key, value in call["arguments"].items()
            )
            text += "</tool_call>"
    return text + ("<|assistant|>" if open_reply else "")


def _gptoss(messages, open_reply):
    text = "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
    text += "Knowledge cutoff: 2024-06\nCurrent date: 2024-07-26\n\nReasoning: medium\n\n"
    text += "# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>"
    if messages[0]["role"] in ("developer", "system"):
        text += f"<|start|>developer<|message|># Instructions\n\n{messages[0]['content']}\n\n<|end|>"
        messages = messages[1:]
    for number, message in enumerate(messages):
        if message["role"] == "user":
            text += f"<|start|>user<|message|>{message['content']}<|end|>"
        elif message["role"] == "assistant":
            last = number == len(messages) - 1
            if _reasoning_of(message) and last:
                text += f"<|start|>assistant<|channel|>analysis<|message|>{_reasoning_of(message)}<|end|>"
            if message.get("tool_calls"):
                (call,) = _calls_of(message)
                text += f"<|start|>assistant to=functions.{call['name']}<|channel|>commentary json<|message|>"
                text += f"{json.dumps(call['arguments'])}<|call|>"
                continue
            end = "<|return|>" if last and not open_reply else "<|end|>"
            text += f"<|start|>assistant<|channel|>final<|message|>{message['content']}{end}"
        else:
            raise Refused("role")
    return text + ("<|start|>assistant" if open_reply else "")


_RENDERERS = {
    "llama3": _llama3,
    "llama3_1": _llama3_later,
    "llama3_2": _llama3_later,
    "gemma": _gemma(has_system=False),
    "gemma3": _gemma(has_system=True),
    "qwen2_5": _qwen2_5,
    "qwen3": _qwen3(thinks=True),
    "qwen3_instruct_2507": _qwen3(thinks=False),
    "deepseek_r1_distill": _deepseek,
    "deepseekv3": _deepseek,
    "phi3": _phi3,
    "phi3_5": _phi3,
    "cohere": _cohere,
    "lfm2": _lfm2,
    "glm4moe": _glm4moe,
    "gptoss": _gptoss,
}
