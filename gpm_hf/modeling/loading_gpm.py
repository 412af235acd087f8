"""How a preference model is loaded, made from a language model, and saved with its code."""

import os
from contextvars import ContextVar

from transformers import CONFIG_MAPPING, MODEL_MAPPING, AutoConfig, AutoModel, GgufConfig
from transformers.dynamic_module_utils import custom_object_save
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from .configuration_gpm import MODEL_OPTIONS, GPMConfig
from .remote_backbone_gpm import is_remote, save_backbone_code
from .weight_files_gpm import check_one_model, saved_as_one_model

_READS_LANGUAGE_MODEL = ContextVar("from_backbone is reading a language model's checkpoint", default=False)
HEADS = ("embedding_head.", "gate_head.", "reward_head.")
_HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download", "subfolder", "gguf_file")


class GPMPreTrainedModel(PreTrainedModel):
    """What [`GPMForPreference`] shares with every model of transformers: loading and saving."""

    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    input_modalities = ("text",)
    _auto_class = "AutoModel"
    # The backbone decides which attention it can run; this class has none of its own.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # "strict" acts for bfloat16 and float16; quantisers read the other one. Full names, because these are searched
    # for in parameter names and "gate" alone would also match a backbone's `gate_proj`.
    _keep_in_fp32_modules = ["embedding_head", "gate_head", "reward_head"]
    _keep_in_fp32_modules_strict = ["embedding_head", "gate_head", "reward_head"]
    # The checkpoint of a causal language model has an output head that a preference model does not use.
    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]

    def get_submodule(self, target):
        # PEFT asks for this name when it is about to put virtual tokens before the prompts, and for nothing else.
        if target == "embeddings.word_embeddings":
            raise ValueError(
                "Prompt and prefix tuning put virtual tokens before each prompt, where a preference model's scores "
                "would not see them and its gate would read a wrong token. Use an adapter of layers, such as LoRA."
            )
        return super().get_submodule(target)

    @classmethod
    def from_backbone(cls, name_or_path, config=None, heads_follow=False, **kwargs):
        """
        A preference model on a language model, its heads freshly initialised and to be trained.

        Args:
            name_or_path (`str`): a causal language model or its base model, a Hub id or a folder.
            config ([`GPMConfig`], *optional*): a whole configuration, in place of the options below.
            heads_follow (`bool`, defaults to `False`): whether an adapter, loaded next, brings trained heads; then
                nothing is said about the checkpoint having none.
            kwargs: options of [`GPMConfig`] (`embedding_dim`, `scale_gate`, ...) and of
                [`~PreTrainedModel.from_pretrained`] (`dtype`, `revision`, `gguf_file`, `device_map`, ...). With
                `trust_remote_code=True` the code beside the backbone's weights is run, and saved with the model.

        Returns:
            [`GPMForPreference`]

        Raises:
            ValueError: for a checkpoint that is no decoder language model, lacks backbone weights, or already is a
                preference model; for a folder with the weights of two models.
        """
        check_one_model(name_or_path, both_formats=True)
        hub_options = {name: kwargs[name] for name in _HUB_OPTIONS if name in kwargs}
        gpm_options = {name: kwargs.pop(name) for name in MODEL_OPTIONS if name in kwargs}
        # Left out it would be asked for on the terminal, of which a job has none.
        trust_remote_code = bool(kwargs.pop("trust_remote_code", None))
        if config is None:
            text_config = AutoConfig.from_pretrained(name_or_path, trust_remote_code=trust_remote_code, **hub_options)
            check_backbone(name_or_path, text_config)
            config = GPMConfig(text_config=text_config, **gpm_options)
        elif gpm_options:
            raise ValueError(f"Give either `config` or the options {sorted(gpm_options)}, not both.")

        if "gguf_file" in kwargs:
            # The reader of GGUF files knows language models only. Dequantised, because a model that is flagged as
            # quantised cannot be saved.
            quantization = GgufConfig(dequantize=True)
            backbone = AutoModel.from_pretrained(name_or_path, quantization_config=quantization, **kwargs)
            config.text_config = backbone.config
            model = cls(config, backbone)
            model.name_or_path = config.name_or_path = name_or_path
            config.text_config.name_or_path = ""
            return model
        prefix = backbone_prefix(config.text_config)
        if prefix != cls.base_model_prefix:
            kwargs["key_mapping"] = {rf"^{prefix}\.": f"{cls.base_model_prefix}.", **kwargs.pop("key_mapping", {})}
        reading = _READS_LANGUAGE_MODEL.set(prefix == cls.base_model_prefix)
        try:
            model, info = super().from_pretrained(
                name_or_path, config=config, heads_follow=heads_follow, output_loading_info=True, **kwargs
            )
        finally:
            _READS_LANGUAGE_MODEL.reset(reading)
        _check_complete(name_or_path, [name for name in info["missing_keys"] if not name.startswith(HEADS)])
        # A recorded key mapping would make `save_pretrained` write the backbone's own names back.
        model._weight_conversions = None
        if os.path.isdir(name_or_path):
            # A folder's path means nothing to others: keep it out of the saved configuration.
            model.config.text_config.name_or_path = ""
        return model

    @staticmethod
    def _load_pretrained_model(model, state_dict, checkpoint_files, load_config, *args, **kwargs):
        if _READS_LANGUAGE_MODEL.get():
            # Where weights have other names on disk than in memory, transformers' rules are written for the names of
            # a whole language model. In ours it applies them to what follows "model.", which some then do not match.
            for rule in load_config.weight_mapping or []:
                if rule.scope_prefix == "":
                    rule.scope_prefix = None
        return PreTrainedModel._load_pretrained_model(
            model, state_dict, checkpoint_files, load_config, *args, **kwargs
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, **kwargs):
        """
        Loads a saved preference model, see [`~PreTrainedModel.from_pretrained`].

        Raises:
            ValueError: for a checkpoint without the heads, which transformers would fill with random numbers; for a
                folder with the weights of two models.
        """
        if pretrained_model_name_or_path is not None:
            check_one_model(os.path.join(pretrained_model_name_or_path, kwargs.get("subfolder") or ""))
        return_info = kwargs.pop("output_loading_info", False)
        if kwargs.pop("trust_remote_code", None) and "config" not in kwargs:
            # The parent would load it without saying so.
            hub_options = {name: kwargs[name] for name in _HUB_OPTIONS if name in kwargs}
            kwargs["config"] = cls.config_class.from_pretrained(
                pretrained_model_name_or_path, trust_remote_code=True, **hub_options
            )
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
        )
        missing = sorted(name for name in info["missing_keys"] if name.startswith(HEADS))
        if missing:
            raise ValueError(
                f"{pretrained_model_name_or_path} holds no preference model: its checkpoint lacks {missing}. To start "
                "one from a language model use `GPMForPreference.from_backbone(name_or_path)`."
            )
        _check_complete(pretrained_model_name_or_path, info["missing_keys"])
        if is_remote(model.config.text_config):
            model.config.text_config.name_or_path = ""
        return (model, info) if return_info else model

    def save_pretrained(self, save_directory, is_main_process=True, *args, **kwargs):
        """
        Saves the model, see [`~PreTrainedModel.save_pretrained`]; weights of another model that are in the folder go,
        and a process that is killed leaves the old model or the new one, see `weight_files_gpm.py`. A backbone's own
        code is saved beside this one.
        """
        # The shards of a distributed checkpoint come from all processes.
        if not is_main_process or kwargs.get("distributed_checkpoint") or os.path.isfile(save_directory):
            super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
            if is_main_process and os.path.isdir(save_directory):
                save_backbone_code(self, save_directory)
            return
        if kwargs.get("push_to_hub"):
            kwargs.setdefault("repo_id", os.path.basename(os.path.abspath(save_directory)))
        with saved_as_one_model(save_directory) as aside:
            save_backbone_code(self, aside)
            super().save_pretrained(aside, is_main_process, *args, **kwargs)

    def save_config_and_code(self, folder):
        """
        Writes what a stranger needs beside the weights: `config.json` and this code, named in its `auto_map` and its
        `custom_pipelines`.
        """
        save_backbone_code(self, folder)
        custom_object_save(self, folder, config=self.config)
        self.config.save_pretrained(folder)

    @property
    def context_length(self):
        """The most tokens a sequence may have; `None` for a backbone whose positions have no limit."""
        limit = getattr(self.config.text_config, "max_position_embeddings", None)
        # XLNet writes -1.
        return None if limit is None or limit < 1 else limit

    def check_vocabulary(self, rows):
        """Raises `ValueError` for token ids that the backbone has no embedding for."""
        size = self.config.text_config.vocab_size
        largest = max((max(ids, default=0) for ids in rows), default=0)
        if largest >= size:
            raise ValueError(
                f"The text has a token with the id {largest}, and the model has embeddings for 0 to {size - 1}: the "
                "tokenizer has tokens that the model does not know. Use the tokenizer that was saved with it."
            )

    def check_context(self, length):
        """Raises `ValueError` for a sequence that is longer than the backbone's context."""
        limit = self.context_length
        if limit is not None and length > limit:
            raise ValueError(
                f"A prompt with its response has {length} tokens, but the backbone's context holds {limit}. Shorten "
                "the text, or use a backbone with a longer context."
            )


