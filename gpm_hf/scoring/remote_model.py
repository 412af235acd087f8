"""A served preference model for what calls the model itself."""

from typing import Any

import torch

from gpm_hf.modeling import at_prompt, rounding_bound

from .remote_scorer import RemoteScorer
from .scorer import read_groups


class RemoteModel:
    """
    The methods of [`~gpm_hf.modeling.GPMForPreference`] that score texts, by a server. How much is encoded at once is
    the server's affair: `batch_size` and `max_batch_tokens` mean nothing here.

    Args:
        scorer: connected to the server.
    """

    def __init__(self, scorer: RemoteScorer):
        self.scorer = scorer
        self.config = scorer.settings
        self.device = torch.device("cpu")
        self.dtype: torch.dtype = getattr(torch, scorer.settings.dtype)

    @property
    def rounding_bound(self) -> float | None:
        """As [`~gpm_hf.modeling.GPMForPreference.rounding_bound`]."""
        return rounding_bound(self.config, self.dtype)

    def preference_scores(self, tokenizer: Any, prompts: Any, responses: list, *_: Any, **batch: int) -> Any:
        """
        As [`~gpm_hf.modeling.GPMForPreference.preference_scores`]: of one prompt, text or messages, a matrix of shape
        (K, K); of a list of prompts as many.
        """
        if isinstance(prompts, str):
            return self.scorer([prompts], [responses])[0]
        return self.scorer(prompts, responses)

    def embed(self, tokenizer: Any, prompt: Any, responses: list, batch_size: int = 16) -> tuple[Any, Any]:
        """As [`~gpm_hf.modeling.GPMForPreference.embed`]."""
        prompts, groups = read_groups([prompt], [responses], self.scorer.needs_prompt)
        with at_prompt(0):
            rows = self.scorer.rows([self.scorer.encode(prompts[0], groups[0])])
        size = self.config.embedding_size
        return rows[:, :size], rows[0, size:] if self.config.scale_gate else None
