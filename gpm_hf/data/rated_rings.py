"""Preference rings in one prompt's responses that were rated on several aspects."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gpm_hf.data.rings import ring_edges


class RatedRing(NamedTuple):
    """
    Responses that beat each other in a ring, each on an aspect of its own.

    Attributes:
        members: numbers of the responses; each is preferred to the next and the last to the first.
        gaps: by how much, on the edge's aspect; as many as members.
    """

    members: tuple[int, ...]
    gaps: tuple[float, ...]


@dataclass
class RatedRow:
    """
    What one row in UltraFeedback's schema holds that can be used.

    Attributes:
        prompt: the instruction.
        responses: the distinct responses with text.
        places: where each of them is among the row's completions.
        ratings: by aspect, one number per response; NaN where there is none.
        problems: why something was left out, once for each thing.
        reason: why the row as a whole is of no use, or "".
    """

    prompt: str = ""
    responses: list[str] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    ratings: dict[str, list[float]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    reason: str = ""


def read_rated_row(row: Mapping[str, Any], aspects: Sequence[str]) -> RatedRow:
    """
    Reads a row in UltraFeedback's schema: `instruction` and `completions`, a list with `response` and
    `annotations[aspect]["Rating"]`. Whatever is amiss is recorded, nothing raises.
    """
    read = RatedRow(ratings={aspect: [] for aspect in aspects})
    instruction, completions = row.get("instruction"), row.get("completions")
    if not isinstance(instruction, str) or not instruction.strip():
        read.reason = "row: no instruction"
        return read
    if not isinstance(completions, (list, tuple)):
        read.reason = "row: no list of completions"
        return read
    read.prompt = instruction
    seen = set()
    for place, completion in enumerate(completions):
        response = completion.get("response") if isinstance(completion, Mapping) else None
        if not isinstance(response, str) or not response.strip():
            read.problems.append("response: empty text")
            continue
        if response.strip() in seen:
            read.problems.append("response: same text as an earlier one")
            continue
        seen.add(response.strip())
        read.responses.append(response)
        read.places.append(place)
        annotations = completion.get("annotations")
        for aspect in aspects:
            rating, problem = read_rating(annotations, aspect)
            read.ratings[aspect].append(rating)
            if problem:
                read.problems.append(problem)
    if len(read.responses) < 3:
        read.reason = "row: fewer than three usable responses"
    return read


def read_rating(annotations: Any, aspect: str) -> tuple[float, str]:
    """An answer's rating on an aspect, NaN where there is none, and then why."""
    annotation = annotations.get(aspect) if isinstance(annotations, Mapping) else None
    if not isinstance(annotation, Mapping) or annotation.get("Rating") is None:
        return math.nan, f"rating: {aspect} is missing"
    try:
        rating = float(annotation["Rating"])
    except (TypeError, ValueError):
        rating = math.nan
    return (rating, "") if math.isfinite(rating) else (math.nan, f"rating: {aspect} is not a number")


def find_rated_rings(ratings: Sequence[Sequence[float]], min_gap: float) -> list[RatedRing]:
    """
    All rings in which the first member beats the second on the first aspect, the second the third on the second
    aspect, and so on, and the last the first on the last aspect.

    Args:
        ratings: one sequence per aspect, with a number per response; NaN beats and loses to nobody.
        min_gap: an edge holds when the ratings differ by at least this much, and at all.

    Returns:
        Rings of as many members as there are aspects, in lexicographic order.
    """
    values = np.asarray(ratings, dtype=float)
    gaps = values[:, :, None] - values[:, None, :]
    # Ratings such as 2.3333 - 1.3333 should have the gap that they show.
    beats = (gaps > 0) & (gaps >= min_gap - 1e-9)
    paths = np.argwhere(beats[0])
    for edge in beats[1:-1]:
        ends, following = np.nonzero(edge[paths[:, -1]])
        paths = np.column_stack([paths[ends], following])
        paths = paths[(paths[:, :-1] != paths[:, -1:]).all(1)]
    paths = paths[beats[-1][paths[:, -1], paths[:, 0]]]
    following = np.roll(paths, -1, axis=1)
    found = gaps[np.arange(len(gaps)), paths, following]
    return [RatedRing(tuple(path), tuple(gap)) for path, gap in zip(paths.tolist(), found.tolist())]


def choose_rings(rings: Sequence[RatedRing], key: str) -> list[RatedRing]:
    """
    Rings of one prompt no two of which share a pair of responses, so that no pair is repeated or contradicted.
    Rings whose smallest gap is larger come first; `key` decides between equals.
    """
    numbers = hashlib.sha256(key.encode()).digest()[:8]
    order = np.random.default_rng(int.from_bytes(numbers, "big")).permutation(len(rings))
    taken: set[frozenset[int]] = set()
    chosen = []
    for index in sorted(order, key=lambda index: -min(rings[index].gaps)):
        pairs = {frozenset(pair) for pair in ring_edges(rings[index].members)}
        if not pairs & taken:
            taken |= pairs
            chosen.append(rings[index])
    return chosen
