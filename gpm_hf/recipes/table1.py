"""
The paper's table 1 on small models: how much of cyclic preferences general preference models and Bradley-Terry models
hold, beside the ceiling of any scalar reward and a control that shows that the Bradley-Terry model does learn.

Two kinds of data: systematic cycles over topics, judged on topics that were not in training, and, where a file of them
is given, real cycles, judged on the very pairs that were shown, as in the paper. All heads are trained on the stored
states of one frozen backbone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpm_hf.data.rings import ranked_instead, ring_to_pairs
from gpm_hf.data.splits import load_splits, split_of
from gpm_hf.evaluation.benchmarks.ring_accuracy import CyclicResult, PromptCounts, comparison_table, evaluate_pairs
from gpm_hf.files import written_whole
from gpm_hf.identity import data_identity
from gpm_hf.recipes.heads import SYSTEMATIC_RECIPE, check_dimensions, run_on_backbone, systematic_pairs, train_heads

# All pairs in each step: they contradict each other too finely for small batches.
REAL_RECIPE: dict[str, Any] = {
    "max_steps": 3000,
    "learning_rate": 5e-4,
    "lr_scheduler_type": "cosine",
    "per_device_train_batch_size": 4096,
    "max_length": 4096,
}


def run_table1(
    output: str | Path,
    base: str | None = None,
    dimensions: Sequence[int] = (2, 4, 6, 8),
    seeds: Sequence[int] = (0, 1, 2),
    rings: str | None = None,
    keep: str | None = None,
) -> str:
    """
    Trains and judges all models of the table; a run that was interrupted goes on where it was.

    Args:
        output: a folder; it receives `results.jsonl`, a row per model and data set as it ends, and `table1.md`.
        base: the backbone, a name or path. Default: SmolLM2-135M-Instruct, as in the demonstration.
        dimensions: embedding dimensions of the general preference models.
        seeds: of the systematic cycles and of the training on them.
        rings: a file with real cycles (`prompt`, `responses` in ring order, `ring: true`).
        keep: `"COLUMN=VALUE"`, which of its rows.

    Returns:
        The table, Markdown.

    Raises:
        ValueError: no seeds, dimensions that are not possible, or rings that are none; before anything is trained.
    """
    check_dimensions(dimensions)
    if not seeds:
        raise ValueError("There are no seeds: give at least one.")
    if rings is not None:
        _read_rings(rings, keep)
    output = Path(output)
    cells: list[dict[str, Any]] = []
    for seed in seeds:
        cells += [{"data": "systematic", "seed": seed, "embedding_dim": dim} for dim in (*dimensions, 1)]
        cells.append({"data": "systematic, ranked", "seed": seed, "embedding_dim": 1})
    if rings is not None:
        # By what they hold: a file of the same name may be another.
        real = {"rings": Path(rings).name, "rings_digest": data_identity(rings), "keep": keep}
        cells += [{"data": "real", **real, "embedding_dim": dim} for dim in (*dimensions, 1)]
        cells.append({"data": "real, ranked", **real, "embedding_dim": 1})

    def run(folder: str, output: Path, cell: dict[str, Any]) -> dict[str, Any]:
        result = _systematic(folder, output, cell) if "seed" in cell else _real(folder, output, cell, str(rings))
        return {"prompts": result.prompts, "skew_error": result.skew_error}

    table = _table(run_on_backbone(output, base, cells, run))
    with written_whole(output / "table1.md") as file:
        file.write(table + "\n")
    return table


def _systematic(base: str, output: Path, cell: dict[str, Any]) -> CyclicResult:
    train, test = systematic_pairs(cell["seed"], float(cell["data"].endswith("ranked")))
    trainer = train_heads(
        base, output / "last_run", cell["embedding_dim"], train, SYSTEMATIC_RECIPE, cell["seed"], test
    )
    return evaluate_pairs(test, trainer.predict(trainer.eval_dataset).predictions)


def _real(base: str, output: Path, cell: dict[str, Any], rings: str) -> CyclicResult:
    shown, judged = _read_rings(rings, cell["keep"])
    if cell["data"].endswith("ranked"):
        shown = judged = ranked_instead(shown)
    trainer = train_heads(base, output / "last_run", cell["embedding_dim"], shown, REAL_RECIPE, 0, judged)
    return evaluate_pairs(judged, trainer.predict(trainer.eval_dataset).predictions)


def _read_rings(rings: str, keep: str | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Pairs to be shown, each once, and to be judged, each once for every cycle that has it."""
    rows = split_of(load_splits(rings, keep=keep), "train")
    return list(ring_to_pairs(rows)), list(ring_to_pairs(rows, distinct=False))


def _table(rows: Sequence[dict[str, Any]]) -> str:
    results: dict[str, dict[str, CyclicResult]] = {}
    for row in rows:
        cell, found = row["cell"], row["result"]
        dim = cell["embedding_dim"]
        model = f"general preference model, dimension {dim}" if dim > 1 else "Bradley-Terry"
        if cell["data"].endswith("ranked"):
            model += ", on a ranking instead"
        data = f"systematic, unseen topics, seed {cell['seed']}" if "seed" in cell else "real, as shown"
        counts = [PromptCounts(*prompt) for prompt in found["prompts"]]
        results.setdefault(model, {})[data] = CyclicResult(counts, found["skew_error"])
    return comparison_table(
        dict(sorted(results.items(), key=lambda item: (not item[0].startswith("general"), item[0])))
    )