def _check_complete(name_or_path, missing):
    if missing:
        raise ValueError(
            f"{name_or_path} is not a complete checkpoint: it lacks {len(missing)} weights, such as "
            f"{min(missing)!r}, which would be random numbers."
        )


def check_backbone(name_or_path, config):
    if config.model_type == GPMConfig.model_type:
        raise ValueError(f"{name_or_path} already is a preference model: load it with `from_pretrained`.")
    # A decoder that was cut out of one and saved says of itself that it is none; its kind says it.
    if config.is_encoder_decoder or type(config).is_encoder_decoder:
        raise ValueError(
            f"{name_or_path} is an encoder-decoder ({config.model_type}), not a causal language model, which a "
            "preference model needs: use a decoder language model."
        )
    settings = config.to_dict()
    # XLM has a word of its own for it.
    if type(config) in MODEL_FOR_MASKED_LM_MAPPING and not settings.get("is_decoder", settings.get("causal")):
        raise ValueError(
            f"{name_or_path} is an encoder ({config.model_type}), not a causal language model: a prompt's states "
            "would depend on the response. A preference model needs a decoder language model."
        )
    try:
        text_config = config.get_text_config()
    except ValueError as error:
        raise ValueError(
            f"{name_or_path} is a model of several parts ({config.model_type}); a preference model needs a decoder "
            "language model alone."
        ) from error
    if text_config is not config:
        raise ValueError(
            f"{name_or_path} is a multimodal model ({config.model_type}); a preference model needs a text-only "
            f"checkpoint ({text_config.model_type})."
        )
    if config.model_type in CONFIG_MAPPING and type(config) not in MODEL_MAPPING:
        raise ValueError(
            f"{name_or_path} is the decoder of a larger model ({config.model_type}), for which alone transformers has "
            "no `AutoModel`; a preference model needs a decoder language model that stands by itself."
        )
    if not isinstance(settings.get("hidden_size", config.attribute_map.get("hidden_size")), int | str):
        raise ValueError(
            f"{name_or_path} does not say how wide its states are ({config.model_type} has no `hidden_size`); a "
            "preference model needs a decoder language model alone."
        )


def backbone_prefix(config):
    """The name under which a causal language model of this kind keeps its base model, such as "model"."""
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return GPMPreTrainedModel.base_model_prefix
    return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].base_model_prefix
