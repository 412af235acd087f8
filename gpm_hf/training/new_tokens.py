"""Tokens that were added to a vocabulary: the model must have embeddings for them, and an adapter's base as well."""

from typing import Any

from transformers import AutoConfig, PreTrainedTokenizerBase

from gpm_hf.scoring.preference_model import with_gguf_file


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, vocabulary_size: int) -> None:
    """
    Args:
        tokenizer: the tokenizer to train with.
        vocabulary_size: rows of the model's token embeddings.

    Raises:
        ValueError: the tokenizer has tokens without an embedding.
    """
    missing = sorted((number, token) for token, number in tokenizer.get_vocab().items() if number >= vocabulary_size)
    if missing:
        number, token = missing[0]
        raise ValueError(
            f"The tokenizer has {len(missing)} tokens, such as {token!r} with the id {number}, and the model has "
            f"embeddings for 0 to {vocabulary_size - 1} only. Use the model's own tokenizer, or make room: "
            "`model.resize_token_embeddings(len(tokenizer))`."
        )


def vocabulary_of_checkpoint(name_or_path: str, **options: Any) -> int:
    """
    Rows of the token embeddings of a model as it is stored.

    Args:
        name_or_path: a language or preference model, a Hub id or folder.
        options: of `from_pretrained` (`revision`, `trust_remote_code`).
    """
    config = AutoConfig.from_pretrained(name_or_path, **with_gguf_file(name_or_path, options))
    return config.get_text_config().vocab_size


def check_base(vocabulary_size: int, base: str, base_size: int) -> None:
    """
    Args:
        vocabulary_size: rows of the token embeddings of a model that gets an adapter.
        base: the name under which the adapter will look for that model.
        base_size: rows of the token embeddings of what is stored there.

    Raises:
        ValueError: they differ.
    """
    if vocabulary_size != base_size:
        raise ValueError(
            f"The model has {vocabulary_size} token embeddings and {base}, from which its adapter would be loaded "
            f"again, has {base_size}: the new ones would be lost. Save the resized model first, "
            "`model.save_pretrained(folder)` and `tokenizer.save_pretrained(folder)`, and train the adapter from that "
            'folder; `trainable_token_indices` or `modules_to_save=["embed_tokens"]` there trains the new embeddings.'
        )
