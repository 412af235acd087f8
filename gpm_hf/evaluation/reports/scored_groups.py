"""Scoring many prompts with any scorer, resumable: what is scored is on disk and is not scored again."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpm_hf.data.scored_rows import score_in_chunks
from gpm_hf.identity import versions
from gpm_hf.progress import TimedBar
from gpm_hf.records import Records
from gpm_hf.scoring.scorer import ScoredMatrix, Scorer, ScorerBase, score_with


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
        disagreements: per group, half the sum of both orders, log-odds of shape (K, K), symmetric, see
            [`gpm_hf.scoring.ScoredMatrix`]; `None` where it is not known of every group.
        forward_passes: that all these scores took, in this run and in those it resumed.
        reused: groups whose scores were stored already.
    """

    scores: list[np.ndarray]
    asymmetry: float | None
    disagreements: list[np.ndarray] | None
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
    The date that its chat template writes is stored beside the scores, which are taken for that date alone, and for
    the versions of libraries and of this package that computed them.

    The scorer never sees which response is the good one: responses are put in the order of their hashes. Else a model
    that prefers whatever it reads first would look perfect on data that names the chosen response first.

    Args:
        groups: prompts with their responses.
        scorer: see [`gpm_hf.scoring.Scorer`]. How many sequences it encodes at once is its own matter.
        chunk_size: groups given to the scorer at once, and then stored; results depend on it by
            rounding alone.
        store: a JSON Lines file with a line per group, for all scorers; made where there is none. Its groups are found
            again by their texts and the scorer's name. It is added to after each chunk, so a run that is killed loses
            at most one, and runs that share it lose none.
        progress: show a progress bar.

    Raises:
        ValueError: no groups; a group that the scorer refuses (too long, ...), or for which it returns what is no
            (K, K) matrix of finite numbers: the message names the row, and what was scored before is stored; a store
            that holds something else.
    """
    if not groups:
        raise ValueError("There is nothing to score.")
    date = scorer.template_date if isinstance(scorer, ScorerBase) else None
    computed_by = json.dumps(versions("modeling", "scoring", "data/preference.py"))
    keyed = [_Keyed.of(group, scorer.name, date, computed_by) for group in groups]
    stored = None if store is None else Records(store, _key_of_record, "stored score")
    found = {one.key: stored[one.key] for one in keyed if stored is not None and one.key in stored}
    reused = sum(one.key in found for one in keyed)
    open_groups = {one.key: one for one in keyed if one.key not in found}
    order = sorted(open_groups.values(), key=lambda one: (-one.length, one.key))
    rows = [(one.group.name, one.row()) for one in order]
    with TimedBar(total=len(order), desc=scorer.name, unit="row", disable=not progress) as bar:
        for chunk in score_in_chunks(rows, partial(score_with, scorer), chunk_size):
            records = [
                {"key": row["key"], **_record(name, scorer, matrix, len(row["responses"]), date)}
                for name, row, matrix in chunk
            ]
            if stored is not None:
                stored.add(records)
                # As it is there: another run may have been quicker.
                records = [stored[record["key"]] for record in records]
            found |= {record["key"]: record for record in records}
            bar.update(len(chunk))

    scores, disagreements = [], []
    for one in keyed:
        record, back = found[one.key], np.ix_(*[np.argsort(one.order)] * 2)
        matrix = np.array(record["scores"], dtype=float)
        scores.append(((matrix - matrix.T) / 2)[back])
        if record["disagreement"] is not None:
            disagreements.append(np.broadcast_to(np.array(record["disagreement"], dtype=float), matrix.shape)[back])
    passes = sum(record["forward_passes"] for record in found.values())
    measured = [record["asymmetry"] for record in found.values()]
    return ScoredGroups(
        scores=scores,
        asymmetry=None if None in measured else max(measured),
        disagreements=disagreements if len(disagreements) == len(scores) else None,
        forward_passes=passes,
        reused=reused,
    )


class _Keyed(NamedTuple):
    group: ResponseGroup
    key: str
    order: list[int]  # places of the responses as the scorer sees them
    length: int

    @classmethod
    def of(cls, group: ResponseGroup, scorer: str, date: str | None, computed_by: str) -> "_Keyed":
        texts = [json.dumps(response, sort_keys=True) for response in group.responses]
        prompt = json.dumps(group.prompt, sort_keys=True)
        hashes = [_hash([prompt, text]) for text in texts]
        order = sorted(range(len(texts)), key=hashes.__getitem__)
        key = _hash([scorer, computed_by, *([date] if date else []), prompt, *[texts[place] for place in order]])
        return cls(group, key, order, len(prompt) + max(map(len, texts)))

    def row(self) -> dict[str, Any]:
        """As it is scored."""
        responses = [self.group.responses[place] for place in self.order]
        return {"key": self.key, "prompt": self.group.prompt, "responses": responses}


def _hash(texts: list[str]) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def _record(name: str, scorer: Scorer, found: ScoredMatrix, size: int, date: str | None) -> dict[str, Any]:
    scores = found.scores
    if tuple(scores.shape) != (size, size) or not bool(scores.isfinite().all()):
        raise ValueError(
            f"{name}: {scorer.name} returned a matrix of shape {tuple(scores.shape)} for {size} responses, or numbers "
            "that are not finite. A scorer returns (K, K) finite log-odds."
        )
    apart = found.disagreement
    return {
        "scorer": scorer.name,
        "template_date": date,
        "scores": scores.tolist(),
        "forward_passes": found.forward_passes,
        "asymmetry": found.asymmetry,
        # One 0 for the many models whose orders cannot disagree.
        "disagreement": None if apart is None else apart.tolist() if apart.any() else 0.0,
    }


def _key_of_record(record: dict[str, Any]) -> str:
    missing = {"scorer", "scores", "forward_passes", "asymmetry"} - record.keys()
    if missing:
        raise KeyError(*sorted(missing))
    if "template_date" not in record:
        raise ValueError(
            "The store was written by an earlier version, which stored with each score the asymmetry of all that its "
            "scorer had read before, and not the date that a chat template wrote. Name another file, or remove this "
            "one to score everything again."
        )
    return record["key"]
