"""Loading a preference model from what holds one: a saved model, a LoRA adapter, a language model to start from."""

import os
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.utils import HFValidationError, validate_repo_id
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PretrainedConfig
from transformers.integrations import deepspeed as hf_deepspeed
from transformers.utils import ADAPTER_CONFIG_NAME, CONFIG_NAME, cached_file

from gpm_hf.modeling import GPMConfig, GPMForPreference

_HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "trust_remote_code")


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
        ValueError: where there is no preference model.
    """
    if _has_file(name_or_path, ADAPTER_CONFIG_NAME, options):
        adapter = _load_adapter(name_or_path, options, dequantize=merge)
        return (adapter.merge_and_unload() if merge else adapter).eval()
    kind = _model_type(name_or_path, options)
    if kind != GPMConfig.model_type:
        raise ValueError(
            f"{name_or_path} is a {kind} language model, not a preference model. Train one from it with "
            "`accelerate launch trainers/reward.py --model_name_or_path ...`."
        )
    return GPMForPreference.from_pretrained(name_or_path, **options).eval()


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
    elif _has_file(name_or_path, ADAPTER_CONFIG_NAME, options):
        raise ValueError(
            f"{name_or_path} is a LoRA adapter. Merge it first, `load_preference_model(...).merge_and_unload()`, save "
            "the result, and train from that."
        )
    if "gguf_file" in options or _model_type(name_or_path, options) != GPMConfig.model_type:
        gpm_options = {name: value for name, value in gpm_options.items() if value is not None}
        return GPMForPreference.from_backbone(name_or_path, **gpm_options, **options), True
    check_gpm_options(GPMConfig.from_pretrained(name_or_path, **hub_options), gpm_options, f"{name_or_path}")
    return GPMForPreference.from_pretrained(name_or_path, **options), False


def check_gpm_options(config, gpm_options, name):
    """Raises `ValueError` where options (other than `None`) differ from what a saved model is."""
    saved = config.to_dict()
    asked = {option: value for option, value in gpm_options.items() if value is not None and value != saved[option]}
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


def with_gguf_file(name_or_path, options):
    """Options for `from_pretrained`, with `gguf_file` where the folder holds one `.gguf` file and no `config.json`."""
    folder = Path(name_or_path)
    if "gguf_file" in options or not folder.is_dir() or (folder / CONFIG_NAME).exists():
        return options
    files = sorted(path.name for path in folder.glob("*.gguf"))
    if len(files) > 1:
        raise ValueError(f"{name_or_path} holds several GGUF files, {files}: choose one with `gguf_file`.")
    return {**options, "gguf_file": files[0]} if files else options


def _load_adapter(name_or_path, options, dequantize=False):
    from peft import PeftConfig, PeftModel

    hub_options = hub_options_of(options)
    hub_options.pop("trust_remote_code", None)
    adapter_config = PeftConfig.from_pretrained(name_or_path, **hub_options)
    if adapter_config.is_prompt_learning:
        raise ValueError(
            f"{name_or_path} holds virtual tokens ({adapter_config.peft_type.value}), which a preference model's "
            "scores would not see. Load an adapter of layers, such as LoRA, or a whole model."
        )
    base = adapter_config.base_model_name_or_path
    # The adapter's revision is not the base model's, which the adapter remembers.
    base_options = {name: value for name, value in options.items() if name != "revision"}
    if adapter_config.revision is not None and not os.path.isdir(base):
        base_options["revision"] = adapter_config.revision
    base_options = with_gguf_file(base, base_options)
    config = GPMConfig.from_pretrained(name_or_path, **hub_options_of(options))
    # It says how the base was quantised, not that the base's checkpoint is. On other weights than in training the
    # adapter would not score as it did.
    quantization = base_options.pop("quantization_config", vars(config).pop("quantization_config", None))
    if quantization is not None:
        base_options["quantization_config"] = quantization
    if "gguf_file" in base_options or _model_type(base, base_options) != GPMConfig.model_type:
        present = {"embedding_head": True, "gate_head": config.scale_gate, "reward_head": config.reward_head}
        heads = {name for name, is_there in present.items() if is_there}
        missing = sorted(heads - set(adapter_config.modules_to_save or []))
        if missing:
            raise ValueError(
                f"{name_or_path} is an adapter of the language model {base} without {missing}, which would be random "
                "numbers. Train it with the heads in `modules_to_save`, as GPMRewardTrainer does."
            )
        model = GPMForPreference.from_backbone(base, config=config, **base_options)
    else:
        model = GPMForPreference.from_pretrained(base, **base_options)
    if dequantize and quantization is not None:
        model = model.dequantize()
    return PeftModel.from_pretrained(model, name_or_path, **hub_options)


def _model_type(name_or_path, options):
    """The kind of model that its configuration names, without the code that some bring."""
    hub_options = {name: value for name, value in hub_options_of(options).items() if name != "trust_remote_code"}
    settings, _ = PretrainedConfig.get_config_dict(name_or_path, **hub_options)
    if "model_type" not in settings:
        raise ValueError(f"{name_or_path} has no config.json that names a `model_type`: it holds no language model.")
    return settings["model_type"]


def _has_file(name_or_path, filename, options):
    if os.path.isdir(name_or_path):
        return os.path.isfile(os.path.join(name_or_path, filename))
    hub_options = hub_options_of(options)
    hub_options.pop("trust_remote_code", None)
    try:
        validate_repo_id(str(name_or_path))
    except HFValidationError as error:
        raise ValueError(f"{name_or_path} is neither a folder that exists nor a Hub id.") from error
    return cached_file(name_or_path, filename, _raise_exceptions_for_missing_entries=False, **hub_options) is not None


def hub_options_of(options):
    """Those of the options for `from_pretrained` that say where on the Hub, and how, a repository is read."""
    return {name: options[name] for name in _HUB_OPTIONS if name in options}


@contextmanager
def whole_models():
    """For as long as this lasts models are loaded whole, although a ZeRO-3 configuration is active."""
    if not hf_deepspeed.is_deepspeed_zero3_enabled():
        yield
        return
    config = hf_deepspeed._hf_deepspeed_config_weak_ref()
    hf_deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        hf_deepspeed.set_hf_deepspeed_config(config)
