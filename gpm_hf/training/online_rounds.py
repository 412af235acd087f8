"""What [`OnlineGPOTrainer`] settles before TRL's own set-up: whom it asks, and whether its rounds can be filled."""

import inspect
import warnings
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import nn
from transformers import TrainerCallback
from typing_extensions import override

from gpm_hf.scoring import Scorer


def as_list(value):
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def describe_sources(preference_model, reward_funcs):
    """Who prefers, for the card: Hub ids, names of folders and of functions."""

    def name_of(source):
        if isinstance(source, str):
            kind, colon, name = source.rpartition(":")
            return kind + colon + (Path(name).name if Path(name).exists() else name)
        if isinstance(source, Scorer):
            return name_of(source.name)
        if isinstance(source, nn.Module):
            config: Any = source.config
            return name_of(config.name_or_path) or type(source).__name__
        return source.__name__ if inspect.isfunction(source) else type(source).__name__

    sources = [preference_model] if preference_model is not None else []
    return ", ".join(f"`{name_of(source)}`" for source in [*sources, *reward_funcs])


def check_number_of_prompts(dataset, args):
    """TRL drops incomplete batches: with too few prompts it would train for no step at all."""
    needed = args.generation_batch_size // args.num_generations
    # A streamed data set has no length, and no data set at all is for GRPO to judge.
    if isinstance(dataset, Dataset) and len(dataset) < needed:
        raise ValueError(
            f"The training set has {len(dataset)} prompts, but one generation needs {needed} (generation_batch_size "
            f"{args.generation_batch_size} / num_generations {args.num_generations}), so no step would be taken. "
            "Lower `per_device_train_batch_size`, `steps_per_generation` or `gradient_accumulation_steps`, raise "
            "`num_generations`, or add prompts."
        )


class SaveStepsCheck(TrainerCallback):
    """A generation is not part of a checkpoint, so it pays to write one where a new generation is due."""

    @override
    def on_train_begin(self, args, state, control, **kwargs):
        generate_every = args.num_iterations * args.steps_per_generation
        accumulated = args.gradient_accumulation_steps
        if args.save_strategy == "steps" and state.save_steps * accumulated % generate_every:
            warnings.warn(
                f"save_steps={state.save_steps} is not a multiple of the {generate_every}/{accumulated} optimizer "
                "steps that one generation is used for (num_iterations * steps_per_generation / "
                "gradient_accumulation_steps): a run resumed from such a checkpoint generates anew and differs from "
                "the uninterrupted one.",
                stacklevel=2,
            )
