"""Loading the models of scorers, when they are given by name: placed on a device, complete, with their tokenizers."""

import os
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from gpm_hf.modeling import GPMConfig, check_one_model

from .adapters import is_adapter, is_classifier_adapter, load_classifier_adapter
from .preference_model import load_tokenizer
from .repositories import hub_options_of
from .whole_models import loaded_whole


def resolve_model(
    model: Any, tokenizer: Any, device: Any, options: dict, load: Callable[..., Any], name: str | None = None
) -> tuple[Any, Any, str]:
    """
    A model with its tokenizer from what a scorer was given.

    Args:
        model: a Hub id or folder, or a model, which stays where it is unless a device is given.
        tokenizer: the model's; `None` takes the one saved beside it.
        device: where the model goes. `None` means, for a model given by name, a GPU where there is one.
        options: for `from_pretrained`, with a name only. `dtype` is `"auto"` by default: as saved.
        load: `load(name, **options)` returns the model.
        name: how a table calls it.

    Returns:
        Model, tokenizer, and the name a table shows: the one given, else where it was loaded from, else its class.
    """
    if isinstance(model, (str, os.PathLike)):
        path = os.fspath(model)
        options = {"dtype": "auto", **options}
        if "device_map" in options and device is not None:
            raise ValueError("Give either `device` or `device_map`, not both.")
        loaded = load(path, **options)
        if tokenizer is None:
            tokenizer = load_tokenizer(path, **hub_options_of(options))
        # A quantised model is where its loader had to put it.
        if "device_map" not in options and loaded.device.type == "cpu":
            loaded = loaded.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return loaded.eval(), tokenizer, name or path
    if options:
        raise ValueError(f"{sorted(options)} are for a model given by its name; this one is loaded already.")
    if tokenizer is None:
        if not model.config.name_or_path:
            raise ValueError("The model does not say where it was loaded from: give its tokenizer as `tokenizer`.")
        tokenizer = load_tokenizer(model.config.name_or_path)
    name = name or model.config.name_or_path or type(model).__name__
    return (model if device is None else model.to(device)), tokenizer, name


def refuse_preference_model(name: str, config: Any, what: str) -> None:
    """Raises `ValueError` where a model of another kind is needed; `what` says what a preference model does not do."""
    if config.model_type == GPMConfig.model_type:
        raise ValueError(
            f"{name} is a general preference model, {what}: use GPMScorer, or gpm:{name} on a command line."
        )


def check_complete(name: str, info: dict, kind: str) -> None:
    """Raises `ValueError` where `from_pretrained` had to invent weights; `info` is its loading information."""
    missing = sorted(info["missing_keys"]) or sorted(str(key) for key in info["mismatched_keys"])
    if missing:
        raise ValueError(
            f"{name} holds no {kind}: its checkpoint lacks {len(missing)} weights, such as {missing[0]!r}, which "
            "would be random numbers."
        )


def is_classifier(name: str, options: dict) -> bool:
    """Whether a folder or Hub id holds a sequence classification model, or an adapter of one."""
    check_one_model(name, both_formats=True)
    if is_adapter(name, options):
        return is_classifier_adapter(name, options)
    config = AutoConfig.from_pretrained(name, **hub_options_of(options))
    if any(architecture.endswith("ForSequenceClassification") for architecture in config.architectures or []):
        return True
    # The code that a repository brings along.
    return "AutoModelForSequenceClassification" in config.to_dict().get("auto_map", {})


def load_classifier(name: str, check_config: Callable[[str, Any], None], kind: str, **options: Any) -> Any:
    """
    A sequence classification model with all of its weights, a LoRA adapter merged; `check_config(name, config)`
    refuses other models.
    """
    check_one_model(name, both_formats=True)
    if is_adapter(name, options):
        model = load_classifier_adapter(name, kind, **options)
        check_config(name, model.config)
        # As in training: the base is a language model, which says nothing of a reward's padding.
        tokenizer = load_tokenizer(name, **hub_options_of(options))
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
        return model
    # First, because loading a large model of the wrong kind takes minutes.
    asked = {"num_labels": options["num_labels"]} if "num_labels" in options else {}
    check_config(name, AutoConfig.from_pretrained(name, **hub_options_of(options), **asked))
    model, info = loaded_whole(
        name, lambda: AutoModelForSequenceClassification.from_pretrained(name, output_loading_info=True, **options)
    )
    check_complete(name, info, kind)
    return model
