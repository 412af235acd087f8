"""
Groups that say who beats whom: the one form in which several responses to a prompt are trained on.

A row has `prompt`, `responses` (K >= 2, see [`~gpm_hf.data.groups.named_responses`]; K may differ from row to row) and
exactly one statement, in which responses are named by their numbers, from 0:

| column | states |
|---|---|
| `preferences` | `[i, j]` for i preferred to j, or `[i, j, probability]`; the same pair may be judged several times |
| `ranking` | numbers of all responses, best first; those that tie stand in a list of their own and make no pair |
| `ratings` | a number per response, null where there is none; a pair where two of them differ |
| `preference_matrix` | K x K probabilities that the row's response beats the column's, null (NaN) if not judged |
| `target_scores` | the same in log-odds, which the regression needs; cross entropy takes their sigmoid |
| `ring` | true: each response is preferred to the next, and the last to the first |

Columns that are null are not there. Two that other files of this kind have are read as one of these: `scores`, what
`gpm-hf score` writes, as `target_scores` but for zeros, which say nothing there; and `pairs` of
`{"a": i, "b": j, "p_a": probability}` as `preferences`.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from gpm_hf.data.groups import named_responses
from gpm_hf.data.text import text_problem

STATEMENTS = ("preferences", "ranking", "ratings", "preference_matrix", "target_scores", "ring")
_ALSO_READ = ("scores", "pairs")
# How far both directions of a judgement may disagree: probabilities written with three digits, log-odds in float32.
_ROUNDING = 1e-3


class JudgedPair(NamedTuple):
    """
    One judgement.

    Attributes:
        first, second: numbers of two responses.
        probability: that the first is preferred.
        target_score: the same as log-odds, where these were given.
        margin: by how much the log-odds shall exceed zero.
    """

    first: int
    second: int
    probability: float = 1.0
    target_score: float | None = None
    margin: float = 0.0


class JudgedGroup(NamedTuple):
    """
    A row, checked.

    Attributes:
        prompt: text or chat messages; `None` where the responses begin with it.
        responses: K texts or lists of chat messages.
        pairs: the judgements; none where the statement prefers nothing (all ratings equal).
    """

    prompt: Any
    responses: list[Any]
    pairs: list[JudgedPair]


def is_grouped(columns: Collection[str]) -> bool:
    """Whether rows with these columns are groups, and not preference pairs (whatever else those have)."""
    return "responses" in columns and "chosen" not in columns and "chosen_ids" not in columns


def read_judged_group(row: Mapping[str, Any], rating_margin: float = 0.0) -> JudgedGroup:
    """
    Reads a row of the form above.

    Args:
        row: the row.
        rating_margin: log-odds of `margin` for each unit by which two `ratings` differ.

    Raises:
        ValueError: what is no such group; the message names the columns, the caller the row.
    """
    responses = _responses(row)
    if len(responses) < 2:
        raise ValueError(f"it has {len(responses)} of `responses`: to prefer one, two are needed.")
    prompt = row.get("prompt")
    if prompt is not None and (problem := text_problem(prompt)):
        raise ValueError(f"`prompt` {problem}.")
    name = _statement(row)
    if name == "ring":
        return JudgedGroup(prompt, responses, _ring(responses))
    if name == "ratings":
        return JudgedGroup(prompt, responses, _ratings(row[name], len(responses), rating_margin))
    return JudgedGroup(prompt, responses, _READERS[name](row[name], len(responses), name))


def ring_of(row: Mapping[str, Any]) -> list[Any]:
    """
    The responses of a row that is a preference ring, each preferred to the next and the last to the first.

    Raises:
        ValueError: a row that does not say so by `ring: true`, or fewer than three responses.
    """
    name = _statement(row)
    if name != "ring":
        raise ValueError(f"it has `responses` and `{name}`, and here only rings are read, which say `ring: true`.")
    responses = _responses(row)
    _ring(responses)
    return responses


def _responses(row: Mapping[str, Any]) -> list[Any]:
    responses = row.get("responses")
    if isinstance(responses, Mapping):  # a table's has the names of all rows
        responses = {name: text for name, text in responses.items() if text is not None}
    return named_responses(responses)[0]


def _statement(row: Mapping[str, Any]) -> str:
    """The one column that says who beats whom."""
    ring = row.get("ring")
    if ring is not None and not isinstance(ring, bool):
        raise ValueError(f"`ring` is {ring!r}: it is true or false.")
    said = [name for name in (*STATEMENTS, *_ALSO_READ) if row.get(name) is not None and row[name] is not False]
    if len(said) == 1:
        return said[0]
    if said:
        raise ValueError(f"its columns {said} each say who beats whom: keep one of them.")
    raise ValueError(
        f"it has `responses` and nothing that says who beats whom, in the columns {sorted(row)}. Add one of "
        f"{list(STATEMENTS)}; `ring: true` where each response is preferred to the next and the last to the first."
    )


# --- statements ------------------------------------------------------------------------------------------------------


def _ring(responses: Sequence[Any]) -> list[JudgedPair]:
    size = len(responses)
    if size < 3:
        raise ValueError(f"it has {size} of `responses` and `ring: true`; a ring has at least three.")
    return [JudgedPair(place, (place + 1) % size) for place in range(size)]


def _preferences(value: Any, size: int, name: str) -> list[JudgedPair]:
    pairs = []
    for one in _list(value, name):
        if isinstance(one, Mapping):
            one = [one.get("a"), one.get("b"), one.get("p_a")]
        if not isinstance(one, (list, tuple)) or len(one) not in (2, 3):
            raise ValueError(f"`{name}` holds {one!r:.60}: a judgement is [i, j] or [i, j, probability].")
        first, second = (_index(number, size, name) for number in one[:2])
        if first == second:
            raise ValueError(f"`{name}` holds {list(one)}: response {first} cannot be preferred to itself.")
        pairs.append(JudgedPair(first, second, _probability(one[2], name) if len(one) == 3 else 1.0))
    return pairs


def _ranking(value: Any, size: int, name: str) -> list[JudgedPair]:
    places = [place if isinstance(place, (list, tuple)) else [place] for place in _list(value, name)]
    ranks = [[_index(number, size, name) for number in place] for place in places]
    order = [number for place in ranks for number in place]
    repeated = sorted({number for number in order if order.count(number) > 1})
    if repeated:
        raise ValueError(f"`{name}` names the responses {repeated} more than once.")
    absent = sorted(set(range(size)) - set(order))
    if absent:
        raise ValueError(
            f"`{name}` leaves out the responses {absent}: it names all of them, those that tie in a list of their "
            "own. Where only some are judged, state `preferences`."
        )
    return [
        JudgedPair(better, worse)
        for rank, place in enumerate(ranks)
        for better in place
        for below in ranks[rank + 1 :]
        for worse in below
    ]


def _ratings(value: Any, size: int, rating_margin: float) -> list[JudgedPair]:
    ratings = [_number(rating, "ratings") for rating in _list(value, "ratings")]
    if len(ratings) != size:
        raise ValueError(f"there are {size} `responses` and {len(ratings)} `ratings`: one number each is needed.")
    pairs = []
    for i, one in enumerate(ratings):
        for j, other in enumerate(ratings[:i]):
            # Means of the same ratings in another order differ in their last bits.
            if one is not None and other is not None and not math.isclose(one, other):
                better, worse = (i, j) if one > other else (j, i)
                pairs.append(JudgedPair(better, worse, margin=rating_margin * abs(one - other)))
    return sorted(pairs)


def _preference_matrix(value: Any, size: int, name: str) -> list[JudgedPair]:
    def probability(number: Any) -> float | None:
        return None if number is None else _probability(number, name)

    return [
        JudgedPair(i, j, p) if p >= 0.5 else JudgedPair(j, i, 1 - p)
        for i, j, p in _directions(value, size, name, probability, total=1.0)
    ]


def _target_scores(value: Any, size: int, name: str) -> list[JudgedPair]:
    found = _directions(value, size, name, lambda number: number, total=0.0)
    if name == "scores":
        found = [(i, j, score) for i, j, score in found if score != 0]
    pairs = []
    for i, j, score in found:
        first, second = (i, j) if score >= 0 else (j, i)
        pairs.append(JudgedPair(first, second, 1 / (1 + math.exp(-abs(score))), abs(score)))
    return pairs


_READERS: dict[str, Callable[[Any, int, str], list[JudgedPair]]] = {
    "preferences": _preferences,
    "pairs": _preferences,
    "ranking": _ranking,
    "preference_matrix": _preference_matrix,
    "target_scores": _target_scores,
    "scores": _target_scores,
}


def _directions(
    value: Any, size: int, name: str, read: Callable[[float | None], float | None], total: float
) -> list[tuple[int, int, float]]:
    """What a matrix says of i < j, where it says something: the two directions, which add up to `total`, as one."""
    rows = _list(value, name)
    lengths = [len(row) if isinstance(row, (list, tuple)) else None for row in rows]
    if lengths != [size] * size:
        raise ValueError(f"there are {size} `responses`, and `{name}` is no {size} x {size} matrix.")
    matrix = [[read(_number(number, name)) for number in row] for row in rows]
    found = []
    for i in range(size):
        for j in range(i, size):
            one, other = matrix[i][j], matrix[j][i]
            if one is None and other is None:
                continue
            one = total - other if one is None and other is not None else one
            other = total - one if other is None and one is not None else other
            assert one is not None and other is not None
            if abs(one + other - total) > _ROUNDING * max(1.0, abs(one)):
                raise ValueError(
                    f"`{name}` has {one:g} for ({i}, {j}) and {other:g} for ({j}, {i}): what it says of a pair in its "
                    f"two directions must add up to {total:g}."
                )
            if i != j:
                found.append((i, j, (one + total - other) / 2))
    return found


# --- values ----------------------------------------------------------------------------------------------------------


def _list(value: Any, name: str) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"`{name}` is {value!r:.60}: it must be a list.")
    return value


def _index(value: Any, size: int, name: str) -> int:
    # Where some stand beside probabilities, a table makes them numbers with a point.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not float(value).is_integer():
        raise ValueError(f"`{name}` names the response {value!r:.60}: responses are named by their numbers, from 0.")
    if not 0 <= value < size:
        raise ValueError(f"`{name}` names response {value:g}, and the {size} `responses` are 0 to {size - 1}.")
    return int(value)


def _number(value: Any, name: str) -> float | None:
    """A finite number, or `None` for null and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"`{name}` holds {value!r:.60}: finite numbers are needed, null where there is none.")
    return float(value)


def _probability(value: Any, name: str) -> float:
    number = _number(value, name)
    if number is None or not 0 <= number <= 1:
        raise ValueError(f"`{name}` holds the probability {value!r:.60}: it must lie between 0 and 1.")
    return number
