"""Preference data as [`GPMRewardTrainer`] trains on them: every row checked and tokenised before the first step."""

from typing import Any, NamedTuple

from datasets import Dataset, IterableDataset
from transformers import PreTrainedTokenizerBase
from trl.data_utils import get_dataset_column_names
from trl.trainer.utils import global_then_local_main_first

from gpm_hf.data.columns import check_text_columns
from gpm_hf.data.judged_groups import is_grouped
from gpm_hf.data.preference import TOKEN_COLUMNS, check_columns
from gpm_hf.data.preference_rows import IDENTICAL, LEGACY_COLUMNS, preparation_version, prepare_row
from gpm_hf.modeling import GPMConfig
from gpm_hf.news import get_logger
from gpm_hf.training.reward_config import GPMRewardConfig
from gpm_hf.training.reward_groups import map_rows, prepare_groups

logger = get_logger(__name__)


class PreparedData(NamedTuple):
    """
    Preference data, tokenised.

    Attributes:
        rows: pairs or groups.
        grouped: whether they are groups.
        dropped: how many pairs of groups are left out because a response is too long.
    """

    rows: Dataset | IterableDataset
    grouped: bool
    dropped: int


def prepare_preferences(
    dataset: Dataset | IterableDataset,
    tokenizer: PreTrainedTokenizerBase,
    config: GPMConfig,
    args: GPMRewardConfig,
    name: str,
) -> PreparedData:
    """
    Checks and tokenises preference rows, see [`~gpm_hf.data.preference_rows.prepare_row`], or groups, see
    [`prepare_groups`]; those of a stream when they are read.

    Args:
        dataset: rows as texts or as token ids.
        tokenizer, config: the preference model's.
        args: the trainer's.
        name: what to call the data in messages.

    Raises:
        ValueError: data without rows or without the columns that are needed, or naming the first row that cannot be
            trained on.
    """
    streaming = isinstance(dataset, IterableDataset)
    # Plain lists and numbers, also of a data set that gives tensors or arrays.
    dataset = dataset.with_format(None)
    try:
        columns = get_dataset_column_names(dataset)
        is_empty = not streaming and len(dataset) == 0
    except StopIteration:
        is_empty = True
    if is_empty:
        raise ValueError(f"The {name} data set is empty.")
    if not set(TOKEN_COLUMNS) <= set(columns):
        legacy = {old: new for old, new in LEGACY_COLUMNS.items() if old in columns}
        dataset = dataset.rename_columns(legacy) if legacy else dataset
        columns = [legacy.get(column, column) for column in columns]
    is_regression = args.loss_type == "regression"
    check_columns(columns, config.scale_gate, is_regression, name)
    unused = {"margin"} if is_regression else {"target_score"}
    if is_grouped(columns):
        check_text_columns(dataset, f"The {name} data set")
        groups, dropped = prepare_groups(dataset, tokenizer, config, args, name, columns)
        return PreparedData(groups, True, dropped)
    if unused & set(columns):
        logger.warning(f"loss_type={args.loss_type!r} does not use the column {unused} of the {name} data.")
    check_text_columns(dataset, f"The {name} data set")
    with global_then_local_main_first():
        dataset = map_rows(prepare_row, dataset, tokenizer, config, args, name, columns, version=preparation_version())
    return PreparedData(dataset, False, 0)


def count_undecided(dataset: Dataset, loss_type: str, name: str) -> dict[str, int]:
    """
    Pairs about which nobody can be right, counted and said: `identical_pairs`, whose two responses are the same
    tokens, and `undecided_labels`, probabilities of 1/2 or targets of 0. Only what there is.
    """
    label, even = ("target_score", 0.0) if loss_type == "regression" else ("preference_probability", 0.5)

    def values(column: str) -> list[Any]:
        found = dataset[column] if column in dataset.column_names else []
        return [one for row in found for one in row] if "pairs" in dataset.column_names else list(found)

    identical = values(IDENTICAL)
    counts = {"identical_pairs": sum(identical), "undecided_labels": values(label).count(even)}
    for kind, words in (("identical_pairs", "equal responses"), ("undecided_labels", f"the label {label}={even}")):
        if counts[kind]:
            logger.warning(f"{counts[kind]} of {len(identical)} {name} rows have {words}: `accuracy` leaves them out.")
    return {kind: count for kind, count in counts.items() if count}
