"""
A prompt and all its responses in one forward pass that reads the prompt once, for training.

A packed row is a prompt followed by its responses. Tokens meet in the attention only, so the backbone is given the
rows' tokens one after the other as a single sequence, without any padding, with positions that begin anew at each
response. Where it attends, a function of `packed_attention_gpm.py` lets each response see its prompt and itself.
"""

from functools import partial
from itertools import chain
from typing import NamedTuple

import torch

from .cache_gpm import CACHE_NAMES
from .long_rope_gpm import long_rope_from
from .packed_attention_gpm import IMPLEMENTATIONS, SUFFIX, Parts, plain_attention
from .pooling_gpm import input_device
from .probing_gpm import answer, by_road


class SharedPrompts(NamedTuple):
    """
    Where the T tokens of B packed rows are. The attention layers get it as an argument of the backbone's forward, so
    that they read the same when gradient checkpointing runs them a second time.

    Attributes:
        position_ids (`torch.LongTensor` of shape `(1, T)`): each token's place in its own sequence, prompt included.
        prompt_ends (`torch.LongTensor` of shape `(B,)`): the last token of each prompt.
        response_ends (`torch.LongTensor` of shape `(B, K)`): the last token of each response.
        plan (`tuple`): what the attention that is used needs, see `packed_attention_gpm.py`.
    """

    position_ids: torch.Tensor
    prompt_ends: torch.Tensor
    response_ends: torch.Tensor
    plan: tuple


def share_prompts(attention, attention_mask, prompt_lengths, response_lengths, sliding_window=None):
    """
    Args:
        attention (`str`): one of `IMPLEMENTATIONS`.
        attention_mask (`torch.LongTensor` of shape `(B, length)`): 1 where a packed row has a token.
        prompt_lengths (`torch.LongTensor` of shape `(B,)`): tokens of each row's prompt.
        response_lengths (`torch.LongTensor` of shape `(B, K)`): tokens of each of its responses, 0 for none.
        sliding_window (`int`, *optional*): the window of a backbone of which some layers have one.

    Returns:
        [`SharedPrompts`]

    Raises:
        ValueError: for a row without prompt or responses, or lengths that do not add up to the row's tokens.
    """
    lengths = torch.cat([prompt_lengths[:, None], response_lengths], dim=-1)
    count = attention_mask.sum(-1)
    is_empty = (prompt_lengths < 1) | (response_lengths < 0).any(-1) | (response_lengths < 1).all(-1)
    if bool((is_empty | (lengths.sum(-1) != count)).any()):
        raise ValueError(
            f"A packed row is a prompt of one token or more and at least one response: prompt_lengths "
            f"{prompt_lengths.tolist()} and response_lengths {response_lengths.tolist()} do not fit rows of "
            f"{count.tolist()} tokens."
        )
    # A part is a prompt or a response.
    ends = lengths.flatten().cumsum(0).view_as(lengths)
    part = torch.repeat_interleave(lengths.flatten())
    before = prompt_lengths[:, None].repeat(1, lengths.shape[1])
    before[:, 0] = 0
    starts = (ends - lengths - before).flatten()
    position = torch.arange(len(part), device=part.device) - starts[part]
    make_plan = IMPLEMENTATIONS[attention][0]
    return SharedPrompts(
        position_ids=position[None],
        prompt_ends=ends[:, 0] - 1,
        response_ends=ends[:, 1:] - 1,
        plan=make_plan(Parts(lengths, part, position), sliding_window),
    )


def packing_obstacle(model):
    """
    Why the rows of a preference model cannot be packed.

    Args:
        model ([`GPMForPreference`]): the model, on any backbone.

    Returns:
        `str` or `None`: a sentence that names the cause; `None` where nothing is in the way.
    """
    backbone = model.model
    # This model's own configuration: under ZeRO-3 DeepSpeed hangs its settings on the backbone as `config`.
    config = model.config.text_config
    kind, attention = config.model_type, config._attn_implementation
    if plain_attention(attention) not in IMPLEMENTATIONS:
        return f"{kind} attends by {attention!r}, and only attn_implementation={list(IMPLEMENTATIONS)} share prompts."
    if not backbone._supports_attention_backend:
        return f"{kind} does not attend through the AttentionInterface of transformers."
    settings = config.to_dict()
    # The contract of flash attention is that each layer names its window to the attention function.
    if settings.get("sliding_window") is not None and not backbone._supports_flash_attn:
        return f"{kind} has a sliding window that its layers keep to themselves."
    others = set(settings.get("layer_types") or []) - {"full_attention", "sliding_attention", "mlp"}
    if backbone._is_stateful or others:
        return f"{kind} has layers that read a sequence otherwise than by attention {sorted(others)}."
    if any(vars(module).get("is_causal", True) is False for module in backbone.modules()):
        return f"{kind} attends in both directions, so that a prompt's states depend on the response."
    run = partial(_by_rows, model)
    return answer(model, "packing", lambda reference: by_road(model, "packed rows", run, reference))


