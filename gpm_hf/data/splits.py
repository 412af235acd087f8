"""Preference data sets by Hub name or local file."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, IterableDatasetDict, load_dataset, load_dataset_builder

from gpm_hf.data.columns import check_text_columns, dataset_of_files, stream_of_files
from gpm_hf.data.files import form_of
from gpm_hf.data.forms import FormOptions, is_read_as_is, told_form
from gpm_hf.data.judged_groups import is_grouped, read_judged_group
from gpm_hf.data.rated_groups import is_rated, rated_group
from gpm_hf.data.rings import ring_to_pairs

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def load_splits(
    name: str, config: str | None = None, keep: str | None = None, streaming: bool = False
) -> DatasetDict | IterableDatasetDict:
    """
    Loads a data set by name or from a file. Text columns hold the characters that stand in the file, see
    [`gpm_hf.data.files`]; a data set that has types already (of the Hub, `.parquet`) has to hold text there.

    Args:
        name: a data set of the Hub, a folder as `load_dataset` takes it, or one local file (`.jsonl`, `.json`, `.csv`,
            `.tsv`, each also with `.gz`, or `.parquet`), which becomes the split "train".
        config: the configuration of a Hub data set or folder; "" is none.
        keep: `"COLUMN=VALUE"`: only rows whose column has this value (as text) are kept.
        streaming: load as a stream.

    Raises:
        FileNotFoundError: a path to a file that is not there.
        ValueError: a file of a form that is not read, without rows, or with what is no row, naming it; a `config` of a
            file; a number or a date where text belongs; a `keep` that is not understood or leaves nothing.
    """
    splits = _load(name, config, streaming)
    if keep is None:
        return splits
    column, separator, value = keep.partition("=")
    for split, rows in splits.items():
        columns = column_names(rows)
        if not separator or column not in columns:
            raise ValueError(f"{keep!r} should read COLUMN=VALUE with a column of the data, one of {columns}.")
        splits[split] = rows.filter(lambda row: str(row[column]) == value)
        if not streaming and len(splits[split]) == 0:
            raise ValueError(f"No row of the split {split!r} has {keep}; {len(rows)} rows were read.")
    return splits


def is_local(name: str, config: str | None = None) -> bool:
    """
    Whether a name is that of one local file, and not of a folder or a Hub data set.

    Raises:
        FileNotFoundError: a file that is not there, or a path to nothing.
        ValueError: a file of a form that is not read, or one with a `config`.
    """
    path = Path(name)
    if path.is_dir():
        return False
    if form_of(name) is None:
        if not _HUB_ID.fullmatch(name):
            raise FileNotFoundError(f"There is no data file or folder {name}, and a Hub data set has no such name.")
        return False
    if not path.is_file():
        raise FileNotFoundError(f"There is no data file {name}: No such file or directory.")
    if config:
        raise ValueError(
            f"{name} is one file, which has no configuration {config!r}: leave it out, or give an empty one where a "
            "recipe names it."
        )
    return True


def _load(name: str, config: str | None, streaming: bool) -> DatasetDict | IterableDatasetDict:
    whole: Any = IterableDatasetDict if streaming else DatasetDict
    read = stream_of_files if streaming else dataset_of_files
    if is_local(name, config):
        if form_of(name) != "parquet":
            return whole({"train": read([name])})
        splits = load_dataset("parquet", data_files=name, streaming=streaming)
        if next(iter(splits["train"]), None) is None:
            raise ValueError(f"{name}: there are no rows.")
    else:
        files = load_dataset_builder(name, config or None).config.data_files if Path(name).is_dir() else None
        if files and all(form_of(path) in ("json", "csv", "tsv") for paths in files.values() for path in paths):
            return whole({str(split): read(list(paths)) for split, paths in files.items()})
        splits = load_dataset(name, config or None, streaming=streaming)
    for split, rows in splits.items():
        check_text_columns(rows, f"{name}, split {split!r}" if len(splits) > 1 else name)
    return splits


def column_names(rows: Any) -> list[str]:
    """A data set's columns; a stream that does not know them is asked for its first row."""
    return list(rows.column_names or next(iter(rows), {}))


def load_preference_dataset(
    name: str,
    config: str | None = None,
    keep: str | None = None,
    streaming: bool = False,
    form: str | None = None,
    columns: Mapping[str, str] | None = None,
    options: FormOptions | None = None,
    report: Callable[[str], None] | None = None,
) -> DatasetDict | IterableDatasetDict:
    """
    Loads preference data, see [`load_splits`] for the first arguments: pairs, or groups of responses that say who
    beats whom (see [`gpm_hf.data.judged_groups`]), as they are, and data of any form of [`gpm_hf.data.forms`], which
    are converted to these. Groups are checked, those of a stream when they are read. A file of rings becomes one row
    per pair, each once, however many rings share it; rows of UltraFeedback's form become groups.

    Args:
        form: a form's name, where the columns do not tell it.
        columns: other names of columns, see [`~gpm_hf.data.conversion.convert`].
        options: what a form leaves open.
        report: is told what was read and what became of it.

    Raises:
        ValueError: also for columns of no known form, and for rows with `responses` that say nothing or say it badly,
            naming the first.
    """
    from gpm_hf.data.conversion import convert, convert_stream, rename_columns

    splits = load_splits(name, config, keep, streaming)
    for split, rows in splits.items():
        place = f"{name}, split {split!r}" if len(splits) > 1 else name
        names = column_names(rows)
        if options is not None and options.aspects and not is_rated(columns or names):
            raise ValueError(f"{name} has no `instruction` and `completions` with ratings by aspect, but {names}.")
        if form is None and not columns and is_rated(names):
            # Strictly, each row: what cannot be used may be most of a group.
            aspects = options.aspects if options else None
            _say_form(rows, place, report)
            rows = rows.map(rated_group, with_indices=True, fn_kwargs={"aspects": aspects}, remove_columns=names)
        elif form is not None or not is_read_as_is(columns or names, next(iter(rows), {})):
            if streaming:
                rows = convert_stream(rows, place, names, form, columns, options)
            else:
                rows, told = convert(rows, place, names, form, columns, options)
                if report:
                    report(str(told))
        else:
            if columns:
                rows = rename_columns(rows, columns, names, place)
            _say_form(rows, place, report)
        splits[split] = rows
        if is_grouped(column_names(rows)) and not streaming:
            only_rings = True
            for number, row in enumerate(rows):
                try:
                    read_judged_group(row)
                except ValueError as error:
                    raise ValueError(f"{name}, row {number}: {error}") from error
                only_rings &= row.get("ring") is True
            if only_rings:
                splits[split] = ring_to_pairs(rows)
    return splits


def _say_form(rows: Any, place: str, report: Callable[[str], None] | None) -> None:
    """What was read of rows that are converted one by one, or not at all; of a stream nobody knows how many."""
    form = told_form(column_names(rows), next(iter(rows), {}))
    if report and form and isinstance(rows, Dataset):
        report(f"{place}: {len(rows)} rows read as `{form.name}`: {form.columns}.")


def split_of(splits: DatasetDict | IterableDatasetDict, name: str) -> Any:
    """One split by its name; a `ValueError` names those there are."""
    if name not in splits:
        raise ValueError(f"The data set has the splits {list(splits)}, not {name!r}.")
    return splits[name]
