"""
Rewards for trainers that send one response at a time: a preference needs others to compare with.

Either the request brings reference answers, or it waits until the K responses to its prompt have arrived.
"""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from gpm_hf.modeling.template_gpm import ChatTemplate


class IncompleteGroupError(RuntimeError):
    """The other responses to a prompt did not arrive in time."""


@dataclass
class _Window:
    responses: list[str] = field(default_factory=list)
    places: list[asyncio.Future] = field(default_factory=list)


class RewardWindows:
    """
    Groups by prompt: responses wait for each other, at most `wait` seconds after their own arrival.

    Args:
        size (`int`): K; a group is complete with so many, and the next one to the same prompt begins.
        wait (`float`): seconds. An incomplete group is refused then: a mean over fewer would be another reward.
    """

    def __init__(self, size: int, wait: float):
        self.size = size
        self.wait = wait
        self._open: dict[str, _Window] = {}

    async def group_of(self, prompt: Any, response: str) -> tuple[list[str], int, asyncio.Future]:
        """
        Returns:
            The responses of the complete group, this one's place among them, and a future that the first of them has
            to fill with the group's rewards.

        Raises:
            IncompleteGroupError: the others did not arrive.
        """
        key = json.dumps(prompt, sort_keys=True)
        window = self._open.setdefault(key, _Window())
        place: asyncio.Future = asyncio.get_running_loop().create_future()
        window.responses.append(response)
        window.places.append(place)
        if len(window.places) == self.size:
            del self._open[key]
            shared: asyncio.Future = asyncio.get_running_loop().create_future()
            for number, waiting in enumerate(window.places):
                waiting.set_result((window.responses, number, shared))
        try:
            return await asyncio.wait_for(place, self.wait)
        except (TimeoutError, asyncio.CancelledError) as error:
            self._leave(key, window, place)
            if isinstance(error, asyncio.CancelledError):
                raise
            raise IncompleteGroupError(
                f"{len(window.places) + 1} of {self.size} responses to this prompt arrived within {self.wait:g} "
                "seconds. All of a group must be sent while the first waits: --group-size is the number of samples "
                "of a prompt, --group-wait the longest time between the first and the last."
            ) from None

    def _leave(self, key: str, window: _Window, place: asyncio.Future) -> None:
        if place not in window.places or self._open.get(key) is not window:
            return
        number = window.places.index(place)
        del window.places[number], window.responses[number]
        if not window.places:
            del self._open[key]


class PolicyText:
    """
    What a policy was asked and answered, out of the text that it read and wrote.

    Trainers send a prompt as the policy's chat template rendered it, and the prompt with the response as one text.
    Where the prompt is one user message, it is found again between what the template writes around such.

    Args:
        tokenizer: the policy's.
    """

    def __init__(self, tokenizer: Any):
        self.before = self.after = self.end = ""
        self.special = sorted({*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()} - {""})
        if tokenizer.chat_template is None:
            return
        template, mark, reply = ChatTemplate(tokenizer, None), "zq0user0qz", "zq1reply1qz"
        user = [{"role": "user", "content": mark}]
        rendered = template.text(user, add_generation_prompt=True)
        self.before, _, self.after = rendered.partition(mark)
        whole = template.text([*user, {"role": "assistant", "content": reply}])
        self.end = whole.partition(reply)[2].strip()

    def read(self, prompt: str, query: str) -> tuple[str, str]:
        """
        The user's message (or the prompt as it is, where it was not rendered) and the response.

        Raises:
            ValueError: a query that does not begin with its prompt; a prompt of several messages.
        """
        if not query.startswith(prompt):
            raise ValueError("a query does not begin with its prompt: send the prompt as the policy read it.")
        response = self._without_end(query[len(prompt) :])
        if not self.before or not prompt.startswith(self.before):
            if any(token in prompt for token in self.special):
                raise ValueError(
                    "a prompt was rendered by another chat template, or holds more than one user message: name the "
                    "policy by --policy, or send the messages as `messages` in its label."
                )
            return prompt, response
        inside = prompt[len(self.before) :].removesuffix(self.after)
        if not prompt.endswith(self.after) or any(token in inside for token in self.special):
            raise ValueError("a prompt holds more than one user message: send `messages` in its label.")
        return inside, response

    def response(self, prompt: str, query: str) -> str:
        """The response alone."""
        if not query.startswith(prompt):
            raise ValueError("a query does not begin with its prompt: send the prompt as the policy read it.")
        return self._without_end(query[len(prompt) :])

    def _without_end(self, response: str) -> str:
        response = response.rstrip()
        while True:
            ends = [token for token in (self.end, *self.special) if token and response.endswith(token)]
            if not ends:
                return response
            response = response.removesuffix(max(ends, key=len)).rstrip()
