"""
Whether what `generate` samples is from the policy: a few tokens, compared with the policy's own forward over them.

`generate` and a forward are two roads through a model: one with a cache, positions counted from the padding mask and
what an adapter adds to each step, the other over whole sequences. Where a library renamed an argument on one of them
(transformers 5.24: `past_key_values` became `cache`), or does not hand on positions (PEFT's virtual tokens), they part
without a word, and a trainer then fits one distribution to samples of another.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from accelerate.utils import is_peft_model
from transformers import GenerationConfig

from gpm_hf.modeling import evaluation_mode, input_device

# The largest difference of logits that is rounding, as a share of their spread (both as Euclidean norms over the
# vocabulary). Wrong roads differ by 0.5 to 1.8. On SmolLM2-135M rounding is 3.3e-6 of it in float32, 0.0062 in float16
# and 0.077 in bfloat16. Float32 is given more room, because TF32 has no more bits than float16.
_BOUNDS = {torch.float64: 1e-3, torch.float32: 0.02, torch.float16: 0.05, torch.bfloat16: 0.3}
_COARSEST = max(_BOUNDS.values())
PROBE_TEXT = "What is sampled is from the policy that is trained, whether its prompt is padded or not."
PROBE_LENGTH, _NEW_TOKENS = 8, 2


@dataclass(frozen=True)
class SamplingRoad:
    """
    How a policy is to be sampled, and read, so that both are the same policy.

    Attributes:
        use_cache: whether `generate` may keep keys and values.
        padding: whether rows may be padded on the left.
        positions: whether a forward over rows that are padded on the left needs `position_ids`.
    """

    use_cache: bool = True
    padding: bool = True
    positions: bool = False


def find_sampling_road(
    model: Any,
    tokenizer: Any,
    settings: GenerationConfig | None,
    dtype: torch.dtype | None = None,
    largest: Callable[[float], float] = float,
) -> SamplingRoad:
    """
    The road on which a policy samples what it says, with a cache if one does no harm. Nothing random is drawn.

    Args:
        model: the policy, as it is about to generate.
        tokenizer: the policy's.
        settings: by which it will generate; those of the cache are looked at, the others have no say here. `None`
            where something else samples: then only how the model reads padded rows is looked at.
        dtype: the coarsest type in which the policy computes on either road, by default that of its weights.
        largest: of the numbers of all processes, where they hold one model together; each takes the same steps.

    Returns:
        [`SamplingRoad`]

    Raises:
        ValueError: the policy samples something else with a cache and without one.
    """
    ids = tokenizer(PROBE_TEXT)["input_ids"][:PROBE_LENGTH]
    probe = _Probe(model, ids, settings or GenerationConfig(), largest)
    bound = rounding_bound(None if dtype is None and _is_quantized(model) else dtype or model.dtype)
    # Dropout off on both roads; of positions that PEFT ignores it would speak each time.
    with torch.no_grad(), evaluation_mode(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        use_cache = settings is None or settings.use_cache is not False
        found = probe.read() if settings is None else probe.sample(use_cache)
        # A prefix is a cache: there is no sampling without.
        if found.plain > bound and use_cache and not _has_prefix(model):
            use_cache = False
            found = probe.sample(use_cache)
        if found.plain > bound:
            raise _refusal(model, found.plain)
        padding, positions = found.padded <= bound, False
        if padding and found.forward > bound:
            positions = probe.forward_with_positions(found) <= bound
            padding = positions
    return SamplingRoad(use_cache, padding, positions)


def rounding_bound(dtype: torch.dtype | None) -> float:
    """
    The largest difference of logits, as a share of their spread, that is rounding in a type; `None`: of quantised
    weights.
    """
    return _COARSEST if dtype is None else _BOUNDS.get(dtype, _COARSEST)


def road_in_words(model: Any, road: SamplingRoad) -> list[str]:
    """What a user should know of a road, a sentence each; none where there is nothing."""
    said = []
    if not road.use_cache:
        said.append(
            f"{_description(model)} samples something else than it says itself when `generate` gives it a cache, so "
            "it samples without one, which takes longer. Other versions of these packages may do with one."
        )
    if not road.padding:
        said.append(
            f"{_description(model)} says something else when its prompt is padded: it reads prompts of one length at "
            "a time."
        )
    return said


def position_ids(attention_mask: torch.Tensor) -> torch.Tensor:
    """Positions that do not count padding, as `generate` gives them to a model: (rows, tokens)."""
    return (attention_mask.cumsum(-1) - 1).clamp(min=0)


def causal_lm(model: Any) -> Any:
    """The language model inside an adapter, or the model itself."""
    return model.get_base_model() if is_peft_model(model) else model


@contextmanager
def without_own_settings(model: Any) -> Iterator[None]:
    """The model without settings of generation: `generate` takes from these whatever those it is given leave open."""
    language_model = causal_lm(model)
    own, language_model.generation_config = language_model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        language_model.generation_config = own


@dataclass(frozen=True)
class _Differences:
    """Largest differences, as shares of the logits' spread, and what they are of."""

    plain: float  # of `generate` and the forward, of a row without padding
    padded: float  # of `generate`, of a row that is padded, and the forward without its padding
    forward: float  # of the forward with and without that padding
    sequences: torch.Tensor
    alone: torch.Tensor  # logits of the second row, read without padding before it


