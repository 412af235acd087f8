"""
Groups made ready for training: the distinct sequences of a group, and its pairs as numbers of two of them.

A prepared group has

- `sequence_ids`, the token ids of each distinct sequence, prompt included, and `prompt_ids`, where there is a prompt;
- `pairs`, lists [chosen, rejected] of numbers of sequences, and in lists of the same length each pair's labels and
  whether its responses are `identical`;
- `pair_weight`, 1 over the number of pairs of the group before it was cut (see [`cut_group`]), and `is_cyclic`,
  whether what its labels prefer goes round in a circle.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpm_hf.data import groups, judged_groups
from gpm_hf.data.collator import Shape
from gpm_hf.data.judged_groups import JudgedPair, read_judged_group
from gpm_hf.data.preference import encode_responses
from gpm_hf.data.preference_rows import IDENTICAL, preparation_version, read_ids

GROUP_COLUMNS = ("sequence_ids", "pairs", "pair_weight", "is_cyclic")
PAIRS_LEFT_OUT = "pairs_over_max_length"
_LABELS = ("preference_probability", "margin", "target_score")


def prepare_group(
    row: Mapping[str, Any],
    number: int,
    encoding: Mapping[str, Any],
    vocabulary_size: int,
    is_regression: bool = False,
    rating_margin: float = 0.0,
    max_length: int | None = None,
    length_column: str | None = None,
    version: str = "",
) -> dict[str, Any]:
    """
    One group, see [`gpm_hf.data.judged_groups`], as [`~gpm_hf.training.GPMRewardTrainer`] reads it.

    Args:
        row: `prompt`, `responses` and a statement.
        number: the row's in its data set, counted from 0.
        encoding: the further arguments of [`~gpm_hf.data.preference.encode_responses`].
        vocabulary_size: rows of the model's token embeddings.
        is_regression: whether each pair needs a target.
        rating_margin: see [`~gpm_hf.data.judged_groups.read_judged_group`].
        max_length: responses of more tokens, prompt included, are left out, and their pairs with them.
        length_column: where to put the length of the longest sequence, in tokens.
        version: see [`~gpm_hf.data.preference_rows.prepare_row`].

    Returns:
        A prepared group, which may have no pairs, and `pairs_over_max_length`, how many were left out.

    Raises:
        ValueError: naming the row and what is wrong with it.
    """
    try:
        group = read_judged_group(row, rating_margin)
        if is_regression and any(pair.target_score is None for pair in group.pairs):
            raise ValueError(
                'loss_type="regression" needs `target_scores` (K x K log-odds), and it states other things.'
            )
        encoded = encode_responses(group.prompt, group.responses, **encoding)
        sequences = [read_ids(ids, "responses", vocabulary_size) for ids in encoded.sequences]
    except ValueError as error:
        raise ValueError(
            f"Row {number}, with the prompt {str(row.get('prompt'))[:80]!r}, cannot be used: {error} Mend the row or "
            "filter it out of the data set."
        ) from error
    short = [max_length is None or len(ids) <= max_length for ids in sequences]
    pairs = [pair for pair in group.pairs if short[pair.first] and short[pair.second]]
    prepared = _prepared([(sequences[pair.first], sequences[pair.second], pair) for pair in pairs], is_regression)
    if encoded.prompt_ids is not None:
        prepared["prompt_ids"] = list(encoded.prompt_ids)
    prepared[PAIRS_LEFT_OUT] = len(group.pairs) - len(pairs)
    if length_column is not None:
        prepared[length_column] = max(map(len, prepared["sequence_ids"]), default=0)
    return prepared


def group_preparation_version() -> str:
    """A digest of what decides, beside the arguments of [`prepare_group`], what a row becomes."""
    files = (__file__, judged_groups.__file__, groups.__file__)
    own = b"".join(Path(file).read_bytes() for file in files)
    return hashlib.sha256(own + preparation_version().encode()).hexdigest()


def group_of_pairs(rows: list[Mapping[str, Any]], is_regression: bool, length_column: str | None) -> dict[str, Any]:
    """
    Prepared pairs of one prompt (see [`~gpm_hf.data.preference_rows.prepare_row`]) as a prepared group: each distinct
    sequence once, and every judgement with its labels, those that repeat or contradict another too.
    """
    judged = []
    for row in rows:
        label = JudgedPair(
            0, 1, row.get("preference_probability", 1.0), row.get("target_score"), row.get("margin", 0.0)
        )
        judged.append((row["chosen_ids"], row["rejected_ids"], label))
    prepared = _prepared(judged, is_regression)
    if rows[0].get("prompt_ids") is not None:
        prepared["prompt_ids"] = rows[0]["prompt_ids"]
    if length_column is not None:
        prepared[length_column] = max(map(len, prepared["sequence_ids"]))
    return prepared


def pairs_of_group(group: Mapping[str, Any], length_column: str | None) -> Iterator[dict[str, Any]]:
    """The pairs of a prepared group one by one, as [`~gpm_hf.data.preference_rows.prepare_row`] prepares pairs."""
    sequences = group["sequence_ids"]
    for place, (chosen, rejected) in enumerate(group["pairs"]):
        pair = {"chosen_ids": sequences[chosen], "rejected_ids": sequences[rejected]}
        pair |= {name: group[name] for name in ("prompt_ids",) if name in group}
        pair |= {name: group[name][place] for name in (*_LABELS, IDENTICAL) if name in group}
        if length_column is not None:
            pair[length_column] = max(len(sequences[chosen]), len(sequences[rejected]))
        yield pair


def _prepared(judged: list[tuple[list[int], list[int], JudgedPair]], is_regression: bool) -> dict[str, Any]:
    numbers: dict[tuple[int, ...], int] = {}
    pairs = [[numbers.setdefault(tuple(ids), len(numbers)) for ids in sides[:2]] for sides in judged]
    labels = [sides[2] for sides in judged]
    found: dict[str, Any] = {"sequence_ids": [list(ids) for ids in numbers], "pairs": pairs}
    if is_regression:
        found["target_score"] = [label.target_score for label in labels]
        leans = [label.target_score or 0.0 for label in labels]
    else:
        found["preference_probability"] = [label.probability for label in labels]
        found["margin"] = [label.margin for label in labels]
        leans = [label.probability - 0.5 for label in labels]
    found[IDENTICAL] = [first == second for first, second in pairs]
    found["pair_weight"] = 1 / max(len(pairs), 1)
    found["is_cyclic"] = _is_cyclic(pairs, leans, len(numbers))
    return found


def _is_cyclic(pairs: list[list[int]], leans: list[float], size: int) -> bool:
    """Whether the responses beat each other in a circle, by the sum of what was judged of each pair."""
    net: dict[tuple[int, int], float] = {}
    for (first, second), lean in zip(pairs, leans):
        key, sign = ((first, second), 1) if first < second else ((second, first), -1)
        net[key] = net.get(key, 0.0) + sign * lean
    beaten: dict[int, set[int]] = {number: set() for number in range(size)}
    for (first, second), lean in net.items():
        if lean and first != second:
            better, worse = (first, second) if lean > 0 else (second, first)
            beaten[better].add(worse)
    # What beats only those that are gone goes next; where nothing does, they go round.
    while beaten:
        last = [number for number, worse in beaten.items() if not worse & beaten.keys()]
        if not last:
            return True
        for number in last:
            del beaten[number]
    return False


def cut_group(
    group: Mapping[str, Any], shape: Shape, most_tokens: int, tokens_of: Callable[[Sequence[Shape]], int]
) -> Iterator[dict[str, Any]]:
    """
    Cuts a group by its responses into parts of at most so many tokens, each pair in one of them. The responses lie in
    blocks of half a part; pairs are taken by the blocks of their two responses, and a part takes as many as it can. A
    response is encoded in each part that has it; two that are longer than the bound go together all the same.

    Args:
        group: a prepared group.
        shape: its.
        most_tokens: that may pass the backbone at once.
        tokens_of: from the shapes of a batch to its tokens, the collator's.

    Yields:
        Prepared groups; the one itself where it is small enough.
    """
    shared, lengths = shape
    if tokens_of([shape]) <= most_tokens:
        yield dict(group)
        return
    block_of, used = [0], lengths[0] - shared
    for length in lengths[1:]:
        is_full = used + length - shared > (most_tokens - shared) / 2
        block_of.append(block_of[-1] + is_full)
        used = length - shared if is_full else used + length - shared
    blocks = [sorted(block_of[number] for number in pair) for pair in group["pairs"]]
    places: list[int] = []
    members: set[int] = set()
    for place in sorted(range(len(blocks)), key=blocks.__getitem__):
        more = members | set(group["pairs"][place])
        if members and tokens_of([Shape(shared, tuple(lengths[number] for number in more))]) > most_tokens:
            yield _part(group, places)
            places, more = [], set(group["pairs"][place])
        places.append(place)
        members = more
    yield _part(group, places)


def _part(group: Mapping[str, Any], places: list[int]) -> dict[str, Any]:
    """The group with some of its pairs, and the sequences that they need."""
    pairs = [group["pairs"][place] for place in places]
    kept = sorted({number for pair in pairs for number in pair})
    # No cycle is whole in a part of it.
    part = {**group, "is_cyclic": False}
    for name in (*_LABELS, IDENTICAL):
        if name in group:
            part[name] = [group[name][place] for place in places]
    part["sequence_ids"] = [group["sequence_ids"][number] for number in kept]
    part["pairs"] = [[kept.index(number) for number in pair] for pair in pairs]
    return part
