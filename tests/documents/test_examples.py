"""The examples do what they say, with a tiny model."""

import json
import runpy
import sys

import pytest

from tests.conftest import build_gpm, build_tokenizer, save_backbone
from tests.documents.blocks import ROOT


@pytest.fixture
def clone(tmp_path, monkeypatch):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    build_gpm(embedding_dim=6).save_pretrained(tmp_path / "runs" / "demo" / "gpm")
    build_tokenizer().save_pretrained(tmp_path / "runs" / "demo" / "gpm")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def run(monkeypatch, script, *arguments):
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    runpy.run_path(f"examples/{script}", run_name="__main__")


def test_the_small_files_are_those_that_the_script_makes(clone, monkeypatch):
    run(monkeypatch, "make_data.py", "made")
    shipped = {path.name: path.read_text() for path in (ROOT / "examples" / "data").iterdir()}
    assert {path.name: path.read_text() for path in (clone / "made").iterdir()} == shipped


def test_scores(clone, monkeypatch, capsys):
    run(monkeypatch, "score.py", "runs/demo/gpm")
    shown = capsys.readouterr().out
    assert "Best first: [" in shown and "% of the squared log-odds is no ranking." in shown


def test_votes(clone, monkeypatch, capsys):
    run(monkeypatch, "rate_votes.py", "examples/data/votes.jsonl")
    shown = capsys.readouterr().out
    # The votes were drawn of a cycle of three and one that loses to all of them.
    assert "The cycles are more than noise" in shown and "pebble" in shown.splitlines()[3]


@pytest.mark.slow
def test_training(clone, monkeypatch, capsys):
    save_backbone(clone / "backbone", max_position_embeddings=1024)
    run(monkeypatch, "train.py", "--model", "backbone", "--steps", 3)
    shown = capsys.readouterr().out
    assert "bradley-terry: " in shown and "gpm: " in shown
    assert (clone / "runs" / "example" / "gpm" / "README.md").is_file()


@pytest.mark.slow
def test_online_alignment(clone, monkeypatch, capsys):
    save_backbone(clone / "backbone", max_position_embeddings=1024)
    run(monkeypatch, "align_online.py", "--policy", "backbone", "--steps", 5, "--answer-tokens", 8)
    assert "Win rate against the start, as it went: 0.500" in capsys.readouterr().out


@pytest.mark.slow
def test_the_notebook(clone):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / "examples" / "cycles.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are not kept in the repository"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(clone)}}).execute()
    shown = json.dumps(notebook)
    assert "rock > scissors > paper > rock weakest: 1.50" in shown and "image/png" in shown
