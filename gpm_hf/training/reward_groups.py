"""Groups as [`GPMRewardTrainer`] trains on them: made of groups of responses, or of pairs that share a prompt."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import xxhash
from datasets import Dataset, IterableDataset
from transformers import PreTrainedTokenizerBase
from trl.trainer.utils import global_then_local_main_first

from gpm_hf.data.collator import PreferenceCollator
from gpm_hf.data.group_rows import (
    GROUP_COLUMNS,
    PAIRS_LEFT_OUT,
    cut_group,
    group_of_pairs,
    group_preparation_version,
    pairs_of_group,
    prepare_group,
)
from gpm_hf.data.packed_collator import PackedPreferenceCollator
from gpm_hf.modeling import GPMConfig
from gpm_hf.news import get_logger
from gpm_hf.training.reward_config import GPMRewardConfig
from gpm_hf.training.row_means import BY_LENGTH

logger = get_logger(__name__)

# More responses than this are not put together: one prompt may be that of a whole data set.
MOST_RESPONSES = 16
# Unasked, pairs become groups where at most so much of their responses and of their tokens is left: where none
# repeats, only batches would change.
_WORTH = 0.75


def prepare_groups(
    dataset: Dataset | IterableDataset,
    tokenizer: PreTrainedTokenizerBase,
    config: GPMConfig,
    args: GPMRewardConfig,
    name: str,
    columns: list[str],
) -> tuple[Dataset | IterableDataset, int]:
    """
    Checks and tokenises groups, see [`~gpm_hf.data.group_rows.prepare_group`]; those of a stream when they are read.
    Groups without a pair are left out.

    Returns:
        The groups, and how many pairs were over `max_length` (0 for a stream, where nobody counts them).
    """
    streaming = isinstance(dataset, IterableDataset)
    rules = {
        "is_regression": args.loss_type == "regression",
        "rating_margin": args.rating_margin,
        "max_length": args.max_length,
        "version": group_preparation_version(),
    }
    with global_then_local_main_first():
        prepared = map_rows(prepare_group, dataset, tokenizer, config, args, name, columns, **rules)
        kept = prepared.filter(_has_pairs, **({} if streaming else {"num_proc": args.dataset_num_proc}))
    if streaming:
        return kept.remove_columns([PAIRS_LEFT_OUT]), 0
    dropped = sum(prepared[PAIRS_LEFT_OUT])
    if len(kept) == 0:
        raise ValueError(
            f"No group of the {name} data set has a pair: all {len(prepared)} prefer nothing, or only among responses "
            f"of more than max_length={args.max_length} tokens ({dropped} pairs)."
        )
    if dropped:
        logger.warning(
            f"{dropped} pairs of the {name} data have a response of more than max_length={args.max_length} tokens and "
            "are left out."
        )
    if len(kept) < len(prepared):
        logger.warning(f"{len(prepared) - len(kept)} of {len(prepared)} {name} groups have no pair and are left out.")
    return kept.remove_columns([PAIRS_LEFT_OUT]), dropped


def map_rows(
    prepare: Callable[..., dict[str, Any]],
    dataset: Dataset | IterableDataset,
    tokenizer: PreTrainedTokenizerBase,
    config: GPMConfig,
    args: GPMRewardConfig,
    name: str,
    columns: list[str],
    **rules: Any,
) -> Dataset | IterableDataset:
    """What `prepare` makes of each row, given its number, how the model reads texts, and the `rules`."""
    streaming = isinstance(dataset, IterableDataset)
    return dataset.map(
        prepare,
        with_indices=True,
        fn_kwargs={
            "encoding": {"tokenizer": tokenizer, **config.encoding_options, "needs_prompt": config.scale_gate},
            "vocabulary_size": config.text_config.vocab_size,
            "length_column": _length_column(args),
            **rules,
        },
        remove_columns=columns,
        **({} if streaming else {"num_proc": args.dataset_num_proc, "desc": f"Preparing {name}"}),
    )


def _has_pairs(row: dict[str, Any]) -> bool:
    return len(row["pairs"]) > 0


def _length_column(args: GPMRewardConfig) -> str | None:
    return args.length_column_name if args.train_sampling_strategy in BY_LENGTH else None


def group_pairs(dataset: Dataset, args: GPMRewardConfig, shares_prompt: bool, unasked: bool, name: str) -> Dataset:
    """
    Prepared pairs as groups, those of one prompt together, at most [`MOST_RESPONSES`] responses in each; or the pairs
    as they are, where `args.group_pairs` says so, or leaves the choice and it does not pay. What was done is said.

    Args:
        dataset: pairs, see [`~gpm_hf.data.preference_rows.prepare_row`].
        args: the trainer's.
        shares_prompt: whether a row's prompt passes the backbone once for all its responses.
        unasked: whether groups may be made where nothing was said, for the collator knows them.
        name: what to call the data in messages.
    """
    asked = True if args.pair_weight == "prompt" else args.group_pairs
    unasked = unasked and not args.train_heads_only and "prompt_ids" in dataset.column_names
    if asked is False or (asked is None and not unasked):
        return dataset
    members, weights, responses, before, after = _by_prompt(dataset, shares_prompt)
    if asked is None and (responses > _WORTH * 2 * len(dataset) or after > _WORTH * before):
        return dataset
    size = args.per_device_train_batch_size
    logger.info(
        f"{len(dataset)} {name} pairs become {len(members)} groups with {responses} distinct responses: {after} "
        f"tokens pass the backbone in an epoch, {before} one by one. A batch is {size} groups now, "
        f"{size * len(dataset) / len(members):.1f} pairs in the mean; group_pairs=False keeps pairs."
    )
    digest = xxhash.xxh3_128(repr((dataset._fingerprint, members, args.loss_type)).encode())
    with global_then_local_main_first():
        return Dataset.from_generator(
            _merged,
            gen_kwargs={
                "rows": dataset,
                "members": members,
                "weights": weights,
                "is_regression": args.loss_type == "regression",
                "length_column": _length_column(args),
            },
            fingerprint=digest.hexdigest(),
        )


def ungroup(dataset: Dataset | IterableDataset, args: GPMRewardConfig, name: str) -> Dataset | IterableDataset:
    """The pairs of prepared groups, one a row; how many there are is said, but of a stream."""
    streaming = isinstance(dataset, IterableDataset)
    with global_then_local_main_first():
        pairs = dataset.map(
            _one_by_one,
            batched=True,
            fn_kwargs={"length_column": _length_column(args), "version": group_preparation_version()},
            # By name, because of a stream nobody knows the columns before its first row.
            remove_columns=list(GROUP_COLUMNS),
            **({} if streaming else {"num_proc": args.dataset_num_proc, "desc": f"Taking {name} groups apart"}),
        )
    if isinstance(dataset, Dataset) and isinstance(pairs, Dataset):
        logger.info(f"{len(dataset)} {name} groups become {len(pairs)} pairs, as group_pairs=False says.")
    return pairs


def _one_by_one(batch: dict[str, list[Any]], length_column: str | None, version: str) -> dict[str, list[Any]]:
    groups = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    pairs = [pair for group in groups for pair in pairs_of_group(group, length_column)]
    return {name: [pair[name] for pair in pairs] for name in pairs[0]}


def _by_prompt(dataset: Dataset, shares_prompt: bool) -> tuple[list[list[int]], list[float], int, int, int]:
    """
    Rows by prompt, for each such group 1 over the number of its prompt's pairs, the number of distinct responses, and
    the tokens of all rows and of all groups.
    """
    members: list[list[int]] = []
    keys: list[bytes] = []
    pairs: Counter[bytes] = Counter()
    open_groups: dict[bytes, tuple[int, set[bytes]]] = {}
    counts: Counter[str] = Counter()
    for number, row in enumerate(dataset):
        prompt = row.get("prompt_ids")
        key = str(number).encode() if prompt is None else _digest(prompt)
        pairs[key] += 1
        sides = {_digest(row[side]): len(row[side]) for side in ("chosen_ids", "rejected_ids")}
        once = len(prompt) if prompt is not None and shares_prompt else 0
        counts["before"] += once + sum(len(row[side]) - once for side in ("chosen_ids", "rejected_ids"))
        group, known = open_groups.get(key, (-1, set()))
        if group < 0 or len(known | sides.keys()) > MOST_RESPONSES:
            group, known = len(members), set()
            members.append([])
            keys.append(key)
            open_groups[key] = (group, known)
            counts["after"] += once
        members[group].append(number)
        new = sides.keys() - known
        counts["responses"] += len(new)
        counts["after"] += sum(sides[side] - once for side in new)
        known |= new
    return members, [1 / pairs[key] for key in keys], counts["responses"], counts["before"], counts["after"]


def _digest(ids: list[int]) -> bytes:
    return xxhash.xxh3_128_digest(np.asarray(ids, dtype=np.int64).tobytes())


def _merged(
    rows: Dataset, members: list[list[int]], weights: list[float], is_regression: bool, length_column: str | None
) -> Iterator[dict[str, Any]]:
    for numbers, weight in zip(members, weights, strict=True):
        group = group_of_pairs([rows[number] for number in numbers], is_regression, length_column)
        yield group | {"pair_weight": weight}


def count_groups(dataset: Dataset) -> dict[str, int]:
    """How many groups, pairs and distinct responses there are, by readable name."""
    return {
        "training groups": len(dataset),
        "training pairs": sum(map(len, dataset["pairs"])),
        "distinct responses": sum(map(len, dataset["sequence_ids"])),
    }


def cut_groups(
    dataset: Dataset, most_tokens: int, collator: PreferenceCollator | PackedPreferenceCollator, name: str
) -> Dataset:
    """Groups of at most so many tokens, see [`~gpm_hf.data.group_rows.cut_group`]; how many were cut is said."""

    def parts(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        group = {column: values[0] for column, values in batch.items()}
        found = list(cut_group(group, collator.shape_of(group), most_tokens, collator.tokens_of))
        return {column: [part[column] for part in found] for column in batch}

    with global_then_local_main_first():
        cut = dataset.map(parts, batched=True, batch_size=1, desc=f"Cutting {name} groups")
    if len(cut) > len(dataset):
        logger.info(
            f"{len(dataset)} {name} groups are cut into {len(cut)} parts of at most "
            f"max_tokens_per_batch={most_tokens} tokens, which keep every pair."
        )
    return cut
