"""
Attention of packed rows, in which each response sees its prompt and itself, by SDPA, FlexAttention or FlashAttention.

Each of the three has a plan, made once for all layers, and a function that follows it. All of them see the rows'
tokens as one sequence, compute what the responses' own sequences would, and leave all other input as it is.

- SDPA sorts the tokens into sections: the prompts attend to themselves, then the responses to their prompt and to
  themselves. No token is in two sections, so no key or value is copied; but all responses of a row are one section, of
  which each sees only itself. Where they are many, each has a section of its own instead, with copies of its prompt's
  keys and values.
- FlexAttention skips the blocks in which no token sees another.
- FlashAttention takes sequences of several lengths, of which the queries are the last: a response's queries go with
  copies of its prompt's keys and values.
"""

import zlib
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.attention.flex_attention import create_block_mask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flash_attention import get_target_dtype
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import flash_attention_mask, flex_attention_mask, sdpa_mask
from transformers.modeling_flash_attention_utils import _flash_attention_forward

# Attention is registered by name for the whole process, in which other versions of this file may be loaded, with the
# models that they were saved with: each has names of its own.
_MARK = "_with_shared_prompts"
SUFFIX = f"{_MARK}_{zlib.crc32(__name__.encode()):08x}"


def plain_attention(name):
    """The name that transformers gives to an attention implementation which a version of this file has taken over."""
    return name.partition(_MARK)[0]


class Parts(NamedTuple):
    """
    The T tokens of B packed rows, one row after the other, each a prompt and K responses, its parts.

    Attributes:
        lengths (`torch.LongTensor` of shape `(B, 1 + K)`): the parts' numbers of tokens.
        part (`torch.LongTensor` of shape `(T,)`): the number of each token's part among all.
        position (`torch.LongTensor` of shape `(T,)`): each token's place in its own sequence, prompt included.
    """

    lengths: torch.Tensor
    part: torch.Tensor
    position: torch.Tensor

    @property
    def row(self):
        """The row of each token."""
        return self.part // self.lengths.shape[1]

    @property
    def is_prompt(self):
        """Whether each token is one of a prompt."""
        return self.part % self.lengths.shape[1] == 0


class Sections(NamedTuple):
    """
    For SDPA: P columns for the prompts, and S columns for the responses.

    Attributes:
        tokens (`torch.LongTensor` of shape `(B * (P + S),)`): the token in each cell; in cells that are empty any.
        cells (`torch.LongTensor` of shape `(T,)`): the cell of each token.
        prompt_columns (`int`): P.
        masks (`dict`): by sliding window (`None` for full attention) what the prompts see, of shape (1, 1, P, P) or
            `None` for all that came before, and what the responses see, of shape (B, 1, S, P + S).
    """

    tokens: torch.Tensor
    cells: torch.Tensor
    prompt_columns: int
    masks: dict


class OwnSections(NamedTuple):
    """
    For SDPA: P columns for the prompts, and R columns for each of the B * K responses.

    Attributes:
        prompt_tokens, response_tokens (`torch.LongTensor` of shapes `(B * P,)`, `(B * K * R,)`): the token in each
            cell; in cells that are empty any.
        cells (`torch.LongTensor` of shape `(T,)`): the cell of each token, those of the prompts first.
        rows, responses (`int`): B and K.
        masks (`dict`): as of [`Sections`]; what the responses see has shape (B * K, 1, R, P + R).
    """

    prompt_tokens: torch.Tensor
    response_tokens: torch.Tensor
    cells: torch.Tensor
    rows: int
    responses: int
    masks: dict


class VaryingLengths(NamedTuple):
    """
    For FlashAttention: the parts as sequences, of which a response's keys begin with its prompt's.

    Attributes:
        keys (`torch.LongTensor` of shape `(number of keys,)`): the token of each key.
        query_ends, key_ends (`torch.IntTensor` of shape `(1 + B * (1 + K),)`): cumulative lengths, from 0.
        longest_part, longest_sequence (`int`): the largest numbers of queries and of keys.
    """

    keys: torch.Tensor
    query_ends: torch.Tensor
    key_ends: torch.Tensor
    longest_part: int
    longest_sequence: int


