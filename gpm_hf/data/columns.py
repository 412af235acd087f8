"""Rows that Python holds as a data set whose columns have the types that are written, none that was guessed."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, Features, IterableDataset, Json, LargeList, List, Value
from datasets.exceptions import DatasetGenerationError
from datasets.utils.json import ujson_loads

from gpm_hf.data.files import file_rows
from gpm_hf.data.groups import named_responses
from gpm_hf.data.preference import LABEL_COLUMNS
from gpm_hf.data.preference_rows import read_label
from gpm_hf.data.text import text_problem

_TEXT_COLUMNS = ("prompt", "chosen", "rejected", "completion", "responses", "opponent_responses")
_ROLES = {"prompt": "user", "chosen": "assistant", "rejected": "assistant", "completion": "assistant"}
# Part of the name under which a file's rows are kept: raise it when the same file shall become other rows.
_VERSION = 1


def dataset_of_rows(rows: Iterable[Mapping[str, Any]]) -> Dataset:
    """
    A data set in memory. Unlike `Dataset.from_list` it has every column that any of the rows has, and chat messages
    get no keys that they do not have.
    """
    kept = [dict(row) for row in rows]
    table = _Table()
    for row in kept:
        table.add(row)
    features = table.features
    columns = {name: [table.value(row, name) for row in kept] for name in features}
    return Dataset.from_dict(columns, features=features)


def dataset_of_files(paths: list[str]) -> Dataset:
    """
    A data set of the rows of text files, see [`gpm_hf.data.files`]. It is kept in the cache of `datasets` under the
    content of the files, and read from there in constant memory.

    Raises:
        ValueError: no rows; what is no row, or has a number or a date where text belongs, naming file and place.
    """
    table, digest = _Table(), hashlib.sha256(f"{_VERSION} {datasets.__version__}".encode())
    for _, row in _rows_of(paths):
        table.add(row)
    if not table.kinds:
        raise ValueError(f"{', '.join(paths)}: there are no rows.")
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        digest.update(Path(path).suffix.encode())
    try:
        return Dataset.from_generator(
            _generate,
            features=table.features,
            gen_kwargs={"paths": tuple(paths), "table": table},
            fingerprint=digest.hexdigest(),
        )
    except DatasetGenerationError as error:
        # The rows' own error is the one that helps.
        raise error.__cause__ or error from None


def stream_of_files(paths: list[str]) -> IterableDataset:
    """
    As [`dataset_of_files`], row by row as they are asked for. The columns are those of the first row.

    Raises:
        ValueError: no rows. When rows are read also what they raise there, and a row with a column that matters and
            that the first row lacks.
    """
    first = next(_rows_of(paths), None)
    if first is None:
        raise ValueError(f"{', '.join(paths)}: there are no rows.")
    return IterableDataset.from_generator(_stream, gen_kwargs={"paths": paths, "columns": tuple(first[1])})


def dataset_of_generator(
    generate: Callable[..., Iterator[Mapping[str, Any]]], arguments: dict[str, Any], digest: Any
) -> Dataset:
    """
    A data set of the rows that a function gives, in constant memory, with the types of [`dataset_of_rows`]. It is kept
    in the cache of `datasets`.

    Args:
        generate: gives the rows, the same each time.
        arguments: its own.
        digest: of hashlib, of all that decides the rows.
    """
    table = _Table()
    for row in generate(**arguments):
        table.add(row)
    digest.update(f"{_VERSION} {datasets.__version__}".encode())
    return Dataset.from_generator(
        _typed,
        features=table.features,
        gen_kwargs={"generate": generate, "arguments": arguments, "table": table},
        fingerprint=digest.hexdigest(),
    )


def _typed(generate: Callable, arguments: dict[str, Any], table: "_Table") -> Iterator[dict[str, Any]]:
    for row in generate(**arguments):
        yield {name: table.value(row, name) for name in table.features}


def _generate(paths: tuple[str, ...], table: "_Table") -> Iterator[dict[str, Any]]:
    as_json = [name for name, feature in table.features.items() if _holds_json(feature)]
    for place, row in _rows_of(paths):
        values = {name: table.value(row, name) for name in table.features}
        for name in as_json:
            if ujson_loads(json.dumps(values[name])) != values[name]:
                raise ValueError(
                    f"{place}: `{name}` holds a number that `datasets` would change when it keeps the row, for rows "
                    "differ in their keys there. Write it as text, or load the file as a stream."
                )
        yield values


def _stream(paths: list[str], columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    known = {*_TEXT_COLUMNS, *LABEL_COLUMNS}
    for place, row in _rows_of(paths):
        if late := sorted(known & row.keys() - set(columns)):
            raise ValueError(
                f"{place} has {late}, which the first row lacks, and a stream has the columns of its first row: give "
                "them there, null where there is nothing, or load the file whole."
            )
        yield {name: row.get(name) for name in columns}


def _rows_of(paths: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of files with the names of their places; a `ValueError` for what is no row or no text."""
    for path in paths:
        for found in file_rows(path):
            row = found.checked(path)
            place = f"{path}, {found.place}"
            if row.get("responses") is not None:
                try:
                    texts, names = named_responses(row["responses"])
                except ValueError as error:
                    raise ValueError(f"{place}: {error}") from error
                if names is not None:
                    row = {"names": names} | row
                row = row | {"responses": texts}
            _check_types(row, place)
            # A single message stands for a list of one.
            yield place, row | {name: [row[name]] for name in _ROLES if isinstance(row.get(name), dict)}


