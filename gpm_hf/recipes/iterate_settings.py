"""What an iterative alignment was started with, so that no other one goes on in its folder."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from gpm_hf.files import written_whole
from gpm_hf.generation import import_vllm
from gpm_hf.identity import data_identity, model_identity, scorer_identity, versions
from gpm_hf.masking import masked
from gpm_hf.recipes.iterate_config import METHODS, IterateConfig
from gpm_hf.shards import unfinished_parts
from gpm_hf.training import OfflineGPOConfig

# How much of the job is asked for, where it lies, what is told of it: the results do not depend on these.
_FREE = ("iterations", "output", "output_dir", "run_name", "disable_tqdm", "report_to", "project")
_FREE_BEGINNINGS = ("logging_", "log_", "save_", "hub_", "push_", "trackio_", "dataloader_num_", "dataloader_pin_")


# What each stage depends on beside what lies before it; all other settings are those of the training.
_PROMPTS = ("prompts", "prompts_split", "max_prompt_length", "policy", "training.model_init_kwargs")
_SAMPLES = (
    "prompts_per_iteration",
    "num_generations",
    "temperature",
    "top_p",
    "max_new_tokens",
    "generation_batch_size",
    "generation_dtype",
    "use_vllm",
    "vllm_options",
    "vllm",
    "shard_size",
    "training.seed",
    "versions",
)
_SCORES = ("scorer", "scoring_batch_size")
# What each stage makes.
_STAGES = ("samples.jsonl", "scored.jsonl", "policy")


def check_training_options(config: IterateConfig, training: OfflineGPOConfig) -> None:
    """
    Raises `ValueError` for options of the trainer that the job chooses itself, or that have no meaning in it.
    """
    of_method = METHODS[config.method]["loss_type"]
    if training.loss_type not in ("gpo", of_method):
        raise ValueError(f"loss_type={training.loss_type!r} is chosen by the method, here {config.method!r}.")
    if training.output_dir not in (None, "trainer_output"):
        raise ValueError(f"output_dir={training.output_dir!r}: the folder for everything is `output`.")
    if training.eval_strategy != "no":
        raise ValueError("eval_strategy: there are no evaluation data; evaluate the policies of the iterations.")
    if training.push_to_hub or training.resume_from_checkpoint:
        raise ValueError(
            "push_to_hub and resume_from_checkpoint have no place here: a job goes on by itself, and its policies are "
            "uploaded by `gpm-hf push`."
        )


def check_settings(config: IterateConfig, training: OfflineGPOConfig) -> None:
    """
    Writes `iterate.json` into the job's folder, or compares with the one there. A setting may still change while
    nothing was made with it: samples do not depend on the scorer, nor scores on the training's options.

    Raises:
        ValueError: something in this folder was made with other settings; the message names them.
    """
    state = PartialState()
    path = Path(config.output, "iterate.json")
    settings = json.loads(json.dumps(masked(_settings(config, training)), default=str))
    state.wait_for_everyone()
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    differing = sorted(name for name in {*earlier, *settings} if earlier.get(name) != settings.get(name))
    if earlier and differing:
        made = _made_with(path.parent, differing)
        if made is not None:
            told = "; ".join(f"{name} was {earlier.get(name)!r}, is {settings.get(name)!r}" for name in differing)
            raise ValueError(
                f"{path.parent} holds an iterative alignment with other settings: {told}. Go on with the same ones, "
                f"or name another folder; or remove what was made with them, {made} and all that came after it."
            )
    # All have read before one writes.
    state.wait_for_everyone()
    if state.is_main_process and differing:
        if any(name in _PROMPTS for name in differing):
            (path.parent / "prompts.jsonl").unlink(missing_ok=True)
        with written_whole(path) as file:
            json.dump(settings, file, indent=1)
    state.wait_for_everyone()


def _made_with(folder: Path, names: Iterable[str]) -> Path | None:
    """The first that was made in a job's folder with settings of these names, if anything was."""
    first_stage = min(0 if name in (*_PROMPTS, *_SAMPLES) else 1 if name in _SCORES else 2 for name in names)
    iterations = sorted(folder.glob("iteration-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for iteration in iterations:
        # From the second iteration on everything depends on the first one's policy.
        for stage in _STAGES[first_stage if iteration.name == "iteration-1" else 0 :]:
            if (iteration / stage).exists():
                return iteration / stage
            unfinished = _checkpoints(iteration) if stage == "policy" else unfinished_parts(iteration / stage)
            if unfinished is not None:
                return unfinished
    return None


def _checkpoints(iteration: Path) -> Path | None:
    folder = iteration / "training"
    return folder if any(folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*")) else None


def _settings(config: IterateConfig, training: OfflineGPOConfig) -> dict[str, Any]:
    settings = asdict(config)
    settings |= {
        "policy": model_identity(config.policy, **(training.model_init_kwargs or {})),
        "scorer": scorer_identity(config.scorer),
        "prompts": data_identity(config.prompts),
        "versions": versions(),
    }
    if config.use_vllm:
        settings["vllm"] = import_vllm().__version__
    settings |= {f"training.{name}": value for name, value in training.to_dict().items()}
    return {name: value for name, value in settings.items() if not _is_free(name.removeprefix("training."))}


def _is_free(name: str) -> bool:
    return name in _FREE or name.startswith(_FREE_BEGINNINGS)
