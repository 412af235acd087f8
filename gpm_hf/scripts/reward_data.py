"""The data of the reward script: in any form, several with shares, and what is held out by prompt."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, IterableDataset
from trl import DatasetMixtureConfig, ScriptArguments

from gpm_hf.data.conversion import parse_columns
from gpm_hf.data.forms import FormOptions
from gpm_hf.data.mixtures import mix
from gpm_hf.data.overlap import hold_out, overlap
from gpm_hf.data.splits import load_preference_dataset, split_of
from gpm_hf.errors import UsageError
from gpm_hf.options import choice, described


@described
@dataclass
class DataArguments(ScriptArguments):
    """
    TRL's script arguments, a choice of rows, and how rows are read.

    Args:
        dataset_keep: COLUMN=VALUE: use only the rows whose column has this value.
        dataset_aspects: Of rows of UltraFeedback's form: whose ratings count (their mean), separated by commas. All if
            None.
        columns: Names of columns, as prompt=instruction,chosen=good,rejected=bad; others are not read.
        dataset_form: The form of the data, as `gpm-hf data convert --help` lists them.
        dataset_label: Of PKU-SafeRLHF: which label.
        dataset_ties: Ties in votes: as the probability 1/2, or left out.
    """

    dataset_keep: str | None = None
    dataset_aspects: str | None = None
    columns: str | None = None
    dataset_form: str | None = None
    dataset_label: str = choice("better", "safer", default="better")
    dataset_ties: str = choice("keep", "drop", default="keep")


def load_data(
    script_args: DataArguments,
    mixture: DatasetMixtureConfig,
    evaluates: bool,
    seed: int,
    say: Callable[[str], None],
) -> tuple[Dataset | IterableDataset, Dataset | IterableDataset | None]:
    """
    What is trained on, and what is held out: the prompts of `test_split_size`, or else the split for tests where there
    is one.

    Args:
        script_args, mixture: of the command line; `mixture.datasets` take the place of `dataset_name`.
        evaluates: whether an evaluation is asked for, so that its split has to be there.
        seed: of the prompts to hold out.
        say: is told what was read, kept and left out.

    Raises:
        ValueError: no data set or two ways to name one, and what the data are refused for.
    """
    if mixture.datasets and script_args.dataset_name:
        raise UsageError("--dataset_name and `datasets` both name the data: keep one of them.")
    aspects = tuple(one.strip() for one in (script_args.dataset_aspects or "").split(",") if one.strip())
    reading: dict[str, Any] = {
        "form": script_args.dataset_form,
        "options": FormOptions(script_args.dataset_label, script_args.dataset_ties, aspects or None),
        "report": say,
    }
    test = None
    if mixture.datasets:
        train = _mixture(mixture, reading)
        if evaluates and mixture.test_split_size is None:
            raise UsageError("--eval_strategy evaluates, and a mixture has no test split: give --test_split_size.")
    elif script_args.dataset_name is None:
        raise UsageError("--dataset_name is needed: a data set of the Hub, or a local .jsonl file.")
    else:
        splits = load_preference_dataset(
            script_args.dataset_name,
            script_args.dataset_config,
            keep=script_args.dataset_keep,
            streaming=script_args.dataset_streaming or mixture.streaming,
            columns=parse_columns(script_args.columns),
            **reading,
        )
        train = split_of(splits, script_args.dataset_train_split)
        if mixture.test_split_size is None and (evaluates or script_args.dataset_test_split in splits):
            if script_args.dataset_test_split not in splits:
                raise ValueError(
                    f"The data set has the splits {list(splits)}, not {script_args.dataset_test_split!r}: hold out "
                    "prompts by --test_split_size 0.1, or name a split by --dataset_test_split."
                )
            test = split_of(splits, script_args.dataset_test_split)
    if mixture.test_split_size is not None:
        if isinstance(train, IterableDataset):
            raise UsageError("--test_split_size needs to know all prompts, and those of a stream nobody knows.")
        train, test = hold_out(train, mixture.test_split_size, seed)
        say(f"Held out by prompt: {len(test)} of {len(train) + len(test)} rows.")
    if isinstance(train, Dataset) and isinstance(test, Dataset):
        say(str(overlap(train, test)))
    return train, test


def _mixture(mixture: DatasetMixtureConfig, reading: dict[str, Any]) -> Dataset:
    if mixture.streaming:
        raise ValueError("A mixture is read whole: leave `streaming` out.")
    parts = []
    for one in mixture.datasets:
        if one.data_dir or one.data_files:
            raise ValueError(f"datasets: {one.path}: name a file, a folder or a Hub data set by `path` alone.")
        # TRL's list of columns to keep, or a mapping of names here.
        columns = dict(one.columns) if isinstance(one.columns, dict) else {name: name for name in one.columns or ()}
        splits = load_preference_dataset(one.path, one.name, columns=columns, **reading)
        parts.append(split_of(splits, one.split))
    return mix(parts, [one.fraction for one in mixture.datasets], [one.path for one in mixture.datasets])
