"""Digests of files: by content, read once, and never taken for those of an earlier content."""

import hashlib
import os
import time

import pytest

from gpm_hf.identity import contents, file_digest, in_background, weights_digest


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.fixture
def reads(monkeypatch, tmp_path):
    """The files that were read whole, in order, with a cache of their own."""
    found, read = [], contents._read
    monkeypatch.setattr(contents, "HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "_read", lambda path: found.append(os.path.basename(path)) or read(path))
    return found


def settled(monkeypatch):
    """As if everything on the disk were a minute old."""
    monkeypatch.setattr(time, "time_ns", lambda now=time.time_ns: now() + 60 * 10**9)


def test_a_large_file_is_read_once(tmp_path, reads, monkeypatch):
    settled(monkeypatch)
    path, content = tmp_path / "big", os.urandom(2**20 + 1)
    path.write_bytes(content)
    (tmp_path / "link").symlink_to(path)
    assert {file_digest(path), file_digest(path), file_digest(tmp_path / "link")} == {sha256(content)}
    assert reads == ["big"]


def test_of_equal_size_and_time_another_content_is_another_file(tmp_path, reads, monkeypatch):
    settled(monkeypatch)
    path = tmp_path / "big"
    path.write_bytes(bytes(2**20))
    before, status = file_digest(path), path.stat()
    with open(path, "r+b") as file:  # the same inode
        file.write(b"1")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size and path.stat().st_mtime_ns == status.st_mtime_ns
    assert before == sha256(bytes(2**20)) and file_digest(path) == sha256(b"1" + bytes(2**20 - 1))


def test_of_a_file_younger_than_two_seconds_nothing_is_kept(tmp_path, reads):
    path = tmp_path / "big"
    path.write_bytes(bytes(2**20))
    assert file_digest(path) == file_digest(path) == sha256(bytes(2**20))
    assert reads == ["big", "big"] and not (tmp_path / "cache").exists()


def test_a_cache_of_no_use_is_passed_over(tmp_path, reads, monkeypatch):
    settled(monkeypatch)
    path = tmp_path / "big"
    path.write_bytes(bytes(2**20))
    file_digest(path)
    (kept,) = (tmp_path / "cache").rglob("*.json")
    for text in ("", "[]", '{"sha256": 1}'):
        kept.write_text(text)
        assert file_digest(path) == sha256(bytes(2**20))
    kept.unlink()
    kept.parent.rmdir()
    kept.parent.write_text("no folder can be here")
    assert file_digest(path) == sha256(bytes(2**20)) and len(reads) == 5


def test_weights_are_known_by_name_and_content(tmp_path):
    """The form that saved records and adapters have, written out."""
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    parts = [part for name in names for part in (name.encode(), hashlib.sha256(name.encode()).digest())]
    assert weights_digest(tmp_path) == sha256(*parts)
    (tmp_path / "sub").mkdir()
    assert weights_digest(tmp_path / "sub") == ""


def test_in_background_gives_the_result_or_the_error():
    assert in_background(int, "7")() == 7
    with pytest.raises(ValueError, match="invalid literal"):
        in_background(int, "x")()
