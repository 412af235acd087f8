"""Scalar reward models as scorers: a reward for each response, log-odds by their differences."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from gpm_hf.modeling import checked_date, encode_group

from .batches import check_length, longest_sequence
from .response_scorer import ResponseScorer
from .scorer import reward_differences
from .scorer_models import load_classifier, refuse_preference_model, resolve_model
from .sequence_classifier import Row, SequenceClassifier


class RewardModelScorer(ResponseScorer):
    """
    Log-odds by a reward model, `S_ij = (r_i - r_j) / temperature`: K forward passes for K responses, asymmetry
    exactly 0.

    One rule says what a reward model reads, here and beside a policy in training: prompt and response rendered by the
    tokenizer's chat template, a prompt that is a string being one user message; where there is no template the plain
    texts are concatenated, with the tokenizer's BOS, if it writes one, and EOS at the end, as TRL's RewardTrainer
    trains them (CrossEncoder of sentence-transformers renders other roles, and is another number). With `plain_text`
    strings are read so although there is a template. The reward is what the model
    gives to that sequence alone, unpadded; see `sequence_classifier.py` for how a batch comes to the same numbers.

    Args:
        model: a Hub id or folder, also of a LoRA adapter, or a sequence classification model with one label; custom
            code from the Hub needs `trust_remote_code=True`.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): by default the one saved beside the model.
        temperature (`float`, defaults to 1): differences of rewards are divided by it.
        plain_text (`bool`, defaults to `False`): strings are read as plain text although the tokenizer has a chat
            template: what a model was trained on by TRL's RewardTrainer on rows of strings.
        text_pair (`bool`, defaults to `False`): prompt and response, both strings, are the two segments that the
            tokenizer makes of a pair of texts, as for OpenAssistant's DeBERTa reward models.
        pooling (`str`, defaults to `"model"`): `"last_token"` for a decoder of transformers whose padding id is also
            EOS, but that was trained with the reward at that last EOS; with `"model"` it would be read one earlier.
        batch_size (`int`, defaults to 16): sequences encoded at once; on it the result depends by rounding alone.
        max_length (`int`, *optional*): the most tokens the model reads; by default what its configuration and its
            tokenizer say.
        template_date (`str`, *optional*): the date, "YYYY-MM-DD", that a chat template writes which asks for today's;
            by default the one of our own models, see [`~gpm_hf.modeling.GPMConfig`].
        name (`str`, *optional*): how a table calls it.
        device (`str`, *optional*): for a model given by name, a GPU by default where there is one.
        options: for `from_pretrained` (`dtype`, `revision`, `trust_remote_code`, ...).

    Raises:
        ValueError: where the model is no reward model with one label, or lacks weights.
    """

    width = 1

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        temperature: float = 1.0,
        plain_text: bool = False,
        text_pair: bool = False,
        pooling: str = "model",
        batch_size: int = 16,
        max_length: int | None = None,
        template_date: str | None = None,
        name: str | None = None,
        device: Any = None,
        **options: Any,
    ):
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        self.model, self.tokenizer, name = resolve_model(model, tokenizer, device, options, load_reward_model, name)
        super().__init__(
            name,
            template_date=checked_date(template_date),
            needs_prompt=plain_text or text_pair,
        )
        _check_config(self.name, self.model.config)
        self.temperature = temperature
        if plain_text and text_pair:
            raise ValueError("`plain_text` reads one text and `text_pair` two segments: give one of them.")
        self.plain_text = plain_text
        self.text_pair = text_pair
        self.max_length = max_length
        if max_length is None:
            self.max_length = longest_sequence(self.model.config, self.tokenizer)
        self._classifier = SequenceClassifier(self.model, 1, batch_size, pooling)

    def encode(self, prompt: Any, responses: list) -> list[Row]:
        rows = self._encode(prompt, responses)
        for index, row in enumerate(rows):
            check_length(len(row.ids), self.max_length, f"the prompt with response {index}")
        return rows

    def count_forwards(self, encoded: list[list[Row]]) -> int:
        return len(self._classifier.parts(_flat(encoded)))

    def shard(self, prepare: Callable[[nn.Module], nn.Module]) -> None:
        """The whole model."""
        self.model = self._classifier.model = prepare(self.model)

    def matrix(self, rows: torch.Tensor) -> torch.Tensor:
        return reward_differences(rows[:, 0])

    def _rows(self, encoded: list[list[Row]], least_forwards: int) -> torch.Tensor:
        """Rewards, divided by the temperature."""
        flat = _flat(encoded)
        rewards = torch.zeros(len(flat), self.width, dtype=torch.float32)
        for numbers, logits in self._classifier.batches(flat or [Row([0])] * (least_forwards > 0), least_forwards):
            if flat:
                rewards[numbers] = logits / self.temperature
        return rewards

    def _encode(self, prompt: Any, responses: list) -> list[Row]:
        are_strings = all(isinstance(text, str) for text in (prompt, *responses))
        if not self.text_pair:
            if self.plain_text and are_strings:
                prompt, responses = None, [prompt + response for response in responses]
            group = encode_group(
                self.tokenizer, prompt, responses, template_date=self.template_date, must_differ=self.must_differ
            )
            return [Row(ids) for ids in group.sequences]
        if not are_strings:
            raise ValueError("with `text_pair` the prompt and the responses must be strings.")
        encoded = self.tokenizer([prompt] * len(responses), list(responses), return_token_type_ids=True)
        return [Row(*pair) for pair in zip(encoded["input_ids"], encoded["token_type_ids"])]


def _flat(encoded: list[list[Row]]) -> list[Row]:
    return [row for group in encoded for row in group]


def load_reward_model(name: str, **options: Any) -> Any:
    """
    A sequence classification model with one label.

    Args:
        name: a Hub id or folder of one, or of a LoRA adapter of one, which is merged.
        options: for `from_pretrained` (`dtype`, `revision`, ...); `num_labels=1` for one that does not say so itself.

    Raises:
        ValueError: another kind of model, or one without its head.
    """
    kind = "reward model with one label" if "num_labels" in options else "reward model"
    return load_classifier(name, _check_config, kind, **options)


def _check_config(name: str, config: Any) -> None:
    refuse_preference_model(name, config, "whose embeddings are no rewards")
    if config.num_labels != 1:
        raise ValueError(
            f"{name} has num_labels={config.num_labels}, and a reward model has one label. For a classifier that "
            "reads two responses at once use PairClassifierScorer; wrap one with several rewards in CallableScorer."
        )