def _by_rows(model, reference):
    rows = [prompt + list(chain(*reference.responses)) for prompt in reference.prompts]
    length, device = max(map(len, rows)), input_device(model)
    lengths = torch.tensor([[len(ids) for ids in reference.responses]] * len(rows), device=device)
    before = model.config.text_config._attn_implementation
    try:
        return pool_packed(
            model,
            torch.tensor([row + [0] * (length - len(row)) for row in rows], device=device),
            torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], device=device),
            torch.tensor([len(prompt) for prompt in reference.prompts], device=device),
            lengths,
        )
    finally:
        # The name is of those that pack rows, and asking is not packing.
        model.config.text_config._attn_implementation = before


def pool_packed(model, input_ids, attention_mask, prompt_lengths, response_lengths, **kwargs):
    """
    As [`GPMForPreference.pool`] for packed rows, of which each prompt is read once.

    Returns:
        `tuple`: `response_states` and `prompt_states`, both of shape (batch_size * K, hidden_size).

    Raises:
        ValueError: for a backbone that cannot, lengths that do not fit the rows, or a cache.
    """
    obstacle = packing_obstacle(model)
    if obstacle is not None:
        raise ValueError(f"Packed rows need another backbone: {obstacle} Give one sequence a row.")
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    if input_ids is None or prompt_lengths is None or not kwargs.keys().isdisjoint(CACHE_NAMES):
        raise ValueError("Packed rows need `input_ids` and `prompt_lengths`, and can have no cache.")
    if kwargs.get("output_hidden_states") or kwargs.get("output_attentions"):
        raise ValueError("Packed rows share one sequence in the backbone: its states are not theirs. Unpack them.")
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    # What the attention layers read, also when gradient checkpointing runs them again; it is not saved.
    attention = plain_attention(model.config.text_config._attn_implementation)
    model.config.text_config._attn_implementation = attention + SUFFIX
    sliding_window = model.config.text_config.to_dict().get("sliding_window")
    shared = share_prompts(attention, attention_mask, prompt_lengths, response_lengths, sliding_window)
    limit = long_rope_from(model.config.text_config)
    if limit is not None:
        wholes = (prompt_lengths[:, None] + response_lengths)[response_lengths > 0]
        if bool((wholes > limit).any()) and bool((wholes <= limit).any()):
            # A prompt has other states in a long sequence than in a short one.
            rows = unpacked(input_ids, attention_mask, prompt_lengths, response_lengths)
            return model.pool(*rows, **kwargs)
    states = model.model(
        input_ids[attention_mask.bool()][None],
        # An empty mask: no backbone makes one of its own then, nor can it attend without the shared prompts.
        attention_mask=input_ids.new_empty(1, 1, 0, 0, dtype=torch.bool),
        position_ids=shared.position_ids,
        shared_prompts=shared,
        **{**kwargs, "return_dict": True, "use_cache": False},
    ).last_hidden_state[0]
    prompt_states = states[shared.prompt_ends].repeat_interleave(response_lengths.shape[1], dim=0)
    return states[shared.response_ends.flatten()], prompt_states


def unpacked(input_ids, attention_mask, prompt_lengths, response_lengths):
    """Packed rows as plain ones: token ids, mask and prompt lengths, with a row for each response."""
    rows = []
    for ids, mask, prompt, lengths in zip(input_ids, attention_mask.bool(), prompt_lengths.tolist(), response_lengths):
        before, *responses = ids[mask].split([prompt, *lengths.tolist()])
        rows += [torch.cat([before, response]) for response in responses]
    pad = torch.nn.utils.rnn.pad_sequence
    masks = pad([torch.ones_like(row) for row in rows], batch_first=True)
    return pad(rows, batch_first=True), masks, prompt_lengths.repeat_interleave(response_lengths.shape[1])
