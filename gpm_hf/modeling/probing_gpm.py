"""
What a backbone can do, asked of itself: a few tokens by each road, against the same tokens by plain forward.

Two prompts with two responses each are read as plain rows, with the prompts in a cache, and as packed rows; whether it
is causal a prompt with two responses shows. A road that gives other states is not taken. The answer holds for all
models of a process with this class, configuration, attention, device and type, and where it is a yes for later
processes too, see `answers_gpm.py`. Not asked are models whose weights this process does not hold whole (sharded or
offloaded ones), whose attention does not run where they are, and quantised ones on a CPU: what their configuration
says decides alone. So it does for all with `GPM_HF_PROBE=0` in the environment.
"""

import math
import os
from typing import NamedTuple

import torch
from torch.distributed.tensor import DTensor

from .answers_gpm import described, is_kept, keep
from .evaluation_gpm import evaluation_mode
from .packed_attention_gpm import plain_attention
from .pooling_gpm import input_device

# Numbers of tokens. Whether it is causal a backbone says by as few as can be.
PROMPTS, RESPONSES = (3, 2), (1, 2)
SHORTEST = (1,), (1, 1)
# A road's states may differ by so much of their norm: rounding of each type, with room. Where another prompt changes
# much, by a hundredth of that.
_ROUNDING = {torch.float64: 1e-5, torch.float32: 5e-5, torch.float16: 5e-3, torch.bfloat16: 5e-2}
_QUANTIZED = 5e-2
_OF_INFLUENCE = 1e-2
ROADS = ("causal", "sharing", "packing")
_ANSWERS: dict = {}


class Reference(NamedTuple):
    """
    What plain rows give.

    Attributes:
        prompts, responses (`list[list[int]]`): token ids.
        response_states, prompt_states (`torch.Tensor` of shape `(4, hidden_size)`): each prompt's responses in turn.
        bound (`float`): how far the states of another road may be from these.
        influence (`float`): how far a response's states are from those after the other prompt.
    """

    prompts: list
    responses: list
    response_states: torch.Tensor
    prompt_states: torch.Tensor
    bound: float
    influence: float

    def differs(self, response_states, prompt_states):
        """Whether a road leads elsewhere; not a number is elsewhere too, unless plain rows give none either."""
        if not math.isfinite(self.bound):
            return False
        apart = [
            (found.float() - expected).norm(dim=-1).max()
            for found, expected in ((response_states, self.response_states), (prompt_states, self.prompt_states))
        ]
        return not bool(torch.stack(apart).max() <= self.bound)


def _is_asking():
    return os.environ.get("GPM_HF_PROBE") != "0"


def can_be_asked(model):
    """Whether a pass of a few tokens costs milliseconds and concerns no other process."""
    if not _is_asking():
        return False
    attention = plain_attention(model.config.text_config._attn_implementation)
    runs_anywhere = attention in ("eager", "sdpa", "flex_attention")
    # Kernels such as those of flash attention are for 16 bits on a GPU, where a trainer moves a model later.
    on_its_kind = model.device.type != "cpu" and _types(model)[1] in (torch.float16, torch.bfloat16)
    if not runs_anywhere and not on_its_kind:
        return False
    if _is_quantized(model) and model.device.type == "cpu":
        # bitsandbytes turns 4-bit weights into another form where they are first evaluated, for good.
        return False
    if any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()):
        return False
    parameters = model.parameters()
    return not any(isinstance(one, DTensor) or one.numel() == 0 or one.device.type == "meta" for one in parameters)


def answer(model, road, ask=None):
    """
    What a backbone says to a question, asked once.

    Args:
        model ([`GPMForPreference`]): the model.
        road (`str`): the question's name.
        ask (`Callable`, *optional*): given a [`Reference`] returns a sentence that names the obstacle, or `None`; for
            all but "causal".

    Returns:
        `str` or `None`: the sentence; `None` also where the model cannot be asked.
    """
    config = model.config.text_config
    kind = (plain_attention(config._attn_implementation), model.device.type, *_types(model))
    if (road, *kind) in model.answers:
        return model.answers[road, *kind]
    settings = config.to_json_string(use_diff=False)
    key = (model.backbone_class, settings)
    if (road, *kind, *key) in _ANSWERS:
        return model.answers.setdefault((road, *kind), _ANSWERS[road, *kind, *key])
    description = described(model, kind, settings) if _is_asking() else None
    if description is not None:
        # All at once: to say what a backbone is takes as long as reading them.
        kept = {(name, *kind): None for name in ROADS if is_kept(description, name)}
        model.answers |= kept
        _ANSWERS.update({(*asked, *key): said for asked, said in kept.items()})
        if (road, *kind) in kept:
            return None
    if not can_be_asked(model):
        # Nor is it looked again at each batch.
        return model.answers.setdefault((road, *kind))
    before = dict(model.answers)
    # The passes that are made here ask nothing themselves.
    model.answers |= {(road, *kind): None, ("causal", *kind): None}
    try:
        with evaluation_mode(model), torch.no_grad():
            reference = plain_states(model, *(SHORTEST if road == "causal" else (PROMPTS, RESPONSES)))
            found = {("causal", *kind): _causal_obstacle(model, reference)}
            if road != "causal":
                found[road, *kind] = found["causal", *kind] or ask(reference)
    except BaseException:
        model.answers = before
        raise
    model.answers |= found
    if reference.influence > 10 * reference.bound:
        # Weights that are all but zero would hide anything.
        _ANSWERS.update({(*asked, *key): said for asked, said in found.items()})
        for (name, *_), said in found.items():
            if description is not None and said is None:
                keep(description, name)
    return found[road, *kind]


