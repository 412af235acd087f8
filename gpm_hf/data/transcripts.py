"""Conversations that data sets write as one text, and two conversations as one prompt with two answers to it."""

import re
from collections.abc import Sequence
from typing import Any

from gpm_hf.data.files import MalformedRow

# Anthropic's HH-RLHF and Nectar: turns after an empty line, "Human:" and "Assistant:".
_HH_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_HH_START = re.compile(r"\s*Human:")
# Multi-turn prompts of HelpSteer2, as NeMo's templates write them.
_NEMO_TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")
_ROLES = {"Human": "user", "User": "user", "Assistant": "assistant"}


def is_transcript(text: Any) -> bool:
    """Whether a text begins as the transcripts of HH-RLHF and Nectar do."""
    return isinstance(text, str) and _HH_START.match(text) is not None


def read_transcript(text: str) -> list[dict[str, str]]:
    """
    Chat messages out of a text with turns "Human: ..." and "Assistant: ..."; what follows a last "Assistant:" that
    says nothing is not there, as in Nectar's prompts.

    Raises:
        MalformedRow: a text that does not begin with a turn, or has a turn that says nothing.
    """
    before, *parts = _HH_TURN.split(text)
    if before.strip() or not parts:
        raise MalformedRow("a text that does not begin with a turn of `Human:`")
    turns = [(_ROLES[who], said.strip()) for who, said in zip(parts[::2], parts[1::2])]
    if turns[-1] == ("assistant", ""):
        turns.pop()
    return _messages(turns)


def read_prompt_turns(text: str) -> str | list[dict[str, str]]:
    """A prompt of HelpSteer2: one question as it is, several turns as chat messages."""
    first, *parts = _NEMO_TURN.split(text)
    if not parts:
        return text
    turns = [(_ROLES[who], said.strip()) for who, said in zip(parts[::2], parts[1::2])]
    if turns[-1] == ("assistant", ""):
        turns.pop()
    return _messages([("user", first.strip()), *turns] if first.strip() else turns)


def _messages(turns: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    if not all(said for _, said in turns):
        raise MalformedRow("a turn that says nothing")
    return [{"role": role, "content": said} for role, said in turns]


def part(first: Sequence[Any], second: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """
    Two conversations as the prompt that they share and what each goes on with, which begins with an answer.

    Raises:
        MalformedRow: two that are alike, that part at a question, or of which one has no answer.
    """
    shared = 0
    while shared < min(len(first), len(second)) and first[shared] == second[shared]:
        shared += 1
    answers = list(first[shared:]), list(second[shared:])
    if not any(answers):
        raise MalformedRow("identical responses")
    if shared == 0:
        raise MalformedRow("the two conversations begin with different questions")
    if not all(answer and answer[0].get("role") == "assistant" for answer in answers):
        raise MalformedRow("the two conversations do not part at an answer")
    return list(first[:shared]), *answers
