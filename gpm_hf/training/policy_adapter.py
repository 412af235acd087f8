"""Adapters of policies: one that stands for the policy by its name, and those that cannot be trained."""

from typing import Any

from accelerate.utils import is_peft_model
from transformers import AutoModelForCausalLM

from gpm_hf.modeling import check_one_model
from gpm_hf.scoring.adapters import is_adapter, load_language_adapter
from gpm_hf.scoring.preference_model import load_tokenizer, whole_models
from gpm_hf.scoring.whole_models import check_whole


def load_if_adapter(
    model: Any, args: Any, processing_class: Any = None, peft_config: Any = None, quantization_config: Any = None
) -> tuple[Any, Any]:
    """
    An adapter on its base model, to be trained on, where that is what a policy's name stands for.

    Args:
        model: a policy's name, or a model.
        args: the trainer's options, whose `model_init_kwargs` load the base (in float32 by default, as TRL does).
        processing_class, peft_config, quantization_config: what the trainer was given.

    Returns:
        The model (a [`~peft.PeftModel`], or what was given) and its tokenizer (that beside the adapter, or what was
        given).

    Raises:
        ValueError: for a second adapter; for a folder with the weights of two models; where the base is gone or
            another model; for a kind of adapter that cannot be trained here; for a model of remote code that loading
            leaves unfilled.
    """
    if peft_config is not None:
        _check_kind(peft_config)
    if not isinstance(model, str):
        if is_peft_model(model):
            _check_kind(model.active_peft_config)
        return model, processing_class
    check_one_model(model, both_formats=True)
    options = {name: value for name, value in (args.model_init_kwargs or {}).items() if value is not None}
    options.setdefault("trust_remote_code", args.trust_remote_code)
    if not is_adapter(model, options):
        if options["trust_remote_code"]:
            # TRL loads it; what is left unfilled then would be left so here.
            where = {name: value for name, value in options.items() if name != "device_map"}
            with whole_models():
                check_whole(model, lambda: AutoModelForCausalLM.from_pretrained(model, **where))
        return model, processing_class
    if peft_config is not None:
        raise ValueError(
            f"{model} is an adapter, whose training goes on: leave `peft_config` (`--use_peft`) out, or merge it into "
            "its base and save that first."
        )
    options.setdefault("dtype", "float32")
    if quantization_config is not None:
        options["quantization_config"] = quantization_config
    if processing_class is None:
        revision = {"revision": options["revision"]} if "revision" in options else {}
        processing_class = load_tokenizer(model, **revision)
    model = load_language_adapter(model, is_trainable=True, **options)
    _check_kind(model.active_peft_config)
    return model, processing_class


def _check_kind(config: Any) -> None:
    method = type(config).__name__
    if config.peft_type == "CPT":
        raise ValueError(
            f"{method}: such an adapter computes its own loss, from logits that TRL's trainers do not keep, so it "
            "cannot be trained here. Take another kind, such as LoraConfig."
        )
    if config.is_prompt_learning and config.task_type is None:
        raise ValueError(f'{method} needs to know its task: give it `task_type="CAUSAL_LM"`.')
