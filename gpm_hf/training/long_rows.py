"""Rows over `max_length` are left out; how many, is said."""

from datasets import Dataset

from gpm_hf.news import get_logger

logger = get_logger(__name__)


def count_left_out(before: object, kept: object, max_length: int, name: str) -> int:
    """
    How many rows were over `max_length` tokens, which is logged; 0 for a stream, whose rows nobody counts.

    Args:
        before, kept: the data sets with and without them.
        max_length: in tokens.
        name: what to call the data in messages.

    Raises:
        ValueError: no row is left.
    """
    if not isinstance(before, Dataset) or not isinstance(kept, Dataset):
        logger.warning(f"Streamed {name} rows over max_length={max_length} tokens are left out uncounted.")
        return 0
    dropped = len(before) - len(kept)
    if len(kept) == 0:
        raise ValueError(
            f"No row of the {name} data set is left: all {dropped} are longer than max_length={max_length} tokens. "
            "Raise `max_length`."
        )
    if dropped:
        logger.warning(
            f"{dropped} of {len(before)} {name} rows have more than max_length={max_length} tokens and are left out."
        )
    return dropped
