"""How many tokens are encoded at once where nobody says."""

# By the kind of device: more than this is slower on a CPU, and a GPU has room for more.
BATCH_TOKENS = {"cpu": 1024, "other": 8192}


def default_batch_tokens(device_type: str) -> int:
    """Tokens, padding included, for a kind of device as torch calls it."""
    return BATCH_TOKENS["cpu" if device_type == "cpu" else "other"]
