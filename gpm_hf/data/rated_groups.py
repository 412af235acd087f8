"""UltraFeedback's form, answers with ratings on several aspects, read as groups to be trained on."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from gpm_hf.data.rated_rings import read_rating


def is_rated(columns: Collection[str]) -> bool:
    """Whether rows with these columns are of UltraFeedback's form, and neither pairs nor groups already."""
    return {"instruction", "completions"} <= set(columns) and not {"chosen", "responses"} & set(columns)


def rated_group(row: Mapping[str, Any], number: int, aspects: Sequence[str] | None = None) -> dict[str, Any]:
    """
    A row of UltraFeedback's form as a group (see [`gpm_hf.data.judged_groups`]).

    Args:
        row: `instruction` and `completions`, a list with `response` and `annotations[aspect]["Rating"]`.
        number: the row's, for errors.
        aspects: whose ratings count; by default all that an answer has.

    Returns:
        `prompt`, `responses` and `ratings`, of each answer the mean of its ratings, `None` where it has none of them.

    Raises:
        ValueError: completions that are no list, or of which one is no mapping, or an aspect that no answer has.
    """
    completions = row["completions"]
    if not isinstance(completions, (list, tuple)) or not all(isinstance(one, Mapping) for one in completions):
        raise ValueError(
            f"Row {number}: `completions` is no list of answers with `response`, but {completions!r:.80}."
        )
    known = {name for one in completions for name in one.get("annotations") or ()}
    if absent := sorted(set(aspects or ()) - known):
        raise ValueError(f"Row {number}: no answer is rated on {absent}; there are the aspects {sorted(known)}.")
    ratings = []
    for one in completions:
        found = [read_rating(one.get("annotations"), aspect)[0] for aspect in aspects or sorted(known)]
        numbers = [rating for rating in found if not np.isnan(rating)]
        ratings.append(float(np.mean(numbers)) if numbers else None)
    return {
        "prompt": row["instruction"],
        "responses": [one.get("response") for one in completions],
        "ratings": ratings,
    }
