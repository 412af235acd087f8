"""One picture of a preference matrix: heat map, tournament graph, preference planes, and the texts it is about."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpm_hf.evaluation.reports.inspection import Inspection
from gpm_hf.files import written_whole
from gpm_hf.preference.arrays import as_array

MOST_RESPONSES = 20
MOST_PANELS = 4
# Cells of the heat map hold numbers up to this many responses; beyond it they would be too small to read.
MOST_NUMBERED = 12
# The share of the strongest panel's log-odds below which a panel is left out: it would be rounding, drawn large.
NOTHING = 0.005
WIDTH = 13.0  # inches
CYCLE, OTHER_CYCLES, PLAIN = "#d62728", "#f2a03d", "#8a8f98"


@dataclass(frozen=True)
class Plane:
    """
    One 2-D block of a model's embeddings.

    Attributes:
        block: its index in the model.
        scale: the prompt's lambda of this block.
        points: shape (K, 2). The turn from i to j is counter-clockwise where this block prefers i to j.
        log_odds: what this block alone adds to the scores, shape (K, K).
    """

    block: int
    scale: float
    points: np.ndarray
    log_odds: np.ndarray


@dataclass(frozen=True)
class RewardLine:
    """
    Scalar rewards: those of a Bradley-Terry model, or of a reward head beside the blocks.

    Attributes:
        rewards: over tau, shape (K,): their differences are log-odds.
    """

    rewards: np.ndarray

    @property
    def log_odds(self) -> np.ndarray:
        """What the rewards alone add to the scores, shape (K, K)."""
        return self.rewards[:, None] - self.rewards


def embedding_panels(
    embeddings: Any, scales: Any | None, tau: float, reward_head: bool = False
) -> list[Plane | RewardLine]:
    """
    What there is to draw of a model's embeddings.

    Args:
        embeddings: shape (K, 2k), or (K, 1) for Bradley-Terry rewards; NumPy or torch.
        scales: shape (k,), or `None` for all ones.
        tau: the model's temperature.
        reward_head: the last block is (r, 1), the rewards of a model with `GPMConfig.reward_head`.

    Returns:
        A plane for each block, and a line for rewards; that with the largest share of the scores (in the Frobenius
        norm) first. Their log-odds sum to the scores.
    """
    points = as_array(embeddings).astype(np.float64)
    if points.shape[-1] == 1:
        return [RewardLine(points[:, 0] / tau)]
    blocks = points.reshape(len(points), -1, 2)
    weights = np.ones(blocks.shape[1]) if scales is None else as_array(scales).astype(np.float64)
    panels: list[Plane | RewardLine] = []
    for block, weight in enumerate(weights.tolist()):
        half = np.outer(blocks[:, block, 0], blocks[:, block, 1])
        panels.append(Plane(block, weight, blocks[:, block], weight * (half - half.T) / tau))
    if reward_head:
        panels[-1] = RewardLine(weights[-1] * blocks[:, -1, 0] / tau)
    return sorted(panels, key=lambda panel: -float(np.linalg.norm(panel.log_odds)))


def plot_inspection(
    path: str | Path,
    inspection: Inspection,
    prompt: str,
    responses: Sequence[str],
    panels: Sequence[Plane | RewardLine],
) -> None:
    """
    Draws the heat map of the log-odds, the tournament graph, the first four panels that say something (preference
    planes, or rewards on a line), and below them what the numbers [0], [1], ... stand for, cut where it is long.

    Args:
        path: the PNG file to write.
        inspection: what [`inspect_scores`] found.
        prompt: drawn above, cut where it is long.
        responses: a text for each response.
        panels: from [`embedding_panels`].

    Raises:
        ValueError: a file name that does not end in .png, more responses than can be drawn legibly, or not one text
            for each.
        ImportError: matplotlib is not installed.
    """
    check_picture(path, len(responses))
    if len(responses) != len(inspection.scores):
        raise ValueError(f"{len(inspection.scores)} responses were inspected, but {len(responses)} texts given.")
    figure = inspection_figure(inspection, prompt, responses, panels)
    with written_whole(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110)


def inspection_figure(
    inspection: Inspection, prompt: str, responses: Sequence[str], panels: Sequence[Plane | RewardLine]
) -> Any:
    """The matplotlib figure that [`plot_inspection`] writes."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    panels = panels_that_say_something(panels)
    # A single panel fits beside the other two; more have a line of their own.
    alone = len(panels) == 1
    heights = [*([4.8] if alone else [5.2, 3.5]), 0.24 * (len(responses) + 3)]
    # No pyplot: a figure of its own needs no display and leaves the caller's backend alone.
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.5), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    lines = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    first = lines[0].subgridspec(1, 3 if alone else 2)
    _heat_map(figure, figure.add_subplot(first[0]), inspection)
    _tournament(figure.add_subplot(first[1]), inspection)
    second = first if alone else lines[1].subgridspec(1, len(panels))
    for index, panel in enumerate(panels):
        axis = figure.add_subplot(second[2 if alone else index])
        if isinstance(panel, RewardLine):
            _reward_line(axis, panel)
        else:
            _plane(axis, panel)
    _legend(figure, figure.add_subplot(lines[-1]), inspection, responses)
    # Dollar signs in a text are no formula.
    _write_cut(figure, figure.suptitle("", fontsize=12, parse_math=False), prompt, WIDTH - 0.6)
    return figure


