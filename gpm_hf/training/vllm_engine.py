"""The options of a vLLM engine that TRL starts in the trainer's own process, which has none for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from trl.generation import vllm_generation
from trl.import_utils import is_vllm_available


@contextmanager
def engine_options(trainer: Any, args: Any) -> Iterator[None]:
    """
    While it lasts, engines that TRL starts get `args.vllm_engine_kwargs`, and compute in the type in which the trainer
    does: left alone, vLLM computes a policy that is saved in float32 in bfloat16.

    Args:
        trainer ([`OnlineGPOTrainer`]): being made; by the time of the engine it has its model.
        args ([`OnlineGPOConfig`]): its options.

    Raises:
        ValueError: an engine that cannot take the weights of a policy that has moved.
    """
    if not (args.use_vllm and args.vllm_mode == "colocate" and is_vllm_available()):
        yield  # that it is not there TRL says
        return
    own = vllm_generation.LLM

    def engine(**theirs: Any) -> Any:
        options: dict[str, Any] = {} if theirs["quantization"] else {"dtype": computing_dtype(args, trainer.model)}
        found = own(**{**theirs, **options, **(args.vllm_engine_kwargs or {})})
        _check_weights(trainer, found)
        return found

    vllm_generation.LLM = engine
    try:
        yield
    finally:
        vllm_generation.LLM = own


def _check_weights(trainer: Any, engine: Any) -> None:
    """Raises `ValueError` for an engine into which TRL could not put the weights of a policy that has moved."""
    if trainer.accelerator.device.type != "cpu":
        return
    model = engine.llm_engine.model_executor.driver_worker.model_runner.model
    if not all(weight.numel() for weight in model.parameters()):
        raise ValueError(
            "vllm_mode='colocate' on a CPU: vLLM has packed this policy's weights for the CPU and let go of them, so "
            "what is trained cannot be put into its engine. Train on a GPU, or leave `use_vllm` out."
        )


def check_room(trainer: Any, prompt_ids: list[list[int]]) -> None:
    """
    Raises `ValueError` for a prompt after which the engine would end a completion without a word, because its context
    does. Of an engine in this process, and of prompts that no tools make longer: then TRL looks itself.
    """
    if trainer.vllm_mode != "colocate" or trainer.tools:
        return
    context, longest = trainer.vllm_generation.llm.model_config.max_model_len, max(map(len, prompt_ids))
    if longest + trainer.max_completion_length > context:
        raise ValueError(
            f"A prompt of this batch has {longest} tokens; with max_completion_length={trainer.max_completion_length} "
            f"that is more than the vLLM engine's context of {context}, which would cut it without a word. "
            "Lower it, raise `vllm_max_model_length` as far as the policy allows, or leave such prompts out."
        )


def engine_dtype(trainer: Any) -> torch.dtype | None:
    """In what type an engine computes; `None` for one that is quantised, or elsewhere."""
    if trainer.vllm_mode != "colocate":
        return None
    config = trainer.vllm_generation.llm.model_config
    return config.dtype if config.quantization is None else None


def computing_dtype(args: Any, model: Any) -> torch.dtype:
    """In what type a trainer computes its model."""
    return torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else model.dtype
