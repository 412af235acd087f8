"""
Rows of data files, as their characters say: JSON Lines, a JSON list, CSV, TSV, each also compressed by gzip.

Text is what stands in the file, and nothing is guessed. JSON says itself what is text and what is a number. CSV and
TSV hold characters only: columns whose names stand for numbers or lists are read as these, all others are text.
"""

import codecs
import csv
import gzip
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

_FORMS = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".tsv": "tsv"}
_PARQUET = ".parquet"
READ_FORMS = ".jsonl, .json, .csv, .tsv (each also with .gz) and .parquet"
# Endings of other files that hold tables or pack files, so that none of them is taken for the name of a Hub data set.
_OTHER_FORMS = re.compile(
    r"\.(7z|arrow|avro|bin|bz2|db|feather|gz|h5|hdf5|html|lz4|md|npy|npz|odt|orc|pickle|pkl|pt|rar|sqlite|tar|tgz|txt|"
    r"xls|xlsx|xml|xz|yaml|yml|zip|zst)$"
)

_NUMBER_COLUMNS = {
    *("margin", "target_score", "preference_probability", "weight", "score", "probability"),
    *("chosen_rating", "rejected_rating", "chosen_score", "rejected_score"),
    *("chosen_probability", "rejected_probability", "ref_logps", "ref_chosen_logps", "ref_rejected_logps"),
}
_INTEGER_COLUMNS = {"edge", "num_correct"}
_TRUTH_COLUMNS = {"ring"}
_LIST_COLUMNS = {
    *("responses", "opponent_responses", "scores", "mean_scores", "policy_log_probs", "p_next", "models"),
    *("chosen_ids", "rejected_ids", "prompt_ids", "judgments", "completions", "turns", "choices"),
    *("preferences", "pairs", "ranking", "ratings", "preference_matrix", "target_scores"),
}

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_INTEGER = re.compile(r"[+-]?\d+")
# What may be half of a character, and what may be a number without end, in the text of a row.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_HUGE = re.compile(r"[eE]\+?\d{3}")
_DEEPEST = 64
_TOO_DEEP = f"not readable: it is nested deeper than {_DEEPEST} levels"
_BLANK = tuple(" \t\r\n")
# Answers are longer than what the csv module takes for a cell unless told.
csv.field_size_limit(2**31 - 1)


class MalformedRow(ValueError):
    """A row that cannot be used; the message is the reason, fit for counting."""


class FileRow(NamedTuple):
    """
    A row and where it stands.

    Attributes:
        number: of the row, counted from 1.
        line: of the file, counted from 1, on which it begins; `None` in a JSON list.
        value: the row, or a [`MalformedRow`] for what is none.
    """

    number: int
    line: int | None
    value: Any

    @property
    def place(self) -> str:
        """For messages: "line 3", or "row 3" of a JSON list."""
        return f"row {self.number}" if self.line is None else f"line {self.line}"

    def checked(self, path: str | Path) -> dict[str, Any]:
        """The row; a `ValueError` that names file and line where it is none."""
        if isinstance(self.value, MalformedRow):
            cause = f": {self.value.__cause__}" if self.value.__cause__ else ""
            raise ValueError(f"{path}, {self.place} is {self.value}{cause}.")
        return self.value


def form_of(name: str | Path) -> str | None:
    """
    How a file of this name is read: "json", "csv", "tsv" or "parquet"; `None` for what is not named like a file.

    Raises:
        ValueError: the name of a file of another form.
    """
    ending = _ending(name)
    if ending == _PARQUET:
        return "parquet"
    form = _FORMS.get(ending.removesuffix(".gz"))
    if form is None and (_OTHER_FORMS.search(ending) or Path(name).is_file()):
        raise ValueError(f"{name} is not of a form that is read: {READ_FORMS}. Write its rows into one of these.")
    return form


def _ending(name: str | Path) -> str:
    suffixes = [suffix.lower() for suffix in Path(name).suffixes[-2:]]
    return "".join(suffixes) if suffixes[-1:] == [".gz"] else "".join(suffixes[-1:])


