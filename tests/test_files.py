"""Files and folders that are whole or not there."""

import os
import tempfile

import pytest

from gpm_hf.files import folder_written_whole, scratch_folder, written_whole


def test_an_error_leaves_nothing_and_the_old_file(tmp_path):
    (tmp_path / "old.txt").write_text("old")
    with pytest.raises(RuntimeError), written_whole(tmp_path / "old.txt") as file:
        file.write("new")
        raise RuntimeError
    with pytest.raises(RuntimeError), folder_written_whole(tmp_path / "folder") as aside:
        (aside / "part").write_text("half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["old.txt"]
    assert (tmp_path / "old.txt").read_text() == "old"


def test_a_folder_appears_whole_also_where_an_empty_one_was(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "deep/new"):
        with folder_written_whole(tmp_path / name) as aside:
            (aside / "file").write_text("x")
            assert not (tmp_path / name / "file").exists()
        assert (tmp_path / name / "file").read_text() == "x"
    with pytest.raises(FileExistsError, match="exists already"), folder_written_whole(tmp_path / "empty"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "empty"]


def _killed_while(write, path):
    """Begins to write in a fork that ends at once; returns its number."""
    child = os.fork()
    if child == 0:
        with write(path) as aside:
            if write is written_whole:
                aside.write("half")
                aside.flush()
            os._exit(1)
    os.waitpid(child, 0)
    return child


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("write", [written_whole, folder_written_whole])
def test_what_killed_processes_left_goes_and_nothing_else(tmp_path, write):
    _killed_while(write, tmp_path / "out")
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out.") and left.name.endswith(".part")
    # Of an earlier version; of a process that runs, on this machine or another; of another file.
    (tmp_path / f".out.{2**22 + 1}.part").write_text("half")
    others = {f".out.{os.getppid()}.part", f".out.elsewhere-{2**22 + 1}.part", f".out.jsonl.{2**22 + 1}.part"}
    for name in others:
        (tmp_path / name).write_text("half")
    with write(tmp_path / "out"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"out", *others}


def test_a_folder_that_was_killed_between_its_two_names_comes_back(tmp_path):
    earlier = tmp_path / f".out.{2**22 + 1}.old"
    earlier.mkdir()
    (earlier / "file").write_text("old")
    with pytest.raises(RuntimeError), folder_written_whole(tmp_path / "out", overwrite=True):
        raise RuntimeError
    assert (tmp_path / "out" / "file").read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_scratch_folders_of_killed_processes_go(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_folder("test") as own:
        left = tmp_path / own.name.replace(f"-{os.getpid()}_", f"-{2**22 + 1}_")
        running = tmp_path / own.name.replace(f"-{os.getpid()}_", f"-{os.getppid()}_")
        left.mkdir()
        running.mkdir()
        with scratch_folder("test"):
            assert own.is_dir() and running.is_dir() and not left.exists()
    assert [path.name for path in tmp_path.iterdir()] == [running.name]
