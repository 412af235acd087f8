"""`gpm-hf calibrate`: numbers by a scorer of the test's own, and a model's card."""

import json
import math

import pytest

from gpm_hf.hub.cards import write_card
from gpm_hf.hub.record import RunRecord
from gpm_hf.identity import model_digest
from tests.cli.conftest import ask
from tests.conftest import build_gpm, build_tokenizer
from tests.evaluation.scorers import by_reward


@pytest.fixture
def pairs(tmp_path):
    """Of four pairs that differ by three characters three have the longer chosen, and every fifth pair is a tie."""
    rows = []
    for number in range(40):
        long, short = "x" * (8 + number % 3), "x" * (5 + number % 3)
        chosen, rejected = (short, long) if number % 4 == 0 else (long, short)
        row = {"prompt": f"Question {number}?", "chosen": chosen, "rejected": rejected}
        rows.append(row | ({"tie": True} if number % 5 == 4 else {}))
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "pairs.jsonl"


def test_temperature_and_width_by_hand(capsys, monkeypatch, pairs, tmp_path):
    monkeypatch.setattr("gpm_hf.scoring.load_scorer", lambda spec, **options: by_reward(len, name="long"))
    code, out, err = ask(capsys, "calibrate", "long", "--dataset", pairs, "--format", "json")
    assert code == 0, err
    (found,) = json.loads(out)["results"]
    assert found["pairs"] == 40 and found["tie_share"] == 0.2
    # All log-odds are 3 or -3: of 32 decided pairs 24 have the longer, and nu is what makes a fifth of them ties.
    right = sum(number % 4 != 0 for number in range(40) if number % 5 != 4)
    odds = math.log(right / (32 - right))
    assert found["temperature"] == pytest.approx(3 / odds, rel=0.01)
    log_tie = math.log(8 / 32 * (math.exp(odds / 2) + math.exp(-odds / 2)))
    assert found["tie_width"] == pytest.approx(2 * found["temperature"] * max(log_tie, 0), abs=1e-6)
    code, out, _ = ask(capsys, "calibrate", "long", "--dataset", pairs, "--card")
    assert code == 1


def test_the_card_has_the_numbers_and_the_weights_stay(capsys, pairs, tmp_path):
    folder = tmp_path / "model"
    build_gpm(embedding_dim=4).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    RunRecord(kind="preference_model", tags=["gpm-hf"]).save(folder)
    write_card(folder)
    before = model_digest(folder)
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    from gpm_hf import load_preference_model, load_tokenizer

    # Labels by the model itself, so that its scores say something about them.
    model, tokenizer = load_preference_model(str(folder)), load_tokenizer(str(folder))
    for number, row in enumerate(rows):
        scores = model.preference_scores(tokenizer, row["prompt"], [row["chosen"], row["rejected"]])
        if (scores[0, 1] < 0) != (number % 6 == 0):
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    pairs.write_text("\n".join(map(json.dumps, rows)))
    code, _, err = ask(capsys, "calibrate", f"gpm:{folder}", "--dataset", pairs, "--card")
    assert code == 0, err
    card = (folder / "README.md").read_text()
    assert "| temperature | " in card and "| tie width | " in card and model_digest(folder) == before
    found = json.loads((folder / "results" / "calibration.json").read_text())
    assert found["evaluation"] == "calibrate" and found["result"]["temperature"] > 0
    (folder / "README.md").write_text("mine")
    code, _, err = ask(capsys, "calibrate", f"gpm:{folder}", "--dataset", pairs, "--card", "--overwrite")
    assert code == 1 and "edited by hand" in err and (folder / "README.md").read_text() == "mine"
    assert ask(capsys, "calibrate", "constant", "--dataset", pairs, "--card")[0] == 1
