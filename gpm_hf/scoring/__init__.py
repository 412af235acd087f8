"""One way to load and to call every kind of preference model."""

from .loading import load_or_start_preference_model, load_preference_model, load_tokenizer

__all__ = ["load_or_start_preference_model", "load_preference_model", "load_tokenizer"]
