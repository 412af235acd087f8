"""
The demonstration: a language model becomes a preference model that holds cycles, which no reward model can.

Three attributes of an answer beat each other in a ring. A general preference model and a Bradley-Terry reward model
are trained on it alike, and compared on topics that neither has seen; the Bradley-Terry model also learns a ranking of
the same texts, to show that it can learn what a reward can express.
"""

import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from gpm_hf.data.generator import ATTRIBUTES, generate_rings, ring_pairs, split_topics
from gpm_hf.evaluation.benchmarks.ring_accuracy import RESULT_COLUMNS, evaluate_pairs, result_rows
from gpm_hf.evaluation.plots.preference_plots import plot_preference_plane
from gpm_hf.files import report_text, written_whole
from gpm_hf.modeling import preference_matrix
from gpm_hf.preference import find_cycles
from gpm_hf.progress import TimedBar
from gpm_hf.recipes.heads import (
    SYSTEMATIC_RECIPE,
    TEST_PROMPTS,
    TRAIN_PROMPTS,
    find_base_model,
    train_heads,
    unpacked_backbone,
)
from gpm_hf.screens import show_table
from gpm_hf.training import GPMRewardTrainer

# Half of the tables' steps at twice their rate, by which as many rings and rankings are learnt (seeds 0, 1, 2).
RECIPE = {**SYSTEMATIC_RECIPE, "max_steps": 400, "learning_rate": 1e-3}
ATTRIBUTE_RING = list(ATTRIBUTES)[:3]
REWARD_NAME, GPM_NAME = "Bradley-Terry reward model", "general preference model (dimension 6)"

# Run where this package cannot be imported: what a stranger has who only installed transformers.
_STRANGER = """
import json, sys

class NoPackage:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "gpm_hf":
            raise ImportError("gpm_hf is not installed here")

sys.meta_path.insert(0, NoPackage())
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

logging.disable_progress_bar()
folder, row = sys.argv[1], json.loads(sys.argv[2])
model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
scores = model.preference_scores(tokenizer, row["prompt"], row["responses"])
ranking = model.rank(tokenizer, row["prompt"], row["responses"])
with open(sys.argv[3], "w") as file:
    json.dump({"scores": scores.tolist(), "ranking": ranking}, file)
"""


def run_demo(output: str | Path, seed: int = 0) -> dict[str, Any]:
    """
    Runs the demonstration and prints what happens.

    Args:
        output: a folder; it receives the trained model, `preference_plane.png` and `results.json`.
        seed: of the data and of the training.

    Returns:
        What `results.json` holds: counts per model, the cycle found, the seconds it took.

    Raises:
        ImportError: where neither the Hub nor the packaged language model is at hand.
        RuntimeError: where the saved model does not score as the trained one does.
    """
    start = time.monotonic()
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    # What is read and kept is no news here: the bars say it.
    transformers_logging.disable_progress_bar()
    logging.getLogger("gpm_hf.training").setLevel(logging.WARNING)
    base = find_base_model(needs=("matplotlib", "scipy"))
    with unpacked_backbone(base) as unpacked:
        return _run(unpacked, output, seed, start)


