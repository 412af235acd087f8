"""Two policies as one while it generates: the geometric mixture of their distributions (Nash-MD)."""

from contextlib import contextmanager, nullcontext

import torch
from transformers import DynamicCache

from gpm_hf.modeling.cache_gpm import cache_argument


@contextmanager
def geometric_mixture(policy, reference, mixture_coef, as_reference=nullcontext, cached=True):
    """
    Within it the policy's logits are those of the mixture ~ policy^(1 - alpha) * reference^alpha. Logits are mixed
    before anything is done to them: at temperature T the mixture is that of both distributions at T.

    A hook on the policy's forward: the reference reads what the policy reads (positions and masks of padded prompts
    included), and is run as often on every process, which sharded weights need.

    Args:
        policy, reference (`torch.nn.Module`): causal language models; the reference may be the policy itself.
        mixture_coef (`float`): alpha, in (0, 1).
        as_reference (`Callable`, *optional*): gives a context in which `reference` is the reference policy.
        cached (`bool`, *optional*): whether the policy generates with a cache; the reference then has one too.

    The context is for one call of `generate`: the reference's cache is made once.
    """
    cache = DynamicCache(config=policy.config.get_text_config(decoder=True))
    name = cache_argument(policy)
    asks_reference = False

    def mix(module, args, kwargs, output):
        nonlocal asks_reference
        if asks_reference:
            return
        if cached and not isinstance(kwargs.get(name), DynamicCache):
            raise ValueError(
                "opponent='mixture' gives the reference a cache like the policy's, which must be transformers' "
                f"DynamicCache, and the argument {name!r} of {type(policy).__name__} holds "
                f"{type(kwargs.get(name)).__name__}: leave `cache_implementation` and `use_cache` at their defaults, "
                "and take a model whose code is made for the installed transformers."
            )
        asks_reference = True
        try:
            with as_reference():
                other = reference(*args, **{**kwargs, **({name: cache} if cached else {})})
        finally:
            asks_reference = False
        output.logits = torch.lerp(output.logits.float(), other.logits.float(), mixture_coef)

    handle = policy.register_forward_hook(mix, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