def panels_that_say_something(panels: Sequence[Plane | RewardLine]) -> list[Plane | RewardLine]:
    """
    The first four panels, without blocks that this prompt does not use: a scale of nearly 0, or embeddings all alike.
    The first is there in any case.
    """
    least = NOTHING * max(float(np.abs(panel.log_odds).max()) for panel in panels)
    found = [panel for panel in panels if float(np.abs(panel.log_odds).max()) > least]
    return (found or list(panels[:1]))[:MOST_PANELS]


def check_picture(path: str | Path, size: int) -> None:
    """Raises what [`plot_inspection`] would, before a model is loaded to find it out."""
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"The picture is a PNG file: {path} should end in .png.")
    if size > MOST_RESPONSES:
        raise ValueError(
            f"A picture of {size} responses cannot be read: {MOST_RESPONSES} are the most. Leave the picture out, or "
            "inspect fewer responses."
        )
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError("The picture needs matplotlib: pip install 'gpm-hf[eval]'.") from error


def _heat_map(figure: Any, axis: Any, inspection: Inspection) -> None:
    # Best first, so that a ranking shows as an upper triangle of one colour and what contradicts it as spots in it.
    order = inspection.ranking
    matrix = np.array(inspection.scores)[np.ix_(order, order)]
    limit = max(float(np.abs(matrix).max()), 1e-9)
    image = axis.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit)
    names = [f"[{index}]" for index in order]
    axis.set_xticks(range(len(names)), names)
    axis.set_yticks(range(len(names)), names)
    axis.tick_params(length=0, labelsize=10 if len(names) <= MOST_NUMBERED else 7)
    axis.xaxis.tick_top()
    cells = [[_signed(value, limit) if i != j else "0" for j, value in enumerate(row)] for i, row in enumerate(matrix)]
    if len(names) <= MOST_NUMBERED:
        # In points: a map is 290 wide or more, a character some 0.6 of its size, and a cell wants some air.
        size = min(11.0, 360 / (len(names) * max(len(cell) for row in cells for cell in row)))
        for i, row in enumerate(cells):
            for j, cell in enumerate(row):
                shade = "white" if abs(matrix[i, j]) > 0.6 * limit else "black"
                axis.text(j, i, cell, ha="center", va="center", color=shade, fontsize=size)
    axis.set_title("Log-odds that the row is preferred to the column\n(best mean first)", fontsize=10)
    figure.colorbar(image, ax=axis, shrink=0.8, pad=0.02)


