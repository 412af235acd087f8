"""What `gpm-hf score`, `rank`, `inspect` and `eval cyclic` read: names, rows, columns."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset

from gpm_hf.files import json_text
from gpm_hf.shards import map_in_shards
from tests.cli.conftest import PROMPT, RESPONSES, ask
from tests.conftest import build_gpm, build_tokenizer

NAMES = ["model-c", "model-a", "model-b"]
NAMED = {"prompt": PROMPT, "responses": dict(zip(NAMES, RESPONSES))}


@pytest.fixture(scope="module")
def expected():
    return build_gpm(embedding_dim=4).preference_scores(build_tokenizer(), PROMPT, RESPONSES)


def write(path, *rows):
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def test_responses_by_name_are_scored_and_keep_their_names(capsys, folder, expected, tmp_path):
    rows, table = write(tmp_path / "in.jsonl", NAMED), tmp_path / "in.parquet"
    # A table has the names of all rows in each.
    Dataset.from_list([{**NAMED, "responses": NAMED["responses"] | {"model-d": None}}]).to_parquet(str(table))
    for command in ("score", "rank", "inspect"):
        for given in (rows, table):
            output = tmp_path / f"{command}.jsonl"
            arguments = ["--input", given, "--output", output, *(["--chunk-size", 7] if command != "inspect" else [])]
            assert ask(capsys, command, folder, *arguments)[0] == 0
            (written,) = [json.loads(line) for line in output.read_text().split("\n") if line]
            assert (written["names"], written["responses"]) == (NAMES, RESPONSES)
            if command != "rank":
                assert torch.allclose(torch.tensor(written["scores"]), expected, atol=1e-5)
            else:
                assert torch.allclose(torch.tensor(written["mean_scores"]), expected.mean(-1), atol=1e-5)
        _, out, _ = ask(capsys, command, folder, "--input", rows)
        assert all(f"{name}: {text}" in out for name, text in NAMED["responses"].items())
        _, out, _ = ask(capsys, command, folder, "--input", rows, "--format", "json")
        assert json.loads(out)["names"] == NAMES


def test_a_ring_by_name_is_evaluated_by_its_texts(capsys, folder, tmp_path):
    found = []
    for number, responses in enumerate((RESPONSES, NAMED["responses"])):
        path = write(tmp_path / f"{number}.jsonl", {"prompt": PROMPT, "responses": responses})
        _, out, _ = ask(capsys, "eval", "cyclic", folder, "--dataset", path, "--format", "json")
        found.append(json.loads(out))
    assert found[0] == found[1] and found[0]["pairs"] == 3


def test_judgements_of_responses_by_name(capsys, tmp_path):
    ring = [{"a": NAMES[i], "b": NAMES[(i + 1) % 3], "ab": 1, "ba": 1} for i in range(3)]
    source = write(tmp_path / "in.jsonl", NAMED | {"judgments": {"ann": ring}})
    assert ask(capsys, "build-cyclic", source, tmp_path / "out.jsonl", "--judge", "ann")[0] == 0
    (row,) = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().split("\n") if line]
    texts = NAMED["responses"]
    assert sorted(row["models"]) == sorted(NAMES) and row["responses"] == [texts[name] for name in row["models"]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "responses": "text"}, "line 2: `responses` is one string"),
        ({"prompt": "p", "responses": None}, "line 2: `responses` is missing"),
        ({"prompt": "p", "responses": ["a", None]}, "line 2: response 1 is missing"),
        ({"prompt": "p", "responses": {"a": "x", "b": None}}, "line 2: response 'b' is missing"),
        ({"prompt": "p", "responses": ["a", 7]}, "line 2: response 1 is the number 7"),
        ({"prompt": 7, "responses": ["a", "b"]}, "line 2: `prompt` is the number 7"),
        ({"prompt": "p", "chosen": "a", "rejected": None}, "line 2: `rejected` is missing"),
        ({"prompt": "p", "responses": ["a", "b"], "scores": 1, "ranking": 2}, "line 2 has ['"),
        ({"prompt": "p", "responses": {"a": "x", "b": "y"}, "names": 3}, "line 2 has ['names'] already"),
        ({"prompt": "p", "responses": ["a", " "]}, "Row 2: Response 1 is empty"),
    ],
)
@pytest.mark.parametrize("command", ["score", "rank", "inspect"])
def test_a_row_that_cannot_be_scored_is_named(capsys, folder, tmp_path, command, row, message):
    rows = write(tmp_path / "in.jsonl", {"prompt": "p", "responses": ["a", "b"]}, row)
    code, _, err = ask(capsys, command, folder, "--input", rows, "--output", tmp_path / "out.jsonl")
    assert code == 1 and message in err
    assert not (tmp_path / "out.jsonl").exists()


def test_a_mixed_file_of_many_kinds_of_text(capsys, folder, tmp_path):
    path = tmp_path / "in.csv"
    path.write_text("prompt,chosen,rejected,scores_of,note\nWho?,007,None,3.10,\n")
    assert ask(capsys, "score", folder, "--input", path, "--output", tmp_path / "out.jsonl")[0] == 0
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert row["responses"] == ["007", "None"] and (row["scores_of"], row["note"]) == ("3.10", "")


def test_what_a_table_holds_besides_is_written_as_json(capsys, folder, tmp_path):
    row = {"prompt": "p", "responses": ["a", "b"], "price": float("nan")}
    table = pa.Table.from_pylist([row]).append_column("day", pa.array([0], pa.date32()))
    pq.write_table(table, tmp_path / "in.parquet")
    arguments = ["score", folder, "--input", tmp_path / "in.parquet", "--output", tmp_path / "out.jsonl"]
    assert ask(capsys, *arguments)[0] == 0
    written = json.loads((tmp_path / "out.jsonl").read_text(), parse_constant=pytest.fail)
    assert (written["price"], written["day"]) == (None, "1970-01-01")
    pq.write_table(pa.Table.from_pylist([{**row, "price": float("inf")}]), tmp_path / "in.parquet")
    code, _, err = ask(capsys, *arguments)
    assert code == 1 and "JSON has neither NaN nor infinity" in err


def test_json_that_others_can_read():
    assert json_text({"a": "é\u2028"}) == '{"a": "é\u2028"}'
    for value in (float("nan"), float("inf"), b"bytes"):
        with pytest.raises(ValueError, match="leave"):
            json_text({"a": value})


def test_a_text_with_the_line_ends_of_other_alphabets_is_one_row(tmp_path):
    from gpm_hf.shards import written_rows

    text = "a\u0085b\u2028c\u2029d\x1ee"
    map_in_shards([{"a": text}] * 2, lambda _, rows: rows, tmp_path / "out.jsonl", {}, 1)
    assert list(written_rows(tmp_path / "out.jsonl")) == [{"a": text}] * 2
