"""
Sequences of token ids cut into batches of like length, longest first: little is spent on padding, and a batch that
does not fit into memory fails at once. Padding is always on the right, where neither a decoder's positions nor its
causal attention meet it, whatever side the tokenizer is set to.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import PretrainedConfig
from transformers.tokenization_utils_base import LARGE_INTEGER

# The remedy where a limit was read off the model and its tokenizer.
MORE_IS_READ = "; if the model does read more, say so by `max_length`"


def batches_by_length(lengths: Sequence[int], batch_size: int, equal: bool = False) -> Iterator[list[int]]:
    """
    Row numbers in batches, longest rows first.

    Args:
        lengths: one per row.
        batch_size: the most rows of a batch.
        equal: whether the rows of a batch must be of one length, so that nothing is padded.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and (len(batch) == batch_size or (equal and lengths[row] != lengths[batch[0]])):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def pad_right(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """A tensor of shape (rows, longest row), padded on the right."""
    tensor = torch.full((len(rows), max(len(row) for row in rows)), value, dtype=torch.long)
    for index, row in enumerate(rows):
        tensor[index, : len(row)] = torch.tensor(row)
    return tensor


def attention_mask(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """1 where [`pad_right`] has a token, 0 where it has padding."""
    return pad_right([[1] * len(row) for row in rows], 0)


def longest_sequence(config: PretrainedConfig, tokenizer: Any) -> int | None:
    """
    The most tokens that a model reads: the smaller of what its positions and its tokenizer say, `None` where neither
    says anything. The tokenizer is asked as well, because RoBERTa's last positions cannot be used.
    """
    # Some models (ALiBi, state spaces) have no such limit, and then not the attribute either.
    limits = [getattr(config.get_text_config(), "max_position_embeddings", None), tokenizer.model_max_length]
    # DeBERTa's configurations say -1, or 0, for none.
    known = [limit for limit in limits if limit is not None and 0 < limit < LARGE_INTEGER]
    return min(known) if known else None


def check_length(length: int, limit: int | None, what: str, remedy: str = MORE_IS_READ) -> None:
    """Raises `ValueError` for a sequence over the limit; `what` names it."""
    if limit is not None and length > limit:
        raise ValueError(
            f"{what} has {length} tokens, more than the {limit} that the model reads. Leave it out or shorten it "
            f"(nothing is truncated here){remedy}."
        )
