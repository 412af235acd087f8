"""Of two runs on one output one is told."""

import multiprocessing
import os
import time

import pytest

from gpm_hf.locks import only_run


def _run(output, outcomes):
    try:
        with only_run(output, overwrite=False):
            # Fails where another is inside too.
            os.close(os.open(f"{output}.inside", os.O_CREAT | os.O_EXCL))
            time.sleep(0.01)
            os.unlink(f"{output}.inside")
            outcomes.put("ran")
    except ValueError as error:
        outcomes.put(str(error))


def test_never_two_inside(tmp_path):
    context = multiprocessing.get_context("fork")
    outcomes = context.SimpleQueue()
    processes = [context.Process(target=_run, args=(tmp_path / "out", outcomes)) for _ in range(20)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found = [outcomes.get() for _ in processes]
    told = f"Another run is writing {tmp_path / 'out'}: wait until it has ended, or name another output."
    assert set(found) <= {"ran", told} and "ran" in found
    assert not list(tmp_path.iterdir())


def test_the_job_and_its_loop_are_one_run(tmp_path, monkeypatch):
    output = tmp_path / "new" / "out"
    with only_run(output), only_run(output):
        assert output.parent.is_dir()
    assert not output.parent.exists(), "made for the lock alone"
    # The first process of a launcher holds it for all.
    with only_run(output):
        context = multiprocessing.get_context("fork")
        outcomes = context.SimpleQueue()
        monkeypatch.setenv("RANK", "1")
        other = context.Process(target=_run, args=(output, outcomes))
        other.start()
        other.join()
        assert outcomes.get() == "ran"
        monkeypatch.setenv("RANK", "0")


def test_what_appeared_meanwhile_is_not_replaced(tmp_path):
    output = tmp_path / "out"
    output.write_text("another's")
    with pytest.raises(FileExistsError, match="exists already"), only_run(output, overwrite=False):
        raise AssertionError
    with only_run(output):
        output.write_text("mine")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_current_folder_is_an_output(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with only_run("."):
        assert [path.name for path in tmp_path.iterdir()].count(".here.run.lock") == 1
