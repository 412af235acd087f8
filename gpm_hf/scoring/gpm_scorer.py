"""General preference models, and our Bradley-Terry models, as scorers."""

from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils import is_peft_model
from torch import nn

from gpm_hf.modeling import EncodedGroup, GPMConfig, encode_group

from .batches import check_length
from .embedding_scorer import EmbeddingScorer
from .preference_model import load_preference_model
from .scorer_models import resolve_model


class GPMScorer(EmbeddingScorer):
    """
    Log-odds by a [`~gpm_hf.modeling.GPMForPreference`] of any dimension: K forward passes for K responses, and one
    more where the scale gate must read the prompt in a sequence of its own (a response that merges into the prompt's
    last token, the reference format). A long prompt is encoded once for its responses, which is not counted apart.
    The asymmetry is exactly 0.

    Args:
        model: a Hub id or folder of a saved model or of its LoRA adapter, or the model.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): by default the one saved beside the model.
        max_batch_tokens (`int`, *optional*): tokens encoded at once, in place of `batch_size`, see
            [`~gpm_hf.modeling.GPMForPreference.embed_groups`].
        batch_size, name, device, options: as in [`RewardModelScorer`].

    Raises:
        ValueError: where there is no general preference model.
    """

    reads_prompts_once = True

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
        self.model, self.tokenizer, name = resolve_model(
            model, tokenizer, device, options, load_preference_model, name
        )
        if self.model.config.model_type != GPMConfig.model_type:
            raise ValueError(
                f"{type(self.model).__name__} is no GPMForPreference: use RewardModelScorer for a reward model, "
                "PairClassifierScorer or PairCompletionScorer for one that reads two responses at once."
            )
        config = self.model.config
        super().__init__(name, template_date=config.template_date, needs_prompt=config.scale_gate)
        self.batch_size = batch_size
        self.max_batch_tokens = max_batch_tokens
        self.set_sizes(config.output_dim, config.scale_gate, config.tau)

    def encode(self, prompt: Any, responses: list) -> EncodedGroup:
        group = encode_group(
            self.tokenizer, prompt, responses, must_differ=self.must_differ, **self.model.config.encoding_options
        )
        longest = max(len(ids) for ids in (*group.sequences, group.prompt_ids or []))
        check_length(longest, self.model.context_length, "the prompt with a response", "")
        return group

    def count_forwards(self, encoded: list[EncodedGroup]) -> int:
        return self.model.count_forwards(encoded, self.batch_size, self.max_batch_tokens)

    def shard(self, prepare: Callable[[nn.Module], nn.Module]) -> None:
        """The backbone; the heads, a few thousand numbers, stay whole and in float32."""
        gpm = self.model.get_base_model() if is_peft_model(self.model) else self.model
        if gpm.embedding_head.weight.numel() == 0:
            raise ValueError(
                "The preference model was loaded while ZeRO-3 was active, which split its heads. Pass its path "
                "instead of the model, or load it before the training arguments are made."
            )
        gpm.model = prepare(gpm.model)

    def _rows(self, encoded: list[EncodedGroup], least_forwards: int) -> torch.Tensor:
        """Embeddings and, with a gate, the scales of their prompts."""
        found = self.model.embed_groups(encoded, self.batch_size, self.max_batch_tokens, least_forwards)
        return self.joined(found)

    def _size(self, encoded: EncodedGroup) -> int:
        return len(encoded.sequences)

    def _passes(self, encoded: EncodedGroup) -> int:
        return len(encoded.sequences) + (self.model.config.scale_gate and not encoded.prompt_is_inside)
