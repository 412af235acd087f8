"""The record of a training run: what was trained on what, and what that run measured."""

import math
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import DistributedType
from accelerate.utils import is_peft_model
from datasets import Dataset
from huggingface_hub import try_to_load_from_cache
from transformers import PretrainedConfig
from transformers.utils import CONFIG_NAME

from gpm_hf.hub.local_paths import is_local, name_of, without_paths
from gpm_hf.hub.record import RunRecord, preference_model_settings
from gpm_hf.modeling import GPMConfig

# .../USER___NAME/CONFIGURATION/VERSION/COMMIT/FILE
_PREPARED = re.compile(r"/([^/]+)___([^/]+)/[^/]+/[^/]+/([0-9a-f]{40})/[^/]+$")
_LIBRARIES = ("gpm-hf", "torch", "transformers", "trl", "peft", "accelerate", "datasets")
_OPTIMISATION = (
    "loss_type",
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "lr_scheduler_type",
    "weight_decay",
    "bf16",
    "seed",
)
_REWARD_OPTIONS = ("max_length", "train_heads_only", "pair_weight", "max_tokens_per_batch")
_GPO_OPTIONS = (
    "gpo_beta",
    "beta",
    "log_z",
    "length_normalize",
    "opponent",
    "mixture_coef",
    "num_opponent_generations",
    "num_generations",
    "num_iterations",
    "steps_per_generation",
    "temperature",
    "top_p",
    "max_completion_length",
)
_REWARD_METRICS = (
    "accuracy",
    "groups_right",
    "cycles_right",
    "mean_probability",
    "mean_log_odds",
    "loss",
    "identical_pairs",
    "undecided_labels",
    "rows_over_max_length",
)
_GPO_METRICS = (
    "win_rate",
    "kl_start_policy",
    "kl_start_policy_standard_error",
    "completions/mean_length",
    "loss",
    "gpo/groups_with_cycle",
)
_OFFLINE_OPTIONS = ("gpo_beta", "length_normalize", "rescale_loss", "max_length")
_OFFLINE_METRICS = ("loss", "gpo/residual_abs", "gpo/sign_accuracy", "gpo/pair_accuracy", "rows_over_max_length")
# Options and metrics by the kind of run.
_TOLD = {
    "reward": (_REWARD_OPTIONS, _REWARD_METRICS),
    "online": (_GPO_OPTIONS, _GPO_METRICS),
    "offline": (_OFFLINE_OPTIONS, _OFFLINE_METRICS),
}


def preference_model_record(trainer, dataset_name: str | None = None, tags: Any = None) -> RunRecord:
    """
    The record of a [`GPMRewardTrainer`]'s run.

    Args:
        trainer: after training; its log holds the metrics.
        dataset_name: used where the data set does not itself know where on the Hub it is from.
        tags: further tags.
    """
    config = trainer.gpm.config
    settings, names = preference_model_settings(config), [config.text_config.name_or_path, config.name_or_path]
    if is_peft_model(trainer.model):
        # What is loaded first: a model of ours with its own heads, or a language model that gets these.
        base = trainer.model.active_peft_config.base_model_name_or_path or ""
        settings["adapter of"] = "a preference model" if _is_preference_model(base) else "a language model"
        names = [base]
    record = _record(trainer, "reward", names, dataset_name, tags, kind="preference_model", settings=settings)
    record.hyperparameters |= trainer.group_counts
    return record


def policy_record(
    trainer, preference: str, method: str = "online", dataset_name: str | None = None, tags: Any = None
) -> RunRecord:
    """
    The record of an [`OnlineGPOTrainer`]'s or [`OfflineGPOTrainer`]'s run.

    Args:
        trainer, dataset_name, tags: as in [`preference_model_record`].
        preference: who preferred, in words.
        method: "online" or "offline".
    """
    names = [trainer.accelerator.unwrap_model(trainer.model).config.name_or_path]
    settings = {"preference": without_paths(preference), "method": method}
    return _record(trainer, method, names, dataset_name, tags, kind="policy", settings=settings)


def _record(trainer, run: str, bases: list[str], dataset_name: str | None, tags: Any, **what: Any) -> RunRecord:
    """What records of all kinds of runs have, beside what distinguishes the model."""
    options, metrics = _TOLD[run]
    base, revision = _base_of(trainer, *bases)
    return RunRecord(
        base_model=base,
        base_revision=revision,
        datasets=_datasets(trainer, dataset_name),
        hyperparameters=_options(trainer, (*_OPTIMISATION, *options)),
        metrics=_last_metrics(trainer, metrics),
        hardware=_hardware(trainer),
        versions={name: version(name) for name in _LIBRARIES},
        tags=_tags(trainer, tags),
        **what,
    )