class _Probe:
    """Two rows, of which the second is padded on the left to half its length, on both roads."""

    def __init__(self, model: Any, ids: list[int], settings: GenerationConfig, largest: Callable[[float], float]):
        self.model, self.settings, self.largest = model, settings, largest
        self.padding = len(ids) // 2
        self.fill = settings.pad_token_id if isinstance(settings.pad_token_id, int) else ids[0]
        rows = [ids, [self.fill] * self.padding + ids[self.padding :]]
        self.ids = torch.tensor(rows, device=input_device(causal_lm(model)))
        self.mask = torch.ones_like(self.ids)
        self.mask[1, : self.padding] = 0

    def sample(self, use_cache: bool) -> _Differences:
        settings = GenerationConfig(
            do_sample=False,
            max_new_tokens=_NEW_TOKENS,
            min_new_tokens=_NEW_TOKENS,
            eos_token_id=self.settings.eos_token_id,
            pad_token_id=self.settings.pad_token_id,
            use_cache=use_cache,
            cache_implementation=self.settings.cache_implementation if use_cache else None,
            disable_compile=True,
            output_logits=True,
            return_dict_in_generate=True,
        )
        with without_own_settings(self.model):
            output = self.model.generate(input_ids=self.ids, attention_mask=self.mask, generation_config=settings)
        return self._compared(output.sequences, torch.stack(output.logits, 1))

    def read(self) -> _Differences:
        """As [`~_Probe.sample`] where something else generates."""
        return self._compared(torch.nn.functional.pad(self.ids, (0, _NEW_TOKENS), value=int(self.ids[0, -1])), None)

    def _compared(self, sequences: torch.Tensor, sampled: torch.Tensor | None) -> _Differences:
        # What follows a token does not change what was read before it: padding at the end is none.
        mask = torch.nn.functional.pad(self.mask, (0, _NEW_TOKENS), value=1)
        alone = sequences[1].roll(-self.padding).masked_fill(mask[1].flip(0) == 0, self.fill)
        logits = self._forward(torch.cat([sequences, alone[None]]), torch.cat([mask, mask[1:].flip(1)]))
        last = logits.shape[1] - 1
        whole, padded = logits[:2, last - _NEW_TOKENS : last]
        alone_logits = logits[2, last - self.padding - _NEW_TOKENS : last - self.padding]
        return _Differences(
            0.0 if sampled is None else self._difference(sampled[0], whole),
            0.0 if sampled is None else self._difference(sampled[1], alone_logits),
            self._difference(padded, alone_logits),
            sequences,
            alone_logits,
        )

    def forward_with_positions(self, found: _Differences) -> float:
        if "position_ids" not in inspect.signature(type(causal_lm(self.model)).forward).parameters:
            return self.largest(torch.inf)
        mask = torch.nn.functional.pad(self.mask, (0, _NEW_TOKENS), value=1)
        logits = self._forward(found.sequences, mask, position_ids=position_ids(mask))
        return self._difference(logits[1, -_NEW_TOKENS - 1 : -1], found.alone)

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=ids, attention_mask=mask, use_cache=False, **more).logits

    def _difference(self, found: torch.Tensor, expected: torch.Tensor) -> float:
        found, expected = found.double().to(expected.device), expected.double()
        if not expected.isfinite().all():
            return self.largest(0.0)  # a policy that says nothing cannot be sampled wrongly
        spread = (expected - expected.mean(-1, keepdim=True)).norm(dim=-1)
        shares = (found - expected).norm(dim=-1) / spread.clamp(min=1e-30)
        return self.largest(shares.nan_to_num(nan=torch.inf).max().item())


def _has_prefix(model: Any) -> bool:
    return is_peft_model(model) and model.active_peft_config.peft_type.value in ("PREFIX_TUNING", "CARTRIDGE")


def _is_quantized(model: Any) -> bool:
    return vars(causal_lm(model).config).get("quantization_config") is not None


def _description(model: Any) -> str:
    packages = ["transformers", *(["peft"] if is_peft_model(model) else [])]
    adapter = f" with a {model.active_peft_config.peft_type.value} adapter" if is_peft_model(model) else ""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{type(causal_lm(model)).__name__} ({causal_lm(model).config.model_type}){adapter} ({versions})"


def _refusal(model: Any, difference: float) -> ValueError:
    return ValueError(
        f"{_description(model)}: what `generate` samples is not from the policy. Its logits differ from the policy's "
        f"own by {difference:.2g} of their spread, and no way around was found. Take other versions of these packages "
        "(the tested ones are in constraints.txt), or another kind of model or adapter, such as LoRA."
    )
