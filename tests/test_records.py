"""Records that any number of processes add to: none is lost, none is half there."""

import json
import multiprocessing

import pytest

from gpm_hf.records import Records


def records(path):
    return Records(path, lambda record: record["key"], "record")


def test_what_a_kill_cut_off_counts_for_nothing_wherever_it_fell(tmp_path):
    path = tmp_path / "kept.jsonl"
    records(path).add([{"key": "a", "value": 1}, {"key": "b", "value": [2]}])
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        found = records(path)
        # A record without its line's end is all there.
        expected = [key for key, end in (("a", first - 1), ("b", len(whole) - 1)) if size >= end]
        assert [key for key in "ab" if key in found] == expected
        found.add([{"key": "b", "value": [2]}, {"key": "c", "value": 3}])
        rows = [json.loads(line) for line in path.read_bytes().splitlines() if line]
        assert sorted(row["key"] for row in rows) == sorted({*expected, "b", "c"}) and len(found) == len(rows)
        assert found["c"] == {"key": "c", "value": 3}


def test_the_first_of_two_counts_and_others_are_seen(tmp_path):
    one, other = records(tmp_path / "kept.jsonl"), records(tmp_path / "kept.jsonl")
    one.add([{"key": "a", "value": 1}])
    assert "a" not in other
    other.add([{"key": "a", "value": 2}, {"key": "b", "value": 3}])
    assert other["a"]["value"] == 1 and len((tmp_path / "kept.jsonl").read_text().splitlines()) == 2
    one.refresh()
    assert one["b"]["value"] == 3 and [path.name for path in tmp_path.iterdir()] == ["kept.jsonl"]


@pytest.mark.parametrize("line", ["{}", "[1]", "7", "half"])
def test_another_file_is_refused_with_its_line(tmp_path, line):
    path = tmp_path / "kept.jsonl"
    path.write_text(f'{{"key": "a"}}\n{line}\n')
    with pytest.raises(ValueError, match=r"kept\.jsonl, line 2, is no record"):
        records(path)


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "kept.jsonl"
    records(path).add([{"key": "a"}])
    whole = path.read_bytes()

    def half(file, data):
        file.write(data[:5])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("gpm_hf.records._write_all", half)
        with pytest.raises(OSError, match="No space"):
            records(path).add([{"key": "b"}])
    assert path.read_bytes() == whole
    records(path).add([{"key": "b"}])
    assert path.read_bytes() == whole + b'{"key": "b"}\n'


def _add(path, name, count):
    own = records(path)
    for number in range(count):
        own.add([{"key": f"{name}-{number}", "value": "x" * (number * 37 % 999)}])


def test_processes_lose_nothing_to_each_other(tmp_path):
    """Two that shared a store used to write it whole, each without the other's records."""
    path, context = tmp_path / "kept.jsonl", multiprocessing.get_context("fork")
    processes = [context.Process(target=_add, args=(path, name, 60)) for name in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(records(path)) == len(path.read_text().splitlines()) == 180
