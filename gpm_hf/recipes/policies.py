"""Policies for the recipes: loaded to answer."""

import gc
from typing import Any

import torch
from accelerate import PartialState
from transformers import AutoModelForCausalLM

from gpm_hf.generation import PolicySampler, Sampler, SamplingOptions, VLLMSampler, read_policy
from gpm_hf.modeling import check_one_model
from gpm_hf.scoring import Scorer, ScorerBase, load_gguf_language_model, load_scorer, load_tokenizer, with_gguf_file
from gpm_hf.scoring.adapters import is_adapter, load_language_adapter
from gpm_hf.scoring.load_scorer import NO_MODEL
from gpm_hf.scoring.whole_models import loaded_whole


def is_gguf(policy: str) -> bool:
    """Whether a policy is a folder with one `.gguf` file."""
    return "gguf_file" in with_gguf_file(policy, {})


def load_policy(policy: str, dtype: Any = "auto", **options: Any) -> tuple[Any, Any]:
    """
    A policy on this process's device, and its tokenizer.

    Args:
        policy: a Hub id or folder of a causal language model or of its adapter; a folder with one `.gguf` file will
            do.
        dtype: of its weights; "auto" means as saved (float32 for GGUF).
        options: for `from_pretrained`.
    """
    hub_options = {name: options[name] for name in ("revision",) if options.get(name) is not None}
    if is_gguf(policy):
        model = load_gguf_language_model(policy, dtype="float32" if dtype == "auto" else dtype)
    elif is_adapter(policy, options):
        model = load_language_adapter(policy, dtype=dtype, **options)
        if not model.active_peft_config.is_prompt_learning:
            # The base with the adapter in its layers: it samples by its own class.
            model = model.get_base_model()
    else:
        check_one_model(policy, both_formats=True)
        model = loaded_whole(policy, lambda: AutoModelForCausalLM.from_pretrained(policy, dtype=dtype, **options))
    return model.to(PartialState().device), load_tokenizer(policy, **hub_options)


def load_sampler(
    policy: str,
    options: SamplingOptions,
    dtype: Any = "auto",
    use_vllm: bool = False,
    engine_options: dict[str, Any] | None = None,
    **load_options: Any,
) -> Sampler:
    """
    A policy as a sampler, by transformers or by vLLM.

    Args:
        policy, dtype, load_options: see [`load_policy`]; for vLLM the last may be `revision` alone.
        options: how it answers.
        use_vllm: by vLLM. The policy is loaded by transformers before and read once: in the type in which it was
            loaded the engine computes, and what it said is compared with what the engine says.
        engine_options: of vLLM's engine, see [`~gpm_hf.generation.read_engine_options`].

    Raises:
        ValueError: what vLLM does not take; see [`~gpm_hf.generation.VLLMSampler`].
    """
    if not use_vllm:
        if engine_options:
            raise ValueError(
                f"Options of vLLM ({', '.join(engine_options)}) without use_vllm: set it, or leave them out."
            )
        return PolicySampler(*load_policy(policy, dtype, **load_options), options)
    if is_gguf(policy):
        raise ValueError(f"{policy} is in GGUF: sample from it without vLLM, or save it as safetensors first.")
    if is_adapter(policy, load_options):
        raise ValueError(f"{policy} is an adapter: sample from it without vLLM, or merge it and save that first.")
    if load_options.keys() - {"revision"}:
        raise ValueError(f"vLLM does not take {sorted(load_options.keys() - {'revision'})}: leave them out.")
    # All accelerators of the machine, and its memory if these are full: as the engine will take them.
    placed = {"device_map": "auto"} if torch.accelerator.is_available() else {}
    check_one_model(policy, both_formats=True)
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=dtype, **placed, **load_options)
    tokenizer = load_tokenizer(policy, **load_options)
    reading = read_policy(model, tokenizer)
    del model
    free_memory()
    return VLLMSampler(policy, tokenizer, options, reading, **load_options, **engine_options or {})


def load_placed_scorer(spec: str, batch_size: int = 16) -> Scorer:
    """A scorer of a policy's samples by its description, on this process's device; see [`load_scorer`]."""
    has_model = spec.partition(":")[0] not in NO_MODEL
    options = {"batch_size": batch_size, "device": str(PartialState().device)} if has_model else {}
    scorer = load_scorer(spec, **options)
    if isinstance(scorer, ScorerBase):
        scorer.must_differ = False
    return scorer


def check_readable(scorer: Scorer, prompts: list[Any], source: str) -> None:
    """As [`~gpm_hf.scoring.ScorerBase.check`], of scorers that can say so."""
    if isinstance(scorer, ScorerBase):
        scorer.check(prompts, source)


def free_memory() -> None:
    """Gives what a model held, that nobody holds any more, back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
