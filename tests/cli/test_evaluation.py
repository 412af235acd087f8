"""`gpm-hf eval ...`."""

import json

import pytest

from tests.cli.conftest import PROMPT, RESPONSES, ask


@pytest.fixture
def rings(tmp_path):
    rows = [{"prompt": prompt, "responses": RESPONSES, "ring": True} for prompt in (PROMPT, "And cake?")]
    (tmp_path / "rings.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "rings.jsonl"


def test_rings_are_counted_and_written(capsys, folder, rings, tmp_path):
    arguments = ["eval", "cyclic", folder, "--dataset", rings, "--output", tmp_path / "found.json"]
    code, out, _ = ask(capsys, *arguments, "--format", "json")
    assert code == 0
    answer = json.loads(out)
    assert (answer["pairs"], answer["cycles"], answer["ceiling"], answer["prompts"]) == (6, 2, 4, 2)
    assert answer["skew_error"] == 0.0
    written = json.loads((tmp_path / "found.json").read_text())
    assert written["result"] == answer and written["data"] == "rings.jsonl, train"
    assert len(written["model_sha256"]) == 64
    code, out, _ = ask(capsys, *arguments)
    assert "pairs right" in out and "No interval of the pairs: 2 prompts say too little" in out
    assert answer["pair_accuracy_interval"] is None and answer["cycle_accuracy_interval"] is None


def test_pairs_of_cycles_give_what_their_rings_give(capsys, folder, rings, tmp_path):
    pairs = [
        {"prompt": p, "chosen": RESPONSES[e], "rejected": RESPONSES[(e + 1) % 3], "cycle_id": str(c), "edge": e}
        for c, p in enumerate((PROMPT, "And cake?"))
        for e in range(3)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    answers = []
    for data in (rings, tmp_path / "pairs.jsonl"):
        answers.append(json.loads(ask(capsys, "eval", "cyclic", folder, "--dataset", data, "--format", "json")[1]))
    assert answers[0] == answers[1]


def test_a_picture_of_cycles(capsys, folder, rings, tmp_path):
    code, _, _ = ask(capsys, "eval", "cyclic", folder, "--dataset", rings, "--picture", tmp_path / "cycles.png")
    assert code == 0
    assert (tmp_path / "cycles.png").read_bytes().startswith(b"\x89PNG")


def test_columns_that_are_not_there(capsys, folder, tmp_path):
    (tmp_path / "other.jsonl").write_text('{"text": "x"}')
    code, _, err = ask(capsys, "eval", "cyclic", folder, "--dataset", tmp_path / "other.jsonl")
    assert code == 1 and "neither `responses` (rings) nor `chosen`" in err
    assert "gpm-hf data convert" in err
