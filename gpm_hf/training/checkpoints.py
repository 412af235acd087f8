"""Checkpoints that are whole or none, and from which a run goes on to the figures of an undisturbed one."""

import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from typing_extensions import override

from gpm_hf.files import written_whole
from gpm_hf.news import get_logger

logger = get_logger(__name__)

FIGURES_FILE = "running_figures.json"


class WholeCheckpointsMixin(Trainer):
    """
    What a trainer needs to go on is in its checkpoint before `trainer_state.json`, the file that makes it one; a
    checkpoint that a kill left incomplete is passed over.

    What differs from transformers': the means since the last log, the number of tokens and the losses so far are kept,
    so that a resumed run logs what an undisturbed one does (the returned `training_loss` is of the call alone, as
    there). From a checkpoint of the last step no further step is trained. `resume_from_checkpoint=True`, or the word,
    means the last whole checkpoint.
    """

    _metrics: Any
    _total_train_tokens: int
    # Summed over the steps before this call of `train`.
    _earlier_losses = 0.0

    @override
    def train(self, resume_from_checkpoint=None, trial=None, ignore_keys_for_eval=None):
        """
        As the parent's.

        Raises:
            ValueError: a checkpoint that is not whole, or, where any will do, none that is.
        """
        if str(resume_from_checkpoint).lower() in ("", "none", "false"):
            resume_from_checkpoint = None
        elif str(resume_from_checkpoint).lower() == "true":
            resume_from_checkpoint = self._last_checkpoint()
        if resume_from_checkpoint is not None:
            self.check_checkpoint(Path(resume_from_checkpoint))
        self._earlier_losses = 0.0
        resumes = _GoOn(self, resume_from_checkpoint)
        self.add_callback(resumes)
        try:
            return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)
        finally:
            self.remove_callback(resumes)

    @override
    def _run_epoch(self, *arguments, **options):
        # The parent's loop asks only after a step whether it was the last.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*arguments, **options)

    def check_checkpoint(self, folder: Path) -> None:
        """Raises `ValueError` for a checkpoint that this trainer cannot go on from."""
        lacks = lacking(folder)
        if lacks is not None:
            raise ValueError(
                f"{folder} is no whole checkpoint: {lacks}. Go on from an earlier one (resume_from_checkpoint=True "
                "takes the last whole one), or train from the beginning."
            )

    def write_beside_state(self, folder: Path) -> None:
        """Writes what a checkpoint needs beside the parents' files; on the process that writes."""
        with written_whole(folder / FIGURES_FILE) as file:
            json.dump(self._figures, file, allow_nan=False)

    def _last_checkpoint(self) -> str:
        folder = self.args.output_dir
        whole, others = whole_checkpoints(folder)
        for path, lacks in others.items():
            logger.warning(f"{path} is passed over, it was not written to its end: {lacks}.")
        if not whole:
            raise ValueError(
                f"{folder} holds no whole checkpoint to go on from: leave resume_from_checkpoint out to train from "
                "the beginning."
            )
        logger.info(f"Going on from {whole[-1]}.")
        return str(whole[-1])

    @override
    def _save_checkpoint(self, model, trial):
        folder = Path(self._get_output_dir(trial=trial), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        unlogged = float(self.accelerator.gather(self._tr_loss.detach()).mean())
        self._figures = {
            "metrics": {name: _summary(values) for name, values in self._metrics["train"].items()},
            "tokens": self._total_train_tokens,
            "last_logged": self._globalstep_last_logged,
            "unlogged_losses": _number(unlogged),
            "losses": _number(self._earlier_losses + self._total_loss_scalar + unlogged),
        }
        if self.args.should_save:
            # What an earlier run left there must not be taken for a part of this one.
            shutil.rmtree(folder, ignore_errors=True)
            self.write_beside_state(folder)
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)

    @override
    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        # The state is written next, by one process: what the others have to write is there before.
        self.accelerator.wait_for_everyone()

    def take_up_figures(self, checkpoint: str) -> None:
        """Sets the running figures to those of a checkpoint."""
        found = json.loads(Path(checkpoint, FIGURES_FILE).read_text(encoding="utf-8"))
        self._metrics["train"].clear()
        for name, summary in found["metrics"].items():
            self._metrics["train"][name].extend(_values(summary))
        self._total_train_tokens = found["tokens"]
        unlogged = float(found["unlogged_losses"])
        self._globalstep_last_logged = found["last_logged"]
        self._tr_loss += unlogged
        # The parent takes all that was not logged for losses of this call.
        self._total_loss_scalar -= unlogged
        self._earlier_losses = float(found["losses"])

    @override
    def log(self, logs, start_time=None):
        """As the parent's; the last `train_loss` is that of the whole training."""
        if "train_loss" in logs and self._earlier_losses:
            logs["train_loss"] = (self._earlier_losses + self._total_loss_scalar) / self.state.global_step
        super().log(logs, start_time)


class _GoOn(TrainerCallback):
    """Takes the running figures up, when the trainer has set its own to nothing."""

    def __init__(self, trainer: WholeCheckpointsMixin, checkpoint: str | os.PathLike | None):
        self.trainer, self.checkpoint = trainer, checkpoint

    @override
    def on_train_begin(self, args, state, control, **kwargs):
        if self.checkpoint is not None:
            self.trainer.take_up_figures(os.fspath(self.checkpoint))


def whole_checkpoints(folder: str | Path) -> tuple[list[Path], dict[Path, str]]:
    """
    The checkpoints in a trainer's folder, in their order: those that were written to their end, and the others with
    what they lack.
    """
    found = sorted(Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=lambda path: int(path.name.rsplit("-")[-1]))
    others = {path: lacks for path in found if (lacks := lacking(path)) is not None}
    return [path for path in found if path not in others], others


def lacking(checkpoint: Path) -> str | None:
    """What a folder lacks to be a whole checkpoint, in words; `None` where it is one."""
    if not checkpoint.is_dir():
        return "there is no such folder"
    if not _has_state(checkpoint):
        return f"it has no {TRAINER_STATE_NAME}, which is written last, or a part of it"
    if not any(checkpoint.glob("rng_state*.pth")):
        return "it has a model alone, without the state of its training (save_only_model=True)"
    if not (checkpoint / FIGURES_FILE).is_file():
        return f"it has no {FIGURES_FILE}, the figures since the last log; an earlier version wrote it"
    return None


def _has_state(checkpoint: Path) -> bool:
    """Whether the trainer's state, which is written last, is there whole."""
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return True


def _summary(values: Iterable[float]) -> dict[str, Any]:
    """All that a mean needs of its values: their sum in their order and number, and how many are undefined (NaN)."""
    values = list(values)
    defined = [value for value in values if not math.isnan(value)]
    return {"sum": _number(sum(defined)), "count": len(defined), "undefined": len(values) - len(defined)}


def _values(summary: Mapping[str, Any]) -> list[float]:
    """As many values with that sum."""
    total, count = summary["sum"], summary["count"]
    total = float(total) if isinstance(total, str) else total
    return [total, *[0.0] * (count - 1)][:count] + [math.nan] * summary["undefined"]


def _number(value: float) -> float | str:
    """As JSON has it: infinity, which a diverged training may log, as a word."""
    return value if math.isfinite(value) else str(value)
