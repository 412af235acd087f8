"""Data of any known form, or with columns of other names, as the pairs or groups that are trained on."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset

from gpm_hf.data import forms, outcomes, transcripts
from gpm_hf.data.columns import dataset_of_generator
from gpm_hf.data.files import MalformedRow
from gpm_hf.data.forms import Form, FormOptions, form_named, form_of_rows
from gpm_hf.errors import UsageError

# What a mapping may name: the columns that some form reads by a name of its own choice.
_TARGETS = (
    *("prompt", "chosen", "rejected", "responses", "response_a", "response_b", "winner"),
    *("ranking", "ratings", "preferences", "preference_matrix", "target_scores", "ring"),
    *("preference_probability", "margin", "target_score", "score_chosen", "score_rejected"),
)


@dataclass
class ConversionReport:
    """
    What became of the rows of a data set.

    Attributes:
        source: the file or data set.
        form: how its rows were read.
        rows: read.
        kept: rows that came out, pairs or groups.
        ties: of them, pairs about which the label says 1/2.
        mapping: the columns that were renamed, by their new names.
        unused: columns that say nothing of the preference and were left behind.
        left_out: by reason, the numbers of the rows, from 1.
    """

    source: str
    form: Form
    rows: int = 0
    kept: int = 0
    ties: int = 0
    mapping: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    left_out: dict[str, list[int]] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.rows} rows read as `{self.form.name}`: {self.form.columns}."]
        if self.mapping:
            told = ", ".join(f"{new} is {old}" for new, old in self.mapping.items())
            lines.append(f"Columns: {told}.")
        lines.append(f"Kept: {self.kept}" + (f", {self.ties} of them ties (probability 1/2)." if self.ties else "."))
        for reason, numbers in sorted(self.left_out.items()):
            shown = ", ".join(map(str, numbers[:3])) + (", ..." if len(numbers) > 3 else "")
            lines.append(f"Left out: {len(numbers)} ({reason}): row {shown}")
        if self.unused:
            lines.append(f"Columns that were not used: {', '.join(self.unused)}.")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "form": self.form.name}

    def check_not_empty(self) -> None:
        """Raises `ValueError` where no row is left."""
        if not self.kept:
            raise ValueError(f"No row is left. {self}")


def parse_columns(text: str | None) -> dict[str, str]:
    """
    A mapping of columns as it is typed, "prompt=instruction,chosen=good,rejected=bad".

    Raises:
        UsageError: what does not read like that, or names a column that no form has.
    """
    mapping: dict[str, str] = {}
    for one in (text or "").split(","):
        if not one.strip():
            continue
        new, separator, old = (part.strip() for part in one.partition("="))
        if not separator or not old or new in mapping:
            raise UsageError(f"--columns {text!r}: write NEW=COLUMN,..., each once, as in prompt=instruction.")
        if new not in _TARGETS:
            raise UsageError(f"--columns: {new!r} is no column that is read; there are {', '.join(_TARGETS)}.")
        mapping[new] = old
    return mapping


def rename_columns(rows: Any, mapping: Mapping[str, str], columns: list[str], source: str) -> Any:
    """
    A data set with the mapped columns alone, under their new names.

    Raises:
        ValueError: a column that is not there.
    """
    absent = sorted(set(mapping.values()) - set(columns))
    if absent:
        raise ValueError(f"{source} has no column {', '.join(absent)}: its columns are {', '.join(columns)}.")
    if len(set(mapping.values())) < len(mapping):
        raise ValueError("--columns names one column of the data twice.")
    kept = rows.select_columns(sorted(set(mapping.values())))
    return kept.rename_columns({old: new for new, old in mapping.items() if old != new})


def convert(
    rows: Dataset,
    source: str,
    columns: list[str],
    form: str | None = None,
    mapping: Mapping[str, str] | None = None,
    options: FormOptions | None = None,
) -> tuple[Dataset, ConversionReport]:
    """
    Reads a data set in its form. The result is kept in the cache of `datasets`, as rows of files are.

    Args:
        rows: as [`~gpm_hf.data.splits.load_splits`] loads them.
        source: what to call them.
        columns: theirs.
        form: the name of a form, see [`gpm_hf.data.forms`]; by default as the columns tell.
        mapping: new names of columns, by which all others are left behind.
        options: what the form leaves open.

    Returns:
        Pairs or groups, and the report.

    Raises:
        ValueError: a form that is unknown or not told by the columns, a mapping of columns that are not there, or no
            row that can be used.
    """
    options, mapping = options or FormOptions(), dict(mapping or {})
    found, rows = _read_as(rows, source, columns, form, mapping)
    report = ConversionReport(source, found, mapping=mapping)
    known: set[str] = set()
    for number, row in enumerate(rows, start=1):
        report.rows += 1
        try:
            kept = found.read(row, number - 1, options)
        except MalformedRow as reason:
            report.left_out.setdefault(str(reason), []).append(number)
            continue
        report.kept += 1
        report.ties += kept.get("preference_probability") == 0.5
        known |= kept.keys()
    report.check_not_empty()
    if found.is_trained_on:
        report.unused = sorted(set(rows.column_names) - known)
    digest = hashlib.sha256(
        json.dumps([rows._fingerprint, found.name, asdict(options), _version()], sort_keys=True).encode()
    )
    return dataset_of_generator(_kept, {"rows": rows, "form": found.name, "options": options}, digest), report


def convert_stream(
    rows: IterableDataset,
    source: str,
    columns: list[str],
    form: str | None = None,
    mapping: Mapping[str, str] | None = None,
    options: FormOptions | None = None,
) -> IterableDataset:
    """As [`convert`], row by row as they are asked for; what cannot be used is left out uncounted."""
    found, rows = _read_as(rows, source, columns, form, dict(mapping or {}))
    return IterableDataset.from_generator(
        _kept, gen_kwargs={"rows": rows, "form": found.name, "options": options or FormOptions()}
    )


def _read_as(
    rows: Any, source: str, columns: list[str], form: str | None, mapping: dict[str, str]
) -> tuple[Form, Any]:
    rows = rows.with_format(None)
    if mapping:
        rows, columns = rename_columns(rows, mapping, columns, source), list(mapping)
    try:
        found = form_named(form) if form else form_of_rows(columns, next(iter(rows)))
    except UsageError:
        raise
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    except StopIteration:
        raise ValueError(f"{source}: there are no rows.") from None
    return found, rows


def _kept(rows: Any, form: str, options: FormOptions) -> Iterator[dict[str, Any]]:
    found = form_named(form)
    for number, row in enumerate(rows):
        try:
            yield found.read(row, number, options)
        except MalformedRow:
            continue


def _version() -> str:
    """A digest of what decides what a row becomes."""
    files = (__file__, forms.__file__, outcomes.__file__, transcripts.__file__)
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()
