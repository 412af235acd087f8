"""Options of an inference engine, as they are given on a command line."""

import json
from collections.abc import Sequence
from typing import Any

# Said otherwise, or what makes the samples those of the policy.
_TAKEN = {
    "model": "the policy is named by itself",
    "tokenizer": "token ids go in and out",
    "revision": "it has an option of its own",
    "dtype": "it has an option of its own",
    "generation_config": "the policy's defaults have no say",
    "logprobs_mode": "log-probabilities are the policy's own",
}


def read_engine_options(given: Sequence[str] | None) -> dict[str, Any]:
    """
    Args:
        given: `key=value` each. A value is read as JSON (`0.5`, `true`, `{"a": 1}`) and is else a string.

    Returns:
        Arguments of `vllm.LLM`.

    Raises:
        ValueError: not of that form, given twice, or not to be chosen, with the reason.
    """
    options: dict[str, Any] = {}
    for one in given or ():
        key, equals, value = one.partition("=")
        key = key.strip().removeprefix("--").replace("-", "_")
        if not (equals and key and value):
            raise ValueError(f"vLLM options: {one!r} is not of the form key=value, such as max_model_len=4096.")
        if key in _TAKEN:
            raise ValueError(f"vLLM options: {key} is not to be given here, because {_TAKEN[key]}.")
        if key in options:
            raise ValueError(f"vLLM options: {key} is given twice.")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options
