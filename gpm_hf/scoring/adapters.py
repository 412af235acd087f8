"""Adapters and their base models: of preference models, of language models, of sequence classification models."""

import json
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GgufConfig,
)
from transformers.utils import ADAPTER_CONFIG_NAME

from gpm_hf.identity import weights_digest
from gpm_hf.modeling import ADAPTER_BASE_NAME, GPMConfig, GPMForPreference, check_one_model

from .repositories import has_file, hub_options_of, model_type_of, with_gguf_file
from .whole_models import loaded_whole

# The last linear layer of transformers' sequence classification models.
_HEAD = re.compile(r"\.(score|classifier|classifier\.out_proj)\.(weight|bias)$")


def is_adapter(name: str, options: dict) -> bool:
    """Whether a Hub id or folder holds an adapter; `options` as for `from_pretrained`."""
    return has_file(name, ADAPTER_CONFIG_NAME, options)


def load_preference_adapter(name: str, options: dict, dequantize: bool = False) -> Any:
    """
    An adapter of a preference model, or of a language model that it makes one of, on its base.

    Args:
        name: a Hub id or folder.
        options: for `from_pretrained` of the base.
        dequantize: whether a base that was quantised in training is dequantised.

    Returns:
        [`~peft.PeftModel`] around a [`GPMForPreference`].

    Raises:
        ValueError: where the base is gone or another model, or heads are missing.
    """
    adapter_config, base, base_options = _read(name, options)
    if adapter_config.is_prompt_learning:
        raise ValueError(
            f"{name} holds virtual tokens ({adapter_config.peft_type.value}), which a preference model's scores would "
            "not see. Load an adapter of layers, such as LoRA, or a whole model."
        )
    config = GPMConfig.from_pretrained(name, **hub_options_of(options))
    # It says how the base was quantised, not that the base's checkpoint is. On other weights than in training the
    # adapter would not score as it did.
    quantization = base_options.pop("quantization_config", vars(config).pop("quantization_config", None))
    if quantization is not None:
        base_options["quantization_config"] = quantization
    if _base_type(name, base, base_options) == GPMConfig.model_type:
        model = loaded_whole(base, lambda: GPMForPreference.from_pretrained(base, **base_options))
    else:
        model = GPMForPreference.from_backbone(base, config=config, heads_follow=True, **base_options)
        heads = set(model.heads())
        missing = sorted(heads - set(adapter_config.modules_to_save or []))
        if missing:
            raise ValueError(
                f"{name} is an adapter of the language model {base} without {missing}, which would be random "
                "numbers. Train it with the heads in `modules_to_save`, as GPMRewardTrainer does."
            )
    if dequantize and quantization is not None:
        model = model.dequantize()
    return _put_on(model, name, base, options)


def load_language_adapter(name: str, is_trainable: bool = False, **options: Any) -> Any:
    """
    An adapter of a causal language model on its base.

    Args:
        name: a Hub id or folder.
        is_trainable: whether the adapter is to be trained on.
        options: for `from_pretrained` of the base (`dtype`, ...); `revision` is the adapter's.

    Returns:
        [`~peft.PeftModel`] around a causal language model.

    Raises:
        ValueError: where the base is gone or another model.
    """
    _, base, base_options = _read(name, options)
    _base_type(name, base, base_options)
    if "gguf_file" in base_options:
        base_options["quantization_config"] = GgufConfig(dequantize=True)
        if base_options.get("dtype") == "auto":
            base_options["dtype"] = "float32"
    model = loaded_whole(base, lambda: AutoModelForCausalLM.from_pretrained(base, **base_options))
    return _put_on(model, name, base, options, is_trainable)


def load_classifier_adapter(name: str, kind: str = "reward model", **options: Any) -> Any:
    """
    An adapter of a sequence classification model, merged into its base where it can be.

    Args:
        name: a Hub id or folder.
        kind: what it should be, for an error.
        options: for `from_pretrained` of the base; `revision` is the adapter's.

    Returns:
        A sequence classification model of transformers, with as many labels as the adapter's head has (with virtual
        tokens: PEFT's wrapper of one).

    Raises:
        ValueError: where the base is gone or another model, or neither base nor adapter has a head.
    """
    adapter_config, base, base_options = _read(name, options)
    _base_type(name, base, base_options)
    labels = _labels_of(name, options)
    if labels is not None:
        base_options["num_labels"] = labels
    with _no_load_report():
        # A language model has no head: the adapter brings it.
        model, info = AutoModelForSequenceClassification.from_pretrained(
            base, output_loading_info=True, **base_options
        )
    missing = sorted(key for key in info["missing_keys"] if labels is None or not _HEAD.search(f".{key}"))
    if missing:
        raise ValueError(
            f"{name} is an adapter of {base} without the weights of {missing[0]!r}, which would be random numbers: it "
            f'is no {kind}. Train it with task_type="SEQ_CLS", by which PEFT saves the head.'
        )
    model = _put_on(model, name, base, options)
    # Virtual tokens stay outside. Such a model is read one length at a time: it says something else when it is padded.
    if not adapter_config.is_prompt_learning:
        model = model.merge_and_unload()
    # Its tokenizer is the one beside the adapter.
    model.config.name_or_path = model.name_or_path = name
    return model


