"""Where two scorers disagree most."""

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpm_hf.evaluation.reports.pairs import PairResult
from gpm_hf.tables import markdown_table


class Disagreement(NamedTuple):
    """
    A pair on which two scorers disagree.

    Attributes:
        row: the pair.
        first, second: P(chosen is preferred to rejected) of the first and the second scorer.
    """

    row: Any
    first: float
    second: float

    @property
    def difference(self) -> float:
        """First minus second: positive where the first is nearer to the data."""
        return self.first - self.second

    def to_dict(self) -> dict[str, Any]:
        """For JSON, with the texts."""
        names = ("id", "subset", "prompt", "chosen", "rejected")
        row = {name: self.row[name] for name in names if name in self.row}
        return {**row, "first": self.first, "second": self.second, "difference": self.difference}


def disagreements(first: PairResult, second: PairResult, limit: int = 20) -> list[Disagreement]:
    """
    The pairs on which two scorers' probabilities differ most, the largest difference first. Probabilities and not
    log-odds, which differ most where both are certain.

    Args:
        first, second: results on the same rows in the same order.
        limit: at most so many.

    Raises:
        ValueError: the rows are not the same.
    """
    if len(first.rows) != len(second.rows):
        raise ValueError(f"{first.scorer} has {len(first.rows)} pairs and {second.scorer} {len(second.rows)}.")
    for number, rows in enumerate(zip(first.rows, second.rows), start=1):
        if any(rows[0][name] != rows[1][name] for name in ("prompt", "chosen", "rejected")):
            raise ValueError(f"{first.scorer} and {second.scorer} were given different pairs, at row {number} first.")
    own, other = first.probabilities, second.probabilities
    order = np.argsort(-np.abs(own - other), kind="stable")[:limit]
    return [Disagreement(first.rows[place], float(own[place]), float(other[place])) for place in order]


def disagreement_table(found: Sequence[Disagreement], first: str, second: str, width: int = 60) -> str:
    """A Markdown table with the first `width` characters of the texts; `first` and `second` are the scorers' names."""
    rows = [
        [
            one.row.get("id", "-"),
            one.row.get("subset", "-"),
            *[_beginning(one.row[name], width) for name in ("prompt", "chosen", "rejected")],
            f"{one.first:.2f}",
            f"{one.second:.2f}",
        ]
        for one in found
    ]
    header = ["row", "subset", "prompt", "chosen", "rejected", f"P(chosen), {first}", f"P(chosen), {second}"]
    return markdown_table(header, rows)


def _beginning(text: Any, width: int) -> str:
    last = "" if text is None else text if isinstance(text, str) else text[-1].get("content") or ""
    return textwrap.shorten(last, width, placeholder="...")
