"""Configuration of a general preference model (GPM)."""

import inspect

from transformers import CONFIG_MAPPING, AutoConfig, __version__
from transformers.configuration_utils import PretrainedConfig

from .remote_backbone_gpm import backbone_config, is_remote
from .template_date_gpm import UNKNOWN_DATE, checked_date

MINIMUM_TRANSFORMERS = (5, 23)

# Here, because a saved model's configuration is the first of its code to be imported.
if tuple(int(number) for number in __version__.split(".")[:2]) < MINIMUM_TRANSFORMERS:
    raise ImportError(
        "A general preference model needs transformers {}.{} or newer".format(*MINIMUM_TRANSFORMERS)
        + f", and this is {__version__}: `pip install -U transformers`."
    )

GATE_ACTIVATIONS = ("softmax", "softplus")
PROMPT_FORMATS = ("clean", "reference")


def _of_backbone(name):
    """A property that reads and writes the backbone's configuration."""

    def write(self, value):
        setattr(self.text_config, name, value)

    return property(lambda self: getattr(self.text_config, name), write)


class GPMConfig(PretrainedConfig):
    """
    Configuration of [`GPMForPreference`]: a decoder backbone plus the two heads of "Beyond Bradley-Terry Models: A
    General Preference Model for Language Model Alignment" (ICML 2025).

    Args:
        text_config (`PretrainedConfig` or `dict`):
            Configuration of the decoder backbone, for instance a `LlamaConfig`. Token ids (`pad_token_id`,
            `bos_token_id`, `eos_token_id`) live there and only there; the properties of the same name read and write
            them.
        embedding_dim (`int`, defaults to 6):
            Dimension `2k` of a response's embedding, an even number; or 1 for a Bradley-Terry reward model, in which
            each response has one scalar reward.
        scale_gate (`bool`, *optional*):
            Whether the eigenvalue scale gate turns the prompt into `k` scales (the paper's lambda). `None` means
            `True` from dimension 2 and `False` at dimension 1.
        normalize_embeddings (`bool`, *optional*):
            Whether embeddings have unit L2 norm. `None` means `True` from dimension 2 and `False` at dimension 1,
            where it would turn every reward into +1 or -1.
        tau (`float`, defaults to 0.1):
            Temperature: log-odds are the raw score divided by `tau`.
        gate_activation (`str`, defaults to `"softmax"`):
            How the gate's outputs become non-negative scales: `"softmax"` (scales sum to one, as in the published
            checkpoints) or `"softplus"`.
        prompt_format (`str`, defaults to `"clean"`):
            How a chat becomes token ids: `"clean"` (the chat template as it is), or `"reference"` (bit-compatible
            with the paper authors' checkpoints, see `encoding_gpm.py`).
        reward_head (`bool`, defaults to `False`):
            Whether each response also has one scalar reward r, whose differences are added to the raw score, from
            dimension 2: `S_ij = (r_i - r_j + raw_ij) / tau`. What a ranking explains is then no work for the blocks:
            one block and a reward hold a response that beats all members of a cycle, which one block cannot.
        template_date (`str`, *optional*):
            The date, "YYYY-MM-DD", that chat templates write which ask for today's (Llama 3.2, gpt-oss), in training
            and in scoring: scores do not change with the day. `None` means "2024-07-26", the date that Llama 3's
            templates write where they are given none. A model saved before there was this option has "unknown": its
            template is given the same date, with a warning.

    Raises:
        ValueError: for a missing backbone, an odd dimension above 1, a gate, normalisation or reward head asked for at
            dimension 1, a `tau` that is not positive, a `template_date` that is no date, or an unknown option.
    """

    model_type = "gpm"
    sub_configs = {"text_config": AutoConfig}
    has_no_defaults_at_init = True
    _auto_class = "AutoConfig"
    # `import gpm_hf` sets it: the task "preference" is then in the registry of `pipeline`.
    pipeline_is_registered = False

    def __init__(
        self,
        text_config=None,
        embedding_dim=6,
        scale_gate=None,
        normalize_embeddings=None,
        tau=0.1,
        gate_activation="softmax",
        prompt_format="clean",
        reward_head=False,
        template_date=None,
        **kwargs,
    ):
        if text_config is None:
            raise ValueError(
                "GPMConfig needs `text_config`, the configuration of a decoder backbone. This error on loading means "
                "that the folder holds no general preference model; to start one from a language model use "
                "`GPMForPreference.from_backbone(name_or_path)`."
            )
        if isinstance(text_config, dict) and text_config.get("model_type") not in CONFIG_MAPPING:
            raise ValueError(
                f"transformers has no backbone {text_config.get('model_type')!r}. Where the model brings the code of "
                "its backbone, load it by `gpm_hf.load_preference_model(name_or_path, trust_remote_code=True)`."
            )
        if isinstance(text_config, dict):
            text_config = AutoConfig.for_model(**text_config)
        if not isinstance(embedding_dim, int) or embedding_dim < 1 or (embedding_dim > 1 and embedding_dim % 2):
            raise ValueError(
                f"embedding_dim={embedding_dim!r} is not possible: embeddings are made of two-dimensional blocks, so "
                "use an even number (2, 4, 6, ...), or 1 for a Bradley-Terry reward model."
            )
        if embedding_dim == 1 and (scale_gate or normalize_embeddings):
            raise ValueError(
                "embedding_dim=1 is the Bradley-Terry model: it has no two-dimensional block that `scale_gate` could "
                "scale, and `normalize_embeddings` would turn every reward into +1 or -1. Leave both unset."
            )
        if embedding_dim == 1 and reward_head:
            raise ValueError(
                "embedding_dim=1 is the Bradley-Terry model, all of which is a reward: `reward_head` would add a "
                "second one. Leave it unset, or use an even dimension."
            )
        if not tau > 0:
            raise ValueError(f"tau={tau!r} is not possible: scores are divided by it, so it must be positive.")
        if gate_activation not in GATE_ACTIVATIONS:
            raise ValueError(f"gate_activation={gate_activation!r} is unknown: choose one of {GATE_ACTIVATIONS}.")
        if prompt_format not in PROMPT_FORMATS:
            raise ValueError(f"prompt_format={prompt_format!r} is unknown: choose one of {PROMPT_FORMATS}.")

        self.text_config = text_config
        self.embedding_dim = embedding_dim
        self.scale_gate = embedding_dim > 1 if scale_gate is None else bool(scale_gate)
        self.normalize_embeddings = embedding_dim > 1 if normalize_embeddings is None else bool(normalize_embeddings)
        self.tau = tau
        self.gate_activation = gate_activation
        self.prompt_format = prompt_format
        self.reward_head = bool(reward_head)
        self.template_date = checked_date(template_date)

        # The parent's __init__ pushes its own (usually absent) choices down to the sub-configurations, which would
        # undo what the backbone's configuration says.
        attention = text_config._attn_implementation
        experts = text_config._experts_implementation
        # Trainers of reward models look for one label: a response has one preference value, whatever its dimension.
        kwargs.setdefault("num_labels", 1)
        if self.pipeline_is_registered:
            # It would go before the registry, and ask for trust in the repository's own code.
            kwargs.pop("custom_pipelines", None)
        super().__init__(**kwargs)
        if self._attn_implementation is None:
            self.text_config._attn_implementation = attention
        if self._experts_implementation is None:
            self.text_config._experts_implementation = experts

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        # As remote code this runs because the repository is trusted; that of the backbone lies in the same one.
        trust_remote_code = kwargs.pop("trust_remote_code", None) or is_remote(__name__)
        hub_options = {name: kwargs[name] for name in ("revision", "token", "cache_dir") if name in kwargs}
        settings, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if "text_config" in settings:
            settings["text_config"] = backbone_config(
                settings["text_config"], pretrained_model_name_or_path, trust_remote_code, **hub_options
            )
        return settings, kwargs

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        # A saved configuration without a date is older than the option.
        return super().from_dict({"template_date": UNKNOWN_DATE, **config_dict}, **kwargs)

    @property
    def encoding_options(self):
        """How this model's texts become token ids: the options of `encode_group`, as a `dict`."""
        return {"prompt_format": self.prompt_format, "template_date": self.template_date}

    @property
    def is_bradley_terry(self):
        """Whether this is the Bradley-Terry case: one scalar reward per response."""
        return self.embedding_dim == 1

    @property
    def output_dim(self):
        """Length of the embeddings that the model returns: `embedding_dim`, and 2 more with a reward head."""
        return self.embedding_dim + 2 * self.reward_head

    pad_token_id = _of_backbone("pad_token_id")
    bos_token_id = _of_backbone("bos_token_id")
    eos_token_id = _of_backbone("eos_token_id")


# What describes a model, beside its backbone: arguments of the configuration, and its attributes.
MODEL_OPTIONS = tuple(inspect.signature(GPMConfig.__init__).parameters)[2:-1]
