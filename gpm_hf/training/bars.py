"""The bar of a training on a screen: one, with the news beside it in place of a line for each log."""

import sys
from typing import Any

from transformers import ProgressCallback, Trainer, TrainerCallback
from typing_extensions import override

from gpm_hf.progress import TimedBar

_BESIDE = {"loss": "loss", "accuracy": "accuracy", "win_rate": "win rate", "eval_accuracy": "held-out accuracy"}


class TrainingBar(ProgressCallback):
    """transformers' bar, with the last loss and accuracy beside it; an evaluation in between has none of its own."""

    training_bar: Any

    def __init__(self) -> None:
        super().__init__()
        self.beside: dict[str, str] = {}

    @override
    def on_train_begin(self, args, state, control, **kwargs):
        self.current_step = state.global_step  # of a checkpoint that is gone on from
        if state.is_world_process_zero:
            self.training_bar = TimedBar(
                total=state.max_steps, initial=state.global_step, desc="Training", unit="step", dynamic_ncols=True
            )

    @override
    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        if self.training_bar is None:
            super().on_prediction_step(args, state, control, eval_dataloader=eval_dataloader, **kwargs)

    @override
    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and self.training_bar is not None:
            self.beside |= {_BESIDE[name]: f"{value:.3g}" for name, value in (logs or {}).items() if name in _BESIDE}
            self.training_bar.set_postfix(self.beside)


class StepsOn(TrainerCallback):
    """Moves a bar that several trainings share."""

    def __init__(self, bar: TimedBar) -> None:
        self.bar = bar

    @override
    def on_train_begin(self, args, state, control, **kwargs: Any):
        if not self.bar.n:
            self.bar.reset()  # what came before the first of them is no part of it

    @override
    def on_step_end(self, args, state, control, **kwargs: Any):
        self.bar.update(1)


def show_one_bar(trainer: Trainer) -> None:
    """Gives a trainer the bar above, on a screen. A file keeps a line for each log, and so does `disable_tqdm`."""
    if sys.stderr.isatty() and not trainer.args.disable_tqdm:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(TrainingBar)
