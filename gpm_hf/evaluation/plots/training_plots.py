"""Pictures of a training run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpm_hf.evaluation.plots.canvas import picture


def plot_learning_curve(path: str | Path, log: Sequence[Mapping[str, Any]]) -> bool:
    """
    Draws loss and accuracy over the steps of a training run, of the training batches and of the evaluations.

    Args:
        path: the PNG file to write.
        log: a trainer's `state.log_history`: `step` with `loss`, `accuracy`, `eval_loss`, `eval_accuracy`.

    Returns:
        Whether there was anything to draw.
    """
    curves = {
        name: [(one["step"], one[name]) for one in log if one.get(name) is not None]
        for name in ("loss", "eval_loss", "accuracy", "eval_accuracy")
    }
    if not any(curves.values()):
        return False
    with picture(path, (9, 3.4), columns=2) as (_, axes):
        for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
            for curve, label, style in (
                (name, "training batches", {"color": "tab:blue", "alpha": 0.8}),
                (f"eval_{name}", "held-out pairs", {"color": "tab:orange", "marker": "o"}),
            ):
                if curves[curve]:
                    steps, values = zip(*curves[curve], strict=True)
                    # A line needs two points.
                    axis.plot(steps, values, label=label, **({"marker": "o"} | style if len(steps) == 1 else style))
            axis.set_xlabel("step")
            axis.set_ylabel(name)
            axis.grid(alpha=0.3)
            if axis.lines:
                axis.legend(fontsize=8)
        axes[1].axhline(0.5, color="0.5", linestyle="--", linewidth=1)
        axes[1].set_ylim(-0.02, 1.02)
    return True