def file_rows(path: str | Path) -> Iterator[FileRow]:
    """
    The rows of a file, one at a time. Lines end at a line feed alone: U+0085, U+2028 and U+2029 are characters.

    Args:
        path: a `.jsonl` file, a `.json` file with a list of rows or one row a line, a `.csv` or `.tsv` file with the
            names of its columns in the first line; each may be compressed (`.gz`). UTF-8, with or without its mark.

    Raises:
        FileNotFoundError: a file that is not there.
        ValueError: a file after whose fault no row can be found again (a quotation mark that is never closed, a JSON
            list that breaks off, an archive that is cut), naming the place.
    """
    form = form_of(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no data file {path}: No such file or directory.")
    if form not in ("json", "csv", "tsv"):
        raise ValueError(f"{path} is no file of text: .jsonl, .json, .csv or .tsv.")
    try:
        if form != "json":
            yield from _table_rows(path, "," if form == "csv" else "\t")
        elif _begins_with_list(path):
            yield from _list_rows(path)
        else:
            with _opened(path) as file:
                yield from _line_rows(file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is no whole gzip archive: {error}.") from error


def _opened(path: str | Path) -> BinaryIO:
    return gzip.open(path, "rb") if _ending(path).endswith(".gz") else open(path, "rb")  # type: ignore[return-value]


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines with their ends; the mark that some programs put before UTF-8 is no text."""
    for number, line in enumerate(file):
        yield line.removeprefix(codecs.BOM_UTF8) if number == 0 else line


# --- JSON ------------------------------------------------------------------------------------------------------------


def _line_rows(file: BinaryIO) -> Iterator[FileRow]:
    number = 0
    for line, raw in enumerate(_lines(file), start=1):
        if raw.strip():
            number += 1
            yield FileRow(number, line, _parsed(raw))


def _parsed(raw: bytes) -> Any:
    try:
        text = raw.decode("utf-8").strip()
        return _checked(_decoded(_DECODER.decode, text), text)
    except UnicodeDecodeError as error:
        return _malformed("not UTF-8", error)
    except MalformedRow as reason:
        return reason


def _list_rows(path: str | Path) -> Iterator[FileRow]:
    """Element by element, so that a fault has the number of its row."""
    with _opened(path) as file:
        try:
            text = file.read().removeprefix(codecs.BOM_UTF8).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8: {error}.") from error
    number, place = 0, _after_blank(text, _after_blank(text, 0) + 1)
    while text[place : place + 1] != "]":
        number += 1
        try:
            value, end = _decoded(_DECODER.raw_decode, text, place)
        except MalformedRow as reason:  # nobody knows where the next one begins
            FileRow(number, None, reason).checked(path)
        try:
            yield FileRow(number, None, _checked(value, text[place:end]))
        except MalformedRow as reason:
            yield FileRow(number, None, reason)
        place = _after_blank(text, end)
        if text[place : place + 1] == ",":
            place = _after_blank(text, place + 1)
        elif text[place : place + 1] != "]":
            raise ValueError(f"{path}: its list breaks off, or lacks a comma, after row {number}.")
    if _after_blank(text, place + 1) != len(text):
        raise ValueError(f"{path}: there is more after the end of its list. Rows without a list stand one a line.")


def _decoded(decode: Callable, *arguments: Any) -> Any:
    try:
        return decode(*arguments)
    except MalformedRow:
        raise
    except json.JSONDecodeError as error:
        raise _malformed("not JSON", error) from error
    except RecursionError as error:
        raise _malformed(_TOO_DEEP) from error
    except ValueError as error:  # Python's own limit
        raise _malformed("not readable: it holds a number of thousands of digits") from error


def _checked(value: Any, text: str) -> dict[str, Any]:
    """The value, if it is a row that can be written again and given to a tokenizer; `text` is its JSON."""
    if not isinstance(value, dict):
        raise _malformed("not a JSON object")
    return _usable(value, text)


def _usable(value: Any, text: str) -> Any:
    if text.count("[") + text.count("{") > _DEEPEST and _depth(value) > _DEEPEST:
        raise _malformed(_TOO_DEEP)
    if _SURROGATE.search(text) or _HUGE.search(text):
        try:
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise _malformed("not text: it holds half of a character (a lone surrogate)") from error
        except ValueError as error:
            raise _malformed("not readable: it holds a number beyond what a computer's can be") from error
    return value


def _malformed(reason: str, cause: Exception | None = None) -> MalformedRow:
    found = MalformedRow(reason)
    found.__cause__ = cause
    return found


def _refuse_constant(name: str) -> None:
    raise _malformed(f"not JSON, which has no {name.lstrip('-')}: write null, or a number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


def _begins_with_list(path: str | Path) -> bool:
    with _opened(path) as file:
        for line in _lines(file):
            if line.strip():
                return line.lstrip().startswith(b"[")
    return False


def _after_blank(text: str, place: int) -> int:
    while text[place : place + 1] in _BLANK:
        place += 1
    return place


# --- CSV and TSV -----------------------------------------------------------------------------------------------------


def _table_rows(path: str | Path, delimiter: str) -> Iterator[FileRow]:
    with _opened(path) as file:
        # Strict: a quotation mark within a cell that is not doubled would be lost without a word.
        reader = csv.reader(_text_lines(path, file), delimiter=delimiter, strict=True)
        header: list[str] = []
        number, begins = 0, 1
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise ValueError(
                    f"{path}, line {begins}: {error}. A cell that holds quotation marks, line breaks or the delimiter "
                    "stands in quotation marks, and those within are doubled."
                ) from error
            if cells is None:
                return
            if cells and not header:
                header = cells
                repeated = sorted({name for name in header if header.count(name) > 1})
                if repeated:
                    raise ValueError(f"{path}, line {begins}: the columns {repeated} are there more than once.")
            elif cells:
                number += 1
                yield FileRow(number, begins, _table_row(header, cells))
            begins = reader.line_num + 1


def _text_lines(path: str | Path, file: BinaryIO) -> Iterator[str]:
    for number, line in enumerate(_lines(file), start=1):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}, line {number} is not UTF-8: {error}.") from error


def _table_row(header: list[str], cells: list[str]) -> Any:
    if len(cells) != len(header):
        return MalformedRow(f"not a row of the table: {len(cells)} cells under {len(header)} columns")
    try:
        return {name: _cell(name, text) for name, text in zip(header, cells)}
    except MalformedRow as reason:
        return reason


def _cell(name: str, text: str) -> Any:
    """A cell by the meaning of its column; an empty cell of a column that is not text is a missing value."""
    if name in _LIST_COLUMNS:
        try:
            return _usable(json.loads(text, parse_constant=_refuse_constant), text) if text.strip() else None
        except MalformedRow as reason:
            raise _malformed(f"not readable: the JSON in `{name}` is {reason}") from reason
        except (ValueError, RecursionError) as error:
            raise _malformed(f"not readable: `{name}` stands in a cell as JSON", error) from error
    if name not in _NUMBER_COLUMNS | _INTEGER_COLUMNS | _TRUTH_COLUMNS:
        return text
    if not text.strip():
        return None
    if name in _TRUTH_COLUMNS:
        if text.strip().lower() not in ("true", "false"):
            raise _malformed(f"not readable: `{name}` holds true, false or nothing")
        return text.strip().lower() == "true"
    if name == "preference_probability" and text.strip().lower() in ("true", "false"):
        return float(text.strip().lower() == "true")
    form = _INTEGER if name in _INTEGER_COLUMNS else _NUMBER
    if not form.fullmatch(text.strip()):
        raise _malformed(f"not readable: `{name}` holds numbers, or nothing")
    number = float(text)
    if not math.isfinite(number):
        raise _malformed(f"not readable: `{name}` holds a number beyond what a computer's can be")
    return int(text) if name in _INTEGER_COLUMNS else number