def _run(base: Callable[[], str], output: Path, seed: int, start: float) -> dict[str, Any]:
    train_topics, test_topics = split_topics(seed=seed)
    rings = generate_rings(TRAIN_PROMPTS, seed=seed, topics=train_topics)
    test = generate_rings(TEST_PROMPTS, seed=seed + 1, topics=test_topics)
    # The same texts, but a ranking.
    train_control = generate_rings(TRAIN_PROMPTS, seed=seed, topics=train_topics, transitive_share=1.0)
    test_control = generate_rings(TEST_PROMPTS, seed=seed + 1, topics=test_topics, transitive_share=1.0)
    print(
        f"Preferences that go round in a circle: {' > '.join([*ATTRIBUTE_RING, ATTRIBUTE_RING[0]])}.\n"
        f"{len(rings)} prompts to learn from, {len(test)} of other topics to be judged on; each text is read once."
    )
    bar = TimedBar(total=3 * RECIPE["max_steps"], desc="Training the heads of three models", unit="step")

    pairs, test_pairs = ring_pairs(rings), ring_pairs(test)

    def train(folder: str, dimension: int, pairs: list[dict], test: list[dict]) -> GPMRewardTrainer:
        return train_heads(base(), output / folder, dimension, pairs, RECIPE, seed, test, bar)

    reward = train("bradley-terry", 1, pairs, test_pairs)
    gpm = train("gpm", 6, pairs, test_pairs)
    results = {}
    for name, trainer in ((REWARD_NAME, reward), (GPM_NAME, gpm)):
        results[name] = evaluate_pairs(test_pairs, trainer.predict(trainer.eval_dataset).predictions)
    control = train(
        "bradley-terry-control",
        1,
        ring_pairs(train_control),
        ring_pairs(test_control),
    )
    control_accuracy = float((control.predict(control.eval_dataset).predictions > 0).mean())
    bar.close()
    show_table("On topics that no model has seen", RESULT_COLUMNS, result_rows(results))
    print(
        f"The same Bradley-Terry training on a ranking of the same texts has {control_accuracy:.1%} of the pairs "
        "right:\nwhat a reward cannot hold is the ring.\n"
    )

    gpm.save_model()
    gpm.create_model_card()
    row = test[0]
    scores, ranking = _load_as_stranger(output / "gpm", row)
    embeddings, scales = gpm.gpm.embed(gpm.processing_class, row["prompt"], row["responses"])
    expected = preference_matrix(embeddings, scales, gpm.gpm.config.tau)
    error = float((scores - expected).abs().max())
    if error > 1e-4:
        raise RuntimeError(f"The saved model's log-odds differ from the trained one's by {error:.2g}.")
    cycle = _report(row, scores, ranking)
    plot_preference_plane(
        output / "preference_plane.png", embeddings, scales, scores, row["attributes"], row["prompt"]
    )
    summary = {
        "models": {name: result.to_dict() for name, result in results.items()},
        "bradley_terry_on_a_ranking": control_accuracy,
        "cycle": cycle,
        "reload_error": error,
        "seconds": round(time.monotonic() - start, 1),
    }
    with written_whole(output / "results.json") as file:
        file.write(report_text(summary, indent=1))
    print(
        f"Model: {output / 'gpm'}   picture: {output / 'preference_plane.png'}   numbers: {output / 'results.json'}\n"
        f"Load it anywhere: AutoModel.from_pretrained({str(output / 'gpm')!r}, trust_remote_code=True)\n"
        f"{summary['seconds']:.0f} seconds in all."
    )
    return summary


def _load_as_stranger(folder: Path, row: dict) -> tuple[torch.Tensor, list[int]]:
    """Log-odds and ranking by the saved folder alone, in a fresh interpreter without this package."""
    with tempfile.TemporaryDirectory() as scratch:
        answer_file = Path(scratch) / "answer.json"
        command = [sys.executable, "-c", _STRANGER, str(folder), json.dumps(row), str(answer_file)]
        finished = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if finished.returncode != 0:
            raise RuntimeError(f"{folder} could not be loaded without this package:\n{finished.stderr}")
        answer = json.loads(answer_file.read_text())
    return torch.tensor(answer["scores"]), answer["ranking"]


def _report(row: dict, scores: torch.Tensor, ranking: list[int]) -> dict[str, Any] | None:
    names = row["attributes"]
    print(f"Loaded back without this package, asked: {row['prompt']!r}")
    for place, index in enumerate(ranking, 1):
        print(f"  {place}. [{names[index]}] {row['responses'][index]}")
    print(f"Log-odds that the row is preferred to the column:\n{_matrix(scores, names)}")
    cycles = find_cycles(scores.numpy())
    if not cycles:
        print("No cycle: the model ranks these three.")
        return None
    members = [names[index] for index in cycles[0].members]
    weakest = cycles[0].weakest
    probability = float(torch.tensor(weakest).sigmoid())
    print(
        f"A cycle: {' > '.join([*members, members[0]])}. Its weakest link has log-odds {weakest:.2f}, a probability "
        f"of {probability:.1%}."
    )
    return {"members": members, "weakest_log_odds": weakest}


def _matrix(scores: torch.Tensor, names: list[str]) -> str:
    width = max(map(len, names))
    lines = [" " * width + "".join(f"  {name:>{width}}" for name in names)]
    for name, row in zip(names, scores.tolist(), strict=True):
        lines.append(f"{name:>{width}}" + "".join(f"  {score + 0.0:>+{width}.2f}" for score in row))
    return "\n".join(lines)
