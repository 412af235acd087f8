"""
The paper's table 4 on small models: what a general preference model's dimension, scale gate and unit norm do, on the
same systematic cycles, beside Bradley-Terry. All heads are trained on the stored states of one frozen backbone, and
judged on topics that were not in training.
"""

import csv
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpm_hf.evaluation.benchmarks.ring_accuracy import CyclicResult, PromptCounts, evaluate_pairs
from gpm_hf.evaluation.plots.canvas import error_bars, picture
from gpm_hf.evaluation.statistics.bootstrap import interval_text
from gpm_hf.evaluation.statistics.calibration import calibration_report
from gpm_hf.files import written_whole
from gpm_hf.recipes.heads import SYSTEMATIC_RECIPE, check_dimensions, run_on_backbone, systematic_pairs, train_heads
from gpm_hf.tables import markdown_table


class Variant(NamedTuple):
    """
    A model of the table; options of [`GPMRewardConfig`].

    Attributes:
        embedding_dim: 1 is Bradley-Terry, which has none of what follows.
        scale_gate: whether the prompt scales the blocks.
        normalize_embeddings: whether embeddings have unit norm.
        reward_head: whether a scalar reward stands beside the blocks.
    """

    embedding_dim: int
    scale_gate: bool = False
    normalize_embeddings: bool = False
    reward_head: bool = False

    @property
    def parts(self) -> str:
        """All but the dimension, in words."""
        words = ["gate" if self.scale_gate else "no gate", "L2" if self.normalize_embeddings else "no L2"]
        return ", ".join([*words, "reward"] if self.reward_head else words)


class _Found(NamedTuple):
    """A variant on all seeds."""

    runs: list[CyclicResult]
    log_losses: list[float]

    @property
    def pooled(self) -> CyclicResult:
        """The prompts of all seeds."""
        return CyclicResult([prompt for run in self.runs for prompt in run.prompts], None)


BRADLEY_TERRY = Variant(1)


def ablation_variants(dimensions: Sequence[int] = (2, 4, 6, 8), reward_head: bool = False) -> list[Variant]:
    """
    Every dimension with and without gate and unit norm, and Bradley-Terry last: 17 for four dimensions.

    Args:
        dimensions: even numbers.
        reward_head: each of them again with a scalar reward beside the blocks (33 for four dimensions).

    Raises:
        ValueError: no dimensions, or one that is not an even number above 0.
    """
    check_dimensions(dimensions)
    variants = [
        Variant(dim, gate, norm, reward)
        for reward in ((False, True) if reward_head else (False,))
        for dim in dict.fromkeys(dimensions)
        for gate in (True, False)
        for norm in (True, False)
    ]
    return [*variants, BRADLEY_TERRY]


def run_ablation(
    output: str | Path,
    base: str | None = None,
    dimensions: Sequence[int] = (2, 4, 6, 8),
    seeds: Sequence[int] = (0,),
    reward_head: bool = False,
) -> str:
    """
    Trains and judges all models of the table; a run that was interrupted goes on where it was.

    Args:
        output: a folder; it receives `results.jsonl`, a row per model as it ends, and at the end the tables
            `ablation.md` and `ablation.csv` and the figure `ablation.png`.
        base: the backbone, a name or path. Default: SmolLM2-135M-Instruct, as in the demonstration.
        dimensions: embedding dimensions of the general preference models.
        seeds: of the data, the split of topics and the training.
        reward_head: see [`ablation_variants`].

    Returns:
        The table, Markdown.

    Raises:
        ValueError: no seeds, or dimensions that are not possible.
    """
    variants, seeds = ablation_variants(dimensions, reward_head), list(dict.fromkeys(seeds))
    if not seeds:
        raise ValueError("There are no seeds: give at least one.")
    output = Path(output)
    cells = [{"seed": seed, **variant._asdict()} for seed in seeds for variant in variants]
    rows = run_on_backbone(output, base, cells, _run)
    table = _table(rows)
    with written_whole(output / "ablation.md") as file:
        file.write(table + "\n")
    _write_csv(output / "ablation.csv", rows)
    _plot(output / "ablation.png", rows)
    return table


def _run(base: str, output: Path, cell: dict[str, Any]) -> dict[str, Any]:
    train, test = systematic_pairs(cell["seed"])
    variant = _variant_of(cell)
    options = {} if variant == BRADLEY_TERRY else {**variant._asdict()}
    options.pop("embedding_dim", None)
    trainer = train_heads(
        base, output / "last_run", variant.embedding_dim, train, SYSTEMATIC_RECIPE, cell["seed"], test, **options
    )
    log_odds = trainer.predict(trainer.eval_dataset).predictions
    result = evaluate_pairs(test, log_odds)
    return {"prompts": result.prompts, "log_loss": calibration_report(log_odds).log_loss}


def _variant_of(cell: dict[str, Any]) -> Variant:
    return Variant(**{name: cell[name] for name in Variant._fields})