def plan_sections(parts, sliding_window):
    """Whichever sections have a quarter less to multiply, the shared ones otherwise."""
    lengths = parts.lengths
    prompt, own = int(lengths[:, 0].max()), int(lengths[:, 1:].max())
    together = int(lengths[:, 1:].sum(-1).max())
    if (lengths.shape[1] - 1) * own * (prompt + own) < 0.75 * together * (prompt + together):
        return plan_own_sections(parts, sliding_window)
    return plan_shared_sections(parts, sliding_window)


def plan_own_sections(parts, sliding_window):
    device, lengths = parts.part.device, parts.lengths
    rows, responses = len(lengths), lengths.shape[1] - 1
    prompt_columns, columns = int(lengths[:, 0].max()), int(lengths[:, 1:].max())
    starts = (lengths.flatten().cumsum(0) - lengths.flatten())[parts.part]
    place = torch.arange(len(parts.part), device=device) - starts
    response = parts.row * responses + parts.part % lengths.shape[1] - 1
    in_prompt = parts.row * prompt_columns + place
    in_response = response * columns + place
    prompt_tokens = torch.zeros(rows * prompt_columns, dtype=torch.long, device=device)
    response_tokens = torch.zeros(rows * responses * columns, dtype=torch.long, device=device)
    number = torch.arange(len(parts.part), device=device)
    prompt_tokens[in_prompt[parts.is_prompt]] = number[parts.is_prompt]
    response_tokens[in_response[~parts.is_prompt]] = number[~parts.is_prompt]
    cells = torch.where(parts.is_prompt, in_prompt, rows * prompt_columns + in_response)

    # Cells that are empty see the prompt too: a softmax over nothing is not a number.
    prompt_place, own_place = (torch.arange(size, device=device) for size in (prompt_columns, columns))
    prompt_lengths = lengths[:, 0].repeat_interleave(responses)[:, None, None]
    is_seen = (prompt_place < prompt_lengths).expand(-1, columns, -1)
    before = (own_place[:, None] >= own_place).expand(rows * responses, -1, -1)
    masks = {None: (None, torch.cat([is_seen, before], -1)[:, None])}
    if sliding_window is not None:
        distance = prompt_lengths + own_place[:, None] - prompt_place
        near = own_place[:, None] - own_place < sliding_window
        seen = torch.cat([is_seen & (distance < sliding_window), before & near], -1)
        masks[sliding_window] = (near_in_prompts(prompt_place, sliding_window), seen[:, None])
    return OwnSections(prompt_tokens, response_tokens, cells, rows, responses, masks)


def near_in_prompts(place, sliding_window):
    """What a prompt's tokens see within a window, shape (1, 1, P, P); `None` where that is all before them."""
    if sliding_window >= len(place):
        return None
    distance = place[:, None] - place
    return ((distance >= 0) & (distance < sliding_window))[None, None]


def plan_shared_sections(parts, sliding_window):
    device, row = parts.part.device, parts.row
    prompt_lengths, totals = parts.lengths[:, 0], parts.lengths.sum(-1)
    rows, prompt_columns = len(totals), int(prompt_lengths.max())
    columns = prompt_columns + int((totals - prompt_lengths).max())
    # Responses begin in the column after all prompts.
    number = torch.arange(len(row), device=device) - (totals.cumsum(0) - totals)[row]
    column = torch.where(parts.is_prompt, number, number + (prompt_columns - prompt_lengths)[row])
    cells = row * columns + column
    tokens = torch.zeros(rows * columns, dtype=torch.long, device=device)
    tokens[cells] = torch.arange(len(cells), device=device)
    part, position = torch.full_like(tokens, -1), torch.zeros_like(tokens)
    part[cells], position[cells] = parts.part, parts.position
    part, position = part.view(rows, columns), position.view(rows, columns)

    place = torch.arange(columns, device=device)
    in_prompt = (part >= 0) & (place < prompt_columns)
    # Every column sees at least itself, the empty ones too: a softmax over nothing is not a number.
    in_same_part = (part[:, :, None] == part[:, None]) & (place[:, None] >= place)
    seen = (in_prompt[:, None] | in_same_part)[:, prompt_columns:]
    masks = {None: (None, seen[:, None])}
    if sliding_window is not None:
        prompt_mask = near_in_prompts(place[:prompt_columns], sliding_window)
        distance = position[:, prompt_columns:, None] - position[:, None]
        masks[sliding_window] = (prompt_mask, (seen & (distance < sliding_window))[:, None])
    return Sections(tokens, cells, prompt_columns, masks)


