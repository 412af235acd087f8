"""What several commands need: the arguments that name a model, loading it."""

import argparse
from collections.abc import Callable
from typing import Any

from gpm_hf.errors import UsageError


def model_command(commands: Any, name: str, text: str, run: Callable) -> argparse.ArgumentParser:
    """A command whose first argument is a model."""
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument(
        "model",
        help="Hub id or folder of a preference model or of its LoRA adapter, or remote:URL of one that is served",
    )
    parser.add_argument("--revision", help="branch, tag or commit of the model on the Hub")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16, ... (default: as saved)")
    parser.add_argument(
        "--precise",
        action="store_true",
        help="load the model in float32: log-odds then move with the batch by 0.001 at most, in bfloat16 by up to 1.5 "
        "(measured, with unit-norm embeddings and tau = 0.1), which reorders responses that are close",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU where there is one)")
    parser.add_argument("--batch-size", type=int, default=16, help="sequences encoded at once")
    parser.add_argument("--format", choices=["text", "json"], default="text")
    parser.set_defaults(run=run)
    return parser


_COUNTS = ("batch_size", "batch_tokens", "chunk_size", "shard_size", "max_new_tokens", "limit", "max_tokens")


def check_options(options: argparse.Namespace) -> None:
    """
    Raises `UsageError` for an option of any command that would fail only where it is first used, or not at all: a
    device that is not there, a type that is none, a number of things below 1.
    """
    given = vars(options)
    for name in _COUNTS:
        if isinstance(given.get(name), int) and given[name] < 1:
            raise UsageError(f"--{name.replace('_', '-')} {given[name]}: at least 1 is needed.")
    if given.get("device") not in (None, "cpu"):
        _check_device(given["device"])
    if given.get("dtype") not in (None, "auto"):
        _check_dtype(given["dtype"])


def _check_device(device: str) -> None:
    import torch

    found = ["cpu"]
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None:
        kind = accelerator.type
        found += [kind, *(f"{kind}:{number}" for number in range(torch.accelerator.device_count()))]
    if device not in found:
        raise UsageError(
            f"--device {device}: torch finds {', '.join(found)} here. Name one of these, or leave it out."
        )


def _check_dtype(dtype: str) -> None:
    import torch

    found = vars(torch).get(dtype)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise UsageError(f"--dtype {dtype} is no type of weights: name float32, bfloat16 or float16, or leave it out.")


def arguments_of(options: argparse.Namespace) -> dict[str, Any]:
    """What a command was given, as the function of the same arguments takes it."""
    return {name: value for name, value in vars(options).items() if name not in ("command", "kind", "run")}


def hub_options(options: argparse.Namespace) -> dict[str, Any]:
    """Where on the Hub a model is read."""
    return {"revision": options.revision} if options.revision else {}


def is_remote(options: argparse.Namespace) -> bool:
    """Whether the arguments of [`model_command`] name a model that another process serves."""
    return options.model.startswith("remote:")


def load_model(options: argparse.Namespace) -> tuple[Any, Any]:
    """The model and tokenizer that the arguments of [`model_command`] name."""
    if is_remote(options):
        return _remote_model(options)
    import torch
    from accelerate import PartialState
    from transformers.utils import logging

    from gpm_hf.scoring import load_preference_model, load_tokenizer

    if options.precise and options.dtype not in ("auto", "float32"):
        raise UsageError(f"--precise is float32, and --dtype {options.dtype} was given: leave one of them out.")
    dtype = "float32" if options.precise else options.dtype
    logging.disable_progress_bar()
    model = load_preference_model(options.model, dtype=dtype, **hub_options(options))
    # Under a launcher each process has a device of its own.
    state = PartialState(cpu=options.device == "cpu" or not torch.accelerator.is_available())
    return model.to(options.device or state.device), load_tokenizer(options.model, **hub_options(options))


def _remote_model(options: argparse.Namespace) -> tuple[Any, Any]:
    from gpm_hf.scoring import RemoteScorer
    from gpm_hf.scoring.remote_model import RemoteModel

    if options.precise or options.dtype != "auto" or options.device is not None:
        raise ValueError("--dtype, --precise and --device are of a model in this process: give them to the server.")
    scorer = RemoteScorer(options.model.removeprefix("remote:"), **hub_options(options))
    return RemoteModel(scorer), scorer.tokenizer
