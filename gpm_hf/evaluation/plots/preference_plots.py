"""Pictures of preference models."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from gpm_hf.evaluation.plots.canvas import picture
from gpm_hf.preference import SelfPlayRate


def plot_preference_plane(
    path: str | Path,
    embeddings: torch.Tensor,
    scales: torch.Tensor | None,
    scores: torch.Tensor,
    names: Sequence[str],
    title: str,
) -> int:
    """
    Draws the responses of one prompt in the plane that says most about them, with their score matrix beside it.

    In a plane, response i is preferred to response j where the turn from i to j is counter-clockwise (less than half a
    circle), so a cycle shows as points all around the origin, which no scalar reward could draw.

    Args:
        path: the PNG file to write.
        embeddings: shape (K, 2k).
        scales: shape (k,), or `None` for all ones.
        scores: log-odds of shape (K, K).
        names: a short name for each response.
        title: drawn above, cut where it is long.

    Returns:
        The index of the block that is drawn: the one with the largest share of the scores.

    Raises:
        ValueError: Bradley-Terry rewards, which lie on a line.
    """
    if embeddings.shape[-1] < 2:
        raise ValueError("Bradley-Terry rewards have one dimension: there is no plane to draw.")
    points, block, weights = _strongest_plane(embeddings, scales)
    matrix = scores.detach().cpu().numpy().astype(float)
    names = [textwrap.shorten(name, 24, placeholder="...") for name in names]

    with picture(path, (11, 5), columns=2, title=title) as (figure, (plane, heat)):
        radius = max(float(np.abs(points).max()), 1e-6)
        colors = [f"C{index % 10}" for index in range(len(points))]
        for i, j in zip(*np.nonzero(matrix > 0)):
            # Two points may coincide; an arrow needs a length.
            if np.linalg.norm(points[j] - points[i]) > 1e-3 * radius:
                plane.annotate(
                    "",
                    xy=points[j],
                    xytext=points[i],
                    arrowprops={"arrowstyle": "-|>", "color": "0.6", "shrinkA": 9, "shrinkB": 9, "lw": 1.2},
                )
        for point, name, color in zip(points, names, colors):
            plane.scatter(*point, s=110, color=color, zorder=3)
            # Outwards from the origin, where no arrow runs.
            direction = point / max(float(np.linalg.norm(point)), 1e-6)
            plane.annotate(
                name,
                point,
                textcoords="offset points",
                xytext=tuple(14 * direction),
                ha="left" if direction[0] >= 0 else "right",
                va="center",
                zorder=4,
            )
        plane.scatter(0, 0, marker="+", s=80, color="0.3")
        plane.set_xlim(-2.2 * radius, 2.2 * radius)
        plane.set_ylim(-1.5 * radius, 1.5 * radius)
        plane.set_aspect("equal", adjustable="box")
        plane.set_title(
            f"Block {block + 1} of {len(weights)}, scale {weights[block]:.2f}\narrow: preferred to", fontsize=10
        )

        limit = max(float(np.abs(matrix).max()), 1e-6)
        image = heat.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit)
        heat.set_xticks(range(len(names)), names, rotation=20, ha="right")
        heat.set_yticks(range(len(names)), names)
        for i in range(len(names)):
            for j in range(len(names)):
                shade = "white" if abs(matrix[i, j]) > 0.6 * limit else "black"
                heat.text(j, i, f"{matrix[i, j]:+.1f}" if i != j else "0", ha="center", va="center", color=shade)
        heat.set_title("Log-odds that the row is preferred to the column", fontsize=10)
        figure.colorbar(image, ax=heat, shrink=0.8)
    return block


# Of an arrow's two colours one is dashed, too: red and green are one colour to many eyes.
HELD, TURNED = "tab:green", "tab:red"


class CyclePanel(NamedTuple):
    """
    One prompt's responses for [`plot_cycles`].

    Attributes:
        prompt: the panel's title.
        embeddings: shape (n, 2k), the responses in ring order: each should be preferred to the next.
        scales: shape (k,), or `None` for all ones.
        scores: log-odds of shape (n, n).
        responses: their texts, in ring order.
    """

    prompt: str
    embeddings: torch.Tensor
    scales: torch.Tensor | None
    scores: torch.Tensor
    responses: Sequence[str]


def plot_cycles(path: str | Path, panels: Sequence[CyclePanel]) -> None:
    """
    Draws learned cycles: one panel per prompt, each in the plane that says most about its responses. The numbers are
    the places in the data's ring, the texts stand below; an arrow is drawn from each response to the next, green where
    the model prefers the first as the data does and dashed red where it does not. A cycle that is held turns
    counter-clockwise around the origin.

    Args:
        path: the PNG file to write.
        panels: one per prompt.

    Raises:
        ValueError: nothing to draw, or Bradley-Terry rewards, which lie on a line.
    """
    from matplotlib.lines import Line2D

    if not panels:
        raise ValueError("There is no whole cycle to draw.")
    if panels[0].embeddings.shape[-1] < 2:
        raise ValueError("Bradley-Terry rewards have one dimension: there is no plane to draw.")
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    texts = max(len(panel.responses) for panel in panels)
    size = (3.9 * columns, (4.0 + 0.3 * texts) * lines + 0.4)
    with picture(path, size, lines, columns, squeeze=False) as (figure, axes):
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.2)
        for axis in axes.flat[len(panels) :]:
            axis.axis("off")
        for axis, panel in zip(axes.flat, panels):
            points, block, weights = _strongest_plane(panel.embeddings, panel.scales)
            radius = max(float(np.abs(points).max()), 1e-6)
            axis.scatter(0, 0, marker="+", s=60, color="0.3")
            for place, point in enumerate(points):
                following = (place + 1) % len(points)
                held = bool(panel.scores[place, following] > 0)
                if np.linalg.norm(points[following] - point) > 1e-3 * radius:
                    axis.annotate(
                        "",
                        xy=points[following],
                        xytext=point,
                        arrowprops={
                            "arrowstyle": "-|>",
                            "color": HELD if held else TURNED,
                            "linestyle": "-" if held else "--",
                            "shrinkA": 11,
                            "shrinkB": 11,
                            "lw": 1.5,
                        },
                    )
                axis.scatter(*point, s=260, color="white", edgecolors="0.2", zorder=3)
                axis.annotate(str(place + 1), point, ha="center", va="center", fontsize=9, zorder=4)
            axis.set_xlim(-1.35 * radius, 1.35 * radius)
            axis.set_ylim(-1.35 * radius, 1.35 * radius)
            axis.set_aspect("equal", adjustable="box")
            axis.tick_params(labelsize=7)
            title = textwrap.fill(textwrap.shorten(panel.prompt, 76, placeholder="..."), 38)
            title = f"{title}\nblock {block + 1} of {len(weights)}, scale {weights[block]:.2f}"
            axis.set_title(title, fontsize=8, parse_math=False)
            said = (
                textwrap.fill(
                    f"{place}  {textwrap.shorten(text, 100, placeholder='...')}", 56, subsequent_indent="    "
                )
                for place, text in enumerate(panel.responses, 1)
            )
            axis.set_xlabel("\n".join(said), fontsize=7, loc="left", parse_math=False)
        figure.legend(
            handles=[
                Line2D([], [], color=HELD, label="as in the data: this response beats the next"),
                Line2D([], [], color=TURNED, linestyle="--", label="the model says the opposite"),
            ],
            loc="outside upper center",
            ncols=2,
            fontsize=9,
        )


def plot_self_play(path: str | Path, rates: Mapping[str, SelfPlayRate]) -> None:
    """
    Draws Theorem 5.1 by simulation: the duality gap of the averaged policy of self-play against the number of rounds,
    on logarithmic axes, with the fitted rate and the theorem's bound.

    Args:
        path: the PNG file to write.
        rates: what [`self_play_rate`] returned, by a name for the games.
    """
    with picture(path, (7, 4.6)) as (_, axis):
        for number, (name, rate) in enumerate(rates.items()):
            color = f"C{number % 10}"
            gaps = rate.gaps.reshape(len(rate.rounds), -1)
            label = f"{name}: gap about {rate.coefficient:.2f} T^{rate.exponent:.2f}"
            axis.plot(rate.rounds, gaps.mean(1), "o", color=color, markersize=5, label=label)
            axis.plot(rate.rounds, rate.coefficient * rate.rounds**rate.exponent, color=color, linewidth=1)
            axis.fill_between(rate.rounds, gaps.min(1), gaps.max(1), color=color, alpha=0.15, linewidth=0)
            axis.plot(rate.rounds, rate.bound, "--", color=color, linewidth=1, label=f"{name}: the theorem's bound")
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xlabel("rounds of self-play, T")
        axis.set_ylabel("duality gap of the averaged policy (log-odds)")
        axis.set_title("Dots: mean over games; shaded: smallest to largest", fontsize=10)
        axis.grid(alpha=0.3, which="both")
        axis.legend(fontsize=9)


def _strongest_plane(embeddings: torch.Tensor, scales: torch.Tensor | None) -> tuple[np.ndarray, int, np.ndarray]:
    """Points (K, 2) of the block with the largest share of the scores, its index, and the scales of all blocks."""
    planes = embeddings.detach().cpu().unflatten(-1, (-1, 2)).numpy().astype(float)
    weights = np.ones(planes.shape[1]) if scales is None else scales.detach().cpu().numpy().astype(float)
    turns = planes[:, None, :, 0] * planes[None, :, :, 1] - planes[:, None, :, 1] * planes[None, :, :, 0]
    block = int(np.argmax(weights * np.abs(turns).sum((0, 1))))
    return planes[:, block], block, weights


def plot_policy_progress(path: str | Path, log_history: Sequence[dict], title: str) -> None:
    """
    Draws what a run of [`OnlineGPOTrainer`] logged: the win rate against the initial policy, KL(start || policy) with
    its standard error, how far the policy has moved from it, and the length of its answers.

    Args:
        path: the PNG file to write.
        log_history: the trainer's log, as in `trainer_state.json`.
        title: drawn above, cut where it is long.

    Raises:
        ValueError: where no win rate was logged.
    """
    panels = {
        "win_rate": "Win rate against\nthe initial policy",
        "kl_start_policy": "KL(start || policy)\n(nats per answer)",
        "completions/mean_length": "Mean length of answers\n(tokens)",
    }
    if not any(entry.get("win_rate") is not None for entry in log_history):
        raise ValueError("The log has no `win_rate`: train with `win_rate_prompts` above 0.")
    with picture(path, (11, 3.6), columns=len(panels), title=title) as (_, axes):
        for axis, (name, label) in zip(axes, panels.items()):
            # What was undefined in an interval, as where no answer had text, is logged as `None`.
            entries = [entry for entry in log_history if entry.get(name) is not None]
            points = [(entry["step"], entry[name]) for entry in entries]
            error = [entry.get(f"{name}_standard_error") or 0.0 for entry in entries]
            axis.errorbar(*zip(*points), error if any(error) else None, marker="o", markersize=4, capsize=2)
            axis.set_title(label, fontsize=10)
            axis.set_xlabel("optimizer step")
            axis.grid(alpha=0.3)
        axes[0].axhline(0.5, color="0.5", linestyle="--", linewidth=1)
