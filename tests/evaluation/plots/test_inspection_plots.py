"""The picture: its numbers, texts that stay apart and inside, and what cannot be drawn."""

from itertools import combinations

import numpy as np
import pytest
import torch

from gpm_hf.evaluation.plots.inspection_plots import (
    Plane,
    RewardLine,
    embedding_panels,
    inspection_figure,
    plot_inspection,
    spread,
)
from gpm_hf.evaluation.reports.inspection import inspect_scores

LONG = "An answer that costs $5 or $6 and explains how dough rests, rises, and at last is baked until golden. " * 5


def drawn(size, blocks, seed, reward_head=False):
    """An inspection and its panels; no blocks for Bradley-Terry."""
    embeddings = np.random.default_rng(seed).normal(size=(size, 2 * blocks or 1))
    if reward_head:
        embeddings[:, -1] = 1
    panels = embedding_panels(embeddings, None, 0.5, reward_head)
    if blocks:
        return inspect_scores(sum(panel.log_odds for panel in panels)), panels
    return inspect_scores((embeddings - embeddings.T) / 0.5), panels


def test_planes_come_strongest_first():
    embeddings = torch.tensor([[1.0, 0, 2, 0], [0, 1, 0, 3]])
    first, second = embedding_panels(embeddings, torch.tensor([0.7, 0.3]), tau=0.1)
    assert (first.block, second.block) == (1, 0)
    assert first.scale == pytest.approx(0.3) and first.points.tolist() == [[2, 0], [0, 3]]
    assert first.log_odds[0, 1] == pytest.approx(0.3 * 2 * 3 / 0.1) == -first.log_odds[1, 0]
    assert second.log_odds[0, 1] == pytest.approx(0.7 / 0.1)
    assert all(plane.scale == 1 for plane in embedding_panels(embeddings, None, tau=0.1))


def test_rewards_lie_on_a_line_in_log_odds():
    (line,) = embedding_panels(torch.tensor([[1.0], [3.0]]), None, tau=0.5)
    assert isinstance(line, RewardLine) and line.rewards.tolist() == [2, 6]


def test_the_block_of_a_reward_head_is_a_line_too():
    embeddings = torch.tensor([[1.0, 0, 5, 1], [0, 1, 2, 1]])
    first, second = embedding_panels(embeddings, torch.tensor([1.0, 1.0]), tau=0.5, reward_head=True)
    assert isinstance(first, RewardLine) and first.rewards.tolist() == [10, 4] and first.log_odds[0, 1] == 6
    assert isinstance(second, Plane) and second.log_odds[0, 1] == 2


def test_spread_moves_values_apart_and_keeps_their_order():
    assert spread(np.array([0.0, 5.0]), gap=1).tolist() == [0, 5]
    assert spread(np.array([2.0, 2.0]), gap=1) == pytest.approx([1.5, 2.5], abs=0.01)
    # Around a circle: both beside the seam at 180 degrees.
    angles = spread(np.array([3.1, -3.1]), gap=0.5, period=2 * np.pi)
    assert angles[1] + 2 * np.pi - angles[0] == pytest.approx(0.5, abs=0.01)
    # More than fit share the circle evenly.
    assert np.diff(np.sort(spread(np.zeros(10), gap=1, period=2 * np.pi))) == pytest.approx(0.2 * np.pi, abs=0.02)


@pytest.mark.parametrize(
    ("size", "blocks", "reward_head"),
    [(3, 3, False), (5, 6, False), (9, 4, True), (9, 1, False), (9, 0, False)],
)
def test_texts_overlap_neither_each_other_nor_the_border(size, blocks, reward_head):
    inspection, panels = drawn(size, blocks, size, reward_head)
    figure = inspection_figure(inspection, LONG, [f"{index} {LONG}" for index in range(size)], panels)
    figure.draw_without_rendering()
    assert len(figure.axes) == 3 + 1 + min(max(blocks, 1), 4)  # heat map, its bar, graph, legend and the panels
    heat_map = figure.axes[0]
    texts = [*figure.texts, *heat_map.get_xticklabels(), *heat_map.get_yticklabels()]
    texts += [text for axis in figure.axes for text in (*axis.texts, axis.title)]
    boxes = {text: text.get_window_extent() for text in texts if text.get_text()}
    assert any(text.get_text().endswith("…") for text in boxes)
    width, height = figure.bbox.width, figure.bbox.height
    for text, box in boxes.items():
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height, text
    for (first, box), (second, other) in combinations(boxes.items(), 2):
        assert not box.overlaps(other), (first, second)


def test_ties_and_texts_like_formulas_are_drawn(tmp_path):
    # All points in one place, nothing preferred, and what matplotlib would take for broken mathematics.
    plane = Plane(0, 1.0, np.zeros((3, 2)), np.zeros((3, 3)))
    plot_inspection(tmp_path / "tie.png", inspect_scores(np.zeros((3, 3))), r"$\frac$", [r"$\x$", "", "b\nc"], [plane])
    assert (tmp_path / "tie.png").stat().st_size > 10_000
    line = RewardLine(np.zeros(2))
    plot_inspection(tmp_path / "line.png", inspect_scores(np.zeros((2, 2))), "", ["a", "b"], [line])
    assert (tmp_path / "line.png").stat().st_size > 10_000


def test_what_cannot_be_drawn(tmp_path):
    inspection, panels = drawn(3, 1, seed=0)
    with pytest.raises(ValueError, match=r"should end in \.png"):
        plot_inspection(tmp_path / "x.jpg", inspection, "", ["a", "b", "c"], panels)
    with pytest.raises(ValueError, match="20 are the most"):
        plot_inspection(tmp_path / "x.png", inspection, "", ["a"] * 21, panels)
    with pytest.raises(ValueError, match="3 responses were inspected, but 2"):
        plot_inspection(tmp_path / "x.png", inspection, "", ["a", "b"], panels)
    assert list(tmp_path.iterdir()) == []
