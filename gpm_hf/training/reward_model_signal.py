"""
A sequence classification reward model beside a policy in training. It reads what it reads everywhere in this package,
see [`~gpm_hf.scoring.RewardModelScorer`]: TRL's own road to a reward model leaves out the BOS and EOS that its
RewardTrainer has trained plain text with.
"""

from typing import Any

import torch
from accelerate.utils import DistributedType, gather
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from trl.models import prepare_deepspeed, prepare_fsdp

from gpm_hf.modeling import is_empty
from gpm_hf.scoring import RewardModelScorer
from gpm_hf.scoring.scorer import reward_differences


class RewardModelSignal:
    """
    Rewards, and their differences as log-odds, by a reward model.

    Args:
        scorer ([`~gpm_hf.scoring.RewardModelScorer`]): the model is used in evaluation mode, its parameters frozen.
            Call [`~RewardModelSignal.prepare`] before the first use.
    """

    def __init__(self, scorer: RewardModelScorer):
        self.scorer = scorer
        self.scorer.model.eval().requires_grad_(False)
        self.name = (scorer.model.config.name_or_path or type(scorer.model).__name__).rstrip("/").split("/")[-1]
        self.device: Any = None

    def prepare(self, accelerator: Any) -> None:
        """Places the model for inference beside a policy in training; ZeRO-3 and FSDP shard it."""
        model = self.scorer.model
        # A model placed by its loader (quantised, or with a device map) is where it has to be.
        if model.device.type != accelerator.device.type:
            model.to(accelerator.device)
        if accelerator.distributed_type == DistributedType.DEEPSPEED and is_deepspeed_zero3_enabled():
            self.scorer.place(prepare_deepspeed(model, accelerator))
        elif accelerator.distributed_type == DistributedType.FSDP:
            self.scorer.place(prepare_fsdp(model, accelerator))
        self.device = accelerator.device

    def rewards(self, prompts: list, completions: list) -> torch.Tensor:
        """
        Rewards of the n completions of this process, divided by the scorer's temperature. All processes call this
        together.

        Returns:
            `torch.Tensor` of shape (n,): NaN for a completion without text.

        Raises:
            ValueError: a reward that is not finite, or a sequence that is too long; the message names the prompt by
                its number.
        """
        rewards = torch.full((len(prompts),), torch.nan)
        scorable = [row for row, completion in enumerate(completions) if not is_empty(completion)]
        rows = self.scorer.encode([prompts[row] for row in scorable], [[completions[row]] for row in scorable])
        # Sharded weights are collected by all processes at every forward, so all must run as many.
        forwards = int(gather(torch.tensor([self.scorer.forwards(rows)], device=self.device)).max())
        rewards[scorable] = self.scorer.rewards(rows, forwards) / self.scorer.temperature
        broken = [row for row in scorable if not bool(rewards[row].isfinite())]
        if broken:
            raise ValueError(
                f"{self.name} gave the reward {rewards[broken[0]]} for a completion of the prompt "
                f"{str(prompts[broken[0]])[:200]!r}. Its weights contain NaN or infinity, or its states overflow in "
                f"{self.scorer.model.dtype}: check the checkpoint, or load it in float32."
            )
        return rewards.to(self.device)

    def reward_function(self) -> Any:
        """The model as one of TRL's reward functions, in whose logs its name stands."""

        def rewards(prompts: list, completions: list, **columns: Any) -> list[float | None]:
            return [None if value != value else value for value in self.rewards(prompts, completions).tolist()]

        rewards.__name__ = self.name
        return rewards

    def __call__(self, prompts: list, completions: list, groups: list[list[int]]) -> list[torch.Tensor]:
        """As [`~gpm_hf.training.preference_signal.GPMSignal`]: differences of rewards."""
        rewards = gather(self.rewards(prompts, completions))
        # The rows and columns of what has no reward are NaN, the diagonal too.
        return [reward_differences(rewards[group]) for group in groups]
