"""MT-Bench's questions and answers in FastChat's files."""

import json

import pytest

from gpm_hf.evaluation.benchmarks.mt_bench import (
    answers_by_turn,
    next_prompts,
    read_fastchat_answers,
    read_questions,
    write_fastchat,
)
from gpm_hf.evaluation.reports.policy_answers import PolicyAnswers

ROWS = [
    {"question_id": 102, "category": "math", "turns": ["One and one?", "And one?"], "reference": ["2", "3"]},
    {"question_id": 81, "category": "writing", "turns": ["A poem.", "Shorter."]},
]
FOUND = {102: ["2", "3"], 81: ["Roses", "Rose"]}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def answers(*rows):
    prompts, responses = zip(*rows)
    return PolicyAnswers("m", list(prompts), list(responses), [f"row {n + 1}" for n in range(len(rows))])


@pytest.fixture
def questions(tmp_path):
    (tmp_path / "question.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return read_questions(tmp_path / "question.jsonl")


def test_turn_after_turn(questions):
    """What a user does: the first turns are answered, the second ones asked for and answered."""
    assert [row["prompt"] for row in next_prompts(questions, {102: [], 81: []})] == [
        [user("One and one?")],
        [user("A poem.")],
    ]
    first = answers(("A poem.", "Roses"), ([user("One and one?")], "2"))
    found = answers_by_turn(questions, first)
    assert found == {102: ["2"], 81: ["Roses"]}
    assert next_prompts(questions, found) == [
        {"question_id": 102, "category": "math", "prompt": [user("One and one?"), assistant("2"), user("And one?")]},
        {"question_id": 81, "category": "writing", "prompt": [user("A poem."), assistant("Roses"), user("Shorter.")]},
    ]
    second = [(row["prompt"], text) for row, text in zip(next_prompts(questions, found), ("3", "Rose"))]
    both = answers(*second, ("A poem.", "Roses"), ("One and one?", "2"))
    assert answers_by_turn(questions, both) == FOUND and next_prompts(questions, FOUND) == []


def test_a_whole_conversation_in_one_row(questions):
    system = {"role": "system", "content": "Be brief."}
    row = ([system, user("A poem.")], [assistant("Roses"), user("Shorter."), assistant("Rose")])
    assert answers_by_turn(questions, answers(row))[81] == ["Roses", "Rose"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("A song.", "La")], "row 1 is no conversation on one of the questions; it begins 'A song.'"),
        ([([user("A poem."), assistant("Roses"), user("Longer.")], "Rose")], "row 1 is no conversation"),
        ([([user("A poem."), user("Shorter.")], "Rose")], "row 1 is no conversation"),
        ([([user("A poem."), assistant("Roses"), user("Shorter.")], "Rose")], "but no row answers turn 1"),
        (
            [("A poem.", "Lilies"), ([user("A poem."), assistant("Roses"), user("Shorter.")], "Rose")],
            "row 2: .* another answer to an earlier turn",
        ),
    ],
)
def test_what_is_no_answer_is_named(questions, rows, message):
    with pytest.raises(ValueError, match=message):
        answers_by_turn(questions, answers(*rows))


def test_written_as_the_judge_reads_it(questions, tmp_path):
    path = tmp_path / "model_answer" / "my-gpo.jsonl"
    write_fastchat(path, "my-gpo", questions, FOUND)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    # By number, as FastChat sorts them.
    assert [row["question_id"] for row in rows] == [81, 102]
    assert rows[0]["choices"] == [{"index": 0, "turns": ["Roses", "Rose"]}]
    assert all(set(row) == {"question_id", "answer_id", "model_id", "choices", "tstamp"} for row in rows)
    assert {row["model_id"] for row in rows} == {"my-gpo"} and len({row["answer_id"] for row in rows}) == 2
    again = read_fastchat_answers(path, questions)
    assert again.name == "my-gpo" and again.prompts == ["A poem.", "One and one?"]
    assert again.responses[0] == [assistant("Roses"), user("Shorter."), assistant("Rose")]
    assert answers_by_turn(questions, again) == FOUND


def test_nothing_is_written_of_a_part(questions, tmp_path):
    with pytest.raises(ValueError, match=r"1 of 2 questions .* turn 2 of question 81"):
        write_fastchat(tmp_path / "m.jsonl", "m", questions, {102: ["2", "3"], 81: ["Roses"]})
    with pytest.raises(ValueError, match=r"call it m\.jsonl"):
        write_fastchat(tmp_path / "other.jsonl", "m", questions, FOUND)
    assert not list(tmp_path.glob("*m.jsonl*"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question_id": 7, "choices": []}, "question 7, which is not among the 2"),
        ({"question_id": 81, "choices": []}, "`choices` must be"),
        ({"question_id": 81, "choices": [{"turns": ["a", "b", "c"]}]}, "3 answers to question 81, which has 2 turns"),
        ({"prompt": "A poem.", "response": "x"}, "FastChat's answers have"),
    ],
)
def test_foreign_answers_are_named(questions, tmp_path, row, message):
    (tmp_path / "m.jsonl").write_text(json.dumps(row))
    with pytest.raises(ValueError, match=message):
        read_fastchat_answers(tmp_path / "m.jsonl", questions)


def test_questions_twice_or_malformed(tmp_path):
    path = tmp_path / "question.jsonl"
    path.write_text("\n".join(map(json.dumps, [ROWS[0], {**ROWS[1], "turns": ["One and one?"]}])))
    with pytest.raises(ValueError, match=r"row 2.*question 81, or its first turn"):
        read_questions(path)
    path.write_text(json.dumps({"question_id": 1, "turns": ["x"]}))
    with pytest.raises(ValueError, match="a question has"):
        read_questions(path)
