"""A model without dropout for a while."""

from contextlib import contextmanager
from threading import Lock
from weakref import WeakKeyDictionary

# Modules that are in evaluation mode for a while: how many calls need it, and what they were before the first one.
_EVALUATED: WeakKeyDictionary = WeakKeyDictionary()
_EVALUATED_LOCK = Lock()


@contextmanager
def evaluation_mode(model):
    """
    The model without dropout, and afterwards as it was. Module by module: a caller may keep a part of it in evaluation
    mode while it trains the rest. Of several threads the last one to leave puts a module back.
    """
    with _EVALUATED_LOCK:
        modules = list(model.modules())
        for module in modules:
            users, was_training = _EVALUATED.get(module, (0, module.training))
            _EVALUATED[module] = (users + 1, was_training)
        model.eval()
    try:
        yield
    finally:
        with _EVALUATED_LOCK:
            for module in modules:
                users, was_training = _EVALUATED.pop(module)
                if users > 1:
                    _EVALUATED[module] = (users - 1, was_training)
                else:
                    module.training = was_training
