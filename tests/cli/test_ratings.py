"""`gpm-hf ratings` from file to table."""

import json

import numpy as np

from gpm_hf.cli import main


def write_arena(path, seed=0, items=6, repeats=12, strength=3.0):
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, items)
    with open(path, "w", encoding="utf-8") as file:
        for i in range(items):
            for j in range(items):
                for _ in range(repeats * (i != j)):
                    win = rng.random() < 1 / (1 + np.exp(-strength * np.sin(angle[i] - angle[j])))
                    row = {"model_a": f"m{i}", "model_b": f"m{j}", "winner": "model_a" if win else "model_b"}
                    file.write(json.dumps(row) + "\n")


def test_votes_are_rated_and_written(tmp_path, capsys):
    write_arena(tmp_path / "votes.jsonl")
    arguments = ["ratings", str(tmp_path / "votes.jsonl"), "--simulations", "40"]
    assert main([*arguments, "--output", str(tmp_path / "ratings.json")]) == 0
    printed = capsys.readouterr().out
    assert "| held-out pairs |" in printed and "The cycles are more than noise" in printed
    found = json.loads((tmp_path / "ratings.json").read_text())
    assert found["evaluation"] == "ratings" and set(found["items"]) == {f"m{i}" for i in range(6)}
    assert found["cycles"]["evidence"]["p_value"] < 0.05 and found["power"]["shares"][0] == 0
    assert main([*arguments, "--quick", "--format", "json"]) == 0
    quick = json.loads(capsys.readouterr().out)
    assert quick["cycles"] is None and quick["best"] is None and quick["votes"] == 360


def test_what_is_wrong_is_said(tmp_path, capsys):
    (tmp_path / "votes.jsonl").write_text('{"model_a": "X"}\n')
    assert main(["ratings", str(tmp_path / "votes.jsonl")]) == 1
    assert "`model_b` is missing" in capsys.readouterr().err
    assert main(["ratings", str(tmp_path / "votes.jsonl"), "--blocks", "0"]) == 1
    assert "--blocks 0: at least 1" in capsys.readouterr().err
