"""K samples of a policy for each prompt, the same ones whenever they are asked for again."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from gpm_hf.data.sampled_ids import tokenizer_digest
from gpm_hf.modeling import input_device

from .prompts import check_prompts, check_room, context_length, encode_prompt
from .sampled_group import SampledGroup, response_text
from .sampling_check import SamplingRoad, find_sampling_road, road_in_words, without_own_settings


@dataclass(frozen=True)
class SamplingOptions:
    """
    How a policy answers.

    Attributes:
        num_generations: K, samples per prompt.
        temperature: 0 takes the most probable token each time, which needs K = 1.
        top_p: share of the probability that is drawn from.
        max_new_tokens: an answer that is not finished by then ends there.
        batch_size: sequences generated at once.

    Raises:
        ValueError: for impossible values.
    """

    num_generations: int = 5
    temperature: float = 0.7
    top_p: float = 0.9
    max_new_tokens: int = 1024
    batch_size: int = 16

    def __post_init__(self):
        for name in ("num_generations", "max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: at least 1 is needed.")
        if self.temperature < 0 or (self.temperature == 0 and self.num_generations > 1):
            raise ValueError(
                f"temperature={self.temperature} with num_generations={self.num_generations}: a temperature is not "
                "negative, and at 0 all samples would be the same."
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: a share of the probability is in (0, 1].")


class Sampler(Protocol):
    """What answers prompts: [`PolicySampler`] and [`~gpm_hf.generation.VLLMSampler`]."""

    def check(self, prompts: list, source: str) -> None:
        """Raises `ValueError` for a prompt that cannot be answered, see [`~gpm_hf.generation.check_prompts`]."""
        ...

    def sample(self, prompts: list, seed: int) -> list[SampledGroup]:
        """
        Args:
            prompts: N prompts, strings or chat messages.
            seed: of the random numbers; the same prompts and seed give the same answers.

        Returns:
            For each prompt K answers, with the token ids that were sampled and their log-probabilities.
        """
        ...

    def __call__(self, prompts: list, seed: int) -> list[list[str]]:
        """The texts of what [`~Sampler.sample`] answers, N lists of K; a text may be empty."""
        ...


def shard_seed(seed: int, *place: int) -> int:
    """
    The seed of one part of a job, so that the parts can be done in any order and by anyone.

    Args:
        seed: of the job.
        place: where the part stands, such as the iteration and the shard's number.

    Returns:
        A number of 63 bits; seeds of different places are as good as independent.
    """
    return int(np.random.SeedSequence([seed, *place]).generate_state(1, np.uint64)[0] >> 1)


def stop_ids(tokenizer: Any, generation_config: GenerationConfig | None) -> list[int]:
    """Ids that end an answer: the tokenizer's EOS and all that the model's generation configuration names."""
    named = generation_config.eos_token_id if generation_config is not None else None
    ids = {tokenizer.eos_token_id, *(named if isinstance(named, (list, tuple)) else [named])} - {None}
    if not ids:
        raise ValueError("Neither tokenizer nor model name an EOS token, so no answer would end: set one.")
    return sorted(ids)


class PolicySampler:
    """
    Samples by transformers' `generate`. Prompts of like length are answered together, padded on the left. Of the
    model's own generation settings only the ids that end an answer are used: what the options say is all that shapes
    the distribution (no top-k, no penalties).

    Before the first answer it is made sure that `generate` samples from the policy, see
    [`~gpm_hf.generation.find_sampling_road`]: without a cache, or one length at a time, where nothing else does.

    Args:
        model (`PreTrainedModel`): the policy, where it shall compute.
        tokenizer (`PreTrainedTokenizerBase`): the policy's, with a chat template.
        options ([`SamplingOptions`]): how it answers.
    """

    def __init__(self, model: Any, tokenizer: Any, options: SamplingOptions):
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.options = options
        self.stop_ids = stop_ids(tokenizer, model.generation_config)
        self.pad_id = self.stop_ids[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self.context_length = context_length(model.config)
        self.digest = tokenizer_digest(tokenizer)
        self._road: SamplingRoad | None = None

    @property
    def road(self) -> SamplingRoad:
        """How this policy is sampled, found out once, see [`~gpm_hf.generation.find_sampling_road`]."""
        if self._road is None:
            self._road = find_sampling_road(self.model, self.tokenizer, self._settings())
            for said in road_in_words(self.model, self._road):
                warnings.warn(said, stacklevel=3)
        return self._road

    def check(self, prompts: list, source: str) -> None:
        """As in [`Sampler`]."""
        check_prompts(self.tokenizer, prompts, source, self.options.max_new_tokens, self.context_length)

    def __call__(self, prompts: list, seed: int) -> list[list[str]]:
        """As in [`Sampler`]."""
        return [group.responses for group in self.sample(prompts, seed)]

    def sample(self, prompts: list, seed: int) -> list[SampledGroup]:
        """
        As in [`Sampler`]. Log-probabilities are of the logits that the samples were drawn from.

        Raises:
            ValueError: a prompt that leaves no room for an answer of `max_new_tokens`, naming it by its number; a
                policy from which `generate` does not sample.
        """
        encoded = [encode_prompt(self.tokenizer, one, f"Prompt {number}") for number, one in enumerate(prompts)]
        for number, ids in enumerate(encoded):
            check_room(len(ids), self.options.max_new_tokens, self.context_length, f"Prompt {number}")
        copies = [number for number in range(len(prompts)) for _ in range(self.options.num_generations)]
        # The longest first: what does not fit into memory is known at once.
        copies.sort(key=lambda number: -len(encoded[number]))
        answers: list[list[tuple[list[int], float]]] = [[] for _ in prompts]
        device, road = input_device(self.model), self.road
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            for batch in self._batches(copies, encoded, road.padding):
                found = self._generate([encoded[number] for number in batch], device, road.use_cache)
                for number, answer in zip(batch, found):
                    answers[number].append(answer)
        return [self._group(ids, found) for ids, found in zip(encoded, answers)]

    def _batches(self, copies: list[int], encoded: list[list[int]], padding: bool) -> Iterator[list[int]]:
        """Parts of what is sorted by length, each of one length where there must be no padding."""
        parts = [copies] if padding else [list(part) for _, part in groupby(copies, lambda one: len(encoded[one]))]
        for part in parts:
            for first in range(0, len(part), self.options.batch_size):
                yield part[first : first + self.options.batch_size]

    def _group(self, prompt_ids: list[int], answers: list[tuple[list[int], float]]) -> SampledGroup:
        response_ids, log_probs = [ids for ids, _ in answers], [log_prob for _, log_prob in answers]
        texts = [response_text(self.tokenizer, prompt_ids, ids, self.stop_ids) for ids in response_ids]
        return SampledGroup(texts, prompt_ids, response_ids, log_probs, self.digest)

    @torch.no_grad()
    def _generate(
        self, prompts: list[list[int]], device: torch.device, use_cache: bool
    ) -> list[tuple[list[int], float]]:
        width = max(map(len, prompts))
        input_ids = torch.full((len(prompts), width), self.pad_id)
        mask = torch.zeros_like(input_ids)
        for row, ids in enumerate(prompts):
            input_ids[row, width - len(ids) :] = torch.tensor(ids)
            mask[row, width - len(ids) :] = 1
        drawn = _DrawnLogProbs()
        with without_own_settings(self.model):
            output = self.model.generate(
                input_ids=input_ids.to(device),
                attention_mask=mask.to(device),
                generation_config=self._settings(use_cache),
                logits_processor=LogitsProcessorList([drawn]),
            )
        log_probs = drawn.of(output)
        # What comes after the token that ended an answer is padding.
        answers = [up_to_stop(ids, self.stop_ids) for ids in output[:, width:].tolist()]
        return [(ids, sum(log_probs[row, : len(ids)].tolist())) for row, ids in enumerate(answers)]

    def _settings(self, use_cache: bool = True) -> GenerationConfig:
        chosen = (
            {"do_sample": True, "temperature": self.options.temperature, "top_p": self.options.top_p, "top_k": 0}
            if self.options.temperature > 0
            else {"do_sample": False}
        )
        return GenerationConfig(
            **chosen,
            max_new_tokens=self.options.max_new_tokens,
            eos_token_id=self.stop_ids,
            pad_token_id=self.pad_id,
            # Said here, because a model that was trained with gradient checkpointing is saved with its cache off.
            use_cache=use_cache,
        )


class _DrawnLogProbs(LogitsProcessor):
    """
    Remembers the log-probability of each token that `generate` draws, and changes nothing. It is asked before
    temperature and top-p have shaped the logits, and each time it sees which token the last ones have become.
    """

    def __init__(self):
        self.found: list[torch.Tensor] = []
        self.open: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._close(input_ids)
        self.open = scores.float().log_softmax(-1)
        return scores

    def of(self, output: torch.Tensor) -> torch.Tensor:
        """The log-probabilities of all tokens that were drawn, of shape (rows, tokens), from what `generate` gave."""
        self._close(output)
        return torch.cat(self.found, 1)

    def _close(self, ids: torch.Tensor) -> None:
        if self.open is not None:
            self.found.append(self.open.gather(1, ids[:, -1:]))
            self.open = None


def up_to_stop(ids: list[int], stop_ids: list[int]) -> list[int]:
    """An answer's ids up to and with the first that ends it."""
    ends = [place for place, token in enumerate(ids) if token in stop_ids]
    return ids[: ends[0] + 1] if ends else ids
