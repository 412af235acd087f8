"""The demonstration's screen, with a tiny backbone and a handful of prompts: what it shows does not depend on them."""

import json

import pytest

from gpm_hf.recipes import demo
from tests.conftest import save_backbone


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    base = save_backbone(tmp_path / "backbone", max_position_embeddings=1024)
    monkeypatch.setattr(demo, "find_base_model", lambda needs: base)
    monkeypatch.setattr(demo, "TRAIN_PROMPTS", 6)
    monkeypatch.setattr(demo, "TEST_PROMPTS", 5)
    monkeypatch.setattr(demo, "RECIPE", {**demo.RECIPE, "max_steps": 2, "use_cpu": True})
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.slow
def test_the_demo_shows_a_table_and_the_matrix_in_under_30_lines(tiny, capsys):
    found = demo.run_demo(tiny / "out")
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) < 30, shown
    for text in (
        "On topics that no model has seen",
        "ceiling of any scalar reward",
        "Log-odds that the row is preferred",
    ):
        assert text in shown, shown
    assert json.loads((tiny / "out" / "results.json").read_text())["reload_error"] == found["reload_error"] <= 1e-4
    assert (tiny / "out" / "preference_plane.png").is_file()
