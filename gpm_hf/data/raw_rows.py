"""Rows of a benchmark as they lie in a file or on the Hub, each with a name to blame, and what became of them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from gpm_hf.data.files import FileRow, MalformedRow, file_rows, form_of
from gpm_hf.data.splits import is_local, load_splits, split_of

__all__ = ["MalformedRow", "ReadReport", "read_kept", "read_rows", "read_sure_rows"]

# Benchmarks whose data sets have several splits, of which one is the benchmark.
_BENCHMARK_SPLITS = {"allenai/reward-bench": "filtered", "allenai/reward-bench-2": "test"}


@dataclass
class ReadReport:
    """
    What became of the rows of a file.

    Attributes:
        source: the file or data set.
        rows: rows read.
        kept: rows of the source that are evaluated.
        skipped: by reason, the names of the rows that are not ("row 3 (id 17)").
    """

    source: str
    rows: int = 0
    kept: int = 0
    skipped: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, reason: str, name: str) -> None:
        """Counts a row that is left out."""
        self.skipped.setdefault(reason, []).append(name)

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.kept} of {self.rows} rows are evaluated."]
        for reason, names in sorted(self.skipped.items()):
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            lines.append(f"Left out: {len(names)} ({reason}): {shown}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"source": self.source, "rows": self.rows, "kept": self.kept, "skipped": dict(self.skipped)}


def read_rows(source: str, split: str | None = None, config: str | None = None) -> Iterator[tuple[str, Any]]:
    """
    Reads rows without asking what they hold.

    Args:
        source: a local file (`.jsonl`; `.json` with a list of rows or one row a line; `.csv`, `.tsv`, each also with
            `.gz`; `.parquet`) or a data set of the Hub. What stands in a file of text is read as it stands there, see
            [`gpm_hf.data.files`].
        split: of a Hub data set; `None` takes the benchmark's own (`filtered` of `allenai/reward-bench`, `test` of
            `allenai/reward-bench-2`) or the only one there is.
        config: the Hub data set's configuration.

    Yields:
        The row's name for messages, "row 3 (id 17)", counted from 1, and the row: a `dict`, or a [`MalformedRow`] for
        what is none.

    Raises:
        FileNotFoundError: a file that is not there.
        ValueError: a split that is not there, or several of which none was named; a file of a form that is not read.
    """
    for found in _source_rows(source, split, config, {}):
        yield _row_name(found), found.value


def read_sure_rows(source: str, split: str | None = None, config: str | None = None) -> Iterator[tuple[str, dict]]:
    """
    As [`read_rows`], in constant memory, where every row is needed.

    Yields:
        Where the row stands, for messages, "rows.jsonl, line 3", and the row.

    Raises:
        ValueError: also for what is no row.
    """
    for found in _source_rows(source, split, config, {"streaming": True}):
        yield f"{source}, {found.place}", found.checked(source)


def read_kept(
    source: str, split: str | None, config: str | None, read: Callable[[Any, str], list[dict[str, Any]]]
) -> tuple[list[dict[str, Any]], ReadReport]:
    """
    The rows of a benchmark that can be evaluated; the others are counted.

    Args:
        source, split, config: as in [`read_rows`].
        read: from a row and its name to what becomes of it; raises a [`MalformedRow`] for one that is left out.

    Raises:
        FileNotFoundError: a file that is not there.
        ValueError: nothing left.
    """
    report, kept = ReadReport(source), []
    for name, row in read_rows(source, split, config):
        report.rows += 1
        try:
            if isinstance(row, MalformedRow):
                raise row
            kept += read(row, name)
        except MalformedRow as reason:
            report.skip(str(reason), name)
        else:
            report.kept += 1
    if not report.kept:
        raise ValueError(f"Nothing is left to evaluate. {report}")
    return kept, report


def _source_rows(source: str, split: str | None, config: str | None, options: dict[str, Any]) -> Iterator[FileRow]:
    if is_local(source, config) and form_of(source) != "parquet":
        if split not in (None, "train"):
            raise ValueError(f"{source} is one file, which has no split {split!r} but 'train'.")
        yield from file_rows(source)
        return
    splits = load_splits(source, config, **options)
    rows = split_of(splits, split or _only_split(source, list(splits)))
    for number, row in enumerate(rows, start=1):
        yield FileRow(number, None, _out_of_table(row))


def _out_of_table(row: dict[str, Any]) -> dict[str, Any]:
    """The row as in a file of text: in a table NaN is a missing number, and a mapping has the keys of all rows."""
    row = {name: _without_nan(value) for name, value in row.items()}
    if isinstance(row.get("responses"), dict):
        row["responses"] = {name: text for name, text in row["responses"].items() if text is not None}
    return row


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _only_split(source: str, splits: list[str]) -> str:
    if source in _BENCHMARK_SPLITS:
        return _BENCHMARK_SPLITS[source]
    if len(splits) > 1:
        raise ValueError(f"{source} has the splits {splits}: name one.")
    return splits[0]


def _row_name(found: FileRow) -> str:
    details = [] if found.line in (None, found.number) else [f"line {found.line}"]
    if isinstance(found.value, dict):
        known = [found.value[name] for name in ("id", "pair_id") if found.value.get(name) is not None]
        details += [f"id {known[0]}"] if known else []
    return f"row {found.number}" + (f" ({', '.join(details)})" if details else "")
