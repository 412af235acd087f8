"""`gpm-hf build-cyclic` and `generate-cyclic`."""

import json

import pytest
from datasets import load_dataset

from tests.cli.conftest import ask
from tests.data.test_cyclic import many_rows


@pytest.fixture
def rated(tmp_path):
    (tmp_path / "rated.jsonl").write_text("\n".join(map(json.dumps, many_rows(40))))
    return tmp_path / "rated.jsonl"


def test_build_writes_a_folder_that_load_dataset_reads(capsys, rated, tmp_path):
    code, out, _ = ask(capsys, "build-cyclic", rated, tmp_path / "cyclic", "--num-proc", 2, "--license", "mit")
    assert code == 0 and "40 rows read" in out
    loaded = load_dataset(str(tmp_path / "cyclic"), "no_honesty", cache_dir=str(tmp_path / "cache"))
    assert {"train", "test_pairs", "test_prompts"} == set(loaded)
    assert f"train {len(loaded['train'])}, test_pairs {len(loaded['test_pairs'])}" in out
    assert "rated.jsonl" in (tmp_path / "cyclic" / "README.md").read_text()


def test_build_never_overwrites_and_leaves_nothing_half_done(capsys, rated, tmp_path):
    (tmp_path / "there").mkdir()
    code, _, err = ask(capsys, "build-cyclic", rated, tmp_path / "there")
    assert code == 1 and "exists already" in err
    (tmp_path / "broken.jsonl").write_text(rated.read_text().splitlines()[0] + "\n{oops\n")
    before = sorted(tmp_path.iterdir())
    for arguments, message in (
        ([rated, tmp_path / "out", "--aspects", "taste,smell,touch"], "first row's aspects are"),
        ([tmp_path / "broken.jsonl", tmp_path / "out"], "line 2 is not JSON"),
        ([tmp_path / "missing.jsonl", tmp_path / "out"], "no data file"),
    ):
        code, _, err = ask(capsys, "build-cyclic", *arguments)
        assert code == 1 and message in err
    assert sorted(tmp_path.iterdir()) == before


def test_cycles_of_a_judge_are_held_against_noise(capsys, tmp_path):
    # Twelve prompts on which A > B > C > A in every one of eight votes, in both orders.
    votes = [{"a": a, "b": b, "ab": [1.0] * 4, "ba": [1.0] * 4} for a, b in ("AB", "BC", "CA")]
    responses = [{"model": name, "text": f"text {name}"} for name in "ABC"]
    rows = [{"prompt": f"{n}?", "responses": responses, "judgments": {"ann": votes}} for n in range(12)]
    (tmp_path / "judged.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, out, _ = ask(capsys, "build-cyclic", tmp_path / "judged.jsonl", tmp_path / "rings.jsonl", "--judge", "ann")
    assert code == 0 and "100.0% of 12 triples are cyclic" in out and "The cycles are more than noise" in out
    once = [{**one, "ab": [1.0], "ba": []} for one in votes]
    (tmp_path / "once.jsonl").write_text(json.dumps({**rows[0], "judgments": {"ann": once}}))
    code, out, _ = ask(capsys, "build-cyclic", tmp_path / "once.jsonl", tmp_path / "ring.jsonl", "--judge", "ann")
    assert code == 0 and "was not tested. Each pair was judged once." in out


def test_build_from_judgements_writes_rings_for_the_trainer(capsys, tmp_path):
    ring = [{"a": i, "b": (i + 1) % 3, "ab": 1, "ba": 1} for i in range(3)]
    row = {"prompt": "p", "responses": ["x", "y", "z"], "judgments": {"ann": ring}}
    (tmp_path / "judged.jsonl").write_text(json.dumps(row))
    code, out, _ = ask(capsys, "build-cyclic", tmp_path / "judged.jsonl", tmp_path / "rings.jsonl", "--judge", "ann")
    assert code == 0 and "averaging both orders removes 0" in out
    written = json.loads((tmp_path / "rings.jsonl").read_text())
    assert written["responses"] == ["x", "y", "z"] and written["ring"] is True


def test_generate_writes_pairs(capsys, tmp_path):
    output = tmp_path / "pairs.jsonl"
    arguments = ["generate-cyclic", output, "--prompts", 10, "--ring-size", 4, "--topics", "test"]
    assert ask(capsys, *arguments)[0] == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(rows) == 40 and {row["edge"] for row in rows} == {0, 1, 2, 3}
    assert ask(capsys, *arguments, "--overwrite", "--prompts", 10**6)[0] == 1
    assert ask(capsys, "generate-cyclic", output, "--prompts", 10, "--dominant", "--overwrite")[0] == 0
    assert len(output.read_text().splitlines()) == 10 * (3 + 3)
