"""Whether a scorer takes long for good: accuracy by the difference in length."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gpm_hf.evaluation.reports.pairs import PairResult
from gpm_hf.evaluation.statistics.bootstrap import share_interval
from gpm_hf.tables import markdown_table


@dataclass(frozen=True)
class LengthBin:
    """
    Attributes:
        low, high: the smallest and largest difference in the bin, length of the chosen minus that of the rejected
            response.
        pairs, accuracy: in the bin.
        interval: 95% bootstrap interval of `accuracy`; `None` for fewer than five pairs.
    """

    low: float
    high: float
    pairs: int
    accuracy: float
    interval: tuple[float, float] | None


@dataclass
class LengthReport:
    """
    Attributes:
        unit: what lengths are counted in.
        bins: of about equally many pairs, by difference.
        shorter, equal, longer: the pairs whose chosen response is so; `None` where there are none.
        prefers_longer: share of the pairs of different length in which the scorer prefers the longer response; ties
            count half. `None` where all are equally long.
        longer_is_chosen: the same share in the data. A scorer without length bias comes near it.
    """

    unit: str
    bins: list[LengthBin]
    shorter: LengthBin | None
    equal: LengthBin | None
    longer: LengthBin | None
    prefers_longer: float | None
    longer_is_chosen: float | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def characters(response: Any) -> int:
    """Characters of a response, a string or chat messages."""
    if isinstance(response, str):
        return len(response)
    return sum(len(message.get("content") or "") for message in response)


def length_report(
    result: PairResult, bins: int = 8, length: Callable[[Any], float] = characters, unit: str = "characters"
) -> LengthReport:
    """
    Accuracy by how much longer the chosen response is than the rejected one.

    Args:
        result: see [`score_pairs`].
        bins: how many, of about equally many pairs; pairs of one difference share a bin, so there may be fewer.
        length: of a response, say in tokens: `lambda response: len(tokenizer(response)["input_ids"])`.
        unit: what `length` counts.

    Raises:
        ValueError: no bins.
    """
    if bins < 1:
        raise ValueError(f"bins={bins}: at least one is needed.")
    difference = np.array([length(row["chosen"]) - length(row["rejected"]) for row in result.rows], dtype=float)
    right = result.right.astype(float)
    ends = np.unique(np.quantile(difference, np.linspace(0, 1, bins + 1)[1:-1], method="lower"))
    places = np.searchsorted(ends, difference, side="left")
    unequal = difference != 0
    # 1 where the chosen response is preferred, 1/2 for a tie; turned round where the rejected one is the longer.
    preferred = np.where(result.log_odds == 0, 0.5, right)
    preferred = np.where(difference > 0, preferred, 1 - preferred)
    return LengthReport(
        unit=unit,
        bins=[_bin(difference, right, places == place) for place in np.unique(places)],
        shorter=_side(difference, right, difference < 0),
        equal=_side(difference, right, ~unequal),
        longer=_side(difference, right, difference > 0),
        prefers_longer=float(preferred[unequal].mean()) if unequal.any() else None,
        longer_is_chosen=float((difference[unequal] > 0).mean()) if unequal.any() else None,
    )


def _side(difference: np.ndarray, right: np.ndarray, inside: np.ndarray) -> LengthBin | None:
    return _bin(difference, right, inside) if inside.any() else None


def _bin(difference: np.ndarray, right: np.ndarray, inside: np.ndarray) -> LengthBin:
    interval = share_interval(right[inside], [1.0] * int(inside.sum()), samples=2000)
    ends = float(difference[inside].min()), float(difference[inside].max())
    return LengthBin(*ends, int(inside.sum()), float(right[inside].mean()), interval)


LENGTH_COLUMNS = ("chosen is shorter", "as long", "chosen is longer", "prefers the longer", "the longer is chosen")


def length_cells(report: LengthReport) -> list[str]:
    """What stands under [`LENGTH_COLUMNS`], those with the number of pairs in brackets being accuracies."""
    sides = (report.shorter, report.equal, report.longer)
    cells = ["-" if side is None else f"{side.accuracy:.1%} ({side.pairs})" for side in sides]
    shares = (report.prefers_longer, report.longer_is_chosen)
    return cells + ["-" if share is None else f"{share:.1%}" for share in shares]


def length_table(results: dict[str, LengthReport]) -> str:
    """A Markdown table with a row per scorer."""
    return markdown_table(["scorer", *LENGTH_COLUMNS], [[name, *length_cells(one)] for name, one in results.items()])
