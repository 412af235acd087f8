"""The PEFT configuration of a preference model's adapter: with its heads, and PEFT's defaults for the backbone."""

import copy
import dataclasses
from functools import partial
from typing import Any

import torch
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils.transformers_weight_conversion import (
    convert_peft_config_for_transformers,
    get_model_conversion_mapping,
)

from gpm_hf.modeling import can_be_asked, evaluation_mode, plain_states

# What these methods need a preference model does not give.
UNFIT = {
    "POLY": "needs `task_ids` with every batch",
    "SHADOW": "builds a second language model from the configuration of the first",
}


def adapter_config(peft_config: Any, model: Any) -> Any:
    """
    Args:
        peft_config ([`~peft.PeftConfig`]): what a user asks for.
        model ([`GPMForPreference`]): the model to be adapted.

    Returns:
        [`~peft.PeftConfig`]: a copy, with the heads among the modules that are trained and saved whole, and with
        PEFT's own default modules of this method on this backbone where `target_modules` is `None`.

    Raises:
        ValueError: for a method that cannot train the heads, that puts virtual tokens before the prompt, or that has
            no default modules for the backbone.
    """
    peft_config, method = copy.deepcopy(peft_config), type(peft_config).__name__
    if peft_config.is_prompt_learning:
        raise ValueError(
            f"{method} puts virtual tokens before each prompt, where a preference model's scores would not see them "
            "and its gate would read a wrong token. Use a method that adapts layers, such as LoraConfig."
        )
    if peft_config.peft_type in UNFIT:
        raise ValueError(
            f"{method} {UNFIT[peft_config.peft_type]}, which a preference model has not. Use another one."
        )
    options = {field.name for field in dataclasses.fields(peft_config)}
    if "modules_to_save" not in options:
        raise ValueError(
            f"{method} has no `modules_to_save`, so the new heads of a preference model could be neither trained nor "
            "saved with it. Use another method; LoraConfig takes `trainable_token_indices`, too."
        )
    # The tasks that PEFT knows by name are about `logits` or generation; this one passes arguments through.
    peft_config.task_type = "FEATURE_EXTRACTION"
    # PEFT adapts none of them then, "all-linear" or not.
    peft_config.modules_to_save = sorted({*(peft_config.modules_to_save or []), *model.heads()})
    # PEFT finds its defaults by the type of the model, and it is the backbone's that it knows. Nothing else of the
    # tuner is needed, so it is made without a model.
    tuner = PEFT_TYPE_TO_TUNER_MAPPING[peft_config.peft_type]
    backbone = model.config.text_config.to_dict()
    try:
        peft_config = tuner.__new__(tuner)._prepare_adapter_config(peft_config, backbone)
    except ValueError as error:
        raise ValueError(
            f"PEFT has no default modules of {method} for a {backbone['model_type']} backbone: name them, for example "
            f'target_modules="all-linear". ({error})'
        ) from error
    if peft_config.target_modules == "all-linear" and not isinstance(peft_config.exclude_modules, str):
        excluded = {*(peft_config.exclude_modules or []), *_linear_by_name_alone(model)}
        peft_config.exclude_modules = sorted(excluded) or None
    # By the type of the model PEFT also knows that experts' projections are one parameter now: their names would else
    # match nothing.
    conversions = get_model_conversion_mapping(model.model)
    convert_peft_config_for_transformers(peft_config, model=model.model, conversions=conversions)
    return peft_config


def _linear_by_name_alone(model: Any) -> list[str]:
    """
    Names of a backbone's modules whose class derives from `nn.Linear` and gives something else than its output, as the
    routers of some mixtures of experts do: an adapter would add to what is no tensor.
    """
    own = type(model.model).__module__
    suspects = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and type(module).__module__ == own
    }
    found: list[str] = []
    if not suspects or not can_be_asked(model):
        return found

    def look(name: str, module: Any, _: Any, output: Any) -> None:
        if not isinstance(output, torch.Tensor) or output.shape[-1] != module.out_features:
            found.append(name)

    hooks = [module.register_forward_hook(partial(look, name)) for name, module in suspects.items()]
    try:
        with evaluation_mode(model), torch.no_grad():
            plain_states(model)
    finally:
        for hook in hooks:
            hook.remove()
    return found
