"""Table 1 on a tiny backbone."""

import json

import pytest

from tests.conftest import save_backbone


@pytest.mark.slow
def test_the_table_has_every_model_and_a_second_run_trains_nothing(tmp_path, capsys, monkeypatch):
    from gpm_hf.cli import main
    from gpm_hf.recipes import table1

    colors = ["red", "green", "blue"]
    rings = [
        {"prompt": f"Question {n}?", "responses": [f"{n} {color}" for color in colors], "ring": True} for n in range(8)
    ]
    (tmp_path / "rings.jsonl").write_text("\n".join(map(json.dumps, rings)))
    arguments = ["table1", "--base", save_backbone(tmp_path / "backbone"), "--output", str(tmp_path / "table")]
    arguments += ["--dimensions", "4", "--seeds", "0", "--rings", str(tmp_path / "rings.jsonl")]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    table = (tmp_path / "table" / "table1.md").read_text()
    assert table in first
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert lines[0] == ["model", "systematic, unseen topics, seed 0", "real, as shown"]
    assert [line[0] for line in lines[2:]] == [
        "general preference model, dimension 4",
        "Bradley-Terry",
        "Bradley-Terry, on a ranking instead",
        "ceiling of any scalar reward",
    ]
    assert lines[2][2].startswith("100.0%") and "cycles 100.0%" in lines[2][2]
    assert float(lines[3][2].split("%")[0]) <= 66.7 and "cycles 0.0%" in lines[3][2]
    assert float(lines[4][2].split("%")[0]) >= 95
    assert lines[5][1:] == ["66.7%; cycles 0.0%"] * 2

    monkeypatch.setattr(table1, "train_heads", None)
    assert main(arguments) == 0
    assert table in capsys.readouterr().out
