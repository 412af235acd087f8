"""What a Hub id or folder holds, before it is loaded."""

import os
from pathlib import Path

from huggingface_hub.utils import HFValidationError, validate_repo_id
from transformers import PretrainedConfig
from transformers.utils import CONFIG_NAME, cached_file

_HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "trust_remote_code")


def with_gguf_file(name_or_path, options):
    """Options for `from_pretrained`, with `gguf_file` where the folder holds one `.gguf` file and no `config.json`."""
    folder = Path(name_or_path)
    if "gguf_file" in options or not folder.is_dir() or (folder / CONFIG_NAME).exists():
        return options
    files = sorted(path.name for path in folder.glob("*.gguf"))
    if len(files) > 1:
        raise ValueError(f"{name_or_path} holds several GGUF files, {files}: choose one with `gguf_file`.")
    return {**options, "gguf_file": files[0]} if files else options


def model_type_of(name_or_path, options):
    """The kind of model that its configuration names, without the code that some bring."""
    hub_options = {name: value for name, value in hub_options_of(options).items() if name != "trust_remote_code"}
    settings, _ = PretrainedConfig.get_config_dict(name_or_path, **hub_options)
    if "model_type" not in settings:
        raise ValueError(f"{name_or_path} has no config.json that names a `model_type`: it holds no language model.")
    return settings["model_type"]


def has_file(name_or_path, filename, options):
    """Whether a Hub id or folder has a file; `options` as for `from_pretrained`."""
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
