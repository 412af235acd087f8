"""The picture exists, shows the block that matters, and copes with long names."""

import pytest
import torch

from gpm_hf.evaluation.plots.preference_plots import plot_policy_progress, plot_preference_plane
from gpm_hf.modeling import preference_matrix


@pytest.mark.parametrize("count", [3, 5, 9])
def test_the_block_with_the_largest_scores_is_drawn(tmp_path, count):
    angles = torch.linspace(0, 6, count)
    circle = torch.stack([angles.cos(), angles.sin()], -1)
    embeddings = torch.cat([0.1 * circle.flip(0), circle, 0.1 * circle], -1)
    names = [f"response number {index} with a long name that goes on" for index in range(count)]
    scores = preference_matrix(embeddings, tau=0.1)
    path = tmp_path / "plane.png"
    assert plot_preference_plane(path, embeddings, None, scores, names, "A title " * 30) == 1
    assert path.stat().st_size > 10_000
    scales = torch.tensor([1.0, 0.0, 0.0])
    scores = preference_matrix(embeddings, scales, tau=0.1)
    assert plot_preference_plane(path, embeddings, scales, scores, names, "t") == 0


def test_rewards_have_no_plane(tmp_path):
    with pytest.raises(ValueError, match="no plane"):
        plot_preference_plane(tmp_path / "x.png", torch.zeros(3, 1), None, torch.zeros(3, 3), "abc", "t")
    assert not (tmp_path / "x.png").exists()


def test_the_progress_of_a_policy_is_drawn(tmp_path):
    log = [{"step": step, "win_rate": 0.5 + step / 100, "kl_start_policy": step, "loss": 1.0} for step in (10, 20)]
    log[1]["kl_start_policy_standard_error"] = 2.0
    log.append({"step": 30, "win_rate": None, "kl_start_policy": 30.0})  # no answer had text
    log += [{"step": step, "completions/mean_length": 30.0} for step in range(20)]
    plot_policy_progress(tmp_path / "progress.png", log, "A run")
    assert (tmp_path / "progress.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="no `win_rate`"):
        plot_policy_progress(tmp_path / "none.png", log[2:], "A run")
    assert not (tmp_path / "none.png").exists()
