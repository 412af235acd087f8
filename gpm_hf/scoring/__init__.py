"""One way to load and to call every kind of preference model."""

from .loading import (
    hub_options_of,
    load_gguf_language_model,
    load_or_start_preference_model,
    load_preference_model,
    load_tokenizer,
    with_gguf_file,
)

__all__ = [
    "hub_options_of",
    "load_gguf_language_model",
    "load_or_start_preference_model",
    "load_preference_model",
    "load_tokenizer",
    "with_gguf_file",
]
