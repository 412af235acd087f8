"""
Backbones that turn positions by other angles once a sequence is long ("longrope", as in Phi-3). transformers decides
so for a whole batch, by its longest row; here each row is turned as if it were alone.
"""

from functools import partial

import torch


def long_rope_from(config):
    """
    The number of tokens above which a backbone turns all positions of a sequence by other angles; `None` for one that
    does not.
    """
    settings = config.to_dict()
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    kinds = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    if not any(kind.get("rope_type", kind.get("type")) == "longrope" for kind in kinds):
        return None
    limits = [kind.get("original_max_position_embeddings") for kind in (*kinds, settings)]
    return next(limit for limit in limits if limit)


def turn_rows_apart(backbone, config):
    """Makes the rotary embeddings of a backbone with longrope, if it is one, turn each row by its own length."""
    limit = long_rope_from(config)
    if limit is None:
        return
    for module in backbone.modules():
        kind = vars(module).get("rope_type")
        if "longrope" in (kind.values() if isinstance(kind, dict) else [kind]):
            module.register_forward_hook(partial(_as_if_alone, limit), with_kwargs=True)


def _as_if_alone(limit, rotary, args, kwargs, output):
    names = dict(zip(("x", "position_ids", "layer_type"), args)) | kwargs
    positions = names["position_ids"]
    # No position of a short row is changed, and with no long one the angles are those of short rows.
    short = rotary.forward(**names | {"position_ids": positions.clamp(max=limit - 1)})
    is_long = (positions.amax(-1) >= limit)[:, None, None]
    return tuple(torch.where(is_long, one, other) for one, other in zip(output, short))
