"""Rows that nobody should have written: one sentence with the row, in every road."""

import csv

import pytest

from gpm_hf.data.groups import as_group
from gpm_hf.data.raw_rows import read_sure_rows
from gpm_hf.data.splits import load_splits
from gpm_hf.generation import read_prompts
from gpm_hf.records import Records

# A cell that stands for numbers or lists, and what is said of it.
CELLS = {
    "edge": ("9" * 5000, "`edge` holds a number beyond what a computer's can be"),
    "margin": ("1e999", "`margin` holds a number beyond what a computer's can be"),
    "responses": ('["\\ud83d"]', "it holds half of a character"),
    "scores": ("[" + "9" * 5000 + "]", "`scores` stands in a cell as JSON"),
    "turns": ("[" * 100 + "]" * 100, "nested deeper than 64 levels"),
    "preferences": ("[NaN]", "not JSON, which has no NaN"),
}


@pytest.mark.parametrize("column", CELLS)
def test_a_cell_of_a_table(tmp_path, column):
    path, (cell, problem) = tmp_path / "rows.csv", CELLS[column]
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["prompt", column], ["good", ""], ["bad", cell]])
    for read in (
        lambda: list(read_sure_rows(str(path))),
        lambda: load_splits(str(path)),
        lambda: read_prompts(str(path)),
    ):
        with pytest.raises(ValueError, match=rf"rows.csv, .*3.* {problem}"):
            read()


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": 7, "responses": ["a"]}, "`prompt` is the number 7, where text belongs"),
        ({"prompt": "p", "responses": None}, r"`responses` is missing \(null\)"),
        ({"prompt": "p", "responses": ["a", None]}, r"response 1 is missing \(null\)"),
        ({"prompt": "p", "responses": {"m": None}}, r"response 'm' is missing \(null\)"),
        ({"prompt": "p\udcff", "responses": ["a"]}, "`prompt` holds half of a character"),
        ({"prompt": "p", "responses": ["a", "\ud83d"]}, "response 1 holds half of a character"),
        ({"prompt": [{"role": "user", "content": "\ud83d"}], "responses": ["a"]}, "content holds half of a character"),
        ({"prompt": "p", "responses": ["a"], "scores": 1, "names": "x"}, r"has \['scores'\] already"),
        (
            {"prompt": "p", "responses": {"m": "a"}, "probabilities": 1, "names": "x"},
            r"has \['names', 'probabilities'\]",
        ),
    ],
)
def test_a_group(row, problem):
    with pytest.raises(ValueError, match=f"^rows.jsonl, line 3:? .*{problem}"):
        as_group(row, "rows.jsonl, line 3", ("scores", "probabilities"))


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        ("7", "`prompt` is the number 7"),
        ("true", "`prompt` is the truth value True"),
        ('""', "has no prompt to answer"),
        ("null", "has no prompt to answer"),
    ],
)
def test_a_prompt(tmp_path, prompt, problem):
    (tmp_path / "prompts.jsonl").write_text(f'{{"prompt": "good"}}\n{{"prompt": {prompt}}}\n')
    with pytest.raises(ValueError, match=rf"prompts.jsonl, row 2.* {problem}"):
        read_prompts(str(tmp_path / "prompts.jsonl"))


def test_lines_end_at_a_line_feed_alone(tmp_path):
    """What answers may hold: U+0085, U+2028, U+2029, a form feed, a carriage return."""
    text = "a\u0085b\u2028c\u2029d\x0ce\rf\x1c"
    records = Records(tmp_path / "parts", lambda record: record["key"], "part")
    records.add([{"key": "1", "rows": [text]}, {"key": "2", "rows": [text]}])
    again = Records(tmp_path / "parts", lambda record: record["key"], "part")
    assert len(again) == 2 and again["2"]["rows"] == [text]


def test_no_record_holds_nan(tmp_path):
    records = Records(tmp_path / "parts", lambda record: record["key"], "part")
    with pytest.raises(ValueError, match="JSON has neither NaN nor infinity"):
        records.add([{"key": "1", "value": float("nan")}])
    assert not (tmp_path / "parts").exists() or (tmp_path / "parts").read_bytes() == b""
