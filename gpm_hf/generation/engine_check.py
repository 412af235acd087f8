"""That an engine such as vLLM, which has its own code for each architecture, computes the policy that it was given."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from gpm_hf.modeling import evaluation_mode, input_device

from .prompts import context_length
from .sampling_check import PROBE_LENGTH, PROBE_TEXT, rounding_bound

NEW_TOKENS = 4


@dataclass(frozen=True)
class PolicyReading:
    """
    What a policy says by its own forward, kept after it has made room for an engine.

    Attributes:
        dtype: of its weights.
        context_length: the most tokens of prompt and answer, where the configuration says it.
        generation_config: the policy's, which may name further ids that end an answer.
        ids: T token ids: a text, and the policy's most probable tokens after it but for the last of `NEW_TOKENS`.
        text_length: how many of them are the text's.
        log_probs: (T, vocabulary), of the token after each, at temperature 1.
    """

    dtype: torch.dtype
    context_length: int | None
    generation_config: GenerationConfig | None
    ids: list[int]
    text_length: int
    log_probs: torch.Tensor

    def difference(self, tokens: Sequence[int], log_probs: Sequence[float]) -> float:
        """
        How far an engine is from the policy, as a share of the spread of the policy's logits (root mean squares over
        tokens), see [`rounding_bound`] for what is rounding.

        Args:
            tokens: what the engine read and then drew as the most probable: `ids` from the second on, and further
                tokens. From the first on that the policy does not draw nothing is compared: two tokens of almost the
                same probability may change places.
            log_probs: the engine's natural logarithms of these, at temperature 1.
        """
        found = []
        for place, (token, log_prob) in enumerate(zip(tokens, log_probs)):
            found.append(log_prob - float(self.log_probs[place, token]))
            if place + 1 < len(self.ids) and token != self.ids[place + 1]:
                break
        spread = self.log_probs[: len(found)].std(-1).square().mean().sqrt()
        return float(torch.tensor(found).square().mean().sqrt() / spread)

    def bound(self, dtype: torch.dtype | None) -> float:
        """The largest difference that is rounding, for an engine that computes in `dtype` (`None`: quantised)."""
        return max(rounding_bound(self.dtype), rounding_bound(dtype))


@torch.no_grad()
def read_policy(model: Any, tokenizer: Any) -> PolicyReading:
    """
    Args:
        model (`PreTrainedModel`): the policy, where it shall compute.
        tokenizer (`PreTrainedTokenizerBase`): the policy's.

    Returns:
        [`PolicyReading`]
    """
    ids = tokenizer(PROBE_TEXT)["input_ids"][:PROBE_LENGTH]
    text_length = len(ids)
    with evaluation_mode(model):
        for _ in range(NEW_TOKENS):
            row = torch.tensor([ids], device=input_device(model))
            logits = model(input_ids=row, attention_mask=torch.ones_like(row), use_cache=False).logits[0]
            log_probs = logits.float().cpu().log_softmax(-1)
            ids = [*ids, int(log_probs[-1].argmax())]
    return PolicyReading(
        model.dtype, context_length(model.config), model.generation_config, ids[:-1], text_length, log_probs
    )
