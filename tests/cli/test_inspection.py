"""`gpm-hf inspect`, as a user types it."""

import json

import pytest
import torch

from tests.cli.conftest import PROMPT, RESPONSES, ask
from tests.conftest import build_gpm, build_tokenizer

GROUP = ["--prompt", PROMPT, "--responses", *RESPONSES]
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def expected():
    return build_gpm(embedding_dim=4).preference_scores(build_tokenizer(), PROMPT, RESPONSES)


@pytest.fixture
def rows(tmp_path):
    rows = [{"prompt": PROMPT, "responses": RESPONSES, "id": 7}, {"prompt": "Hi", "responses": ["a", "b"]}]
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def test_json_holds_the_models_log_odds_and_what_they_say(capsys, folder, expected):
    code, out, _ = ask(capsys, "inspect", folder, *GROUP, "--format", "json")
    found = json.loads(out)
    assert code == 0
    assert torch.allclose(torch.tensor(found["scores"]), expected, atol=1e-5)
    means = [sum(row) / 3 for row in expected.tolist()]
    assert found["mean_scores"] == pytest.approx(means, abs=1e-5)
    assert found["ranking"] == sorted(range(3), key=lambda index: -means[index])
    wins = [(row > 0).sum().item() for row in expected]
    assert found["condorcet_winner"] == (wins.index(2) if 2 in wins else None)
    assert found["three_cycles"] == len(found["cycles"]) == (0 if 2 in wins else 1)
    transitive = sum((a - b) ** 2 for a in means for b in means)
    assert found["transitive_share"] == pytest.approx(transitive / expected.square().sum().item(), abs=1e-5)
    assert sum(found["von_neumann_winner"]) == pytest.approx(1)


def test_the_table(capsys, folder, expected):
    code, out, _ = ask(capsys, "inspect", folder, *GROUP)
    assert code == 0 and f"{expected[0, 1]:+.2f}" in out
    for text in ("Condorcet winner:", "Smith set:", "von Neumann winner:", "% of the squared norm", "Cycles:"):
        assert text in out
    assert all(response in out for response in RESPONSES)


def test_a_cycle_is_shown_with_its_weakest_edge():
    from gpm_hf.cli.inspection import _report
    from gpm_hf.evaluation.reports.inspection import inspect_scores

    report = _report(["r", "p", "s"], inspect_scores([[0, 2, -1], [-2, 0, 3], [1, -3, 0]]))
    assert "1 of three responses" in report
    assert "[0] > [1] > [2] > [0]   weakest [2] > [0], log-odds +1.00" in report
    # In proportion to the opposite edges, 3 to 1 to 2.
    assert "von Neumann winner:  50.0% [0] + 33.3% [2] + 16.7% [1]" in report
    assert "Condorcet winner:    none" in report and "Smith set:           [0] [1] [2]" in report


def test_a_file_in_a_file_out_and_a_picture(capsys, folder, expected, rows, tmp_path):
    output, picture = tmp_path / "out.jsonl", tmp_path / "new" / "row.png"
    arguments = ["--input", rows, "--output", output, "--picture", picture, "--row", 2]
    code, out, _ = ask(capsys, "inspect", folder, *arguments)
    assert code == 0 and "2 rows written" in out
    written = [json.loads(line) for line in output.read_text().splitlines()]
    assert written[0]["id"] == 7 and written[1]["prompt"] == "Hi" and len(written[1]["scores"]) == 2
    assert torch.allclose(torch.tensor(written[0]["scores"]), expected, atol=1e-4)
    assert picture.read_bytes().startswith(PNG) and picture.stat().st_size > 20_000
    _, out, _ = ask(capsys, "inspect", folder, "--input", rows)
    assert f"row 1: {PROMPT}" in out and "row 2: Hi" in out


