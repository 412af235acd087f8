"""Scoring many prompts with any scorer, resumable: what is scored is on disk and is not scored again."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from tqdm.auto import tqdm

from gpm_hf.files import written_whole
from gpm_hf.scoring.scorer import Scorer, ScorerBase, score_with

_STORED = ("scorer", "scores", "forward_passes", "asymmetry")


class ResponseGroup(NamedTuple):
    """
    Responses to one prompt.

    Attributes:
        name: for messages, "row 3".
        prompt: a string or chat messages.
        responses: strings or chat messages.
    """

    name: str
    prompt: Any
    responses: list


@dataclass
class ScoredGroups:
    """
    Attributes:
        scores: per group, log-odds of shape (K, K) in float64, exactly skew-symmetric: where a scorer's two orders
            disagree, their average (S - S^T) / 2.
        asymmetry: the largest |P(i > j) + P(j > i) - 1| of these matrices, before any averaging; 0 for a general
            preference model, `None` where one order only was read. Of a scorer that is no
            [`~gpm_hf.scoring.ScorerBase`] it is what it states of itself.
        forward_passes: that all these scores took, in this run and in those it resumed.
        reused: groups whose scores were stored already.
    """

    scores: list[np.ndarray]
    asymmetry: float | None
    forward_passes: int
    reused: int


def score_groups(
    groups: Sequence[ResponseGroup],
    scorer: Scorer,
    chunk_size: int = 64,
    store: str | Path | None = None,
    progress: bool = False,
) -> ScoredGroups:
    """
    Scores groups of responses. Groups of like length are scored together, the longest first, so that what does not fit
    into memory fails at once. Equal groups are scored once.

    A scorer's `name` tells its stored scores from others', so it names all that matters: model, revision, template.
    The date that its chat template writes is stored beside the scores, which are taken for that date alone.

    The scorer never sees which response is the good one: responses are put in the order of their hashes. Else a model
    that prefers whatever it reads first would look perfect on data that names the chosen response first.

    Args:
        groups: prompts with their responses.
        scorer: see [`gpm_hf.scoring.Scorer`]. How many sequences it encodes at once is its own matter.
        chunk_size: groups given to the scorer at once, and then stored; results depend on it by
            rounding alone.
        store: a JSON Lines file with a line per group, for all scorers; made where there is none. Its groups are found
            again by their texts and the scorer's name. It is rewritten whole after each chunk, so a run that is killed
            loses at most one chunk.
        progress: show a progress bar.

    Raises:
        ValueError: no groups; a group that the scorer refuses (too long, ...), or for which it returns what is no
            (K, K) matrix of finite numbers: the message names the row, and what was scored before is stored; a store
            that holds something else.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size}: at least one group must be scored at once.")
    if not groups:
        raise ValueError("There is nothing to score.")
    date = scorer.template_date if isinstance(scorer, ScorerBase) else None
    keyed = [_Keyed.of(group, scorer.name, date) for group in groups]
    stored = _Store(store)
    found = {one.key: stored.records[one.key] for one in keyed if one.key in stored.records}
    reused = sum(one.key in found for one in keyed)
    open_groups = {one.key: one for one in keyed if one.key not in found}
    order = sorted(open_groups.values(), key=lambda one: (-one.length, one.key))
    with tqdm(total=len(order), desc=scorer.name, unit="row", disable=not progress) as bar:
        for first in range(0, len(order), chunk_size):
            chunk = order[first : first + chunk_size]
            records = _score_chunk(chunk, scorer, date)
            found.update(records)
            stored.add(records)
            bar.update(len(chunk))

    scores = []
    for one in keyed:
        matrix = np.array(found[one.key]["scores"], dtype=float)
        back = np.argsort(one.order)
        scores.append(((matrix - matrix.T) / 2)[np.ix_(back, back)])
    passes = sum(record["forward_passes"] for record in found.values())
    measured = [record["asymmetry"] for record in found.values()]
    return ScoredGroups(scores, None if None in measured else max(measured), passes, reused)


class _Keyed(NamedTuple):
    group: ResponseGroup
    key: str
    order: list[int]  # places of the responses as the scorer sees them
    length: int

    @classmethod
    def of(cls, group: ResponseGroup, scorer: str, date: str | None) -> "_Keyed":
        texts = [json.dumps(response, sort_keys=True) for response in group.responses]
        prompt = json.dumps(group.prompt, sort_keys=True)
        hashes = [_hash([prompt, text]) for text in texts]
        order = sorted(range(len(texts)), key=hashes.__getitem__)
        key = _hash([scorer, *([date] if date else []), prompt, *[texts[place] for place in order]])
        return cls(group, key, order, len(prompt) + max(map(len, texts)))

    def responses(self) -> list:
        return [self.group.responses[place] for place in self.order]


def _hash(texts: list[str]) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def _score_chunk(chunk: Sequence[_Keyed], scorer: Scorer, date: str | None) -> dict[str, dict[str, Any]]:
    try:
        scored = score_with(scorer, [one.group.prompt for one in chunk], [one.responses() for one in chunk])
    except ValueError as error:
        _blame(chunk, scorer, error)
    records = {}
    for one, found in zip(chunk, scored):
        scores, size = found.scores, len(one.order)
        if tuple(scores.shape) != (size, size) or not bool(scores.isfinite().all()):
            raise ValueError(
                f"{one.group.name}: {scorer.name} returned a matrix of shape {tuple(scores.shape)} for {size} "
                "responses, or numbers that are not finite. A scorer returns (K, K) finite log-odds."
            )
        records[one.key] = {
            "scorer": scorer.name,
            "template_date": date,
            "scores": scores.tolist(),
            "forward_passes": found.forward_passes,
            "asymmetry": found.asymmetry,
        }
    return records


def _blame(chunk: Sequence[_Keyed], scorer: Scorer, error: ValueError) -> NoReturn:
    """Finds the group that the scorer refuses, which its own message cannot name, and raises."""
    for one in chunk:
        try:
            scorer([one.group.prompt], [one.responses()])
        except ValueError as own:
            raise ValueError(f"{one.group.name}: {scorer.name} cannot score it: {own}") from own
    raise error


class _Store:
    """The file of scores, by key; in memory alone where there is no path."""

    def __init__(self, path: str | Path | None):
        self.path = None if path is None else Path(path)
        self.records: dict[str, dict[str, Any]] = {}
        if self.path is None or not self.path.exists():
            return
        with open(self.path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    record = json.loads(line)
                    key, found = record["key"], {name: record[name] for name in _STORED}
                except (json.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
                    raise ValueError(
                        f"{self.path}, line {number}, is no stored score. Name another file, or remove this one to "
                        "score everything again."
                    ) from error
                if "template_date" not in record:
                    raise ValueError(
                        f"{self.path} was written by an earlier version, which stored with each score the asymmetry "
                        "of all that its scorer had read before, and not the date that a chat template wrote. Name "
                        "another file, or remove this one to score everything again."
                    )
                self.records[key] = {**found, "template_date": record["template_date"]}

    def add(self, records: dict[str, dict[str, Any]]) -> None:
        self.records.update(records)
        if self.path is not None:
            with written_whole(self.path) as file:
                for key, record in self.records.items():
                    file.write(json.dumps({"key": key, **record}) + "\n")
