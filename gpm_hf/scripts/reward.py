"""
Trains a preference model.

    accelerate launch trainers/reward.py \
        --model_name_or_path HuggingFaceTB/SmolLM2-135M-Instruct \
        --dataset_name trl-lib/ultrafeedback_binarized \
        --embedding_dim 6 --output_dir runs/gpm

`--config FILE.yaml` reads any of the options from a file; `--embedding_dim 1` trains a Bradley-Terry reward model;
`--resume_from_checkpoint true` goes on from the last whole checkpoint (or from one that is named). The data set may be
a local `.jsonl` file and the model a folder with one `.gguf` file. `--test_split_size 0.1` holds out a tenth of the
prompts; `--dry_run` reads everything, says what would be trained, and stops; `--compare_bt` trains a Bradley-Terry
model beside it. `--label_with SCORER` lets a scorer say who beats whom among the responses to each prompt, trains on
that, and says how much of it the model keeps on held-out prompts.
"""

import json
from dataclasses import dataclass
from typing import Any, cast

from accelerate import PartialState
from datasets import Dataset
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_utils import IntervalStrategy
from trl import DatasetMixtureConfig, ModelConfig

from gpm_hf import GPMRewardConfig, GPMRewardTrainer
from gpm_hf.errors import UsageError
from gpm_hf.evaluation.reports.agreement import Agreement
from gpm_hf.files import scratch_folder
from gpm_hf.hub.local_paths import is_local, name_of
from gpm_hf.options import described
from gpm_hf.recipes.distill import TEST_SHARE, kept_of_judge, labelled_data, write_report
from gpm_hf.scripts.command_line import run_script
from gpm_hf.scripts.dry_run import describe
from gpm_hf.scripts.held_out import HeldOut, evaluate_held_out
from gpm_hf.scripts.reward_data import DataArguments, load_data
from gpm_hf.scripts.reward_summary import bradley_terry_args, check_comparison, draw_curve, state_result, summary
from gpm_hf.scripts.runs import end_together, model_arguments
from gpm_hf.training.bars import show_one_bar


@described
@dataclass
class RewardScriptArguments(DataArguments):
    """
    What is trained on, see [`DataArguments`], and how the run begins and ends.

    Args:
        dry_run: Read data and model, show rows, parameters, an estimate of memory and steps, and stop.
        compare_bt: Train a Bradley-Terry model on the same data beside it, and compare.
        early_stopping_patience: Stop after so many evaluations without a better eval_accuracy (or
            metric_for_best_model), and keep the best model.
        label_with: A scorer (gpm:NAME, reward:NAME, pair:NAME, judge:NAME, function:MODULE.NAME, or a NAME alone) that
            labels the groups of responses to be trained on; labels are kept in the output folder.
        label_options: Of that scorer, JSON: {"batch_size": 8, "dtype": "bfloat16"}.
    """

    dry_run: bool = False
    compare_bt: bool = False
    early_stopping_patience: int | None = None
    label_with: str | None = None
    label_options: dict[str, Any] | str | None = None

    def __post_init__(self):
        if isinstance(self.label_options, str):
            self.label_options = json.loads(self.label_options)


