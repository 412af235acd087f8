"""Answers of policies in files: AlpacaEval's format, and prompts with responses."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpm_hf.data.raw_rows import MalformedRow, read_rows
from gpm_hf.files import written_whole


@dataclass
class PolicyAnswers:
    """
    A policy's answer to each of some prompts.

    Attributes:
        name: what tables call the policy.
        prompts: N prompts, strings or chat messages, no two the same.
        responses: N answers, strings or the chat messages that follow the prompt (an answer of several turns); one
            may be without text.
        rows: for messages, which row of which file each answer was.
    """

    name: str
    prompts: list
    responses: list
    rows: list[str]

    def __len__(self) -> int:
        return len(self.prompts)


def read_answers(path: str | Path, name: str | None = None) -> PolicyAnswers:
    """
    Reads the answers of one policy. Which format a row has, its keys say:

    - AlpacaEval's outputs: `instruction`, `output` and perhaps `generator`;
    - prompts with responses: `prompt`, `response` and perhaps `generator`. Either may be chat messages.

    For FastChat's files see [`gpm_hf.evaluation.benchmarks.mt_bench.read_fastchat_answers`].

    Args:
        path: a `.json` file with a list of rows, or a `.jsonl` file.
        name: what to call the policy. Default: the one `generator` of its rows, else the file's name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that is no `.json` or `.jsonl`, has no rows, rows of another form or of several policies,
            or two answers to one prompt; the message names the row.
    """
    return collect_answers(path, name, _read_row)


def collect_answers(
    path: str | Path,
    name: str | None,
    read_row: Callable[[str, Mapping[str, Any]], tuple[Any, Any, str | None]],
) -> PolicyAnswers:
    """
    As [`read_answers`], for a format of your own.

    Args:
        path, name: see [`read_answers`].
        read_row: from a row's name for messages and the row, the prompt, the response and the policy's name, `None`
            where the row does not say it. Raises `ValueError` for a row of another form.
    """
    path = Path(path)
    if path.suffix not in (".json", ".jsonl"):
        raise ValueError(f"{path}: answers are read from .json or .jsonl files.")
    found = PolicyAnswers("", [], [], [])
    names = set()
    first_row: dict[str, str] = {}
    for number, row in read_rows(str(path)):
        place = f"{path.name}, {number}"
        if isinstance(row, MalformedRow):
            raise ValueError(f"{place} is {row}.")
        prompt, response, generator = read_row(place, row)
        key = prompt_key(prompt)
        if key in first_row:
            raise ValueError(
                f"{place} answers the prompt of {first_row[key]} again: {beginning(prompt)}. A file holds one answer "
                "of one policy to each prompt: remove all but one."
            )
        first_row[key] = place
        found.prompts.append(prompt)
        found.responses.append(response)
        found.rows.append(place)
        names.add(generator)
    if not found.rows:
        raise ValueError(f"{path} holds no answers.")
    if name is None and len(names) > 1:
        raise ValueError(
            f"{path} holds answers of {len(names)} policies ({', '.join(sorted(map(str, names)))}): give each a file."
        )
    found.name = name or names.pop() or path.stem
    return found


def _read_row(place: str, row: Mapping[str, Any]) -> tuple[Any, Any, str | None]:
    if {"instruction", "output"} <= row.keys():
        if row.get("input"):
            raise ValueError(f"{place} has an `input` beside its instruction: write it into the `instruction`.")
        return _text(place, row, "instruction"), _text(place, row, "output"), row.get("generator")
    if {"prompt", "response"} <= row.keys():
        return _text(place, row, "prompt"), _text(place, row, "response"), row.get("generator")
    if {"question_id", "choices"} <= row.keys():
        raise ValueError(
            f"{place} is an answer in FastChat's format, which does not say what was asked: give the question.jsonl "
            "that it belongs to (--questions)."
        )
    raise ValueError(
        f"{place} has the keys {sorted(row)}. An answer has `instruction` and `output` (AlpacaEval's format), or "
        "`prompt` and `response`."
    )


def _text(place: str, row: Mapping[str, Any], column: str) -> Any:
    if not isinstance(row[column], (str, list)):
        raise ValueError(
            f"{place}: `{column}` is a {type(row[column]).__name__}; a string or chat messages are needed."
        )
    return row[column]


def prompt_key(prompt: Any) -> str:
    """By which equal prompts are found, strings or chat messages."""
    return json.dumps(prompt, sort_keys=True)


def beginning(prompt: Any, length: int = 60) -> str:
    """The beginning of a prompt (of its last message), for messages."""
    text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    return repr(text if len(text) <= length else text[: length - 3] + "...")


def same_prompts(policies: Sequence[PolicyAnswers]) -> list[PolicyAnswers]:
    """
    The policies with their answers in the order of the first one's prompts.

    Raises:
        ValueError: two policies of one name, or policies that did not answer the same prompts.
    """
    names = [policy.name for policy in policies]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"Several policies are called {', '.join(twice)}: name them apart, NAME=FILE.")
    first, ordered = policies[0], []
    keys = {prompt_key(prompt): number for number, prompt in enumerate(first.prompts)}
    for policy in policies:
        own = {prompt_key(prompt): number for number, prompt in enumerate(policy.prompts)}
        lacking = [number for key, number in keys.items() if key not in own]
        extra = [number for key, number in own.items() if key not in keys]
        if lacking or extra:
            faults = [
                f"{name} lacks {len(places)}, such as {beginning(other.prompts[places[0]])} ({other.rows[places[0]]})"
                for name, other, places in ((policy.name, first, lacking), (first.name, policy, extra))
                if places
            ]
            raise ValueError(
                f"{first.name} and {policy.name} did not answer the same prompts: {'; '.join(faults)}. Let every "
                "policy answer every prompt, or leave the others out of all files."
            )
        order = [own[key] for key in keys]
        ordered.append(
            PolicyAnswers(
                policy.name,
                [policy.prompts[number] for number in order],
                [policy.responses[number] for number in order],
                [policy.rows[number] for number in order],
            )
        )
    return ordered


def on_prompts_of(first: PolicyAnswers, policy: PolicyAnswers) -> PolicyAnswers:
    """
    A policy's answers in the order of another's prompts, `None` where it has none. What it answered besides is left
    out.

    Raises:
        ValueError: it answers none of them.
    """
    own = {prompt_key(prompt): number for number, prompt in enumerate(policy.prompts)}
    places = [own.get(prompt_key(prompt)) for prompt in first.prompts]
    if all(place is None for place in places):
        raise ValueError(f"{policy.name} answers none of the prompts of {first.name}.")
    return PolicyAnswers(
        policy.name,
        first.prompts,
        [None if place is None else policy.responses[place] for place in places],
        [first.rows[number] if place is None else policy.rows[place] for number, place in enumerate(places)],
    )


def assistant_text(response: Any) -> str:
    """What the policy itself wrote of a response: of chat messages the assistant's, line by line."""
    if isinstance(response, str):
        return response
    return "\n".join(message["content"] for message in response if message["role"] == "assistant")


def write_alpaca_eval(path: str | Path, answers: PolicyAnswers) -> None:
    """
    Writes answers as AlpacaEval reads them: a JSON list of `instruction`, `output` and `generator`.

    Raises:
        ValueError: a prompt or an answer of several messages, which the format does not have.
    """
    rows = []
    for prompt, response, place in zip(answers.prompts, answers.responses, answers.rows):
        if not isinstance(prompt, str) or not isinstance(response, str):
            raise ValueError(
                f"{place}: AlpacaEval's format has one string for the instruction and one for the output."
            )
        rows.append({"instruction": prompt, "output": response, "generator": answers.name})
    with written_whole(path) as file:
        json.dump(rows, file, indent=1, ensure_ascii=False)
