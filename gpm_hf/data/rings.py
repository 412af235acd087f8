"""Preference rings as rows, as pairs, and as groups with a matrix: the three shapes of cyclic data."""

import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from datasets import Dataset, Features, List, Value

from gpm_hf.data.columns import dataset_of_rows
from gpm_hf.data.judged_groups import ring_of

MESSAGES = List({"role": Value("string"), "content": Value("string")})
GROUP_FEATURES = Features(
    {"prompt": MESSAGES, "responses": List(Value("string")), "scores": List(List(Value("float64")))}
)


def ring_edges(ring: Sequence[Any]) -> list[tuple[Any, Any]]:
    """
    Pairs (better, worse) of a ring: each member against the next, the last against the first.

    Example:

    >>> ring_edges(["rock", "scissors", "paper"])
    [('rock', 'scissors'), ('scissors', 'paper'), ('paper', 'rock')]
    """
    return list(itertools.pairwise([*ring, ring[0]]))


def ring_to_pairs(rows: Iterable[Mapping[str, Any]], distinct: bool = True) -> Dataset:
    """
    Preference pairs out of rings.

    Args:
        rows: `prompt` (none where the responses begin with it), `responses`, n of them in ring order, a list or a
            mapping of names to them, and `ring: true`: each is preferred to the next and the last to the first;
            optionally `id`.
        distinct: keep a pair that several rings share once, with the first one's name, as for training; else once for
            each ring.

    Returns:
        `prompt`, `chosen`, `rejected`, `cycle_id` and `edge` (0 for the first against the second, ...).
    """
    seen = set()
    pairs = []
    for number, row in enumerate(rows):
        try:
            responses = ring_of(row)
        except ValueError as error:
            raise ValueError(f"Row {number}: {error}") from error
        prompt = {"prompt": row["prompt"]} if row.get("prompt") is not None else {}
        for edge, (chosen, rejected) in enumerate(ring_edges(responses)):
            key = (str(prompt), str(chosen), str(rejected))
            if not distinct or key not in seen:
                seen.add(key)
                pair = prompt | {"chosen": chosen, "rejected": rejected}
                pairs.append(pair | {"cycle_id": str(row.get("id", number)), "edge": edge})
    return dataset_of_rows(pairs)


def ranked_instead(pairs: Iterable[Mapping[str, Any]], seed: int = 0) -> list[dict[str, Any]]:
    """
    The control for a cyclic data set: the same pairs of responses, as many, each directed by a random ranking of the
    prompt's responses. A scalar reward can have all of them right.

    Args:
        pairs: rows with `prompt`, `chosen` and `rejected`; other columns are left as they are.
        seed: of the rankings.
    """
    rows = [dict(pair) for pair in pairs]
    rng = random.Random(seed)
    places: dict[tuple[str, str], float] = {}
    for row in rows:
        better, worse = (
            places.setdefault((str(row["prompt"]), str(row[side])), rng.random()) for side in ("chosen", "rejected")
        )
        if better < worse:
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    return rows


def pairs_to_groups(pairs: Dataset) -> Dataset:
    """
    One row per prompt out of the pairs of a cyclic data set.

    Args:
        pairs: rows of [`build_cyclic_dataset`]: chat messages, with `chosen_rating` and `rejected_rating`.

    Returns:
        `prompt`; `responses`, K texts in the order of their appearance; `scores`, K x K and skew-symmetric: by how
        much the row's response was rated above the column's on the aspect of their edge, 0 where no pair of this
        split compares the two. These are differences of ratings, not log-odds.
    """
    groups: dict[str, dict[str, Any]] = {}
    for row in pairs:
        group = groups.setdefault(row["prompt"][-1]["content"], {"prompt": row["prompt"], "numbers": {}, "gaps": {}})
        numbers = group["numbers"]
        edge = tuple(numbers.setdefault(row[side][-1]["content"], len(numbers)) for side in ("chosen", "rejected"))
        group["gaps"][edge] = row["chosen_rating"] - row["rejected_rating"]
    columns: dict[str, list] = {name: [] for name in GROUP_FEATURES}
    for group in groups.values():
        size = len(group["numbers"])
        scores = [[0.0] * size for _ in range(size)]
        for (i, j), gap in group["gaps"].items():
            scores[i][j], scores[j][i] = gap, -gap
        columns["prompt"].append(group["prompt"])
        columns["responses"].append(list(group["numbers"]))
        columns["scores"].append(scores)
    return Dataset.from_dict(columns, features=GROUP_FEATURES)
