"""That a trainer's samples are from the policy that it trains, and its log-probabilities of the same one."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from transformers import GenerationConfig
from trl.models.utils import unwrap_model_for_generation

from gpm_hf.generation.sampling_check import SamplingRoad, find_sampling_road, position_ids, road_in_words


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