def main(
    script_args: RewardScriptArguments,
    training_args: GPMRewardConfig,
    model_args: ModelConfig,
    mixture: DatasetMixtureConfig | None = None,
) -> None:
    say = print if PartialState().is_main_process else _silent
    if model_args.model_name_or_path is None:
        raise UsageError("--model_name_or_path is needed: a language model to start from, or a preference model.")
    if script_args.compare_bt:
        check_comparison(training_args)
    callbacks = _early_stopping(script_args.early_stopping_patience, training_args)
    evaluates = training_args.eval_strategy != "no"
    mixture = mixture or DatasetMixtureConfig()
    if script_args.label_with is None:
        train, test = load_data(script_args, mixture, evaluates, training_args.seed, say)
    else:
        train, test = _labelled(script_args, training_args, mixture)
    if script_args.compare_bt and test is None:
        raise UsageError("--compare_bt compares on held-out pairs, and there are none: give --test_split_size 0.1.")

    def trainer_with(args: GPMRewardConfig) -> GPMRewardTrainer:
        trainer = GPMRewardTrainer(
            **model_arguments(args, model_args),
            args=args,
            train_dataset=train,
            eval_dataset=test,
            callbacks=list(callbacks),
        )
        show_one_bar(trainer)
        return trainer

    if script_args.dry_run:
        heads_only = training_args.train_heads_only
        with scratch_folder("dry_run") as folder:
            training_args.output_dir = str(folder)
            training_args.train_heads_only, training_args.head_initialization = False, None
            say(describe(trainer_with(training_args), train, heads_only))
        return
    name = script_args.dataset_name
    found: dict[str, HeldOut | None] = {}
    kept: dict[str, Agreement] = {}
    judge = script_args.label_with
    if script_args.compare_bt:
        reward = trainer_with(bradley_terry_args(training_args))
        reward.train()
        found["Bradley-Terry reward model"] = _finish(reward, name, say, judge)
        if judge:
            kept["Bradley-Terry"] = kept_of_judge(reward)
        end_together(reward)
        del reward
    trainer = trainer_with(training_args)
    trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    held_out = _finish(trainer, name, say, judge)
    if test is not None:
        kind = "Bradley-Terry reward model" if trainer.gpm.config.is_bradley_terry else "General preference model"
        found[kind] = held_out
    if judge:
        own = kept_of_judge(trainer)
        if trainer.is_world_process_zero():
            told = write_report(own, kept, training_args.output_dir, judge, _data_name(trainer, name))
            say(f"Kept of the judge on held-out prompts:\n\n{told}\n")
    if training_args.push_to_hub:
        trainer.push_to_hub(dataset_name=name)
    say(summary(training_args.output_dir, found))
    end_together(trainer)


def _labelled(
    script_args: RewardScriptArguments, training_args: GPMRewardConfig, mixture: DatasetMixtureConfig
) -> tuple[Dataset, Dataset]:
    """What is trained on and what is held out, labelled by a scorer."""
    if script_args.dataset_name is None or script_args.dataset_streaming or script_args.dry_run:
        raise ValueError(
            "--label_with labels the rows of one --dataset_name, and keeps the labels: it takes no mixture, no stream "
            "and no --dry_run."
        )
    return labelled_data(
        script_args.dataset_name,
        str(script_args.label_with),
        training_args.output_dir,
        script_args.dataset_config,
        script_args.dataset_keep,
        (script_args.dataset_train_split, script_args.dataset_test_split),
        TEST_SHARE if mixture.test_split_size is None else mixture.test_split_size,
        training_args.seed,
        cast(dict[str, Any] | None, script_args.label_options),
        as_log_odds=training_args.loss_type == "regression",
    )


def _silent(*arguments: Any) -> None:
    """What the processes beside the first one say."""


def _early_stopping(patience: int | None, args: GPMRewardConfig) -> list[TrainerCallback]:
    """Evaluations, saves and the choice of the best model, as early stopping needs them."""
    if patience is None:
        return []
    if args.eval_strategy == "no":
        args.eval_strategy = IntervalStrategy.EPOCH
    if args.save_strategy != args.eval_strategy:
        args.save_strategy, args.save_steps = args.eval_strategy, args.eval_steps or args.save_steps
    if not args.load_best_model_at_end:
        args.load_best_model_at_end = True
        if args.metric_for_best_model is None:
            args.metric_for_best_model, args.greater_is_better = "accuracy", True
    return [EarlyStoppingCallback(patience)]


def _finish(trainer: GPMRewardTrainer, name: str | None, say: Any, judge: str | None) -> HeldOut | None:
    """Evaluates, saves and describes a trained model; how far it is right by a judge's labels another report says."""
    folder = trainer.args.output_dir
    held_out = evaluate_held_out(trainer) if trainer.eval_dataset is not None else None
    trainer.save_model(folder)
    plots = draw_curve(folder, trainer.state.log_history, say) if trainer.is_world_process_zero() else {}
    trainer.create_model_card(dataset_name=name, plots=plots)
    if held_out is not None and judge is None and trainer.is_world_process_zero():
        state_result(folder, held_out, f"{_data_name(trainer, name)}, held out")
    return held_out


def _data_name(trainer: GPMRewardTrainer, name: str | None) -> str:
    """Of the data, without where they lie on this machine."""
    if trainer.data_sources:
        return trainer.data_sources[0]["name"]
    return "a mixture" if name is None else name_of(name) if is_local(name) else name


def run() -> None:
    """Trains by what the command line says."""
    run_script("reward", main, RewardScriptArguments, GPMRewardConfig, ModelConfig, DatasetMixtureConfig)


if __name__ == "__main__":
    run()