def test_the_row_that_is_drawn(capsys, folder, rows, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("gpm_hf.evaluation.plots.inspection_plots.plot_inspection", lambda *given: drawn.append(given))
    for row in ([], ["--row", 2]):
        assert ask(capsys, "inspect", folder, "--input", rows, "--picture", tmp_path / "x.png", *row)[0] == 0
    for (_, inspection, prompt, responses, panels), (title, texts) in zip(
        drawn, [(PROMPT, RESPONSES), ("Hi", ["a", "b"])]
    ):
        assert (prompt, responses) == (title, texts)
        # The blocks that are drawn make up the scores.
        total = torch.tensor(sum(panel.log_odds for panel in panels))
        assert torch.allclose(total, torch.tensor(inspection.scores, dtype=torch.float64), atol=3e-5)


def test_rewards_and_chats_are_drawn_too(capsys, tmp_path):
    build_gpm(embedding_dim=1).save_pretrained(tmp_path / "bt")
    build_tokenizer().save_pretrained(tmp_path / "bt")
    chat = [{"role": "user", "content": PROMPT}]
    replies = [[{"role": "assistant", "content": text}] for text in RESPONSES]
    (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": chat, "responses": replies}) + "\n")
    arguments = ["--input", tmp_path / "in.jsonl", "--picture", tmp_path / "bt.png", "--format", "json"]
    code, out, _ = ask(capsys, "inspect", tmp_path / "bt", *arguments)
    found = json.loads(out)
    assert code == 0 and found["cycles"] == [] and found["transitive_share"] == pytest.approx(1)
    assert (tmp_path / "bt.png").read_bytes().startswith(PNG)


def test_a_reward_head_is_drawn_beside_the_planes(capsys, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("gpm_hf.evaluation.plots.inspection_plots.plot_inspection", lambda *given: drawn.append(given))
    build_gpm(embedding_dim=2, reward_head=True).save_pretrained(tmp_path / "hybrid")
    build_tokenizer().save_pretrained(tmp_path / "hybrid")
    assert ask(capsys, "inspect", tmp_path / "hybrid", *GROUP, "--picture", tmp_path / "x.png")[0] == 0
    _, inspection, _, _, panels = drawn[0]
    assert {type(panel).__name__ for panel in panels} == {"Plane", "RewardLine"}
    total = torch.tensor(sum(panel.log_odds for panel in panels))
    assert torch.allclose(total, torch.tensor(inspection.scores, dtype=torch.float64), atol=1e-4)


def test_errors_say_what_to_do_and_write_nothing(capsys, folder, rows, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "many.jsonl").write_text(json.dumps({"prompt": "p", "responses": ["a"] * 21}))
    picture = ["--picture", tmp_path / "x.png"]
    cases = [
        (["--prompt", PROMPT, "--response", "one"], "`gpm-hf inspect` needs at least 2 responses"),
        ([*GROUP, "--input", rows], "Give either --prompt"),
        (["--input", rows, "--response", "x"], "--response belongs to --prompt"),
        (["--input", tmp_path / "empty.jsonl"], "empty.jsonl is empty"),
        (["--input", tmp_path / "nowhere.jsonl"], "No such file"),
        (["--input", rows, *picture, "--row", 3], "numbered from 1 to 2"),
        (["--input", rows, *picture, "--row", 0], "numbered from 1 to 2"),
        (["--input", rows, "--row", 1], "give all three"),
        ([*GROUP, "--picture", tmp_path / "x.jpg"], "should end in .png"),
        (["--input", tmp_path / "many.jsonl", *picture], "20 are the most"),
        ([*GROUP, "--max-cycles", 0], "at least the strongest"),
        ([*GROUP[:-1], " ", *picture], "Response 2 is empty"),
    ]
    before = sorted(tmp_path.iterdir())
    for arguments, message in cases:
        code, _, err = ask(capsys, "inspect", folder, *arguments)
        assert code == 1 and message in err, (arguments, err)
    assert sorted(tmp_path.iterdir()) == before
