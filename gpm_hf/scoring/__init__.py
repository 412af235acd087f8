"""One way to load and to call every kind of preference model."""

from .loading import (
    load_gguf_language_model,
    load_or_start_preference_model,
    load_preference_model,
    load_tokenizer,
    with_gguf_file,
)

__all__ = [
    "load_gguf_language_model",
    "load_or_start_preference_model",
    "load_preference_model",
    "load_tokenizer",
    "with_gguf_file",
]
