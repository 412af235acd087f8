"""`gpm-hf data convert` and `gpm-hf data show`."""

import json

import pytest

from gpm_hf.cli.data_conversion import _FORMS
from tests.cli.conftest import ask

ROWS = [
    {"prompt": f"How do I bake bread {n}?", "response_a": "Mix flour.", "response_b": "No.", "winner": winner}
    for n, winner in enumerate(["a", "b", "tie", "model_a", "?"])
]


@pytest.fixture
def votes(tmp_path):
    path = tmp_path / "votes.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_forms_in_the_help_are_those_there_are():
    from gpm_hf.data.forms import FORMS

    assert _FORMS.replace("\n", " ").split(", ") == [form.name for form in FORMS]


def test_convert_writes_pairs_and_says_what_it_did(capsys, votes, tmp_path):
    output = tmp_path / "pairs.jsonl"
    code, out, err = ask(capsys, "data", "convert", votes, output)
    assert code == 0, err
    assert "5 rows read as `table`" in out and "Kept: 4, 1 of them ties" in out and "row 5" in out
    assert [row["preference_probability"] for row in read(output)] == [1.0, 1.0, 0.5, 1.0]
    assert [row["chosen"] for row in read(output)] == ["Mix flour.", "No.", "Mix flour.", "Mix flour."]
    code, _, err = ask(capsys, "data", "convert", votes, output)
    assert code == 1 and "exists already" in err
    code, out, _ = ask(capsys, "data", "convert", votes, output, "--overwrite", "--ties", "drop", "--format", "json")
    assert code == 0 and json.loads(out)["left_out"]["a tie"] == [3] and len(read(output)) == 3


def test_convert_holds_out_by_prompt(capsys, votes, tmp_path):
    code, out, err = ask(capsys, "data", "convert", votes, tmp_path / "split", "--test-size", 0.25)
    assert code == 0, err
    train, test = (read(tmp_path / "split" / f"{name}.jsonl") for name in ("train", "test"))
    assert len(train) == 3 and len(test) == 1 and "0 prompts are trained on too" in out
    assert {row["prompt"] for row in train}.isdisjoint(row["prompt"] for row in test)


def test_mistakes_leave_nothing(capsys, votes, tmp_path):
    before = sorted(tmp_path.iterdir())
    output = tmp_path / "out.jsonl"
    for arguments, expected, message in (
        ([votes, output, "--columns", "prompt=questions"], 1, "has no column questions"),
        ([votes, output, "--form", "hhrlhf"], 2, "there is no form 'hhrlhf'"),
        ([votes, tmp_path / "out"], 2, "name a .jsonl file"),
        ([votes, tmp_path / "out", "--test-size", 2], 2, "above 0 and below 1"),
        ([tmp_path / "none.jsonl", output], 1, "no data file"),
    ):
        code, _, err = ask(capsys, "data", "convert", *arguments)
        assert code == expected and message in err, err
    assert sorted(tmp_path.iterdir()) == before


def test_show_renders_the_tokens_that_the_model_reads(capsys, folder, votes):
    code, out, err = ask(capsys, "data", "show", votes, "--model", folder)
    assert code == 0, err
    assert out.count("--- row") == 3
    assert r"'<|im_start|>user\nHow do I bake bread 0?<|im_end|>\n<|im_start|>assistant\n'" in out
    assert r"'Mix flour.<|im_end|>\n'" in out and "chosen > rejected (probability 0.5)" in out