def _check_types(row: Mapping[str, Any], place: str) -> None:
    """Raises `ValueError` where a row has something else than text in a text column, or than numbers as a label."""
    for name in _TEXT_COLUMNS:
        value = row.get(name)
        if value is not None and (problem := text_problem(value)):
            raise ValueError(f"{place}: `{name}` {problem}. Write it as a string.")
    for name in LABEL_COLUMNS:
        value = row.get(name)
        if value is not None:
            try:
                read_label(value, name)
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from error


# --- types -----------------------------------------------------------------------------------------------------------


class _Mixed(Exception):
    """Values of several kinds in one place, which no column's type can hold."""


@dataclass
class _Kind:
    """What values were met in one place of the rows."""

    kinds: set[str] = field(default_factory=set)
    item: "_Kind | None" = None
    keys: tuple[str, ...] | None = None
    same_keys: bool = True
    fields: dict[str, "_Kind"] = field(default_factory=dict)

    def add(self, value: Any) -> None:
        if value is None:
            return
        self.kinds.add(_kind_of(value))
        if isinstance(value, Mapping):
            self.same_keys &= self.keys is None or self.keys == tuple(value)
            self.keys = tuple(value)
            for key, inner in value.items():
                self.fields.setdefault(key, _Kind()).add(inner)
        elif isinstance(value, (list, tuple)):
            self.item = self.item or _Kind()
            for inner in value:
                self.item.add(inner)

    def feature(self) -> Any:
        """
        The type of these values.

        Raises:
            _Mixed: there is none. As JSON would do for lists and dictionaries, but of a string nobody could tell then
                whether it is one or what it says.
        """
        if not self.kinds:
            return Value("null")
        if self.kinds == {"list"} and self.item is not None:
            try:
                return List(self.item.feature())
            except _Mixed:
                return Json()
        if self.kinds == {"dict"}:
            try:
                # A table would give every dictionary the keys of all, which chat templates can see.
                return {key: kind.feature() for key, kind in self.fields.items()} if self.same_keys else Json()
            except _Mixed:
                return Json()
        if self.kinds == {"float", "int"} or (len(self.kinds) == 1 and self.kinds <= _SIMPLE.keys()):
            return Value(_SIMPLE[min(self.kinds)])
        raise _Mixed


_SIMPLE = {"str": "string", "bool": "bool", "int": "int64", "float": "float64"}


def _kind_of(value: Any) -> str:
    for kind, types in (("dict", Mapping), ("list", (list, tuple)), ("str", str), ("bool", bool), ("float", float)):
        if isinstance(value, types):
            return kind
    return "int" if isinstance(value, int) and -(2**63) <= value < 2**63 else "other"


class _Table:
    """The columns of rows."""

    def __init__(self) -> None:
        self.kinds: dict[str, _Kind] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Takes note of a row's columns; all rows are added before the types are asked for."""
        for name, value in row.items():
            self.kinds.setdefault(name, _Kind()).add(value)

    @cached_property
    def features(self) -> Features:
        return Features({name: self._feature(name) for name in self.kinds})

    def _feature(self, name: str) -> Any:
        kind = self.kinds[name]
        if name in LABEL_COLUMNS:
            return Value("float64")
        if name in _TEXT_COLUMNS and not kind.kinds:
            return Value("string")
        if self._is_both(name):
            return List(Json())
        try:
            return kind.feature()
        except _Mixed:
            return Value("string")

    def _is_both(self, name: str) -> bool:
        """Whether a column has texts in some rows and chat messages in others."""
        return name in _ROLES and self.kinds[name].kinds == {"str", "list"}

    def value(self, row: Mapping[str, Any], name: str) -> Any:
        """What stands in a column, in the column's one type."""
        value = row.get(name)
        if value is None:
            return None
        if name in LABEL_COLUMNS:
            return read_label(value, name)
        if isinstance(value, str):
            # As the encoding takes them: beside chat messages a text is one message.
            return [{"role": _ROLES[name], "content": value}] if self._is_both(name) else value
        if self.features[name] == Value("string"):
            # A column without one type, which nothing here reads but a choice of rows by their columns.
            return json.dumps(value, ensure_ascii=False, default=str)
        return value


def _holds_json(feature: Any) -> bool:
    if isinstance(feature, Mapping):
        return any(map(_holds_json, feature.values()))
    return _holds_json(feature.feature) if isinstance(feature, List) else isinstance(feature, Json)


# --- what has types already ------------------------------------------------------------------------------------------


def check_text_columns(rows: Any, name: str) -> None:
    """
    Raises `ValueError` where a data set has numbers, dates or the like in a text column, naming its first such row.
    Where types do not tell, as in a stream without any, each row is looked at when it is encoded.

    Args:
        rows: a [`~datasets.Dataset`] or a stream.
        name: what to call it.
    """
    wrong = [
        column for column in _TEXT_COLUMNS if column in (rows.features or ()) and not _is_text(rows.features[column])
    ]
    if not wrong:
        return
    for number, row in enumerate(rows.select_columns(wrong), start=1):
        for column in wrong:
            found = row[column]
            texts = list(found.values()) if isinstance(found, Mapping) else found
            if texts is not None and (problem := text_problem(texts)):
                raise ValueError(f"{name}, row {number}: `{column}` {problem}. Write that column as text.")


def _is_text(feature: Any) -> bool:
    """Whether a type can hold text alone, in texts, chat messages and lists of them."""
    if isinstance(feature, (List, LargeList)):
        return _is_text(feature.feature)
    if isinstance(feature, Mapping):
        return all(_is_text(inner) for key, inner in feature.items() if key == "content" or "content" not in feature)
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string", "string_view", "null")
