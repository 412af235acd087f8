"""RewardBench 2's rows from files."""

import json

import pytest

from gpm_hf.data.best_of_files import read_best_of, ties_question

ROW = {"id": "1", "prompt": "p", "chosen": ["a"], "rejected": ["b", "c", "d"], "num_correct": 1, "subset": "Math"}
TIED = {"id": "tied:3", "prompt": "p", "chosen": ["a", "b"], "rejected": ["c"], "num_correct": 2, "subset": "Ties"}


def write(path, *rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def test_correct_answers_come_first(tmp_path):
    rows, report = read_best_of(write(tmp_path / "x.jsonl", ROW, TIED))
    assert rows[0] == {"id": "1", "prompt": "p", "responses": ["a", "b", "c", "d"], "correct": 1, "subset": "Math"}
    assert rows[1]["responses"] == ["a", "b", "c"] and rows[1]["correct"] == 2
    assert (report.rows, report.kept) == (2, 2)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**ROW, "rejected": []}, "no `rejected`"),
        ({**ROW, "chosen": "a"}, "`chosen` is not a list of strings"),
        ({**ROW, "rejected": ["b", " "]}, "empty `rejected`"),
        ({**ROW, "num_correct": 2}, "`num_correct` is not the number"),
        ({**ROW, "rejected": ["a", "b"]}, "one response both correct and wrong"),
        ({**ROW, "id": None}, "no `id`"),
        ({**TIED, "id": "7"}, "a row of Ties whose id reads neither"),
        ({**TIED, "id": "ref:3"}, "a row of Ties: ref has one correct answer"),
    ],
)
def test_a_row_that_cannot_be_evaluated_is_counted_and_named(tmp_path, row, reason):
    name = write(tmp_path / "x.jsonl", ROW, row)
    rows, report = read_best_of(name)
    assert len(rows) == 1
    ((found, names),) = report.skipped.items()
    assert found.startswith(reason) and names[0].startswith("row 2")


def test_long_rows_are_left_out(tmp_path):
    name = write(tmp_path / "x.jsonl", ROW, {**ROW, "prompt": "p" * 50})
    rows, report = read_best_of(name, count_tokens=lambda prompt, response: len(prompt + response), max_tokens=50)
    assert len(rows) == 1 and report.skipped == {"more than 50 tokens": ["row 2 (id 1)"]}


def test_questions_of_ties():
    assert ties_question("tied:12") == ("tied", 12)
    with pytest.raises(ValueError, match="neither"):
        ties_question("tied:x")
