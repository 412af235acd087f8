"""
A prompt and all its responses in one forward pass that reads the prompt once, for training.

A packed row is a prompt followed by its responses. Tokens meet in the attention only, so the backbone is given the
rows' tokens one after the other as a single sequence, without any padding, with positions that begin anew at each
response. Where it attends, a function of `packed_attention_gpm.py` lets each response see its prompt and itself.
"""

from typing import NamedTuple

import torch

from .packed_attention_gpm import IMPLEMENTATIONS, SUFFIX, Parts


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
        response_lengths (`torch.LongTensor` of shape `(B, K)`): tokens of each of its responses.
        sliding_window (`int`, *optional*): the window of a backbone of which some layers have one.

    Returns:
        [`SharedPrompts`]

    Raises:
        ValueError: for lengths below 1, or that do not add up to the row's tokens.
    """
    lengths = torch.cat([prompt_lengths[:, None], response_lengths], dim=-1)
    count = attention_mask.sum(-1)
    if bool((lengths < 1).any() | (lengths.sum(-1) != count).any()):
        raise ValueError(
            f"A packed row is a prompt and its responses, of one token or more each: prompt_lengths "
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
    if attention.removesuffix(SUFFIX) not in IMPLEMENTATIONS:
        return f"{kind} attends by {attention!r}, and only attn_implementation={list(IMPLEMENTATIONS)} share prompts."
    if not backbone._supports_attention_backend:
        return f"{kind} does not attend through the AttentionInterface of transformers."
    settings = config.to_dict()
    # The contract of flash attention is that each layer names its window to the attention function.
    if settings.get("sliding_window") is not None and not backbone._supports_flash_attn:
        return f"{kind} has a sliding window that its layers keep to themselves."
    others = set(settings.get("layer_types") or []) - {"full_attention", "sliding_attention"}
    if backbone._is_stateful or others:
        return f"{kind} has layers that read a sequence otherwise than by attention {sorted(others)}."
    if any(vars(module).get("is_causal", True) is False for module in backbone.modules()):
        return f"{kind} attends in both directions, so that a prompt's states depend on the response."
    return None