def _tournament(axis: Any, inspection: Inspection) -> None:
    matrix = np.array(inspection.scores)
    size = len(matrix)
    # Clockwise from the top, best first.
    angles = np.pi / 2 - 2 * np.pi * np.arange(size) / size
    places = np.empty((size, 2))
    places[inspection.ranking] = np.stack([np.cos(angles), np.sin(angles)], -1)
    strongest = set(inspection.cycles[0].edges) if inspection.cycles else set()
    others = {edge for cycle in inspection.cycles[1:] for edge in cycle.edges} - strongest
    limit = max(float(matrix.max()), 1e-9)
    radius = 14 if size <= MOST_NUMBERED else 12
    for i, j in np.argwhere(matrix > 0).tolist():
        color = CYCLE if (i, j) in strongest else OTHER_CYCLES if (i, j) in others else PLAIN
        width = (0.7 + 3.3 * matrix[i, j] / limit) * min(1.0, MOST_NUMBERED / size)
        axis.annotate(
            "",
            xy=places[j],
            xytext=places[i],
            arrowprops={
                "arrowstyle": "-|>",
                "color": color,
                "lw": width,
                "mutation_scale": 9 + 2.5 * width,
                "shrinkA": radius,
                "shrinkB": radius,
            },
            zorder=3 if color == CYCLE else 2 if color == OTHER_CYCLES else 1,
        )
    for index, place in enumerate(places):
        area = (2 * radius - 3) ** 2
        axis.scatter(*place, s=area, color="white", edgecolors=_color(index), linewidths=2.5, zorder=4)
        axis.text(*place, f"[{index}]", ha="center", va="center", fontsize=10 if radius == 14 else 8, zorder=5)
    axis.set_xlim(-1.2, 1.2)
    axis.set_ylim(-1.2, 1.2)
    axis.set_aspect("equal")
    axis.axis("off")
    if not inspection.cycles:
        text = "no cycle"
    else:
        text = f"red: strongest cycle (weakest edge {inspection.cycles[0].strength:.2f})"
        text += f"; orange: next {len(inspection.cycles) - 1}" if others else ""
    head = "Arrows from preferred to other, wider for larger log-odds;\nbest mean on top, then clockwise"
    axis.set_title(f"{head}\n{text}", fontsize=10)


def _plane(axis: Any, plane: Plane) -> None:
    points = plane.points
    radius = max(float(np.linalg.norm(points, axis=-1).max()), 1e-9)
    axis.scatter(0, 0, marker="+", s=50, color="0.3", linewidths=1)
    # Names on a ring, each at its point's angle or next to it: they overlap neither each other nor the points.
    angles = spread(np.arctan2(points[:, 1], points[:, 0]), gap=0.21, period=2 * np.pi)
    for index, (point, angle) in enumerate(zip(points, angles)):
        end = 1.22 * radius * np.array([np.cos(angle), np.sin(angle)])
        axis.plot(*zip(point, end), color=_color(index), lw=0.8, alpha=0.7)
        axis.scatter(*point, s=42, color=_color(index), edgecolors="white", linewidths=0.6, zorder=3)
        place = 1.36 * radius * np.array([np.cos(angle), np.sin(angle)])
        axis.text(*place, f"[{index}]", ha="center", va="center", fontsize=9)
    axis.set_xlim(-1.58 * radius, 1.58 * radius)
    axis.set_ylim(-1.58 * radius, 1.58 * radius)
    axis.set_aspect("equal")
    axis.tick_params(labelsize=7)
    axis.locator_params(nbins=5)
    axis.set_title(
        f"Block {plane.block + 1}: scale {plane.scale:.2f},\nlog-odds up to {np.abs(plane.log_odds).max():.2f}",
        fontsize=10,
    )
    axis.set_xlabel("counter-clockwise: from preferred to other", fontsize=8)


def _reward_line(axis: Any, line: RewardLine) -> None:
    rewards = line.rewards
    low, high = float(rewards.min()), float(rewards.max())
    extent = high - low or 1.0
    heights = spread(rewards, gap=0.08 * extent)
    axis.axvline(0, color="0.6", lw=1)
    for index, (reward, height) in enumerate(zip(rewards, heights)):
        axis.plot([0, 0.35, 0.5], [reward, height, height], color=_color(index), lw=0.8, alpha=0.8)
        axis.scatter(0, reward, s=42, color=_color(index), edgecolors="white", linewidths=0.6, zorder=3)
        axis.text(0.55, height, f"[{index}]  {_signed(reward, max(abs(low), abs(high)))}", va="center", fontsize=9)
    axis.set_xlim(-0.25, 1.6)
    axis.set_ylim(min(low, heights.min()) - 0.08 * extent, max(high, heights.max()) + 0.08 * extent)
    axis.set_xticks([])
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right", "bottom"]].set_visible(False)
    axis.set_title(f"Rewards / tau: a line, no plane;\nlog-odds up to {high - low:.2f}", fontsize=10)
    axis.set_xlabel("differences are log-odds", fontsize=8)


