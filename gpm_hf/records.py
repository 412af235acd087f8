"""
Finished work, a line of JSON for each piece, found again by what it was made of: the one way in which jobs here go on
where they were stopped.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from gpm_hf.files import json_text
from gpm_hf.locks import appending


class Records:
    """
    A file to which any number of processes may add at once: whole lines, none of which is ever changed. One that a
    kill cut off counts for nothing, and is cut away by whoever adds the next. Values stay on disk until they are asked
    for. Of two with one key the first counts.

    Args:
        path: the file; made by the first that adds to it.
        key_of: from a record to what it is found by. It raises `KeyError` or `TypeError` for what is no record.
        kind: what the records are, for messages.

    Raises:
        ValueError: the file holds something else.
    """

    def __init__(self, path: str | Path, key_of: Callable[[dict[str, Any]], str], kind: str):
        self.path = Path(path)
        self._key_of, self._kind = key_of, kind
        self._places: dict[str, int] = {}
        self._end = self._lines = 0
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, key: str) -> dict[str, Any]:
        with open(self.path, "rb") as file:
            file.seek(self._places[key])
            return json.loads(file.readline())

    def refresh(self) -> None:
        """Takes note of what others have added."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            file.seek(self._end)
            for line in file:
                if not line.endswith(b"\n") and not _is_whole(line):
                    break
                if line != b"\n":
                    self._lines += 1
                    self._places.setdefault(self._read_key(line), self._end)
                self._end += len(line)

    def add(self, records: Iterable[dict[str, Any]]) -> None:
        """Adds records, but for those that are there; on an error of the disk none of them."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with appending(self.path):
            self.refresh()
            new = [record for record in records if self._key_of(record) not in self._places]
            data = b"".join(json_text(record).encode() + b"\n" for record in new)
            with open(self.path, "ab", buffering=0) as file:
                file.truncate(self._end)
                try:
                    _write_all(file, data if self._ends_a_line() else b"\n" + data)
                except BaseException:
                    file.truncate(self._end)
                    raise
            self.refresh()

    def _ends_a_line(self) -> bool:
        if not self._end:
            return True
        with open(self.path, "rb") as file:
            file.seek(self._end - 1)
            return file.read(1) == b"\n"

    def _read_key(self, line: bytes) -> str:
        try:
            record = json.loads(line)
        except ValueError as error:
            raise self._foreign() from error
        try:
            return self._key_of(record)
        except (KeyError, TypeError, AttributeError) as error:
            raise self._foreign() from error

    def _foreign(self) -> ValueError:
        return ValueError(
            f"{self.path}, line {self._lines}, is no {self._kind}. Name another file, or remove this one to start "
            "anew."
        )


def _write_all(file: IO[bytes], data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _is_whole(line: bytes) -> bool:
    """A last line without its end, as an editor may leave it: a record that was cut off cannot be read."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
