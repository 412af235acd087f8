"""Rows of files: what is no row is named, what is a character stays one, columns are all there."""

import gzip
import json

import pytest
from datasets import Dataset

from gpm_hf.data.columns import dataset_of_rows
from gpm_hf.data.files import MalformedRow, file_rows, form_of
from gpm_hf.data.policy_data import score_rows
from gpm_hf.data.raw_rows import read_rows, read_sure_rows
from gpm_hf.data.splits import load_preference_dataset, load_splits

GOOD = b'{"prompt": "p", "chosen": "a", "rejected": "b"}\n'
DEEP = b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b"}\n"

BAD_LINES = {
    "not JSON": (b"{oops\n", "line 2 is not JSON: Expecting"),
    "Latin-1": ('{"prompt": "p", "chosen": "caf\u00e9"}\n'.encode("latin-1"), "line 2 is not UTF-8: .*0xe9"),
    "half a character": (b'{"chosen": "\\ud83d"}\n', r"line 2 is not text: .*lone surrogate"),
    "deep": (DEEP, "line 2 is not readable: it is nested deeper"),
    "deep in Python too": (b'{"x": ' + b"[" * 100 + b"]" * 100 + b"}\n", "line 2 is not readable: it is nested"),
    "many digits": (b'{"x": ' + b"9" * 5000 + b"}\n", "line 2 is not readable: it holds a number of thousands"),
    "NaN": (b'{"margin": NaN}\n', "line 2 is not JSON, which has no NaN"),
    "infinity": (b'{"margin": -Infinity}\n', "line 2 is not JSON, which has no Infinity"),
    "1e999": (b'{"margin": 1e999}\n', "line 2 is not readable: it holds a number beyond"),
    "a list": (b"[1]\n", "line 2 is not a JSON object"),
    "a number": (b'{"prompt": 7, "chosen": "a", "rejected": "b"}\n', "line 2: `prompt` is the number 7, where text"),
    "a null among responses": (b'{"prompt": "p", "responses": ["a", null]}\n', r"line 2: response 1 is missing"),
    "a label": (b'{"prompt": "p", "chosen": "a", "rejected": "b", "margin": "much"}\n', "line 2: `margin` is 'much'"),
}


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
@pytest.mark.parametrize("name", BAD_LINES)
def test_a_line_that_is_no_row_is_named(tmp_path, name, ending):
    line, message = BAD_LINES[name]
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(gzip.compress(GOOD + line) if ending.endswith("gz") else GOOD + line)
    with pytest.raises(ValueError, match=message):
        load_splits(str(path))
    with pytest.raises(ValueError, match=message):
        list(load_splits(str(path), streaming=True)["train"])
    found = list(read_rows(str(path)))
    if name not in ("a number", "a null among responses", "a label"):  # of which only their readers know
        assert isinstance(found[1][1], MalformedRow) and found[1][0] == "row 2"
        with pytest.raises(ValueError, match=message):
            list(read_sure_rows(str(path)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b"", "there are no rows"),
        ("x.jsonl", b" \n\n", "there are no rows"),
        ("x.csv", b"", "there are no rows"),
        ("x.csv", b"prompt,chosen,rejected\n", "there are no rows"),
        ("x.json", b"[]", "there are no rows"),
        ("x.json", b'[{"a": 1}, {"b": ]', "row 2 is not JSON"),
        ("x.json", b'[{"a": 1} {"b": 2}]', "breaks off, or lacks a comma, after row 1"),
        ("x.json", b'[{"a": 1}', "breaks off, or lacks a comma, after row 1"),
        ("x.json", b'[{"a": 1}]\n[]', "more after the end"),
        ("x.json", b'[{"a": 1}, {"a": NaN}]', "row 2 is not JSON, which has no NaN"),
        ("x.json", b'[{"a": "\xe9"}]', "not UTF-8"),
        ("x.csv", b"a,b\n1,2\n1\n", "line 3 is not a row of the table: 1 cells under 2 columns"),
        ("x.csv", b'a,b\n1,"2\n', "line 2: unexpected end of data"),
        ("x.tsv", b'a\tb\n1\t"Yes" he said\n', "line 2: .* expected after"),
        ("x.csv", b"a,a\n1,2\n", r"the columns \['a'\] are there more than once"),
        ("x.csv", b"a,b\n1,\xe9\n", "line 2 is not UTF-8"),
        ("x.csv", b"a,margin\nx,much\n", "line 2 is not readable: `margin` holds numbers"),
        ("x.csv", b"a,margin\nx,nan\n", "line 2 is not readable: `margin` holds numbers"),
        ("x.csv", b"a,edge\nx,1.5\n", "line 2 is not readable: `edge` holds numbers"),
        ("x.csv", b"prompt,responses\nx,one\n", "line 2 is not readable: `responses` stands in a cell as JSON"),
        ("x.jsonl.gz", b"not packed", "no whole gzip archive"),
        ("x.jsonl.gz", gzip.compress(GOOD * 9, mtime=0)[:40], "no whole gzip archive"),
        ("x.txt", b"text", "not of a form that is read"),
        ("x.jsonl.zst", b"", "not of a form that is read"),
        ("strange", b"", "not of a form that is read"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path, monkeypatch, name, content, message):
    (tmp_path / name).write_bytes(content)
    for streaming in (False, True):
        with pytest.raises(ValueError, match=message):
            list(load_splits(str(tmp_path / name), streaming=streaming)["train"])


def test_nothing_that_is_named_like_a_file_is_looked_for_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr("gpm_hf.data.splits.load_dataset", lambda *_, **__: pytest.fail("the Hub was asked"))
    for name, kind in (
        ("rows.xlsx", ValueError),
        ("a/b/rows", FileNotFoundError),
        ("./rows", FileNotFoundError),
        ("rows.tsv", FileNotFoundError),
        ("rows.jsonl.gz", FileNotFoundError),
    ):
        with pytest.raises(kind, match=r"not of a form|There is no data file"):
            load_splits(name)
    assert form_of("user/name") is None and form_of("user/name-1.5") is None
    (tmp_path / "x.jsonl").write_bytes(GOOD)
    with pytest.raises(ValueError, match="is one file, which has no configuration 'all'"):
        load_splits(str(tmp_path / "x.jsonl"), "all")
    with pytest.raises(ValueError, match="is one file, which has no split 'test'"):
        list(read_rows(str(tmp_path / "x.jsonl"), "test"))


def test_lines_end_at_a_line_feed_alone(tmp_path):
    text = "a\u0085b\u2028c\u2029d\x0be\x0cf\x1cg"
    (tmp_path / "x.jsonl").write_text(json.dumps({"a": text}, ensure_ascii=False) + "\r\n\n" + '{"a": "x"}')
    assert [(row.number, row.line, row.value) for row in file_rows(tmp_path / "x.jsonl")] == [
        (1, 1, {"a": text}),
        (2, 3, {"a": "x"}),
    ]
    (tmp_path / "x.csv").write_text(f'a,b\r\n"{text}\r\n\n",2\r\n', newline="")
    assert [(row.number, row.line, row.value) for row in file_rows(tmp_path / "x.csv")] == [
        (1, 2, {"a": f"{text}\r\n\n", "b": "2"})
    ]


def test_labels_in_a_table_of_text_are_what_they_mean(tmp_path):
    (tmp_path / "x.csv").write_text(
        "id,chosen,margin,edge,responses,preference_probability,note\n"
        '007,1,1e-1,2,"[""1"", ""2""]",True,3.10\n8,2,,,,0.25,\n'
    )
    first, second = load_splits(str(tmp_path / "x.csv"))["train"]
    assert first == {"id": "007", "chosen": "1", "margin": 0.1, "edge": 2, "responses": ["1", "2"]} | {
        "preference_probability": 1.0,
        "note": "3.10",
    }
    assert second == {"id": "8", "chosen": "2", "margin": None, "edge": None, "responses": None} | {
        "preference_probability": 0.25,
        "note": "",
    }


def test_answers_longer_than_the_csv_module_expects(tmp_path):
    (tmp_path / "x.csv").write_text(f"a,b\n{'word ' * 50_000},2\n")
    assert len(next(file_rows(tmp_path / "x.csv")).value["a"]) == 250_000


def test_columns_that_the_first_row_lacks_and_keys_that_a_message_lacks(tmp_path):
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f", "arguments": {"days": 2}}]}
    rows = [
        {"prompt": "p", "chosen": [{"role": "assistant", "content": "a"}], "rejected": "b"},
        {"prompt": "q", "chosen": [call], "rejected": "b", "margin": 2, "id": 7},
        {"prompt": "r", "chosen": "c", "rejected": {"role": "assistant", "content": "b"}, "id": "x"},
    ]
    reply = [{"role": "assistant", "content": "b"}]
    expected = [
        {**rows[0], "rejected": reply, "margin": None, "id": None},
        {**rows[1], "rejected": reply, "margin": 2.0, "id": "7"},
        {**rows[2], "chosen": [{"role": "assistant", "content": "c"}], "rejected": reply, "margin": None},
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert list(load_splits(str(tmp_path / "x.jsonl"))["train"]) == expected
    rows[2]["rejected"] = reply
    assert list(dataset_of_rows(rows)) == expected
    stream = load_splits(str(tmp_path / "x.jsonl"), streaming=True)["train"]
    with pytest.raises(ValueError, match=r"line 2 has \['margin'\], which the first row lacks"):
        list(stream)


def test_a_number_that_would_be_changed_is_refused(tmp_path):
    calls = [{"role": "assistant", "content": "", "tool_calls": [{"arguments": {"heat": 0.3}}]}]
    rows = [{"chosen": calls, "rejected": [{"role": "assistant", "content": "x"}]}] * 2
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert list(load_splits(str(tmp_path / "x.jsonl"))["train"]) == rows
    rows.append({"chosen": rows[0]["rejected"], "rejected": rows[0]["rejected"]})
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match="line 1: `chosen` holds a number that `datasets` would change"):
        load_splits(str(tmp_path / "x.jsonl"))


def test_a_file_that_changed_is_read_again(tmp_path):
    path = tmp_path / "x.jsonl"
    for text in ("first", "other"):
        path.write_text(json.dumps({"prompt": text}))
        assert load_splits(str(path))["train"][0] == {"prompt": text}


def test_a_folder_of_files(tmp_path):
    (tmp_path / "train.csv").write_text("prompt,chosen,rejected\np,007,7\n")
    (tmp_path / "test.csv").write_text("prompt,chosen,rejected\np,None,N/A\n")
    splits = load_splits(str(tmp_path))
    assert {name: rows.to_list() for name, rows in splits.items()} == {
        "train": [{"prompt": "p", "chosen": "007", "rejected": "7"}],
        "test": [{"prompt": "p", "chosen": "None", "rejected": "N/A"}],
    }


def test_responses_by_name_are_a_ring_in_their_order(tmp_path):
    named = {"prompt": "p", "responses": {"b": "1", "a": "2", "c": "3"}, "ring": True}
    rows = [named, {"prompt": "q", "responses": ["1", "2", "3"], "ring": True}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pairs = load_preference_dataset(str(tmp_path / "x.jsonl"))["train"]
    assert [(row["chosen"], row["rejected"]) for row in pairs] == [("1", "2"), ("2", "3"), ("3", "1")] * 2
    Dataset.from_list([named]).to_parquet(str(tmp_path / "x.parquet"))
    pairs = load_preference_dataset(str(tmp_path / "x.parquet"))["train"]
    assert [(row["chosen"], row["rejected"]) for row in pairs] == [("1", "2"), ("2", "3"), ("3", "1")]


def test_rows_are_chosen_by_a_column_in_a_stream_too(tmp_path):
    (tmp_path / "x.csv").write_text("prompt,judge\na,007\nb,7\n")
    for streaming in (False, True):
        rows = load_splits(str(tmp_path / "x.csv"), keep="judge=007", streaming=streaming)["train"]
        assert [row["prompt"] for row in rows] == ["a"]
    with pytest.raises(ValueError, match=r"one of \['prompt', 'judge'\]"):
        load_splits(str(tmp_path / "x.csv"), keep="who=x", streaming=True)


def test_sampled_responses_by_name(tmp_path):
    rows = [{"prompt": "p", "responses": {"a": "1", "b": " ", "c": "3"}}]
    (scored,) = score_rows(rows, lambda prompts, groups: [[[0, 1], [-1, 0]]])
    assert (scored["responses"], scored["names"]) == (["1", "3"], ["a", "c"])