def merged_exactly(adapter):
    """
    Merges an adapter into its base model.

    Args:
        adapter ([`~peft.PeftModel`]): around a [`GPMForPreference`].

    Returns:
        [`GPMForPreference`]: which gives the states that the adapter gave.

    Raises:
        ValueError: where it does not.
    """
    model, what = adapter.get_base_model(), "The adapter cannot be merged into its base model"
    with torch.no_grad(), evaluation_mode(adapter):
        before = plain_states(model) if can_be_asked(model) else None
        try:
            merged = adapter.merge_and_unload()
        except (AttributeError, TypeError) as error:
            raise ValueError(f"{what}: {error}. Use it as it is, unmerged.") from error
        after = None if before is None else plain_states(merged)
    if before is not None and before.differs(after.response_states, after.prompt_states):
        raise ValueError(
            f"{what}: {model.config.text_config.model_type} would score otherwise. It reads adapted weights past "
            "their layers, or has layers that share them, and then an adapter beside the weights is another one than "
            "in them. Use it as it is, unmerged."
        )
    return merged


def check_causal(model):
    """Raises `ValueError` for a backbone in which a prompt's states depend on what comes after it."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    obstacle = answer(model, "causal")
    if obstacle is not None:
        raise ValueError(obstacle)


def by_road(model, road, run, reference):
    """
    The obstacle on a road that is tried.

    Args:
        road (`str`): what it is called in the sentence.
        run (`Callable`): gives `response_states` and `prompt_states` as the reference has them.
        reference ([`Reference`]): what they must be.
    """
    kind = model.config.text_config.model_type
    try:
        states = run(reference)
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise
        return f"{kind} cannot do {road}: {' '.join(str(error).split())} ({type(error).__name__})."
    if reference.differs(*states):
        return f"{kind} gives other states by {road} than for each sequence alone."
    return None


def plain_states(model, prompt_lengths=PROMPTS, response_lengths=RESPONSES):
    """The [`Reference`] that a preference model's backbone gives as it is now."""
    vocabulary = model.config.text_config.vocab_size
    total = sum(prompt_lengths) + sum(response_lengths)
    # All over the vocabulary, and no two alike where it is large enough. Not token 0, which some take for padding.
    step = max(vocabulary // (total + 1), 1)
    ids = iter([number * step % vocabulary for number in range(1, total + 1)])
    prompts = [[next(ids) for _ in range(length)] for length in prompt_lengths]
    responses = [[next(ids) for _ in range(length)] for length in response_lengths]
    rows = [(prompt, prompt + response) for prompt in prompts for response in responses]
    longest = max(len(row) for _, row in rows)
    device = input_device(model)
    response_states, prompt_states = model.pool(
        torch.tensor([row + [0] * (longest - len(row)) for _, row in rows], device=device),
        torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for _, row in rows], device=device),
        torch.tensor([len(prompt) for prompt, _ in rows], device=device),
    )
    response_states, prompt_states = response_states.detach().float(), prompt_states.detach().float()
    size = float(response_states.norm(dim=-1).max())
    # Of another prompt; where there is none, of another response.
    half = len(rows) // 2
    influence = float((response_states[:half] - response_states[half:]).norm(dim=-1).min())
    rounding = _QUANTIZED if _is_quantized(model) else max(_ROUNDING.get(one, _QUANTIZED) for one in _types(model))
    bound = max(rounding * size, _OF_INFLUENCE * influence)
    return Reference(prompts, responses, response_states, prompt_states, bound, influence)


def _is_quantized(model):
    return vars(model.config).get("quantization_config") is not None


def _types(model):
    """What the backbone computes in."""
    device = model.device.type
    # Offloaded weights have no device to ask about.
    is_cast = device != "meta" and torch.is_autocast_enabled(device)
    return model.dtype, torch.get_autocast_dtype(device) if is_cast else model.dtype


def _causal_obstacle(model, reference):
    firsts, seconds = reference.prompt_states[0::2], reference.prompt_states[1::2]
    # Weights that are not finite are said where the scores are.
    if not (firsts - seconds).norm(dim=-1).max() > reference.bound:
        return None
    config = model.config.text_config
    attention = plain_attention(config._attn_implementation)
    return (
        f"{config.model_type} is no causal language model: what comes after a prompt changes its states, which a "
        f"preference model reads (attn_implementation={attention!r}). Use a decoder language model."
    )
