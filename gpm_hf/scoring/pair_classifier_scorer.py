"""Classifiers that read two responses at once (PairRM, Jiang et al. 2023, https://arxiv.org/abs/2306.02561)."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch

from .batches import longest_sequence
from .pair_scorer import PairScorer
from .pair_text import check_template, fill_template
from .scorer_models import load_classifier, refuse_preference_model, resolve_model
from .sequence_classifier import Row, SequenceClassifier

PAIRRM_TEMPLATE = "<|source|>{prompt}<|candidate1|>{a}<|candidate2|>{b}"


class PairClassifierScorer(PairScorer):
    """
    Log-odds by a sequence classification model on a text that holds the prompt and two responses.

    With one label its logit is the log-odds that the first response is better; with two, the difference of their
    logits.

    Args:
        model: a Hub id or folder, or a sequence classification model; custom code from the Hub needs
            `trust_remote_code=True`.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): by default the one saved beside the model. It adds its
            special tokens around the text.
        template (`str`, defaults to PairRM's): the text, with the fields {prompt}, {a} and {b}. Chat messages become
            the content of a single message, or a paragraph "role: content" for each of several.
        a_label (`int`, defaults to 0): with two labels, the one that says that the first response is better.
        both_orders (`bool`, defaults to `True`): K(K-1) forward passes, or K(K-1)/2 with the earlier response first.
        average (`bool`, defaults to `True`): with both orders, (s_ij - s_ji) / 2; else the matrix as the model
            gave it.
        pooling, batch_size, max_length, name, device, options: as in [`RewardModelScorer`]. (DeBERTa's positions are
            relative, so PairRM reads 2048 tokens.)

    Raises:
        ValueError: a model with another number of labels, one that lacks weights, a template without a field.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        template: str = PAIRRM_TEMPLATE,
        a_label: int = 0,
        both_orders: bool = True,
        average: bool = True,
        pooling: str = "model",
        batch_size: int = 16,
        max_length: int | None = None,
        name: str | None = None,
        device: Any = None,
        **options: Any,
    ):
        check_template(template)
        load = partial(load_classifier, check_config=_check_config, kind="pair classifier")
        self.model, self.tokenizer, name = resolve_model(model, tokenizer, device, options, load, name)
        _check_config(name, self.model.config)
        labels = self.model.config.num_labels
        if not 0 <= a_label < labels:
            raise ValueError(f"a_label={a_label}, but {name} has {labels} label(s), counted from 0.")
        limit = longest_sequence(self.model.config, self.tokenizer) if max_length is None else max_length
        super().__init__(name, both_orders, average, limit)
        self.template = template
        self.a_label = a_label
        self._classifier = SequenceClassifier(self.model, labels, batch_size, pooling)

    def _encode(self, prompt: str, a: str, b: str) -> list[int]:
        return self.tokenizer(fill_template(self.template, prompt, a, b))["input_ids"]

    def _batches(self, rows: Sequence[list[int]]) -> Iterator[tuple[list[int], torch.Tensor]]:
        for numbers, logits in self._classifier.batches([Row(ids) for ids in rows]):
            if logits.shape[1] == 1:
                yield numbers, logits[:, 0]
            else:
                yield numbers, logits[:, self.a_label] - logits[:, 1 - self.a_label]


def _check_config(name: str, config: Any) -> None:
    refuse_preference_model(name, config, "which reads one response at a time")
    if config.num_labels not in (1, 2):
        raise ValueError(f"{name} has num_labels={config.num_labels}; a classifier of pairs has one label or two.")