def _base_of(trainer, *names: str) -> tuple[str, str]:
    """Name and commit of what the training started from; empty for a local folder, which says nothing to others."""
    for name in names:
        if name and not is_local(name):
            if not trainer.was_given_a_name:  # a model object may be of any revision
                return name, ""
            revision = (trainer.args.model_init_kwargs or {}).get("revision") or "main"
            # Snapshots in the cache are folders named by their commit.
            cached = try_to_load_from_cache(name, CONFIG_NAME, revision=revision)
            return name, Path(cached).parent.name if isinstance(cached, str) else ""
    return "", ""


def _is_preference_model(name: str) -> bool:
    if not name:
        return False  # made from a configuration: nobody can load it by a name
    if os.path.isdir(name) and not os.path.isfile(os.path.join(name, CONFIG_NAME)):
        return False  # a language model in one GGUF file
    return PretrainedConfig.get_config_dict(name)[0].get("model_type") == GPMConfig.model_type


def _datasets(trainer, dataset_name: str | None) -> list[dict[str, str]]:
    found = [dict(one) for one in trainer.data_sources]
    if not found and dataset_name:
        found = [{"name": name_of(dataset_name) if is_local(dataset_name) else dataset_name, "revision": ""}]
    return found


def data_sources(dataset: Any) -> list[dict[str, str]]:
    """
    Hub data sets that a loaded data set's rows are from, with their commits, as far as its files tell: what
    `load_dataset` prepares lies in a folder named by both.
    """
    files = [file["filename"] for file in dataset.cache_files] if isinstance(dataset, Dataset) else []
    found = {match.groups() for file in files if (match := _PREPARED.search(Path(file).as_posix()))}
    return [{"name": f"{user}/{name}", "revision": commit} for user, name, commit in sorted(found)]


def _options(trainer, names: tuple[str, ...]) -> dict[str, Any]:
    """Those that were given, and of the two that bound the training the one that did."""
    options = trainer.args.to_dict()
    unused = "num_train_epochs" if options["max_steps"] > 0 else "max_steps"
    return {name: options[name] for name in names if name != unused and options[name] is not None}


def _hardware(trainer) -> str:
    devices = trainer.accelerator.num_processes
    if trainer.accelerator.device.type == "cuda":
        name = torch.cuda.get_device_name(trainer.accelerator.device)
    else:
        name = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    return f"{devices} x {name}{_sharding(trainer.accelerator)}"


def _sharding(accelerator) -> str:
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return f", DeepSpeed ZeRO-{accelerator.state.deepspeed_plugin.zero_stage}"
    if accelerator.distributed_type == DistributedType.FSDP:
        return f", FSDP{accelerator.state.fsdp_plugin.fsdp_version}"
    return ""


def _tags(trainer, tags: Any) -> list[str]:
    further = [tags] if isinstance(tags, str) else list(tags or [])
    return sorted({*trainer._tag_names, *further})


def _last_metrics(trainer, names: tuple[str, ...]) -> dict[str, float | None]:
    """
    The last value of each metric, of the training and of each evaluation, with the step at which it was logged. What
    was undefined over an interval (a win rate where no answer had text) is logged as `None`, and passed over.
    """
    state = trainer.state
    # Where the best checkpoint was loaded in the end, what was logged after it is of other weights.
    last = state.best_global_step if trainer.args.load_best_model_at_end and state.best_global_step else None
    latest: dict[tuple[str, str], tuple[str, float | None]] = {}
    for entry in state.log_history:
        if last is not None and entry["step"] > last:
            continue
        # What an evaluation measured bears its name, and only an evaluation says how long it ran.
        evaluations = [key.removesuffix("_runtime") for key in entry if key.endswith("_runtime")]
        kinds = {"": "training"} | {f"{one}_": _evaluation(one) for one in evaluations if one != "train"}
        for name in names:
            for prefix, kind in kinds.items():
                if entry.get(prefix + name) is not None:
                    readable = name.split("/")[-1].replace("_", " ")
                    value = float(entry[prefix + name])
                    told = f"{readable} ({kind}, step {entry['step']})"
                    latest[kind, name] = (told, value if math.isfinite(value) else None)
    return dict(latest.values())


def _evaluation(prefix: str) -> str:
    """An evaluation in words, by the prefix of its metrics: of one of several data sets, or with a name of its own."""
    if prefix == "eval":
        return "evaluation"
    return f"evaluation of `{prefix.removeprefix('eval_')}`"
