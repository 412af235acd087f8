"""The model card of a training run: what was trained on what, and what that run measured."""

import os
from importlib.metadata import version
from pathlib import Path

from accelerate.utils import is_peft_model
from huggingface_hub import ModelCard, ModelCardData

from gpm_hf.templates import card_template

_HYPERPARAMETERS = (
    "loss_type",
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "lr_scheduler_type",
    "weight_decay",
    "max_length",
    "train_heads_only",
    "bf16",
    "seed",
)
_METRICS = ("accuracy", "mean_probability", "mean_log_odds", "loss", "rows_over_max_length")


def write_model_card(trainer, model_name=None, dataset_name=None, tags=None) -> Path:
    """
    Writes `README.md` into the trainer's output folder.

    Args:
        trainer ([`GPMRewardTrainer`]): the trainer; its log holds the metrics. Only what was logged is stated.
        model_name, dataset_name (`str`, *optional*): names for the card.
        tags (`str` or `list[str]`, *optional*): further tags.

    Returns:
        The file's path.
    """
    config = trainer.gpm.config
    base_model = config.text_config.name_or_path or config.name_or_path
    on_hub = bool(base_model) and not os.path.exists(base_model)
    extra_tags = [tags] if isinstance(tags, str) else list(tags or [])
    settings = {
        "embedding dimension": config.embedding_dim,
        "scale gate": f"{config.gate_activation}" if config.scale_gate else "none",
        "unit-norm embeddings": config.normalize_embeddings,
        "tau": config.tau,
        "prompt format": config.prompt_format,
        "backbone": f"{config.text_config.model_type}" + (f", `{base_model}`" if on_hub else ""),
    }
    card = ModelCard.from_template(
        card_data=ModelCardData(
            library_name="transformers",
            base_model=base_model if on_hub else None,
            datasets=[dataset_name] if dataset_name and not os.path.exists(dataset_name) else None,
            tags=sorted({*trainer._tag_names, *extra_tags}),
        ),
        template_path=card_template("preference_model.md"),
        model_name=model_name or Path(trainer.args.output_dir).name,
        repo=trainer.hub_model_id or Path(trainer.args.output_dir).name,
        is_bradley_terry=config.is_bradley_terry,
        is_adapter=is_peft_model(trainer.model),
        embedding_dim=config.embedding_dim,
        settings=settings,
        dataset_name=Path(dataset_name).name if dataset_name and os.path.exists(dataset_name) else dataset_name,
        hyperparameters={name: getattr(trainer.args, name) for name in _HYPERPARAMETERS},
        metrics=_last_metrics(trainer.state.log_history),
        versions=", ".join(f"{name} {version(name)}" for name in ("gpm-hf", "torch", "transformers", "trl", "peft")),
    )
    path = Path(trainer.args.output_dir) / "README.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    card.save(path)
    return path


def _last_metrics(log_history):
    """The last value of each metric, evaluation and training apart, with the step at which it was logged."""
    found = {}
    for entry in log_history:
        for name in _METRICS:
            for key, kind in ((f"eval_{name}", "evaluation"), (name, "training")):
                if key in entry:
                    found[f"{name.replace('_', ' ')} ({kind}, step {entry['step']})", kind, name] = entry[key]
    latest = {(kind, name): (label, value) for (label, kind, name), value in found.items()}
    return {label: f"{value:.4g}" for label, value in latest.values()}
