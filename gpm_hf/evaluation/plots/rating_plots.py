"""The picture of ratings: the axis of the ranking, and the plane of what it leaves."""

import textwrap
from pathlib import Path

import numpy as np

from gpm_hf.evaluation.plots.canvas import error_bars, picture
from gpm_hf.ratings.blocks import BlockFit, fit_blocks
from gpm_hf.ratings.report import RatingsReport

_MOST = 40
# Of a block's coordinates: two items then differ from their ratings by log-odds of 0.02 at most.
_NOTHING = 0.1


def plot_ratings(path: str | Path, report: RatingsReport, title: str) -> None:
    """
    Draws ratings with their intervals on the left and, on the right, the strongest block beside the reward: there i is
    preferred to j beyond what the ratings say where the turn from i to j is counter-clockwise. Votes that a rating
    explains leave all points near the origin.

    Args:
        path: the PNG file to write.
        report: of one group of items; of many items the 40 with the most votes are drawn.
        title: drawn above, cut where it is long.

    Raises:
        ValueError: items that compete in several groups, or fewer than two.
    """
    from matplotlib.patches import Circle

    votes, names = report.votes, [str(name) for name in report.votes.items]
    if votes.group.any() or len(names) < 2:
        raise ValueError("A picture of ratings takes one group of two items or more: there is no common axis.")
    hybrid = report.fits.get("hybrid")
    if not isinstance(hybrid, BlockFit):
        hybrid = fit_blocks(votes, 1, ridge=max(report.rating.ridge, 1e-3), ties=report.ties)
    drawn = np.argsort(-votes.of_items, kind="stable")[:_MOST]
    drawn = drawn[np.argsort(report.rating.rating[drawn], kind="stable")]
    points = hybrid.vectors[:, [1, 0]]

    size = (12, max(4.5, 0.25 * len(drawn)))
    with picture(path, size, columns=2, title=title) as (_, (axis, plane)):
        rows = np.arange(len(drawn))
        rating = report.rating.rating[drawn]
        bars = None if report.intervals is None else error_bars(rating, report.intervals[drawn])
        axis.errorbar(rating, rows, xerr=bars, fmt="o", capsize=2)
        axis.set_yticks(rows, [textwrap.shorten(names[item], 28, placeholder="...") for item in drawn], fontsize=8)
        axis.set_xlabel("rating (Bradley-Terry, log-odds" + (", 95%)" if bars is not None else ")"))
        axis.grid(alpha=0.3)

        plane.scatter(*points[drawn].T, s=25)
        nothing = float(np.abs(points[drawn]).max()) < _NOTHING
        if nothing:
            plane.annotate("the ratings leave nothing", (0, 0), textcoords="offset points", xytext=(8, 8), fontsize=9)
        for item in [] if nothing else drawn:
            plane.annotate(
                textwrap.shorten(names[item], 20, placeholder="..."),
                points[item],
                textcoords="offset points",
                xytext=(4, 4),
                fontsize=7,
            )
        # Two points at a right angle at this distance from the origin differ by log-odds of 1 beyond their ratings.
        radius = max(float(np.abs(points[drawn]).max()), 1.0)
        plane.add_patch(Circle((0, 0), 1.0, fill=False, linestyle=":", color="0.6"))
        plane.axhline(0, color="0.8", lw=0.8)
        plane.axvline(0, color="0.8", lw=0.8)
        plane.set_xlim(-1.15 * radius, 1.15 * radius)
        plane.set_ylim(-1.15 * radius, 1.15 * radius)
        plane.set_aspect("equal")
        plane.set_title("what is left: counter-clockwise is preferred", fontsize=9)