def attend_in_sections(module, query, key, value, sections, sliding_window=None, **kwargs):
    if isinstance(sections, OwnSections):
        return attend_in_own_sections(module, query, key, value, sections, sliding_window, **kwargs)
    split = sections.prompt_columns
    prompt_mask, response_mask = _of_window(sections.masks, sliding_window)
    # (1, heads, T, size) to (B, heads, P + S, size)
    query, key, value = (
        states[0]
        .transpose(0, 1)
        .index_select(0, sections.tokens)
        .unflatten(0, (len(response_mask), -1))
        .transpose(1, 2)
        for states in (query, key, value)
    )
    prompts, _ = sdpa_attention_forward(
        module, query[:, :, :split], key[:, :, :split], value[:, :, :split], prompt_mask, **kwargs
    )
    responses, _ = sdpa_attention_forward(module, query[:, :, split:], key, value, response_mask, **kwargs)
    output = torch.cat([prompts, responses], dim=1).flatten(0, 1)
    return output.index_select(0, sections.cells)[None], None


def attend_in_own_sections(module, query, key, value, sections, sliding_window=None, **kwargs):
    prompt_mask, response_mask = _of_window(sections.masks, sliding_window)

    def laid_out(states, tokens, rows):
        # (1, heads, T, size) to (rows, heads, columns, size)
        return states[0].transpose(0, 1).index_select(0, tokens).unflatten(0, (rows, -1)).transpose(1, 2)

    rows, count = sections.rows, sections.rows * sections.responses
    own_prompts = [laid_out(states, sections.prompt_tokens, rows) for states in (query, key, value)]
    prompts, _ = sdpa_attention_forward(module, *own_prompts, prompt_mask, **kwargs)
    seen = [
        torch.cat(
            [
                prompt_states.repeat_interleave(sections.responses, dim=0),
                laid_out(states, sections.response_tokens, count),
            ],
            dim=2,
        )
        for prompt_states, states in zip(own_prompts[1:], (key, value))
    ]
    queries = laid_out(query, sections.response_tokens, count)
    responses, _ = sdpa_attention_forward(module, queries, *seen, response_mask, **kwargs)
    output = torch.cat([prompts.flatten(0, 1), responses.flatten(0, 1)])
    return output.index_select(0, sections.cells)[None], None


def plan_varying_lengths(parts, sliding_window):
    device, lengths = parts.part.device, parts.lengths
    ends = lengths.flatten().cumsum(0)
    starts = (ends - lengths.flatten()).view_as(lengths)
    shared = lengths[:, :1].expand_as(lengths).clone()
    shared[:, 0] = 0
    shared[lengths == 0] = 0
    key_lengths = (lengths + shared).flatten()
    key_ends = key_lengths.cumsum(0)
    part = torch.repeat_interleave(key_lengths)
    place = torch.arange(len(part), device=device) - (key_ends - key_lengths)[part]
    own = place - shared.flatten()[part]
    prompt_starts = starts[:, :1].expand_as(lengths).flatten()
    keys = torch.where(own < 0, prompt_starts[part] + place, starts.flatten()[part] + own)
    return VaryingLengths(
        keys=keys,
        query_ends=nn.functional.pad(ends, (1, 0)).int(),
        key_ends=nn.functional.pad(key_ends, (1, 0)).int(),
        longest_part=int(lengths.max()),
        longest_sequence=int(key_lengths.max()),
    )


