"""Preference data as [`GPMRewardTrainer`] trains on them: every row checked and tokenised before the first step."""

from typing import Any

from accelerate.logging import get_logger
from datasets import Dataset, IterableDataset
from transformers import PreTrainedTokenizerBase
from trl.data_utils import get_dataset_column_names
from trl.trainer.utils import global_then_local_main_first

from gpm_hf.data.columns import check_text_columns
from gpm_hf.data.preference import TOKEN_COLUMNS, check_columns
from gpm_hf.data.preference_rows import IDENTICAL, LEGACY_COLUMNS, preparation_version, prepare_row
from gpm_hf.modeling import GPMConfig
from gpm_hf.training.reward_config import GPMRewardConfig
from gpm_hf.training.row_means import BY_LENGTH

logger = get_logger(__name__)


def prepare_preferences(
    dataset: Dataset | IterableDataset,
    tokenizer: PreTrainedTokenizerBase,
    config: GPMConfig,
    args: GPMRewardConfig,
    name: str,
) -> Dataset | IterableDataset:
    """
    Checks and tokenises preference rows, see [`~gpm_hf.data.preference_rows.prepare_row`]; those of a stream when they
    are read.

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
    if unused & set(columns):
        logger.warning(f"loss_type={args.loss_type!r} does not use the column {unused} of the {name} data.")
    check_text_columns(dataset, f"The {name} data set")
    options: dict[str, Any] = {} if streaming else {"num_proc": args.dataset_num_proc, "desc": f"Preparing {name}"}
    with global_then_local_main_first():
        return dataset.map(
            prepare_row,
            with_indices=True,
            fn_kwargs={
                "encoding": {
                    "tokenizer": tokenizer,
                    **config.encoding_options,
                    "needs_prompt": config.scale_gate,
                },
                "vocabulary_size": config.text_config.vocab_size,
                "version": preparation_version(),
                "length_column": args.length_column_name if args.train_sampling_strategy in BY_LENGTH else None,
            },
            remove_columns=columns,
            **options,
        )


def count_undecided(dataset: Dataset, loss_type: str, name: str) -> dict[str, int]:
    """
    Pairs about which nobody can be right, counted and said: `identical_pairs`, whose two responses are the same
    tokens, and `undecided_labels`, probabilities of 1/2 or targets of 0. Only what there is.
    """
    label, even = ("target_score", 0.0) if loss_type == "regression" else ("preference_probability", 0.5)
    counts = {"identical_pairs": sum(dataset[IDENTICAL])}
    counts["undecided_labels"] = dataset[label].count(even) if label in dataset.column_names else 0
    for kind, words in (("identical_pairs", "equal responses"), ("undecided_labels", f"the label {label}={even}")):
        if counts[kind]:
            logger.warning(f"{counts[kind]} of {len(dataset)} {name} rows have {words}: `accuracy` leaves them out.")
    return {kind: count for kind, count in counts.items() if count}
