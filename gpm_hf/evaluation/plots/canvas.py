"""What every picture needs: a figure that becomes a PNG file, whole or not at all, and bars for intervals."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gpm_hf.files import written_whole


@contextmanager
def picture(
    path: str | Path, size: tuple[float, float], rows: int = 1, columns: int = 1, title: str = "", **options: Any
) -> Iterator[tuple[Any, Any]]:
    """
    A matplotlib figure to draw into, written when the block ends well. No pyplot: it needs no display and leaves the
    caller's backend alone.

    Args:
        path: the PNG file.
        size: width and height in inches.
        rows, columns: of its axes.
        title: drawn above, cut where it is long.
        options: of `Figure.subplots`.

    Yields:
        The figure and its axes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, **options)
    if title:
        figure.suptitle(textwrap.shorten(title, int(10 * size[0]), placeholder="..."))
    yield figure, axes
    with written_whole(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)


def error_bars(values: Any, intervals: Sequence[Any] | np.ndarray) -> np.ndarray:
    """
    Distances of intervals' ends from their values, shape (2, n), NaN where there is no interval; rounding may put an
    end beyond its value.
    """
    ends = np.array([(np.nan, np.nan) if one is None else one for one in intervals], dtype=float).T
    return np.maximum([values - ends[0], ends[1] - values], 0)
