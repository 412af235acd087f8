"""Pictures of reports: reliability and length bias."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gpm_hf.evaluation.plots.canvas import error_bars, picture
from gpm_hf.evaluation.reports.length_bias import LengthReport
from gpm_hf.evaluation.statistics.calibration import Calibration


def plot_reliability(path: str | Path, results: Mapping[str, Calibration], title: str) -> None:
    """
    Draws reliability curves: how often the preferred response is the right one against how sure the scorer was. Points
    below the diagonal are overconfident. Bars below count the pairs.

    Args:
        path: the PNG file to write.
        results: by scorer, see [`calibration_report`].
        title: drawn above, cut where it is long.

    Raises:
        ValueError: nothing to draw.
    """
    if not results:
        raise ValueError("There is no calibration to draw.")
    size = (6, 6.4 + 0.25 * len(results))
    with picture(path, size, 2, title=title, sharex=True, height_ratios=[4, 1]) as (figure, (curve, counts)):
        curve.plot([0.5, 1], [0.5, 1], color="0.5", linestyle="--", linewidth=1, label="calibrated")
        for place, (name, result) in enumerate(results.items()):
            label = f"{_short(name)}: ECE {result.ece:.3f}, log-loss {result.log_loss:.3f}"
            confidence = [one.confidence for one in result.bins]
            accuracy = np.array([one.accuracy for one in result.bins])
            bars = error_bars(accuracy, [one.interval for one in result.bins])
            curve.errorbar(confidence, accuracy, bars, marker="o", capsize=3, label=label)
            width = (result.bins[0].high - result.bins[0].low) / (len(results) + 1)
            starts = [one.low + (place + 0.5) * width for one in result.bins]
            counts.bar(starts, [one.pairs for one in result.bins], width=width, align="edge")
        curve.set_ylabel("how often that response is the chosen one")
        curve.set_ylim(-0.02, 1.02)
        curve.grid(alpha=0.3)
        counts.set_xlim(0.49, 1.01)
        counts.set_xlabel("confidence: P of the response that the scorer prefers")
        counts.set_ylabel("pairs")
        figure.legend(loc="outside lower center", fontsize=8)  # not over the points


def plot_accuracy_by_length(path: str | Path, results: Mapping[str, LengthReport], title: str) -> None:
    """
    Draws accuracy against how much longer the chosen response is; a curve that rises from left to right takes long for
    good. Bins hold about equally many pairs, so they are drawn side by side and labelled with their differences.

    Args:
        path: the PNG file to write.
        results: by scorer, of the same pairs, see [`length_report`].
        title: drawn above, cut where it is long.

    Raises:
        ValueError: nothing to draw, or reports with different bins.
    """
    if not results:
        raise ValueError("There is no length report to draw.")
    reports = list(results.values())
    ends = [[(one.low, one.high, one.pairs) for one in report.bins] for report in reports]
    if any(other != ends[0] or report.unit != reports[0].unit for other, report in zip(ends, reports)):
        raise ValueError("The reports have different bins: draw scorers of the same pairs in the same unit.")
    with picture(path, (8, 4.8 + 0.25 * len(results)), title=title) as (figure, axis):
        axis.axhline(0.5, color="0.5", linestyle="--", linewidth=1)
        for place, (name, report) in enumerate(results.items()):
            accuracy = np.array([one.accuracy for one in report.bins])
            # Beside each other, so that no interval hides another.
            shift = 0.08 * (place - (len(results) - 1) / 2)
            label = _short(name)
            if report.prefers_longer is not None:
                label += f": prefers the longer in {report.prefers_longer:.0%}"
            axis.errorbar(
                np.arange(len(accuracy)) + shift,
                accuracy,
                error_bars(accuracy, [one.interval for one in report.bins]),
                marker="o",
                capsize=3,
                label=label,
            )
        labels = [f"{low:+.0f} to {high:+.0f}\n({pairs})" for low, high, pairs in ends[0]]
        axis.set_xticks(range(len(labels)), labels, fontsize=8)
        axis.set_xlabel(f"{reports[0].unit} by which the chosen response is longer (pairs)")
        axis.set_ylabel("pairs right")
        axis.set_ylim(-0.02, 1.02)
        axis.grid(alpha=0.3)
        truth = reports[0].longer_is_chosen
        heading = None if truth is None else f"The longer is chosen in {truth:.0%}"
        # Not over the points.
        figure.legend(loc="outside lower center", fontsize=8, title=heading, title_fontsize=8)


def _short(name: str) -> str:
    return textwrap.shorten(name, 40, placeholder="...")
