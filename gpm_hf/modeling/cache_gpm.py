"""Keys and values of prompts, kept for their responses, and the name under which a backbone takes them."""

import copy
import inspect

import torch
from torch.nn.functional import pad
from transformers import Cache, DynamicCache

# transformers 5.24 renamed the argument. Code that comes with a checkpoint keeps the name that it was written with.
CACHE_NAMES = ("cache", "past_key_values")


def cache_argument(backbone):
    """
    The name of the argument under which a language model takes its cache, read from its class's signature (who wraps
    the `forward` of an instance may lose it).

    Args:
        backbone (`torch.nn.Module` or its class): a model of transformers, or of code that comes with a checkpoint.

    Returns:
        `str`, or `None` for a model that takes no cache.
    """
    backbone_class = backbone if isinstance(backbone, type) else type(backbone)
    names = inspect.signature(backbone_class.forward).parameters
    return next((name for name in CACHE_NAMES if name in names), None)


class PromptCache(Cache):
    """
    Keys and values of prompts, for rows of which each follows one of them. They are laid out row by row one layer at a
    time, while that layer reads them, and those of the rows are not kept.

    Args:
        prompts (`DynamicCache`): filled by the prompts, and left as it is.
        rows (`torch.LongTensor` of shape `(rows,)`): the number of each row's prompt.
    """

    def __init__(self, prompts, rows):
        super().__init__(layers=prompts.layers)
        self.rows = rows

    def update(self, key_states, value_states, layer_idx, *args, **kwargs):
        layer = copy.copy(self.layers[layer_idx])
        if len(layer.keys) == 1:
            # The same without a copy.
            layer.keys = layer.keys.expand(len(self.rows), -1, -1, -1)
            layer.values = layer.values.expand(len(self.rows), -1, -1, -1)
        else:
            layer.batch_select_indices(self.rows)
        return layer.update(key_states, value_states, *args, **kwargs)


def padded_together(caches, order):
    """
    One cache of the rows of several, padded on the left to the longest.

    Args:
        caches (`list[DynamicCache]`): of one model.
        order (`torch.LongTensor` of shape `(rows,)`): which row each one of the result is, of all rows in turn.

    Returns:
        `DynamicCache`.
    """
    columns = max(cache.get_seq_length() for cache in caches)
    together = DynamicCache()
    for number, layers in enumerate(zip(*(cache.layers for cache in caches))):
        keys, values = (
            torch.cat([pad(rows, (0, 0, columns - rows.shape[-2], 0)) for rows in kind])[order]
            for kind in zip(*((layer.keys, layer.values) for layer in layers))
        )
        together.update(keys, values, number)
    return together