def attend_varying_lengths(module, query, key, value, lengths, **kwargs):
    key, value = key.index_select(2, lengths.keys), value.index_select(2, lengths.keys)
    return flash_attention(
        module,
        query,
        key,
        value,
        None,
        cu_seq_lens_q=lengths.query_ends,
        cu_seq_lens_k=lengths.key_ends,
        max_length_q=lengths.longest_part,
        max_length_k=lengths.longest_sequence,
        **kwargs,
    )


def flash_attention(module, query, key, value, attention_mask, dropout=0.0, scaling=None, is_causal=None, **kwargs):
    """FlashAttention of transformers, whose own function would look for a library that is called as our attention."""
    size = value.shape[-1]
    value = nn.functional.pad(value, [0, query.shape[-1] - size])
    output = _flash_attention_forward(
        *(states.transpose(1, 2) for states in (query, key, value)),
        attention_mask,
        query_length=query.shape[2],
        is_causal=module.is_causal if is_causal is None else is_causal,
        dropout=dropout,
        softmax_scale=scaling,
        target_dtype=get_target_dtype(query, module),
        attn_implementation=plain_attention(module.config._attn_implementation),
        **kwargs,
    )
    return output[..., :size], None


def plan_block_masks(parts, sliding_window):
    part, row, is_prompt, position = parts.part, parts.row, parts.is_prompt, parts.position

    def sees(batch, head, query, key):
        of_prompt = (row[query] == row[key]) & is_prompt[key]
        return (query >= key) & (of_prompt | (part[query] == part[key]))

    def sees_near(batch, head, query, key):
        return sees(batch, head, query, key) & (position[query] - position[key] < sliding_window)

    def block_mask(function):
        # Compiled, so that the mask of all pairs of tokens is never in memory; a CPU may lack the compiler.
        compiled = part.device.type != "cpu"
        return create_block_mask(function, None, None, len(part), len(part), device=part.device, _compile=compiled)

    masks = {None: block_mask(sees)}
    if sliding_window is not None:
        masks[sliding_window] = block_mask(sees_near)
    return masks


def attend_in_blocks(module, query, key, value, masks, sliding_window=None, **kwargs):
    return flex_attention_forward(module, query, key, value, _of_window(masks, sliding_window), **kwargs)


def _of_window(masks, sliding_window):
    if sliding_window not in masks:
        raise ValueError(
            f"A layer has the sliding window {sliding_window}, which the backbone's configuration does not name: its "
            "rows cannot be packed. Give one sequence a row."
        )
    return masks[sliding_window]


def attend(follow_plan, otherwise, module, query, key, value, attention_mask, shared_prompts=None, **kwargs):
    """Follows the plan of [`SharedPrompts`] where the backbone was given one; all else goes to `otherwise`."""
    if shared_prompts is not None:
        return follow_plan(module, query, key, value, shared_prompts.plan, **kwargs)
    if attention_mask is not None and attention_mask.numel() == 0:
        raise ValueError(
            "The backbone does not hand the argument `shared_prompts` on to its attention: its rows cannot be packed. "
            "Give one sequence a row."
        )
    return otherwise(module, query, key, value, attention_mask, **kwargs)


# Of each attention implementation of transformers: the plan, who follows it, who attends otherwise, whose mask.
FLASH = (plan_varying_lengths, attend_varying_lengths, flash_attention, flash_attention_mask)
IMPLEMENTATIONS = {
    "sdpa": (plan_sections, attend_in_sections, sdpa_attention_forward, sdpa_mask),
    "flex_attention": (plan_block_masks, attend_in_blocks, flex_attention_forward, flex_attention_mask),
    "flash_attention_2": FLASH,
    "flash_attention_3": FLASH,
    "flash_attention_4": FLASH,
}
for _name, (_, _follow_plan, _otherwise, _mask) in IMPLEMENTATIONS.items():
    AttentionInterface.register(_name + SUFFIX, partial(attend, _follow_plan, _otherwise))
    AttentionMaskInterface.register(_name + SUFFIX, _mask)
