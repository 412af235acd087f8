"""The end of a reward training: how good it is, beside Bradley-Terry when asked, where it lies, what to do next."""

import copy
import importlib.util
import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gpm_hf.errors import UsageError
from gpm_hf.evaluation.plots.training_plots import plot_learning_curve
from gpm_hf.hub.cards import write_card
from gpm_hf.hub.results import RESULTS_FOLDER, save_result
from gpm_hf.scripts.held_out import HeldOut
from gpm_hf.training import GPMRewardConfig

LEARNING_CURVE = "learning_curve.png"
_RESULT = "held_out.json"
BRADLEY_TERRY_FOLDER = "bradley-terry"
# What a Bradley-Terry model has not.
_BLOCKS = ("scale_gate", "normalize_embeddings", "reward_head", "gate_activation", "head_initialization")


def bradley_terry_args(args: GPMRewardConfig) -> GPMRewardConfig:
    """The same training of a Bradley-Terry model, in a folder inside of the run's own."""
    found = copy.deepcopy(args)
    found.embedding_dim = 1
    for name in _BLOCKS:
        setattr(found, name, None)
    found.output_dir = str(Path(args.output_dir) / BRADLEY_TERRY_FOLDER)
    found.push_to_hub = False
    found.resume_from_checkpoint = None
    return found


def check_comparison(args: GPMRewardConfig) -> None:
    """Raises `UsageError` where there is nothing to compare."""
    if args.embedding_dim == 1:
        raise UsageError("--compare_bt trains Bradley-Terry beside it, and --embedding_dim 1 is that: leave one out.")


def draw_curve(folder: str | Path, log: list[dict[str, Any]], say: Callable[[str], None]) -> dict[str, str]:
    """Draws the learning curve into a model's folder; file and caption, as cards take them."""
    if importlib.util.find_spec("matplotlib") is None:
        say('No learning curve: it needs matplotlib, `pip install "gpm-hf[eval]"`.')
        return {}
    drawn = plot_learning_curve(Path(folder) / LEARNING_CURVE, log)
    return {LEARNING_CURVE: "Loss and accuracy over the training"} if drawn else {}


def state_result(folder: str | Path, held_out: HeldOut, data: str) -> None:
    """Puts the accuracy and its interval beside the model and into its card."""
    path = Path(folder) / RESULTS_FOLDER / _RESULT
    save_result(path, folder, "held-out pairs", data, held_out.to_dict())
    # Not what else lies there: it may be of earlier weights.
    write_card(folder, results=[json.loads(path.read_text(encoding="utf-8"))])


def summary(folder: str, found: Mapping[str, HeldOut | None]) -> str:
    """The last words of a run."""
    lines = []
    for name, held_out in found.items():
        if held_out is not None:
            lines.append(f"{name}: accuracy {held_out}.")
    if not found:
        lines.append("No held-out pairs: --test_split_size 0.1 holds out a tenth of the prompts.")
    where = shlex.quote(folder)
    both = f"gpm:{where}"
    if len(found) == 2:
        beside = Path(folder) / BRADLEY_TERRY_FOLDER
        both += f" gpm:{shlex.quote(str(beside))}"
        lines.append(f"Bradley-Terry lies in {beside}.")
    lines += [
        f"The model lies in {folder}, with its card README.md. Next:",
        f'  gpm-hf score {where} --prompt "..." --response "..." --response "..."',
        f"  gpm-hf eval pairs {both} --dataset NEW_PAIRS.jsonl",
        f"  gpm-hf push {where} YOUR-NAME/{Path(folder).resolve().name} --dry-run",
    ]
    return "\n".join(lines)
