"""A scorer out of what a user types."""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from transformers import AutoConfig

from gpm_hf.modeling import GPMConfig

from .adapters import is_adapter
from .gpm_scorer import GPMScorer
from .pair_classifier_scorer import PairClassifierScorer
from .pair_completion_scorer import PairCompletionScorer
from .remote_scorer import RemoteScorer
from .repositories import hub_options_of, with_gguf_file
from .reward_model_scorer import RewardModelScorer
from .scorer import Scorer
from .scorer_models import is_classifier
from .simple_scorers import CallableScorer, ConstantScorer, RandomScorer

# Kinds of scorers without a model in this process.
NO_MODEL = ("function", "random", "constant", "remote")
_KINDS: dict[str, Callable[..., Scorer]] = {
    "gpm": GPMScorer,
    "reward": RewardModelScorer,
    "pair": PairClassifierScorer,
    "judge": PairCompletionScorer,
}


def load_scorer(spec: str, **options: Any) -> Scorer:
    """
    A scorer from its description.

    Args:
        spec (`str`): one of

            - `"gpm:NAME"`: a general preference model or a Bradley-Terry model of ours, or its LoRA adapter;
            - `"reward:NAME"`: a sequence classification reward model;
            - `"pair:NAME"`: a sequence classification model that reads both responses at once;
            - `"judge:NAME"`: a causal language model that answers "A" or "B";
            - `"function:MODULE.NAME"`: a function of yours, see [`CallableScorer`]; the module is looked for in the
              working folder too;
            - `"remote:URL"`, `"remote:URL#MODEL"`: a preference model that another process serves, see
              [`RemoteScorer`];
            - `"random"`, `"random:SEED"`, `"constant"`;
            - `NAME` alone: a general preference model or a reward model, as its configuration says.

            NAME is a Hub id or a folder.
        options: `batch_size`, `device`, `name`, and what the scorer's own arguments are (`temperature`, `template`,
            `both_orders`, ...); the rest goes to `from_pretrained` (`dtype`, `revision`, `trust_remote_code`, ...).
            Scorers without a model take `name` only, and a remote one what [`RemoteScorer`] does.

    Returns:
        [`Scorer`]

    Raises:
        ValueError: where the description names no scorer, or the model is of another kind than it says.
    """
    kind, name = read_description(spec, options)
    return _without_model(spec, options) if name is None else _KINDS[kind](name, **options)


def read_description(spec: str, options: dict) -> tuple[str, str | None]:
    """
    The kind of scorer that a description names, and the Hub id or folder of its model; `None` for one without a model
    in this process.

    Args:
        spec, options: as in [`load_scorer`].

    Raises:
        ValueError: as [`load_scorer`] for what describes no scorer.
    """
    if not isinstance(spec, str):
        raise ValueError(f"A scorer is described by a string, got a {type(spec).__name__}.")
    kind, colon, name = spec.partition(":")
    if kind in NO_MODEL:
        return kind, None
    if not colon:
        return _kind_of(spec, options), spec
    if kind not in _KINDS or not name:
        kinds = ", ".join(f"{known}:NAME" for known in _KINDS)
        raise ValueError(
            f"{spec!r} describes no scorer. Give {kinds}, function:MODULE.NAME, remote:URL, random, "
            "random:SEED, constant, or a name alone."
        )
    return kind, name


def import_function(path: str) -> Callable:
    """
    The function `MODULE.NAME`; the module is looked for in the working folder too.

    Raises:
        ImportError: no such module.
        ValueError: no such function in it.
    """
    module, _, name = path.rpartition(".")
    if not module or not name:
        raise ValueError(f"{path!r} is no function: give MODULE.NAME, such as my_file.my_function.")
    # At the end, where it hides nothing that is installed.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return getattr(importlib.import_module(module), name)
    except AttributeError as error:
        raise ValueError(f"The module {module} has no {name}.") from error


def _without_model(spec: str, options: dict) -> Scorer:
    kind, colon, seed = spec.partition(":")
    if kind == "remote":
        return RemoteScorer(seed, **options)
    unknown = sorted(options.keys() - {"name"})
    if unknown:
        raise ValueError(f"{spec!r} has no model, so {unknown} mean nothing to it: leave them out.")
    if kind == "function":
        return CallableScorer(import_function(seed), options.get("name", seed))
    if kind == "constant" and not colon:
        return ConstantScorer(**options)
    if kind == "random" and not colon:
        return RandomScorer(**options)
    if kind == "random" and seed.isdecimal():
        return RandomScorer(int(seed), **options)
    raise ValueError(
        f"{spec!r} describes no scorer: it is `random`, `random:SEED` with a whole number, or `constant`."
    )


def _kind_of(name: str, options: dict) -> str:
    """Which kind of model a Hub id or folder holds."""
    options = with_gguf_file(name, options)
    if "gguf_file" in options:
        raise ValueError(f"{name} holds a language model in GGUF. As a judge of pairs it is judge:{name}.")
    if is_classifier(name, options):
        return "reward"
    if is_adapter(name, options):
        # It says itself where it is no preference model's.
        return "gpm"
    config = AutoConfig.from_pretrained(name, **hub_options_of(options))
    if config.model_type == GPMConfig.model_type:
        return "gpm"
    raise ValueError(
        f"{name} is neither a general preference model nor a sequence classification model, but a {config.model_type} "
        f"({', '.join(config.architectures or []) or 'of no stated architecture'}). A language model that judges "
        f"pairs is judge:{name}; a preference model is trained from one by `gpm-hf train reward` or "
        "trainers/reward.py."
    )
