"""That a trainer's samples are from the policy that it trains, and its log-probabilities of the same one."""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from transformers import GenerationConfig
from trl.models.utils import unwrap_model_for_generation

from gpm_hf.generation.sampling_check import (
    SamplingRoad,
    find_sampling_road,
    position_ids,
    road_in_words,
    rounding_bound,
)
from gpm_hf.training.vllm_engine import check_room, computing_dtype, engine_dtype

# Standard deviation of a language model's logits over the vocabulary, of which roundings are a share.
_SPREAD = 3.0


class SamplingGuard:
    """
    Looks, before a trainer's model generates, whether `generate` samples from it, see
    [`~gpm_hf.generation.find_sampling_road`]. Where it does so without a cache alone, generation goes on without one.

    A new adapter often changes nothing yet, and then all roads agree: the look is repeated at the second generation,
    the fourth, the eighth and so on.

    Args:
        trainer: TRL's; its precision and processes are used.
        tokenizer: the policy's.
        players: each gives a context with a model that is ready to generate.
        settings: by which they generate; where a cache does harm, `use_cache` is switched off in them. `None` if
            something else than transformers generates: then only the reading of padded rows is looked at.
    """

    def __init__(
        self,
        trainer: Any,
        tokenizer: Any,
        players: list[Callable[[], AbstractContextManager]],
        settings: GenerationConfig | None,
    ):
        self.trainer = trainer
        self.tokenizer = tokenizer
        self.players = players
        self.settings = settings
        self.road = SamplingRoad()
        self._generations = 0
        self._said: set[str] = set()

    def look(self) -> None:
        """
        To be called before each generation, by all processes together.

        Raises:
            ValueError: a model from which `generate` does not sample.
        """
        self._generations += 1
        if self._generations & (self._generations - 1):
            return
        roads = [self._road(player) for player in self.players]
        self.road = SamplingRoad(
            use_cache=all(road.use_cache for road in roads),
            padding=all(road.padding for road in roads),
            positions=any(road.positions for road in roads),
        )
        if self.settings is not None and not self.road.use_cache:
            self.settings.use_cache = False

    def check_lengths(self, prompt_ids: list[list[int]]) -> None:
        """Raises `ValueError` for prompts that would be padded, for a model that says something else then."""
        lengths = {len(ids) for ids in prompt_ids}
        if not self.road.padding and len(lengths) > 1:
            raise ValueError(
                f"This batch has prompts of {min(lengths)} to {max(lengths)} tokens, and the policy says something "
                "else when its prompt is padded, because its virtual tokens stand before the padding. Take another "
                "kind of adapter, such as LoRA, or have each process sample one prompt at a time "
                "(`per_device_train_batch_size` and `generation_batch_size` as large as `num_generations`, and "
                "`win_rate_prompts` at most the number of processes)."
            )
        if self.trainer.use_vllm:
            check_room(self.trainer, prompt_ids)

    def compare(self, output: dict[str, Any]) -> None:
        """
        To be called with what TRL made of each generation, by all processes together: looks whether the
        log-probabilities that vLLM gave with its samples are the policy's, up to rounding and to what truncated
        sampling adds to them. It costs nothing: TRL reads both. Where it does not, a warning says so, once.

        Raises:
            ValueError: vLLM samples from something else than the policy.
        """
        args, accelerator = self.trainer.args, self.trainer.accelerator
        if self.settings is not None or self.trainer.rollout_func is not None:
            return
        if unread := self._not_compared(output):
            if accelerator.is_main_process and unread not in self._said:
                warnings.warn(f"What is sampled is not compared with the policy, because {unread}.", stacklevel=4)
            self._said.add(unread)
            return
        mask = output["completion_mask"] * output.get("tool_mask", 1)
        truncates = args.top_k > 0 or bool(args.min_p)
        found = log_prob_difference(
            output["sampling_per_token_logps"],
            output["old_per_token_logps"],
            mask.bool(),
            math.inf if truncates else -math.log(args.top_p),
        )
        difference = accelerator.gather(found[None]).max().item()
        bound = _SPREAD * max(
            rounding_bound(engine_dtype(self.trainer)), rounding_bound(computing_dtype(args, self.trainer.model))
        )
        if not difference <= bound:
            raise ValueError(
                f"vLLM samples from something else than the policy: its log-probabilities of its samples' tokens "
                f"differ from the policy's by {difference:.2g} nats (root mean square), and up to {bound:g} is "
                "rounding. Take another version of vLLM, or other options of its engine; a server must have been "
                "started with this policy."
            )

    def _not_compared(self, output: dict[str, Any]) -> str | None:
        args = self.trainer.args
        if not self.trainer.use_vllm:
            return "transformers' continuous batching gives no log-probabilities"
        if "old_per_token_logps" not in output:
            return "`vllm_importance_sampling_correction` is off and the policy moves once a generation"
        if args.repetition_penalty != 1 or args.generation_kwargs or args.vllm_structured_outputs_regex:
            return "repetition_penalty, generation_kwargs or vllm_structured_outputs_regex shape what is sampled"
        return None

    def reader(self, model: Any) -> Any:
        """A model as what reads rows that are padded on the left: told the positions, where it needs that."""
        if not self.road.positions:
            return model
        return lambda **inputs: model(**inputs, position_ids=position_ids(inputs["attention_mask"]))

    def _road(self, player: Callable[[], AbstractContextManager]) -> SamplingRoad:
        accelerator = self.trainer.accelerator

        def largest(value: float) -> float:
            return accelerator.gather(torch.tensor([value], device=accelerator.device)).max().item()

        with player() as model:
            types = {"bf16": torch.bfloat16, "fp16": torch.float16}
            # Autocast computes in it on one road and not on the other.
            dtype = types.get(accelerator.mixed_precision) if model.dtype == torch.float32 else None
            road = find_sampling_road(model, self.tokenizer, self.settings, dtype, largest)
            for said in road_in_words(model, road):
                if accelerator.is_main_process and said not in self._said:
                    warnings.warn(said, stacklevel=4)
                self._said.add(said)
        return road


def log_prob_difference(
    sampled: torch.Tensor, own: torch.Tensor, mask: torch.Tensor, truncation: float
) -> torch.Tensor:
    """
    How far log-probabilities of sampled tokens, as an engine gave them, are from the policy's own: the root mean
    square in nats. Sampling from a part of the vocabulary raises them all by -log of that part's probability.

    Args:
        sampled, own: shape (B, length).
        mask: which tokens count; NaN of the engine's counts nowhere.
        truncation: how much they may be raised, such as -log(top_p); infinity where nobody knows.

    Returns:
        A scalar, 0 for no tokens.
    """
    difference = (sampled - own)[mask & ~sampled.isnan()].double()
    difference = difference - difference.clamp(0, truncation)
    return difference.square().mean().sqrt() if len(difference) else difference.new_zeros(())


@contextmanager
def unwrapped_for_generation(trainer: Any, model: Any) -> Iterator[Any]:
    """A model of which the trainer may hold a part only, ready to generate."""
    with (
        unwrap_model_for_generation(
            model,
            trainer.accelerator,
            gather_deepspeed3_params=trainer.args.ds3_gather_for_generation,
            gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
        ) as unwrapped,
        trainer._dist.summon_full_params(model, recurse=False),
    ):
        yield unwrapped
