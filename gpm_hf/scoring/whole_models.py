"""Models of other people's code that come out of loading with whatever was in memory before them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

# Whose modules fill what they make.
_TRUSTED = ("transformers", "torch", "peft", "gpm_hf", "accelerate", "bitsandbytes", "trl", "deepspeed", "builtins")


def loaded_whole(name: str, load: Callable[[], Any]) -> Any:
    """
    A model as it was loaded, once it is sure that loading filled it.

    transformers makes a model without memory and fills it from the checkpoint; what is in no checkpoint (weights that
    it lacks, buffers with `persistent=False`) is the business of the model's `_init_weights`. Where code that comes
    with a checkpoint does not see to that, these are what the memory held, without a report, and the model says
    something else at each load. So a model with modules of such code is loaded twice, once into marked memory.

    Args:
        name: of the model, for a message.
        load: gives the model, or a tuple that begins with it.

    Raises:
        ValueError: for weights or buffers that loading leaves as they were.
    """
    found = load()
    if not _is_trusted_code(_model_of(found)):
        check_whole(name, load)
    return found


def check_whole(name: str, load: Callable[[], Any]) -> None:
    """As [`loaded_whole`], of a model that something else loads."""
    with _marked_memory():
        marked = _model_of(load())
    if _is_trusted_code(marked):
        return
    left = [key for key, tensor in [*marked.named_parameters(), *marked.named_buffers()] if _is_marked(tensor)]
    if left:
        raise ValueError(
            f"{name}: loading leaves {len(left)} tensors of this model, such as {min(left)!r}, as the memory was, so "
            "it is another model at each load. Its code must fill weights that the checkpoint lacks, and buffers with "
            "`persistent=False`, in `_init_weights`; or save them with it."
        )


def _model_of(loaded: Any) -> Any:
    return loaded[0] if isinstance(loaded, tuple) else loaded


def _is_trusted_code(model: Any) -> bool:
    return all(_is_trusted(type(module)) for module in model.modules())


def _is_trusted(kind: type) -> bool:
    parts = kind.__module__.split(".")
    # The code of a preference model that was loaded as remote code is the one of this package.
    return parts[0] in _TRUSTED or parts[-1].endswith("_gpm")


def _is_marked(tensor: torch.Tensor) -> bool:
    """Nothing but marks: some NaN may be what a model holds, and one large integer too."""
    if tensor.is_meta or tensor.dtype == torch.bool or tensor.is_complex() or not tensor.numel():
        return False
    if tensor.is_floating_point():
        return bool(tensor.float().isnan().all())
    return tensor.numel() > 1 and bool((tensor == torch.iinfo(tensor.dtype).max).all())


@contextmanager
def _marked_memory() -> Iterator[None]:
    """New memory holds NaN, or the largest integer, until it is filled."""
    before = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fills = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warns)
        memory.fill_uninitialized_memory = fills
