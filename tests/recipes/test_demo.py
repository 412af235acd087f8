"""The README's first command, whole: this is what a newcomer runs."""

import json
import re

import pytest

pytestmark = pytest.mark.slow


def test_the_demo_holds_a_cycle_that_a_reward_cannot(tmp_path, capsys):
    from gpm_hf.cli import main

    assert main(["demo", "--output", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    models = list(results["models"].values())
    reward, preference = models
    assert preference["pair_accuracy"] >= 0.98 and preference["cycle_accuracy"] >= 0.95
    assert reward["pair_accuracy"] <= 2 / 3 and reward["cycle_accuracy"] == 0
    assert results["bradley_terry_on_a_ranking"] >= 0.95
    assert results["reload_error"] <= 1e-5
    assert len(results["cycle"]["members"]) == 3
    assert (tmp_path / "preference_plane.png").stat().st_size > 10_000
    assert (tmp_path / "gpm" / "modeling_gpm.py").exists()
    shown = capsys.readouterr().out
    assert re.search(r"ceiling of any scalar reward\W+66\.7%\W+0\.0%", shown)
    assert "Log-odds that the row is preferred to the column:" in shown and len(shown.splitlines()) < 30
