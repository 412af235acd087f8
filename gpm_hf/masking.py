"""Secrets have no place in what is written, logged or shown."""

import re
from collections.abc import Mapping
from typing import Any

MASK = "<masked>"
# By what a key is called, in options (`token`, `hub_token`, `api_key`) as in environments (`HF_TOKEN`).
_SECRET_KEY = re.compile(
    r"(.*[_-])?(token|auth|authorization|api[_-]?key|access[_-]?key|private[_-]?key|secret|secret[_-]?key|password"
    r"|passwd|passphrase|credentials?)",
    re.IGNORECASE,
)
# Of a tokenizer, and no secrets.
_SPECIAL_TOKEN = re.compile(
    r"(bos|eos|unk|sep|pad|cls|mask|eot|boi|eoi|image|audio|video|(decoder_)?start|end|stop|prefix|suffix)_token"
)
# A token of the Hub, and what stands between scheme and host of a URL.
_SECRET_TEXT = re.compile(r"\bhf_[A-Za-z0-9]{20,}\b|(?<=://)[^\s/@]+:[^\s/@]+(?=@)")


def masked(value: Any, key: Any = None) -> Any:
    """
    The same with every secret in it masked: values under a key that says so, tokens of the Hub in any text, and
    passwords in URLs.

    Args:
        value: options, a record, ..., of any depth; what is no mapping, list, tuple or text is returned as it is.
        key: under which it stands.
    """
    if isinstance(value, Mapping):
        return {name: masked(one, name) for name, one in value.items()}
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(masked(one, key) for one in value)
    if not isinstance(value, str):
        return value
    if isinstance(key, str) and value and _SECRET_KEY.fullmatch(key) and not _SPECIAL_TOKEN.fullmatch(key):
        return MASK
    return _SECRET_TEXT.sub(MASK, value)
