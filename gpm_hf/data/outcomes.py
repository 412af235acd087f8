"""What one vote says of two, in the words of Chatbot Arena, of AlpacaEval and of tables of one's own."""

import math
from collections.abc import Mapping
from typing import Any

TIES = ("tie", "tie (bothbad)", "bothbad", "both_bad", "tie (both bad)", "draw")
_FIRST = ("model_a", "response_a", "a")
_SECOND = ("model_b", "response_b", "b")
_FLAGS = ("winner_model_a", "winner_model_b", "winner_tie")


def arena_outcome(row: Mapping[str, Any]) -> float:
    """
    What Chatbot Arena's columns say of the first being better: 1, 0, or 1/2 for a tie.

    Args:
        row: `winner`, which is model_a, model_b, response_a, response_b, a, b (however capitalised), the name in
            `model_a` or `model_b`, or a tie in one of Arena's words; or `winner_model_a`, `winner_model_b` and
            `winner_tie`, of which one is 1.

    Raises:
        ValueError: a winner that is none of these.
        KeyError: `winner` is missing, and a flag too.
    """
    winner = row.get("winner")
    if winner is None:
        flags = [read_number(row[name], name) for name in _FLAGS]
        if sorted(flags) != [0, 0, 1]:
            raise ValueError(f"winner_model_a, winner_model_b and winner_tie are {flags}: one of them is 1")
        return (1.0, 0.0, 0.5)[flags.index(1)]
    word = str(winner).strip().lower()
    for outcome, words, name in ((1.0, _FIRST, "model_a"), (0.0, _SECOND, "model_b")):
        if word in words or winner == row.get(name):
            return outcome
    if word in TIES:
        return 0.5
    raise ValueError(f"the winner {winner!r} is neither model_a, model_b nor a tie")


def alpaca_outcome(row: Mapping[str, Any]) -> float | None:
    """
    AlpacaEval's `preference`, 1 (the first) to 2 (the second), 0 for a tie, as the probability that the first is
    better; `None` where its annotator gave no answer.

    Raises:
        ValueError: another number, or none.
    """
    if row.get("preference") is None:
        return None
    preference = read_number(row["preference"], "preference")
    if not (preference == 0 or 1 <= preference <= 2):
        raise ValueError(f"`preference` is {preference}: AlpacaEval's is 1 (the first) to 2 (the second), 0 for a tie")
    return 0.5 if preference == 0 else 2 - preference


def read_number(value: Any, name: str) -> float:
    """A finite number, which in CSV is text; a `ValueError` for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"`{name}` is {value!r}, which is no number") from None
    if not math.isfinite(number):
        raise ValueError(f"`{name}` is {value!r}, which is no finite number")
    return number
