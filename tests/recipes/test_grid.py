"""Grids that go on where they were interrupted."""

import json

import pytest
from filelock import FileLock, Timeout

from gpm_hf.recipes.grid import run_grid

CELLS = [{"dim": dim, "gate": gate} for dim in (2, 4) for gate in (True, False)]


def test_an_interrupted_grid_repeats_no_finished_cell(tmp_path):
    ran = []

    def run(cell):
        ran.append(cell)
        if len(ran) == 3:
            raise KeyboardInterrupt
        return {"value": cell["dim"] + cell["gate"]}

    with pytest.raises(KeyboardInterrupt):
        run_grid(CELLS, run, tmp_path / "results.jsonl", {"base": "b"})
    rows = run_grid(CELLS, run, tmp_path / "results.jsonl", {"base": "b"})
    assert ran == [*CELLS[:3], *CELLS[2:]]
    assert [row["cell"] for row in rows] == CELLS
    assert [row["result"]["value"] for row in rows] == [3, 2, 5, 4]
    assert [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()] == rows


def test_other_cells_of_the_file_are_kept_and_not_returned(tmp_path):
    run_grid(CELLS[:2], lambda cell: {}, tmp_path / "results.jsonl", {})
    rows = run_grid(CELLS[1:], lambda cell: {}, tmp_path / "results.jsonl", {})
    assert [row["cell"] for row in rows] == CELLS[1:]
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 4


def test_what_was_made_with_something_else_is_made_again(tmp_path):
    """A backbone that was trained further at the same path used to keep the results of the earlier one."""
    path = tmp_path / "results.jsonl"
    path.write_text(
        json.dumps({"cell": CELLS[0], "seconds": 1.0, "result": {"value": "of an earlier version"}}) + "\n"
    )
    for number, base in enumerate(("one", "two", "one")):
        rows = run_grid(CELLS[:1], lambda cell, number=number: {"value": number}, path, {"base": base})
        assert rows[0]["result"]["value"] == number % 2
    assert len(path.read_text().splitlines()) == 3


def test_one_run_at_a_time(tmp_path):
    def run(cell):
        held = FileLock(tmp_path / ".results.jsonl.run.lock")
        with pytest.raises(Timeout):
            held.acquire(timeout=0)
        return {}

    run_grid(CELLS[:1], run, tmp_path / "results.jsonl", {})
    with (
        FileLock(tmp_path / ".results.jsonl.run.lock"),
        pytest.raises(ValueError, match=r"Another run is writing .*wait until it has ended"),
    ):
        run_grid(CELLS[:1], run, tmp_path / "results.jsonl", {})
