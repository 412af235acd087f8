"""Samples by vLLM, where it is installed."""

from typing import Any

from accelerate import PartialState

from gpm_hf.data.sampled_ids import tokenizer_digest

from .prompts import check_prompts, encode_prompt
from .sampled_group import SampledGroup, response_text
from .sampling import SamplingOptions, shard_seed, stop_ids, up_to_stop


class VLLMSampler:
    """
    Samples by vLLM, in this process and on its own GPUs: many times faster than `generate` for a large policy.

    Args:
        policy (`str`): a Hub id or folder.
        tokenizer (`PreTrainedTokenizerBase`): the policy's, with a chat template.
        options ([`SamplingOptions`]): how it answers; vLLM makes its batches itself, so `batch_size` has no meaning.
        generation_config (`GenerationConfig`, *optional*): the policy's, which may name further ids that end an
            answer.
        engine_options: further arguments of `vllm.LLM` (`dtype`, `tensor_parallel_size`, ...).

    Raises:
        ImportError: vLLM is not installed.
        ValueError: several launched processes.
    """

    def __init__(
        self,
        policy: str,
        tokenizer: Any,
        options: SamplingOptions,
        generation_config: Any = None,
        **engine_options: Any,
    ):
        try:
            from vllm import LLM
        except ImportError as error:
            raise ImportError(
                'Sampling by vLLM needs it installed: `pip install "gpm-hf[vllm]"`; or leave use_vllm out.'
            ) from error
        if PartialState().num_processes > 1:
            raise ValueError(
                f"use_vllm with {PartialState().num_processes} processes: vLLM takes its GPUs itself. Start one "
                "process, or leave use_vllm out, and every process samples its share."
            )
        self.tokenizer = tokenizer
        self.options = options
        self.stop_ids = stop_ids(tokenizer, generation_config)
        self.digest = tokenizer_digest(tokenizer)
        # The policy's own sampling defaults have no say, and log-probabilities are its own, before temperature.
        self.engine = LLM(policy, generation_config="vllm", logprobs_mode="raw_logprobs", **engine_options)

    def check(self, prompts: list, source: str) -> None:
        """As in [`Sampler`]; how long the context is, vLLM decides."""
        check_prompts(self.tokenizer, prompts, source)

    def __call__(self, prompts: list, seed: int) -> list[list[str]]:
        """As in [`Sampler`]."""
        return [group.responses for group in self.sample(prompts, seed)]

    def sample(self, prompts: list, seed: int) -> list[SampledGroup]:
        """As in [`Sampler`]."""
        from vllm import SamplingParams

        # With one seed for all, equal random numbers would go into different answers.
        settings = [
            SamplingParams(
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
        asked = [{"prompt_token_ids": ids} for ids in encoded]
        outputs = self.engine.generate(asked, settings, use_tqdm=False)
        return [self._group(ids, output.outputs) for ids, output in zip(encoded, outputs)]

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
