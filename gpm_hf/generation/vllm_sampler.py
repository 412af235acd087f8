"""Samples by vLLM, where it is installed."""

import os
from dataclasses import fields
from typing import Any

from accelerate import PartialState

from gpm_hf.data.sampled_ids import tokenizer_digest

from .engine_check import NEW_TOKENS, PolicyReading
from .prompts import check_prompts, check_room, encode_prompt
from .sampled_group import SampledGroup, response_text
from .sampling import SamplingOptions, shard_seed, stop_ids, up_to_stop


def import_vllm() -> Any:
    """
    The package `vllm`, whichever distribution of it is installed.

    Raises:
        ImportError: none is.
    """
    # What it tells of itself goes where progress goes: standard output is the answer of a command.
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    try:
        import vllm
    except ImportError as error:
        raise ImportError(
            'Sampling by vLLM needs it installed: `pip install "gpm-hf[vllm]"`; or leave use_vllm out.'
        ) from error
    return vllm


class VLLMSampler:
    """
    Samples by vLLM, in this process and on its own GPUs: many times faster than `generate` for a large policy.

    The engine computes in the type that the policy was read in, and before the first answer it is asked what the
    policy itself was asked: vLLM has its own code for each architecture.

    Args:
        policy (`str`): a Hub id or folder.
        tokenizer (`PreTrainedTokenizerBase`): the policy's, with a chat template.
        options ([`SamplingOptions`]): how it answers; vLLM makes its batches itself, so `batch_size` has no meaning.
        reading ([`~gpm_hf.generation.PolicyReading`]): what the policy says by its own forward.
        revision (`str`, *optional*): of a Hub id.
        engine_options: further arguments of `vllm.LLM` (`max_model_len`, `tensor_parallel_size`, ...).

    Raises:
        ImportError: vLLM is not installed.
        ValueError: several launched processes; an option that vLLM does not know; an engine that says something else
            than the policy.
    """

    def __init__(
        self,
        policy: str,
        tokenizer: Any,
        options: SamplingOptions,
        reading: PolicyReading,
        revision: str | None = None,
        **engine_options: Any,
    ):
        vllm = import_vllm()
        if PartialState().num_processes > 1:
            raise ValueError(
                f"use_vllm with {PartialState().num_processes} processes: vLLM takes its GPUs itself. Start one "
                "process, or leave use_vllm out, and every process samples its share."
            )
        unknown = engine_options.keys() - {option.name for option in fields(vllm.EngineArgs)}
        if unknown:
            raise ValueError(f"vLLM knows no option {', '.join(sorted(unknown))}: `vllm serve --help=all` lists them.")
        self.tokenizer = tokenizer
        self.options = options
        self.stop_ids = stop_ids(tokenizer, reading.generation_config)
        self.digest = tokenizer_digest(tokenizer)
        self.engine = vllm.LLM(
            policy,
            revision=revision,
            # "auto" would compute a policy that is saved in float32 in bfloat16.
            dtype=str(reading.dtype).removeprefix("torch."),
            # The policy's own sampling defaults have no say, and log-probabilities are its own, before temperature.
            generation_config="vllm",
            logprobs_mode="raw_logprobs",
            **engine_options,
        )
        lengths = [self.engine.model_config.max_model_len, reading.context_length]
        self.context_length = min(length for length in lengths if length is not None)
        self._compare(policy, reading)

    def check(self, prompts: list, source: str) -> None:
        """As in [`Sampler`]. vLLM itself would end an answer without a word where its context ends."""
        check_prompts(self.tokenizer, prompts, source, self.options.max_new_tokens, self.context_length)

    def __call__(self, prompts: list, seed: int) -> list[list[str]]:
        """As in [`Sampler`]."""
        return [group.responses for group in self.sample(prompts, seed)]

    def sample(self, prompts: list, seed: int) -> list[SampledGroup]:
        """
        As in [`Sampler`].

        Raises:
            ValueError: a prompt that leaves no room for an answer of `max_new_tokens`, naming it by its number.
        """
        vllm = import_vllm()
        # With one seed for all, equal random numbers would go into different answers.
        settings = [
            vllm.SamplingParams(
                n=self.options.num_generations,
                temperature=self.options.temperature,
                top_p=self.options.top_p,
                max_tokens=self.options.max_new_tokens,
                stop_token_ids=self.stop_ids,
                logprobs=0,  # that of the token itself and of no other
                seed=shard_seed(seed, number),
            )
            for number in range(len(prompts))
        ]
        encoded = [encode_prompt(self.tokenizer, one, f"Prompt {number}") for number, one in enumerate(prompts)]
        for number, ids in enumerate(encoded):
            check_room(len(ids), self.options.max_new_tokens, self.context_length, f"Prompt {number}")
        asked = [{"prompt_token_ids": ids} for ids in encoded]
        outputs = self.engine.generate(asked, settings, use_tqdm=False)
        return [self._group(ids, output.outputs) for ids, output in zip(encoded, outputs)]

    def _compare(self, policy: str, reading: PolicyReading) -> None:
        """Raises `ValueError` where the engine says something else than the policy."""
        vllm = import_vllm()
        settings = vllm.SamplingParams(
            temperature=0.0, max_tokens=NEW_TOKENS, logprobs=0, prompt_logprobs=0, ignore_eos=True
        )
        text = reading.ids[: reading.text_length]
        (output,) = self.engine.generate([{"prompt_token_ids": text}], settings, use_tqdm=False)
        drawn = output.outputs[0]
        tokens = [*text[1:], *drawn.token_ids]
        found = [*output.prompt_logprobs[1:], *drawn.logprobs]
        config = self.engine.model_config
        difference = reading.difference(tokens, [one[token].logprob for token, one in zip(tokens, found)])
        bound = reading.bound(config.dtype if config.quantization is None else None)
        if not difference <= bound:
            raise ValueError(
                f"vLLM {vllm.__version__} says something else than {policy} itself: log-probabilities differ by "
                f"{difference:.2g} of the logits' spread, and in {config.dtype} up to {bound:g} is rounding. Take "
                "another version of vLLM or other options of the engine, or leave use_vllm out."
            )

    def _group(self, prompt_ids: list[int], samples: list) -> SampledGroup:
        response_ids = [up_to_stop(list(sample.token_ids), self.stop_ids) for sample in samples]
        return SampledGroup(
            # vLLM's own texts are without special tokens.
            responses=[response_text(self.tokenizer, prompt_ids, ids, self.stop_ids) for ids in response_ids],
            prompt_ids=prompt_ids,
            response_ids=response_ids,
            policy_log_probs=[
                sum(found[token].logprob for token, found in zip(ids, sample.logprobs))
                for ids, sample in zip(response_ids, samples)
            ],
            tokenizer_digest=self.digest,
        )
