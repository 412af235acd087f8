"""
Calling a sequence classification model so that its logits depend on what else is in the batch by rounding alone.

transformers' own classes on decoders read the logits at the rightmost token that differs from the configuration's
`pad_token_id`. The tokenizer's padding id may be another, and then they read the padding; with none in the
configuration they refuse batches; and where that id is also EOS, a sequence that really ends with EOS is read one
token earlier. So sequences are padded here by the configuration's own id, or, where the last token is wanted, by an id
with which no sequence of the batch ends. Code from the Hub may pool in any way at all: its batches hold sequences of
one length.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, NamedTuple

import torch

from gpm_hf.modeling import evaluation_mode, input_device

from .batches import attention_mask, batches_by_length, pad_right

POOLING = ("model", "last_token")
# The padding id is the model's, and threads share it.
_PADDING_LOCK = Lock()


class Row(NamedTuple):
    """One sequence: token ids and, where two segments are told apart, the segment of each token."""

    ids: list[int]
    token_types: list[int] | None = None


class SequenceClassifier:
    """
    A sequence classification model with batches of its own making.

    Args:
        model (`PreTrainedModel`): `model(input_ids, attention_mask).logits` has the shape (rows, labels) or (rows,).
        num_labels (`int`): how many labels the logits must have.
        batch_size (`int`): the most sequences encoded at once.
        pooling (`str`): `"model"`: the logits of a sequence are those that the model gives to it alone, unpadded,
            as its author's code would. `"last_token"`: for a decoder whose `pad_token_id` is also EOS, but that was
            trained with the logits at the last token; for transformers' own classes only.
    """

    def __init__(self, model: Any, num_labels: int, batch_size: int, pooling: str = "model"):
        if pooling not in POOLING:
            raise ValueError(f"pooling must be one of {POOLING}, got {pooling!r}.")
        self.model = model
        self.num_labels = num_labels
        self.batch_size = batch_size
        # A wrapper (PEFT, a compiled model) counts as foreign code: slower, and right.
        self._is_own_class = type(model).__module__.startswith("transformers.models.")
        if pooling == "last_token" and not self._is_own_class:
            raise ValueError(
                f'pooling="last_token" sets the padding id that transformers\' own classes look for; '
                f"{type(model).__module__}.{type(model).__name__} pools as its own code says: leave it out."
            )
        self._text_config = model.config.get_text_config()
        self._by_last_token = pooling == "last_token"

    def parts(self, rows: Sequence[Row]) -> list[list[int]]:
        """Row numbers of the batches that [`~SequenceClassifier.batches`] makes."""
        size = self.batch_size
        if not self._is_own_class and self._text_config.pad_token_id is None:
            # Its code cannot tell where a sequence ends, so there must be one only.
            size = min(size, 1)
        return list(batches_by_length([len(row.ids) for row in rows], size, equal=not self._is_own_class))

    @torch.no_grad()
    def batches(self, rows: Sequence[Row], least_forwards: int = 0) -> Iterator[tuple[list[int], torch.Tensor]]:
        """
        The logits, batch by batch: row numbers, and a float32 tensor of shape (those rows, labels) on the CPU.

        Args:
            rows: at least one where `least_forwards` is more than 0.
            least_forwards: repeat the last batch up to this number of forwards. The processes of a sharded model must
                all run as many.

        Raises:
            ValueError: where the logits have another shape than they should.
        """
        parts = self.parts(rows)
        for numbers in (*parts, *parts[-1:] * (least_forwards - len(parts))):
            ids = [rows[number].ids for number in numbers]
            with self._padding(ids) as pad, evaluation_mode(self.model):
                inputs = {"input_ids": pad_right(ids, pad), "attention_mask": attention_mask(ids)}
                types = [rows[number].token_types for number in numbers]
                if types[0] is not None:
                    inputs["token_type_ids"] = pad_right([own for own in types if own is not None], 0)
                device = input_device(self.model)
                output = self.model(**{name: value.to(device) for name, value in inputs.items()})
            yield numbers, self._logits(output, len(numbers))

    def _logits(self, output: Any, size: int) -> torch.Tensor:
        try:
            logits = output.logits
        except AttributeError as error:
            raise ValueError(
                f"{type(self.model).__name__} returned a {type(output).__name__} without `logits`. Wrap the model in "
                "a function and use CallableScorer."
            ) from error
        if logits.shape == (size,):
            logits = logits[:, None]
        if logits.shape != (size, self.num_labels):
            raise ValueError(
                f"{type(self.model).__name__} returned logits of shape {tuple(logits.shape)} for {size} sequences and "
                f"{self.num_labels} label(s). Wrap the model in a function and use CallableScorer."
            )
        return logits.float().cpu()

    def _can_be_padded_by(self, token: int | None) -> bool:
        # Old configurations say -1 for none.
        return token is not None and 0 <= token < self.model.get_input_embeddings().num_embeddings

    @contextmanager
    def _padding(self, ids: list[list[int]]) -> Iterator[int]:
        """The id to pad a batch with, which meanwhile is the one that the model looks for."""
        if not self._is_own_class:
            # Nothing is padded, and nothing of the model is touched.
            yield 0
            return
        with _PADDING_LOCK:
            configured = self._text_config.pad_token_id
            if not self._can_be_padded_by(configured) or self._by_last_token:
                last = {row[-1] for row in ids}
                free = next(token for token in range(len(last) + 1) if token not in last)
                self._text_config.pad_token_id = free
                try:
                    yield free
                finally:
                    self._text_config.pad_token_id = configured
                return
        yield configured