def is_classifier_adapter(name: str, options: dict) -> bool:
    """Whether an adapter is one of a sequence classification model."""
    from peft import PeftConfig

    config = PeftConfig.from_pretrained(name, **_hub_options(options))
    # A preference model's adapter saves heads of other names, and adapters of language models none.
    return config.task_type == "SEQ_CLS" or bool({"score", "classifier"} & set(config.modules_to_save or []))


def _labels_of(name: str, options: dict) -> int | None:
    """How many labels the head has that an adapter brings; `None` where it brings none."""
    from peft.utils import load_peft_weights

    weights = load_peft_weights(name, device="cpu", **_hub_options(options))
    sizes = [len(weight) for key, weight in weights.items() if _HEAD.search(key)]
    return sizes[0] if sizes else None


@contextmanager
def _no_load_report() -> Iterator[None]:
    """Without the report of missing weights, which is for those who do not look at them."""
    logger = logging.getLogger("transformers.modeling_utils")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _hub_options(options: dict) -> dict:
    """Where on the Hub the adapter itself is read."""
    return {name: value for name, value in hub_options_of(options).items() if name != "trust_remote_code"}


def _read(name: str, options: dict) -> tuple[Any, str, dict]:
    """An adapter's configuration, its base, and the options to load that with."""
    from peft import PeftConfig

    check_one_model(name, both_formats=True)
    adapter_config = PeftConfig.from_pretrained(name, **_hub_options(options))
    base = adapter_config.base_model_name_or_path
    if not base:
        raise ValueError(f"{name} is an adapter whose {ADAPTER_CONFIG_NAME} names no base model: name it there.")
    # The adapter's revision is not the base model's, which the adapter remembers.
    base_options = {name: value for name, value in options.items() if name != "revision"}
    if adapter_config.revision is not None and not os.path.isdir(base):
        base_options["revision"] = adapter_config.revision
    return adapter_config, base, with_gguf_file(base, base_options)


def _base_type(name: str, base: str, options: dict) -> str | None:
    """The kind of model that the base is; of a language model in GGUF, which does not say it beside it, `None`."""
    if "gguf_file" in options:
        return None
    check_one_model(base, both_formats=True)
    _check_base_weights(name, base)
    try:
        return model_type_of(base, options)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{name} is an adapter of {base}, which cannot be loaded: put that model back, or name where it is now as "
            f"`base_model_name_or_path` in {ADAPTER_CONFIG_NAME} ({reason})"
        ) from error


def _check_base_weights(name: str, base: str) -> None:
    path = Path(name, ADAPTER_BASE_NAME)
    if path.is_file() and os.path.isdir(base):
        trained_on = json.loads(path.read_text(encoding="utf-8"))["weights_sha256"]
        if trained_on != weights_digest(base, both_formats=True):
            raise ValueError(
                f"{name} is an adapter of another model than {base}, whose weights were others in the training: put "
                f"those back (or, if they are the same in other files, remove {path})."
            )


def _put_on(model: Any, name: str, base: str, options: dict, is_trainable: bool = False) -> Any:
    """The adapter on its base, after a check that each of its weights, and no other, was in its file."""
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils import load_peft_weights

    hub_options = _hub_options(options)
    stored = load_peft_weights(name, device="cpu", **hub_options).keys()
    other = f"{name} is an adapter of another model than {base}, as that is now: put the right one back"
    try:
        with warnings.catch_warnings():
            # Of missing weights, which are an error below.
            warnings.filterwarnings("ignore", message="Found missing adapter keys")
            adapter = PeftModel.from_pretrained(model, name, is_trainable=is_trainable, **hub_options)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{other} ({' '.join(str(error).split()[:30])} ...)") from error
    except KeyError as error:  # modules that are saved whole
        raise _incomplete(name, base, [error.args[0]]) from error
    expected = get_peft_model_state_dict(adapter, save_embedding_layers=False).keys()
    # Embeddings are saved with an adapter that says nothing of them, where they were resized.
    missing, unknown = sorted(expected - stored), sorted(stored - expected - adapter.state_dict().keys())
    if unknown:
        raise ValueError(f"{other} (that has no place for {len(unknown)} of its weights, such as {unknown[0]!r}).")
    if missing:
        raise _incomplete(name, base, missing)
    return adapter


def _incomplete(name: str, base: str, missing: list[str]) -> ValueError:
    return ValueError(
        f"{name} lacks weights of the adapter of {base} that it says it is, such as {missing[0]!r}, which would be "
        "random numbers: save it again."
    )
