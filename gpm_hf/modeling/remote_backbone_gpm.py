"""Backbones whose code lies beside their weights: it is run where the user said so, and saved with the model."""

from transformers import CONFIG_MAPPING, AutoModel
from transformers.dynamic_module_utils import (
    custom_object_save,
    get_class_from_dynamic_module,
    resolve_trust_remote_code,
)


def is_remote(thing):
    """Whether this object, or module's name, is of code that transformers fetched from a repository or a folder."""
    name = thing if isinstance(thing, str) else type(thing).__module__
    return name.startswith("transformers_modules.")


def backbone_config(settings, name_or_path, trust_remote_code, **hub_options):
    """
    The backbone's configuration out of a saved preference model's.

    Args:
        settings (`dict`): the model's `text_config`.
        name_or_path (`str`): the model's repository or folder, in which the backbone's code is.
        trust_remote_code (`bool`): whether that code may be run.
        hub_options: `revision`, `token`, ... of the repository.

    Returns:
        `dict` as given where transformers knows the backbone, else the `PretrainedConfig` of its own class.

    Raises:
        ValueError: where the code is not trusted.
    """
    if "AutoConfig" not in (settings.get("auto_map") or {}) or settings["model_type"] in CONFIG_MAPPING:
        return settings
    resolve_trust_remote_code(bool(trust_remote_code), name_or_path, has_local_code=False, has_remote_code=True)
    config_class = get_class_from_dynamic_module(settings["auto_map"]["AutoConfig"], name_or_path, **hub_options)
    config = config_class(**settings)
    config.name_or_path = str(name_or_path)
    return config


def new_backbone(config, dtype):
    """A backbone without its weights. Who could make a configuration of such a class has run its code already."""
    if not is_remote(config):
        return AutoModel.from_config(config, dtype=dtype)
    # Of the commit that the configuration is of.
    commit = vars(config).get("_commit_hash")
    model_class = get_class_from_dynamic_module(config.auto_map["AutoModel"], config.name_or_path, revision=commit)
    return model_class._from_config(config, dtype=dtype)


def save_backbone_code(model, folder):
    """Copies the code of a preference model's backbone, where it has its own, beside the model's, and names it so."""
    config = model.config.text_config
    if is_remote(config):
        for thing, kind in ((config, "AutoConfig"), (model.model, "AutoModel")):
            custom_object_save(thing, folder)
            config.auto_map[kind] = f"{type(thing).__module__.rsplit('.', 1)[-1]}.{type(thing).__name__}"
