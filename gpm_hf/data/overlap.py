"""Data held out by prompt, and what two splits of preference data have in common."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from datasets import Dataset

from gpm_hf.data.judged_groups import is_grouped, read_judged_group
from gpm_hf.data.preference import LABEL_COLUMNS, TOKEN_COLUMNS, split_preference
from gpm_hf.errors import UsageError
from gpm_hf.modeling.messages_gpm import as_messages


class Judgement(NamedTuple):
    """
    One preference, by content.

    Attributes:
        prompt, first, second: digests.
        lean: above 0 where the first is preferred, 0 for a tie.
    """

    prompt: bytes
    first: bytes
    second: bytes
    lean: float


@dataclass
class Overlap:
    """
    What two splits share, and what one contradicts in itself.

    Attributes:
        prompts: that are in both.
        repeated: judgements of the second split that the first makes too.
        contradicted: judgements of the second split whose reverse the first makes.
        repeated_within, contradicted_within: the same of the first split and its own earlier rows.
    """

    prompts: int
    repeated: int
    contradicted: int
    repeated_within: int
    contradicted_within: int

    def __str__(self) -> str:
        return (
            f"Training data: {self.repeated_within} judgements repeat an earlier one, {self.contradicted_within} "
            f"contradict one. Held-out data: {self.prompts} prompts are trained on too, {self.repeated} judgements "
            f"repeat one that is trained on, {self.contradicted} contradict one."
        )


def judgements_of(row: Mapping[str, Any]) -> list[Judgement]:
    """
    What a pair or a group says, by content; nothing of what the trainer would refuse, which says so itself. A pair
    without a prompt counts as the only one of its prompt.
    """
    if set(TOKEN_COLUMNS) <= row.keys():
        first, second = (_digest(list(row[name])) for name in TOKEN_COLUMNS)
        prompt = row.get("prompt_ids")
        return [Judgement(_prompt_key(prompt, first, second), first, second, _lean(row))]
    try:
        if is_grouped(row):
            group = read_judged_group(row)
            texts = [_digest(_said(response)) for response in group.responses]
            asked = sorted(map(str, texts)) if group.prompt is None else _said(group.prompt, "user")
            prompt = _digest(asked)
            return [
                Judgement(prompt, texts[pair.first], texts[pair.second], pair.probability - 0.5)
                for pair in group.pairs
            ]
        asked, chosen, rejected = split_preference(row)
    except (ValueError, KeyError):
        return []
    first, second = _digest(_said(chosen)), _digest(_said(rejected))
    prompt = None if asked is None else _said(asked, "user")
    return [Judgement(_prompt_key(prompt, first, second), first, second, _lean(row))]


def hold_out(rows: Dataset, share: float, seed: int = 0) -> tuple[Dataset, Dataset]:
    """
    Holds out data by prompt, never by row: all rows of one prompt are on one side. Which prompts are held out depends
    on them and the seed, not on the order of the rows.

    Args:
        rows: pairs or groups.
        share: of the prompts, above 0 and below 1; at least one prompt is held out, and one stays.
        seed: of the choice.

    Returns:
        The rows to train on and those held out, in their order.

    Raises:
        ValueError: a share that is none, or fewer than two prompts.
    """
    if not 0 < share < 1:
        raise UsageError(f"the size {share} of the test split is none: a share of the prompts above 0 and below 1.")
    keys = [_key_of(row, number) for number, row in enumerate(rows)]
    prompts = sorted(set(keys), key=lambda key: hashlib.sha256(f"{seed} ".encode() + key).digest())
    if len(prompts) < 2:
        raise ValueError(f"whole prompts are held out, and the data have {len(prompts)}: give data with several.")
    held = set(prompts[: min(max(1, round(share * len(prompts))), len(prompts) - 1)])
    sides: tuple[list[int], list[int]] = ([], [])
    for number, key in enumerate(keys):
        sides[key in held].append(number)
    return rows.select(sides[0]), rows.select(sides[1])


def overlap(train: Dataset, test: Dataset) -> Overlap:
    """Counts what is judged twice, in one split or across two; every judgement of a group counts."""
    known: Counter[tuple[bytes, bytes, bytes]] = Counter()
    prompts: set[bytes] = set()
    repeated_within = contradicted_within = 0
    for one in _all(train):
        same, reverse = _ways(one)
        repeated_within += known[same] > 0
        contradicted_within += known[reverse] > 0
        known[same] += 1
        prompts.add(one.prompt)
    found = [(one, *_ways(one)) for one in _all(test)]
    return Overlap(
        prompts=len({one.prompt for one, _, _ in found} & prompts),
        repeated=sum(known[same] > 0 for _, same, _ in found),
        contradicted=sum(known[reverse] > 0 for _, _, reverse in found),
        repeated_within=repeated_within,
        contradicted_within=contradicted_within,
    )


def _ways(one: Judgement) -> tuple[tuple[bytes, bytes, bytes], tuple[bytes, bytes, bytes]]:
    """A judgement with the better response first, and its reverse."""
    better, worse = (one.first, one.second) if one.lean > 0 else (one.second, one.first)
    return (one.prompt, better, worse), (one.prompt, worse, better)


def _all(rows: Dataset) -> Iterator[Judgement]:
    for row in rows:
        yield from (one for one in judgements_of(row) if one.lean)


def _key_of(row: Mapping[str, Any], number: int) -> bytes:
    found = judgements_of(row)
    return found[0].prompt if found else str(number).encode()


def _lean(row: Mapping[str, Any]) -> float:
    labels = {name: row[name] for name in LABEL_COLUMNS if row.get(name) is not None}
    if "target_score" in labels:
        return float(labels["target_score"])
    return float(labels.get("preference_probability", 1.0)) - 0.5


def _prompt_key(prompt: Any, first: bytes, second: bytes) -> bytes:
    return b"".join(sorted([first, second])) if prompt is None else _digest(prompt)


def _said(text_or_messages: Any, role: str = "assistant") -> list[list[str]]:
    return [
        [message.get("role", role), str(message.get("content"))] for message in as_messages(text_or_messages, role)
    ]


def _digest(value: Any) -> bytes:
    return hashlib.sha256(json.dumps(value, ensure_ascii=True, default=str).encode()).digest()[:16]
