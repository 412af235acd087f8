"""Files of answers: what is read, and what is said of files that cannot be."""

import json

import pytest

from gpm_hf.evaluation.reports.policy_answers import (
    PolicyAnswers,
    assistant_text,
    read_answers,
    same_prompts,
    write_alpaca_eval,
)

CHAT = [{"role": "user", "content": "Hi?"}]


def alpaca(path, rows, **more):
    path.write_text(json.dumps([{"instruction": prompt, "output": text, **more} for prompt, text in rows]))
    return path


def answers(name, *rows):
    prompts, responses = zip(*rows)
    return PolicyAnswers(name, list(prompts), list(responses), [f"{name}.json, row {n + 1}" for n in range(len(rows))])


def test_alpaca_eval_is_read_and_written(tmp_path):
    found = read_answers(alpaca(tmp_path / "a.json", [("One?", "1"), ("Two?", "2")], generator="my-gpo"))
    assert (found.name, found.prompts, found.responses) == ("my-gpo", ["One?", "Two?"], ["1", "2"])
    assert found.rows == ["a.json, row 1", "a.json, row 2"]
    write_alpaca_eval(tmp_path / "again.json", found)
    assert json.loads((tmp_path / "again.json").read_text()) == [
        {"instruction": "One?", "output": "1", "generator": "my-gpo"},
        {"instruction": "Two?", "output": "2", "generator": "my-gpo"},
    ]


def test_json_lines_of_chats_are_read(tmp_path):
    rows = [{"prompt": CHAT, "response": "Yes."}, {"prompt": "Bye?", "response": "No."}]
    (tmp_path / "base.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = read_answers(tmp_path / "base.jsonl")
    assert (found.name, found.prompts, found.responses) == ("base", [CHAT, "Bye?"], ["Yes.", "No."])
    assert read_answers(tmp_path / "base.jsonl", "other").name == "other"
    with pytest.raises(ValueError, match="row 1: AlpacaEval's format has one string"):
        write_alpaca_eval(tmp_path / "out.json", found)
    assert not (tmp_path / "out.json").exists()


def row(prompt, response):
    return {"prompt": prompt, "response": response}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no answers"),
        (["text"], r"a\.jsonl, row 1 is not a JSON object"),
        ([row("A?", "1"), row("A?", "2")], r"row 2 answers the prompt of a\.jsonl, row 1 again: 'A"),
        ([row("A?", None)], "`response` is a NoneType"),
        ([{"prompt": "A?", "text": "1"}], r"has the keys \['prompt', 'text'\]"),
        ([{"instruction": "A?", "output": "1", "input": "x"}], "write it into the `instruction`"),
        ([{"question_id": 1, "choices": []}], r"FastChat's format.*question\.jsonl"),
        (
            [{**row("A?", "1"), "generator": "a"}, {**row("B?", "1"), "generator": "b"}],
            r"answers of 2 policies \(a, b\)",
        ),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, rows, message):
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match=message):
        read_answers(tmp_path / "a.jsonl")


def test_an_answer_without_text_is_read(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, [row("A?", "1"), row("B?", " \n")])))
    assert read_answers(tmp_path / "a.jsonl").responses == ["1", " \n"]


def test_a_missing_file_and_another_ending(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_answers(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"from \.json or \.jsonl"):
        read_answers(tmp_path / "a.csv")


def test_policies_are_put_into_one_order():
    first, second = same_prompts([answers("a", ("1?", "x"), ("2?", "y")), answers("b", ("2?", "z"), ("1?", "w"))])
    assert first.prompts == second.prompts == ["1?", "2?"]
    assert second.responses == ["w", "z"] and second.rows == ["b.json, row 2", "b.json, row 1"]


def test_unequal_prompts_are_named():
    with pytest.raises(
        ValueError, match=r"b lacks 1, such as '2\?' \(a.json, row 2\); a lacks 1, such as '3\?' \(b.json"
    ):
        same_prompts([answers("a", ("1?", "x"), ("2?", "y")), answers("b", ("1?", "x"), ("3?", "y"))])
    with pytest.raises(ValueError, match="Several policies are called a"):
        same_prompts([answers("a", ("1?", "x")), answers("a", ("1?", "x"))])


def test_the_policy_wrote_the_assistant_messages():
    messages = [{"role": "assistant", "content": "ab"}, *CHAT, {"role": "assistant", "content": "c"}]
    assert assistant_text(messages) == "ab\nc" and assistant_text("ab") == "ab"