def _legend(figure: Any, axis: Any, inspection: Inspection, responses: Sequence[str]) -> None:
    axis.axis("off")
    axis.set_xlim(0, WIDTH)
    # Two lines above the responses, one of air below them.
    axis.set_ylim(len(responses), -3)
    _write_cut(figure, axis.text(0.1, -2.3, "", fontsize=10, va="center"), _summary(inspection), WIDTH - 0.5)
    columns = {"mean log-odds": 0.8, "von Neumann": 1.85, "won \N{MINUS SIGN} lost": 2.85, "response": 3.65}
    for name, place in columns.items():
        axis.text(place, -1, name, fontsize=8, color="0.35", va="center")
    limit = max(abs(value) for value in inspection.mean_scores)
    for line, index in enumerate(inspection.ranking):
        cells = {
            "mean log-odds": _signed(inspection.mean_scores[index], limit),
            "von Neumann": f"{inspection.von_neumann_winner[index]:.1%}",
            "won \N{MINUS SIGN} lost": _whole(inspection.copeland[index]),
        }
        axis.scatter(0.15, line, s=50, color=_color(index), clip_on=False)
        axis.text(0.3, line, f"[{index}]", fontsize=9, va="center", weight="bold")
        for name, cell in cells.items():
            axis.text(columns[name], line, cell, fontsize=9, va="center")
        # Dollar signs in a text are no formula.
        text = axis.text(columns["response"], line, "", fontsize=9, va="center", parse_math=False)
        _write_cut(figure, text, responses[index], WIDTH - columns["response"] - 0.4)


def _summary(inspection: Inspection) -> str:
    winner, smith_set = inspection.condorcet_winner, inspection.smith_set
    everyone = len(smith_set) == len(inspection.scores)
    return "  ·  ".join(
        [
            f"Condorcet winner: {'none' if winner is None else f'[{winner}]'}",
            f"Smith set: {'everyone' if everyone else ' '.join(f'[{index}]' for index in smith_set)}",
            f"cycles of three: {inspection.three_cycles}",
            f"squared norm: {inspection.transitive_share:.0%} a ranking, {inspection.cyclic_share:.0%} cyclic",
        ]
    )


def _write_cut(figure: Any, artist: Any, text: str, inches: float) -> None:
    """Writes the text on one line, as much of it as fits, ending in an ellipsis where it is cut."""
    text = " ".join(text.split())
    fits, too_long = 0, len(text) + 1
    while too_long - fits > 1:
        # The whole text first: mostly it fits.
        length = len(text) if too_long > len(text) else (fits + too_long) // 2
        artist.set_text(_cut(text, length))
        # Measured, because letters differ in width.
        if artist.get_window_extent().width <= inches * figure.dpi:
            fits = length
        else:
            too_long = length
    artist.set_text(_cut(text, fits))


def _cut(text: str, length: int) -> str:
    return text if length >= len(text) else text[:length].rstrip() + "…"


def spread(values: np.ndarray, gap: float, period: float | None = None) -> np.ndarray:
    """
    Moves values apart, as little as it takes roughly, until neighbours are `gap` apart; their order stays.

    Args:
        values: shape (K,).
        gap: the least distance of neighbours; less where so many do not fit into the period.
        period: for angles, after which they repeat.
    """
    order = np.argsort(values, kind="stable")
    placed = np.asarray(values, dtype=np.float64)[order]
    if len(placed) < 2:
        return placed
    if period is not None:
        gap = min(gap, period / len(placed))
    for _ in range(500):
        following = np.roll(placed, -1)
        following[-1] = placed[0] + period if period is not None else np.inf
        lacking = np.maximum(gap - (following - placed), 0.0)
        if lacking.max() < 1e-3 * gap:
            break
        placed = placed - lacking / 2 + np.roll(lacking, 1) / 2
    result = np.empty_like(placed)
    result[order] = placed
    return result


def _signed(value: float, limit: float) -> str:
    """A log-odds with about two digits that matter beside numbers up to `limit`."""
    decimals = 0 if limit >= 100 else 1 if limit >= 10 else 2 if limit >= 0.1 else 4
    return f"{value:+.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def _whole(value: int) -> str:
    return f"{value:+d}".replace("-", "\N{MINUS SIGN}") if value else "0"


def _color(index: int) -> Any:
    from matplotlib import colormaps

    return colormaps["tab20" if index >= 10 else "tab10"]((2 * index + 1) % 20 if index >= 10 else index)
