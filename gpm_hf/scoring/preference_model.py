"""Loading a preference model from what holds one: a saved model, a LoRA adapter, a language model to start from."""

from contextlib import contextmanager
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.integrations import deepspeed as hf_deepspeed

from gpm_hf.modeling import UNKNOWN_DATE, GPMConfig, GPMForPreference, check_one_model, merged_exactly

from .adapters import is_adapter, load_preference_adapter
from .repositories import hub_options_of, model_type_of, with_gguf_file
from .whole_models import loaded_whole


def load_preference_model(name_or_path, merge=False, **options):
    """
    Loads a trained preference model.

    Args:
        name_or_path (`str`): a Hub id or folder of a saved [`GPMForPreference`], or of a LoRA adapter trained by
            [`GPMRewardTrainer`] (on a plain language model or on a saved preference model).
        merge (`bool`, defaults to `False`): merge an adapter into its base, which is dequantised first where it was
            quantised in training: the result scores as the adapter did, and saves as an ordinary model.
        options: passed to `from_pretrained` (`dtype`, `device_map`, `revision`, ...). The base of an adapter is
            quantised as it was in training unless `quantization_config` says otherwise; `None` leaves it as it is.

    Returns:
        [`GPMForPreference`] or, for an adapter, a [`~peft.PeftModel`] around one; both in evaluation mode.

    Raises:
        ValueError: where there is no preference model, a folder holds the weights of two, or an adapter merged into
            its base would score otherwise than beside it.
    """
    check_one_model(name_or_path)
    if is_adapter(name_or_path, options):
        adapter = load_preference_adapter(name_or_path, options, dequantize=merge)
        return (merged_exactly(adapter) if merge else adapter).eval()
    kind = model_type_of(name_or_path, options)
    if kind != GPMConfig.model_type:
        raise ValueError(
            f"{name_or_path} is a {kind} language model, not a preference model. Train one from it with "
            "`gpm-hf train reward --model_name_or_path ...` or trainers/reward.py."
        )
    return loaded_whole(name_or_path, lambda: GPMForPreference.from_pretrained(name_or_path, **options)).eval()


def load_or_start_preference_model(name_or_path, gpm_options, **options):
    """
    A preference model to train: a saved one, whose own settings stay, or a new one on a language model.

    Args:
        name_or_path (`str`): a Hub id or folder of either; a folder that holds only one `.gguf` file will do.
        gpm_options (`dict`): options of [`GPMConfig`] for a new model. On a saved one they must agree with what it
            says; `None` means "as it is".
        options: passed to `from_pretrained`.

    Returns:
        [`GPMForPreference`], and whether its heads are new.
    """
    options = with_gguf_file(name_or_path, options)
    hub_options = hub_options_of(options)
    if "gguf_file" in options:
        hub_options["gguf_file"] = options["gguf_file"]
    elif is_adapter(name_or_path, options):
        raise ValueError(
            f"{name_or_path} is a LoRA adapter. Merge it first, `load_preference_model(...).merge_and_unload()`, save "
            "the result, and train from that."
        )
    if "gguf_file" in options or model_type_of(name_or_path, options) != GPMConfig.model_type:
        gpm_options = {name: value for name, value in gpm_options.items() if value is not None}
        options |= gpm_options
        return loaded_whole(name_or_path, lambda: GPMForPreference.from_backbone(name_or_path, **options)), True
    check_gpm_options(GPMConfig.from_pretrained(name_or_path, **hub_options), gpm_options, f"{name_or_path}")
    return loaded_whole(name_or_path, lambda: GPMForPreference.from_pretrained(name_or_path, **options)), False


def check_gpm_options(config, gpm_options, name):
    """Raises `ValueError` where options (other than `None`) differ from what a saved model is."""
    saved = config.to_dict()
    # A model from before there were dates may be given one.
    open_options = {"template_date"} if saved["template_date"] == UNKNOWN_DATE else set()
    asked = {
        option: value
        for option, value in gpm_options.items()
        if value is not None and value != saved[option] and option not in open_options
    }
    if asked:
        present = {option: saved[option] for option in asked}
        raise ValueError(
            f"{name} already is a preference model with {present}, but {asked} was asked for. Leave these options "
            "out, or start from the language model."
        )


def load_gguf_language_model(name_or_path, **options):
    """
    A language model out of a folder with one `.gguf` file, dequantised, so that it can be trained and saved.

    Args:
        name_or_path (`str`): the folder.
        options: passed to `from_pretrained` (`dtype`, ...).

    Returns:
        `PreTrainedModel`: a causal language model; its tokenizer comes from [`load_tokenizer`].

    Raises:
        ValueError: where the folder holds no such file.
    """
    options = with_gguf_file(name_or_path, options)
    if "gguf_file" not in options:
        raise ValueError(f"{name_or_path} is no folder with a single .gguf file.")
    quantization = GgufConfig(dequantize=True)
    return AutoModelForCausalLM.from_pretrained(name_or_path, quantization_config=quantization, **options)


def load_tokenizer(name_or_path, **options):
    """The tokenizer saved beside a model; for a folder with one `.gguf` file, the one inside it."""
    options = with_gguf_file(name_or_path, options)
    # A preference model's `config.json` names its code, which a tokenizer does not need.
    options.setdefault("trust_remote_code", False)
    try:
        return AutoTokenizer.from_pretrained(name_or_path, **options)
    except (OSError, ValueError) as error:
        raise ValueError(f"{name_or_path} has no tokenizer that could be loaded: {error}") from error


@contextmanager
def whole_models():
    """For as long as this lasts models are loaded whole, although a ZeRO-3 configuration is active."""
    if not hf_deepspeed.is_deepspeed_zero3_enabled():
        yield
        return
    weak_ref: Any = hf_deepspeed._hf_deepspeed_config_weak_ref
    config = weak_ref()
    hf_deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        hf_deepspeed.set_hf_deepspeed_config(config)
