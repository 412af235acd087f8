"""MT-Bench by FastChat's judge: its questions, and answers in its files."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpm_hf.data.raw_rows import MalformedRow, read_rows
from gpm_hf.evaluation.reports.policy_answers import PolicyAnswers, beginning, collect_answers
from gpm_hf.files import write_rows
from gpm_hf.modeling import is_empty


@dataclass
class Question:
    """
    A question of MT-Bench.

    Attributes:
        id: its number, by which FastChat's judge finds the answer.
        category: "writing", "math", ...
        turns: what the user says, in order.
    """

    id: int
    category: str
    turns: list[str]


def read_questions(path: str | Path) -> list[Question]:
    """
    Reads FastChat's `question.jsonl`: JSON Lines of `question_id`, `category` and `turns`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a row of another form, or a question that is there twice, by its number or by its first turn.
    """
    questions: list[Question] = []
    for place, row in read_rows(str(path)):
        if isinstance(row, MalformedRow) or not {"question_id", "category", "turns"} <= row.keys() or not row["turns"]:
            raise ValueError(f"{path}, {place}: a question has `question_id`, `category` and `turns`.")
        question = Question(row["question_id"], row["category"], row["turns"])
        if any(question.id == other.id or question.turns[0] == other.turns[0] for other in questions):
            raise ValueError(f"{path}, {place}: question {question.id}, or its first turn, was there before.")
        questions.append(question)
    if not questions:
        raise ValueError(f"{path} holds no questions.")
    return questions


def read_fastchat_answers(path: str | Path, questions: Sequence[Question], name: str | None = None) -> PolicyAnswers:
    """
    Reads FastChat's answers to MT-Bench: JSON Lines of `question_id`, `model_id` and `choices`, of which the first
    counts. The prompt is the question's first turn, and all that follows it is the answer.

    Args:
        path: the `.jsonl` file.
        questions: see [`read_questions`].
        name: what to call the policy. Default: the one `model_id`.

    Raises:
        ValueError: as [`gpm_hf.evaluation.reports.policy_answers.read_answers`]; also an answer to a question that is
            not given, or more answers than the question has turns.
    """
    by_id = {question.id: question for question in questions}

    def read_row(place: str, row: Mapping[str, Any]) -> tuple[Any, Any, str | None]:
        if not {"question_id", "choices"} <= row.keys():
            raise ValueError(
                f"{place} has the keys {sorted(row)}; FastChat's answers have `question_id` and `choices`."
            )
        if row["question_id"] not in by_id:
            raise ValueError(
                f"{place} answers question {row['question_id']}, which is not among the {len(questions)} questions."
            )
        try:
            answers = row["choices"][0]["turns"]
        except (IndexError, KeyError, TypeError) as error:
            raise ValueError(f"{place}: `choices` must be a list of `index` and `turns`.") from error
        turns = by_id[row["question_id"]].turns
        if not answers or len(answers) > len(turns):
            raise ValueError(
                f"{place}: {len(answers)} answers to question {row['question_id']}, which has {len(turns)} turns."
            )
        response = answers[0] if len(answers) == 1 else _conversation(turns, answers)[1:]
        return turns[0], response, row.get("model_id")

    return collect_answers(path, name, read_row)


def _conversation(turns: Sequence[str], answers: Sequence[str]) -> list[dict[str, str]]:
    """Turns and answers by turns, up to the last answer."""
    pairs = zip(turns, answers)
    return [{"role": role, "content": text} for pair in pairs for role, text in zip(("user", "assistant"), pair)]


def answers_by_turn(questions: Sequence[Question], answers: PolicyAnswers) -> dict[int, list[str]]:
    """
    Which turn of which question each answer is to. A row's prompt is a first turn, or the conversation so far, which
    ends with a later turn; its response may be a conversation that goes on from it.

    Args:
        questions: see [`read_questions`].
        answers: by prompt, see [`gpm_hf.evaluation.reports.policy_answers.read_answers`], or
            [`read_fastchat_answers`].

    Returns:
        The answers to the turns of each question, in order; a question none of whose turns was answered has none.

    Raises:
        ValueError: an empty answer, a conversation that is not on one of the questions, an answer to a later turn
            without one to the turn before, or which followed another answer than the one given; the message names the
            row.
    """
    found: dict[int, list[str]] = {question.id: [] for question in questions}
    by_turn = {question.turns[0]: question for question in questions}
    said = [
        ([message for message in _messages(prompt, "user") if message["role"] != "system"], response, row)
        for prompt, response, row in zip(answers.prompts, answers.responses, answers.rows)
    ]
    # Earlier turns first, whatever the order of the rows.
    for prompt, response, row in sorted(said, key=lambda one: len(one[0])):
        if is_empty(response):
            raise ValueError(
                f"{row}: the answer is empty, there is nothing to judge or to go on from: generate it again."
            )
        conversation = prompt + _messages(response, "assistant")
        asked = [message["content"] for message in conversation[::2]]
        replies = [message["content"] for message in conversation[1::2]]
        first = asked[0] if asked else ""
        question = by_turn.get(first)
        roles = [message["role"] for message in conversation]
        if question is None or roles != ["user", "assistant"] * len(replies) or asked != question.turns[: len(asked)]:
            raise ValueError(f"{row} is no conversation on one of the questions; it begins {beginning(first)}.")
        before, own = found[question.id], len(prompt) // 2
        if len(before) < own:
            raise ValueError(
                f"{row} answers turn {own + 1} of question {question.id}, but no row answers turn {len(before) + 1}: "
                "give the files of all turns."
            )
        if before[: len(replies)] != replies[: len(before)]:
            raise ValueError(
                f"{row}: the conversation on question {question.id} holds another answer to an earlier turn than the "
                "row that answers that turn: answer the later turns again."
            )
        found[question.id] = max(before, replies, key=len)
    return found


def _messages(text: Any, role: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}] if isinstance(text, str) else list(text)


def next_prompts(questions: Sequence[Question], found: Mapping[int, list[str]]) -> list[dict[str, Any]]:
    """
    What a policy has to answer next: for each question that has turns left, the conversation up to the first of them.

    Returns:
        Rows of `question_id`, `category` and `prompt` (chat messages).
    """
    return [
        {
            "question_id": question.id,
            "category": question.category,
            "prompt": [
                *_conversation(question.turns, found[question.id]),
                {"role": "user", "content": question.turns[len(found[question.id])]},
            ],
        }
        for question in questions
        if len(found[question.id]) < len(question.turns)
    ]


def write_fastchat(
    path: str | Path, model: str, questions: Sequence[Question], found: Mapping[int, list[str]]
) -> None:
    """
    Writes a policy's answers to MT-Bench as FastChat's judge reads them. It looks for
    `data/mt_bench/model_answer/MODEL.jsonl` and takes the file's name for the model's.

    Args:
        path: the `.jsonl` file.
        model: the policy's name, the file's without its ending.
        questions: all of the benchmark, see [`read_questions`].
        found: see [`answers_by_turn`].

    Raises:
        ValueError: another name than the file's, or a turn without an answer.
    """
    if Path(path).name != f"{model}.jsonl":
        raise ValueError(
            f"FastChat takes the file's name for the model's: call it {model}.jsonl, not {Path(path).name}."
        )
    open_turns = [question for question in questions if len(found[question.id]) < len(question.turns)]
    if open_turns:
        first = open_turns[0]
        raise ValueError(
            f"{len(open_turns)} of {len(questions)} questions have turns without an answer, the first being turn "
            f"{len(found[first.id]) + 1} of question {first.id}: answer them, and give the files of all turns."
        )

    def row(question: Question) -> dict[str, Any]:
        turns = found[question.id]
        return {
            "question_id": question.id,
            "answer_id": hashlib.sha256(json.dumps([model, question.id, turns]).encode()).hexdigest()[:22],
            "model_id": model,
            "choices": [{"index": 0, "turns": turns}],
            "tstamp": time.time(),
        }

    write_rows(path, map(row, sorted(questions, key=lambda one: one.id)))