def _result_of(row: dict[str, Any]) -> CyclicResult:
    return CyclicResult([PromptCounts(*prompt) for prompt in row["result"]["prompts"]], None)


def _by_variant(rows: Sequence[dict[str, Any]]) -> dict[Variant, _Found]:
    found: dict[Variant, _Found] = {}
    for row in rows:
        one = found.setdefault(_variant_of(row["cell"]), _Found([], []))
        one.runs.append(_result_of(row))
        one.log_losses.append(row["result"]["log_loss"])
    return found


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """A row per variant; 95% intervals are over the prompts of all seeds, the spread of seeds stands beside them."""
    seeds = len({row["cell"]["seed"] for row in rows})
    header = ["model", "dimension", "gate", "L2", "pairs right", "whole cycles right", "log-loss (nats)"]
    lines = []
    for variant, found in _by_variant(rows).items():
        if variant == BRADLEY_TERRY:
            cells: list[Any] = ["Bradley-Terry", 1, "-", "-"]
        else:
            model = "GPM with reward" if variant.reward_head else "GPM"
            marks = ["yes" if part else "no" for part in (variant.scale_gate, variant.normalize_embeddings)]
            cells = [model, variant.embedding_dim, *marks]
        pooled = found.pooled
        log_loss = sum(found.log_losses) / len(found.log_losses)
        cells += [_share(pooled, "pairs"), _share(pooled, "cycles"), f"{log_loss:.3f}"]
        if seeds > 1:
            accuracies = [run.pair_accuracy for run in found.runs]
            cells.append(f"{min(accuracies):.1%} to {max(accuracies):.1%}")
        lines.append(cells)
    ceiling = f"{_result_of(rows[0]).scalar_ceiling:.1%}"
    last: list[Any] = ["ceiling of any scalar reward", "-", "-", "-", ceiling, "0.0%", "-"]
    if seeds > 1:
        header.append(f"pairs right, worst to best of {seeds} seeds")
        last.append("-")
    return markdown_table(header, [*lines, last])


def _share(result: CyclicResult, of: str) -> str:
    share = result.pair_accuracy if of == "pairs" else result.cycle_accuracy
    return f"{share:.1%}{interval_text(result.interval(of))}"


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A row per run."""
    lines = []
    for row in rows:
        found = {name: value for name, value in _result_of(row).to_dict().items() if name != "skew_error"}
        for name in ("pair_accuracy", "cycle_accuracy"):
            found[f"{name}_low"], found[f"{name}_high"] = found.pop(f"{name}_interval") or (None, None)
        lines.append({**row["cell"], **found, "log_loss": row["result"]["log_loss"], "seconds": row["seconds"]})
    with written_whole(path) as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def _plot(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Accuracy by dimension, a line for each combination of gate, norm and reward, with 95% intervals."""
    by_variant = {variant: found.pooled for variant, found in _by_variant(rows).items()}
    reward = by_variant.pop(BRADLEY_TERRY)
    parts = list(dict.fromkeys(variant.parts for variant in by_variant))
    dimensions = sorted({variant.embedding_dim for variant in by_variant})
    with picture(path, (11, 4.6), columns=2, sharex=True, sharey=True) as (_, axes):
        for axis, of in zip(axes, ("pairs", "cycles")):
            for place, part in enumerate(parts):
                line = sorted(
                    (variant.embedding_dim, one) for variant, one in by_variant.items() if variant.parts == part
                )
                # Beside each other, so that no interval hides another.
                shift = 0.14 * (place - (len(parts) - 1) / 2)
                values, bars = _points([one for _, one in line], of)
                axis.errorbar([dim + shift for dim, _ in line], values, bars, marker="o", capsize=3, label=part)
            value, bars = _points([reward], of)
            axis.axhline(value[0], color="0.3", label="Bradley-Terry")
            if isfinite(bars[0, 0]):
                axis.axhspan(value[0] - bars[0, 0], value[0] + bars[1, 0], color="0.3", alpha=0.15)
            ceiling = reward.scalar_ceiling if of == "pairs" else 0.0
            axis.axhline(ceiling, color="0.5", linestyle="--", label="ceiling of any scalar reward")
            axis.set_title("pairs right" if of == "pairs" else "whole cycles right")
            axis.set_xlabel("embedding dimension")
            axis.set_xticks(dimensions)
            axis.set_ylim(-0.03, 1.03)
            axis.grid(alpha=0.3)
        axes[0].set_ylabel("share, with 95% interval over prompts")
        axes[0].legend(loc="lower right", fontsize=8)


def _points(results: Sequence[CyclicResult], of: str) -> tuple[np.ndarray, np.ndarray]:
    """Shares, and the bars of their intervals."""
    shares = np.array([float(one.pair_accuracy if of == "pairs" else one.cycle_accuracy or 0.0) for one in results])
    return shares, error_bars(shares, [one.interval(of) for one in results])
