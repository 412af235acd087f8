"""General preference models, and our Bradley-Terry models, as scorers."""

from typing import Any

import torch

from gpm_hf.modeling import EncodedGroup, GPMConfig, at_prompt, encode_group, preference_matrix

from .batches import check_length
from .preference_model import load_preference_model
from .scorer import ScorerBase, name_of
from .scorer_models import resolve_model


class GPMScorer(ScorerBase):
    """
    Log-odds by a [`~gpm_hf.modeling.GPMForPreference`] of any dimension: K forward passes for K responses, and one
    more where the scale gate must read the prompt in a sequence of its own (a response that merges into the prompt's
    last token, the reference format). A long prompt is encoded once for its responses, which is not counted apart.
    The asymmetry is exactly 0.

    Args:
        model: a Hub id or folder of a saved model or of its LoRA adapter, or the model.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): by default the one saved beside the model.
        batch_size (`int`, defaults to 16): sequences encoded at once; on it the result depends by rounding alone.
        max_batch_tokens (`int`, *optional*): tokens encoded at once, in place of `batch_size`, see
            [`~gpm_hf.modeling.GPMForPreference.embed_groups`].
        name (`str`, *optional*): how a table calls it.
        device (`str`, *optional*): for a model given by name, a GPU by default where there is one.
        options: for `from_pretrained` (`dtype`, `revision`, ...).

    Raises:
        ValueError: where there is no general preference model.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        batch_size: int = 16,
        max_batch_tokens: int | None = None,
        name: str | None = None,
        device: Any = None,
        **options: Any,
    ):
        self.model, self.tokenizer, path = resolve_model(model, tokenizer, device, options, load_preference_model)
        if self.model.config.model_type != GPMConfig.model_type:
            raise ValueError(
                f"{type(self.model).__name__} is no GPMForPreference: use RewardModelScorer for a reward model, "
                "PairClassifierScorer or PairCompletionScorer for one that reads two responses at once."
            )
        config = self.model.config
        super().__init__(
            name_of(self.model, name or path), template_date=config.template_date, needs_prompt=config.scale_gate
        )
        self.batch_size = batch_size
        self.max_batch_tokens = max_batch_tokens

    def _encode_groups(self, prompts: list, groups: list[list]) -> list[EncodedGroup]:
        encoded = []
        for number, (prompt, responses) in enumerate(zip(prompts, groups)):
            with at_prompt(number):
                group = encode_group(self.tokenizer, prompt, responses, **self.model.config.encoding_options)
                longest = max(len(ids) for ids in (*group.sequences, group.prompt_ids or []))
                check_length(longest, self.model.context_length, "the prompt with a response", "")
            encoded.append(group)
        return encoded

    def _score(self, prompts: list, groups: list[list]) -> list[tuple[torch.Tensor, int]]:
        encoded = self._encode_groups(prompts, groups)
        embedded = self.model.embed_groups(encoded, self.batch_size, self.max_batch_tokens)
        config = self.model.config
        results = []
        for number, (group, (embeddings, scales)) in enumerate(zip(encoded, embedded)):
            with at_prompt(number):
                matrix = preference_matrix(embeddings, scales, config.tau)
            results.append((matrix, len(group.sequences) + (config.scale_gate and not group.prompt_is_inside)))
        return results
