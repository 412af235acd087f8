"""Data sets from files: pairs as they are, rings as pairs."""

import json

import pytest

from gpm_hf.data.splits import load_preference_dataset


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def test_a_file_of_pairs(tmp_path):
    name = write(tmp_path / "pairs.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b"}])
    splits = load_preference_dataset(name)
    assert splits["train"].to_list() == [{"prompt": "p", "chosen": "a", "rejected": "b"}]


def test_rings_become_pairs_each_once(tmp_path):
    rings = [
        {"id": "x", "prompt": "p", "responses": ["a", "b", "c"], "judge": "human", "ring": True},
        {"id": "y", "prompt": "p", "responses": ["a", "b", "d"], "judge": "human", "ring": True},
        {"id": "z", "prompt": "q", "responses": ["a", "b", "c"], "judge": "machine", "ring": True},
    ]
    name = write(tmp_path / "rings.jsonl", rings)
    pairs = load_preference_dataset(name, keep="judge=human")["train"].to_list()
    assert [(p["chosen"], p["rejected"], p["cycle_id"], p["edge"]) for p in pairs] == [
        ("a", "b", "x", 0),
        ("b", "c", "x", 1),
        ("c", "a", "x", 2),
        ("b", "d", "y", 1),
        ("d", "a", "y", 2),
    ]
    assert len(load_preference_dataset(name)["train"]) == 8


def test_errors_name_the_cause(tmp_path):
    name = write(tmp_path / "rings.jsonl", [{"prompt": "p", "responses": ["a", "b"], "judge": "human", "ring": True}])
    with pytest.raises(ValueError, match=r"row 0: it has 2 of `responses` and `ring: true`"):
        load_preference_dataset(name)
    with pytest.raises(ValueError, match="COLUMN=VALUE"):
        load_preference_dataset(name, keep="human")
    with pytest.raises(ValueError, match=r"No row of the split 'train' has judge=nobody; 1 rows"):
        load_preference_dataset(name, keep="judge=nobody")
    with pytest.raises(ValueError, match=r"rings\.jsonl is one file, which has no configuration 'default'"):
        load_preference_dataset(name, "default")
    with pytest.raises(FileNotFoundError, match=r"no data file .*absent\.jsonl"):
        load_preference_dataset(str(tmp_path / "absent.jsonl"))


def test_the_real_cycles(tmp_path, shared):
    """The 194 cycles that people judged have 415 distinct pairs, and none contradicts another."""
    rows = (shared / "data" / "cycles_vicuna80.jsonl").read_text(encoding="utf-8").splitlines()
    name = write(tmp_path / "cycles.jsonl", [json.loads(row) | {"ring": True} for row in rows])
    pairs = load_preference_dataset(name, keep="judge=human (PRD)")["train"]
    found = {(row["prompt"], row["chosen"], row["rejected"]) for row in pairs}
    assert len(pairs) == len(found) == 415
    assert not any((prompt, rejected, chosen) in found for prompt, chosen, rejected in found)


def test_the_form_is_said_of_rows_that_are_read_as_they_are(tmp_path):
    files = {
        "groups": [{"prompt": "q", "responses": ["a", "b", "c"], "ranking": [2, 0, 1]}],
        "pairs": [{"prompt": "q", "chosen": "a", "rejected": "b"}] * 2,
        "ultrafeedback": [
            {
                "instruction": "q",
                "completions": [
                    {"response": text, "annotations": {"honesty": {"Rating": rating}}}
                    for text, rating in (("a", "1"), ("b", "4"))
                ],
            }
        ],
    }
    for form, rows in files.items():
        path = tmp_path / f"{form}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        told = []
        load_preference_dataset(str(path), report=told.append)
        assert len(told) == 1 and told[0].startswith(f"{path}: {len(rows)} rows read as `{form}`: `"), told
