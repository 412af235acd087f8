"""
Preference cycles out of pairwise judgements: votes of people, of language models, or probabilities.

A judge that favours whichever response it reads first produces cycles that say nothing about the responses. Where a
pair was judged in both orders of presentation, the two are averaged before anything is called a cycle.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpm_hf.data.rings import ring_edges
from gpm_hf.preference import find_cycles


@dataclass
class JudgmentReport:
    """
    Counts of [`cycles_from_judgments`].

    Attributes:
        prompts: rows read.
        pairs: pairs that were judged.
        pairs_in_both_orders: those judged with either response first.
        pairs_that_flip: those of them whose judgement turned round with the order.
        cycles_before: cycles when each pair is judged once, with the response first that its judgement names first
            (in the other order where that is the only one).
        cycles_removed: those of them that are none when both orders are averaged.
        cycles: cycles after averaging; there may be some that were none before.
        problems: judgements left out, by reason.
    """

    prompts: int = 0
    pairs: int = 0
    pairs_in_both_orders: int = 0
    pairs_that_flip: int = 0
    cycles_before: int = 0
    cycles_removed: int = 0
    cycles: int = 0
    problems: Counter = field(default_factory=Counter)

    def __str__(self) -> str:
        lines = [
            f"{self.prompts} prompts, {self.pairs} pairs judged, {self.pairs_in_both_orders} in both orders; of these "
            f"{self.pairs_that_flip} flip with the order.",
            f"{self.cycles_before} cycles when each pair is judged once; averaging both orders removes "
            f"{self.cycles_removed}, and {self.cycles} cycles are there after it.",
        ]
        lines += [f"Left out: {count} ({reason})" for reason, count in sorted(self.problems.items())]
        return "\n".join(lines)


def cycles_from_judgments(
    rows: Iterable[Mapping[str, Any]],
    judge: str | None = None,
    max_length: int = 3,
    min_margin: float = 0.0,
    require_both_orders: bool = False,
) -> tuple[list[dict[str, Any]], JudgmentReport]:
    """
    Finds the preference cycles in pairwise judgements.

    Args:
        rows: one per prompt, with

            - `prompt` (`str`) and `responses`, each a `str` or a `dict` with `text` and, where judgements call the
              responses by name, `model`; or a `dict` of texts by model;
            - `judgments`: a list of `dict`, or a `dict` of such lists by judge. One judgement has `a` and `b`
              (numbers or model names of two responses) and what it says of a being better, as numbers from 0 to 1
              (votes: 1, 0, or 0.5 for a tie; or probabilities): `ab` with a presented first and `ba` with b
              presented first, each a number or a list; or `p_a` where the order is not known.
        judge: which judge's, where `judgments` is a `dict`.
        max_length: the longest cycle to look for.
        min_margin: an edge needs a probability above 1/2 by more than this.
        require_both_orders: leave out pairs that were judged in one order only. By default they count as they are:
            there is nothing to average.

    Returns:
        The cycles, rows with `id`, `prompt`, `responses` (texts in ring order: each is preferred to the next, the
        last to the first), `p_next` (the probability of each of these preferences) and, where named, `models` and
        `judge`; and a [`JudgmentReport`].

    Raises:
        ValueError: no row, a row that has another form, or a judge that no row has.
    """
    report = JudgmentReport()
    cycles = []
    judges: set[str] = set()
    for number, row in enumerate(rows):
        row = _with_models(row)
        _check(row, number)
        judgments = row["judgments"]
        if isinstance(judgments, Mapping):
            judges |= set(judgments)
            if judge is None and len(judges) > 1:
                raise ValueError(f"There are several judges, {sorted(judges)}: name one as `judge`.")
            judgments = judgments.get(judge, []) if judge is not None else next(iter(judgments.values()), [])
        elif judge is not None:
            raise ValueError(f"Row {number} does not say who judged: leave `judge` out, or give `judgments` by judge.")
        cycles += _cycles_of_row(row, judgments, judge, max_length, min_margin, require_both_orders, report)
        report.prompts += 1
    if not report.prompts:
        raise ValueError("There are no judgements to look for cycles in.")
    if judges and judge is not None and judge not in judges:
        raise ValueError(f"No row has judgements by {judge!r}; there are {sorted(judges)}.")
    report.cycles = len(cycles)
    return cycles, report


def _with_models(row: Any) -> Any:
    """The row with a mapping of names to responses as a list of responses that say whose they are."""
    if not isinstance(row, Mapping) or not isinstance(row.get("responses"), Mapping):
        return row
    return {**row, "responses": [{"model": name, "text": text} for name, text in row["responses"].items()]}


def _check(row: Mapping[str, Any], number: int) -> None:
    if not isinstance(row, Mapping) or not {"prompt", "responses", "judgments"} <= row.keys():
        raise ValueError(f"Row {number} lacks one of `prompt`, `responses` and `judgments`.")
    texts = [r if isinstance(r, str) else r.get("text") if isinstance(r, Mapping) else None for r in row["responses"]]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"Row {number}: a response is neither a string nor a dictionary with `text`.")
    judgments = row["judgments"]
    lists = list(judgments.values()) if isinstance(judgments, Mapping) else [judgments]
    if not all(isinstance(one, (list, tuple)) and all(isinstance(j, Mapping) for j in one) for one in lists):
        raise ValueError(f"Row {number}: `judgments` is neither a list of dictionaries nor such lists by judge.")


def _cycles_of_row(row, judgments, judge, max_length, min_margin, require_both_orders, report):
    responses = [response if isinstance(response, str) else response["text"] for response in row["responses"]]
    named = all(isinstance(response, Mapping) and "model" in response for response in row["responses"])
    models = [response["model"] for response in row["responses"]] if named else []
    votes = _votes(judgments, responses, models, report.problems)

    size = len(responses)
    once, both = np.full((size, size), 0.5), np.full((size, size), 0.5)
    for (i, j), (first, second, unknown) in votes.items():
        orders = [float(np.mean(order)) for order in (first, second, unknown) if order]
        report.pairs += 1
        if first and second:
            report.pairs_in_both_orders += 1
            report.pairs_that_flip += (orders[0] - 0.5) * (orders[1] - 0.5) < 0
        elif require_both_orders:
            report.problems["pair judged in one order only"] += 1
            continue
        once[i, j], once[j, i] = orders[0], 1 - orders[0]
        both[i, j] = np.mean(orders)
        both[j, i] = 1 - both[i, j]

    before = {cycle.members for cycle in find_cycles(once - 0.5, max_length, min_score=min_margin)}
    found = [cycle.members for cycle in find_cycles(both - 0.5, max_length, min_score=min_margin)]
    report.cycles_before += len(before)
    report.cycles_removed += len(before - set(found))
    return [_as_row(row, members, responses, models, judge, both) for members in found]


def _as_row(row, members, responses, models, judge, both):
    names = [models[member] for member in members] if models else [str(member) for member in members]
    found = {
        "id": "/".join(str(part) for part in (row.get("id", ""), judge or "", ">".join(names)) if part != ""),
        "prompt": row["prompt"],
        "responses": [responses[member] for member in members],
        "ring": True,
        "p_next": [float(both[i, j]) for i, j in ring_edges(members)],
    }
    if models:
        found["models"] = names
    if judge is not None:
        found["judge"] = judge
    return found


def _votes(
    judgments: Sequence[Mapping[str, Any]], responses: list[str], models: list[str], problems: Counter
) -> dict[tuple[int, int], tuple[list[float], list[float], list[float]]]:
    """
    Votes by pair (i, j), named as the first judgement of the pair names it: what was said of i being better with i
    presented first, with j presented first, and in an order that is not known.
    """
    number_of: dict[Any, int] = {name: number for number, name in enumerate(models)}
    votes: dict[tuple[int, int], tuple[list[float], list[float], list[float]]] = {}
    for judgment in judgments:
        pair = []
        for side in ("a", "b"):
            name = judgment.get(side)
            number = name if isinstance(name, int) and not models else number_of.get(name)
            if number is not None and 0 <= number < len(responses):
                pair.append(number)
        if len(pair) < 2 or pair[0] == pair[1]:
            problems["judgement of a response that is not there, or of one response with itself"] += 1
            continue
        if responses[pair[0]] == responses[pair[1]]:
            problems["judgement of two responses with the same text"] += 1
            continue
        orders = [_as_list(judgment.get("ab")), _as_list(judgment.get("ba")), []]
        if not orders[0] and not orders[1]:
            orders[2] = _as_list(judgment.get("p_a"))
        values = [*orders[0], *orders[1], *orders[2]]
        if not values:
            problems["judgement without a vote"] += 1
            continue
        if not all(isinstance(value, (int, float)) and 0 <= value <= 1 for value in values):
            problems["judgement with a vote that is not a number from 0 to 1"] += 1
            continue
        i, j = pair
        if (j, i) in votes:
            # Said of the other response, and so in the other order.
            i, j = j, i
            orders = [[1 - value for value in orders[place]] for place in (1, 0, 2)]
        for known, added in zip(votes.setdefault((i, j), ([], [], [])), orders):
            known += added
    return votes


def _as_list(votes: Any) -> list:
    if votes is None:
        return []
    return list(votes) if isinstance(votes, (list, tuple)) else [votes]
