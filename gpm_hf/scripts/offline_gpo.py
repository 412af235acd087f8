"""
Trains a policy offline on responses that it sampled and a preference model scored: GPO, SPPO, LN-GPO or REBEL.

    accelerate launch --config_file trainers/configs/zero2.yaml trainers/offline_gpo.py \
        --model_name_or_path HuggingFaceTB/SmolLM2-135M-Instruct \
        --dataset_name scored.jsonl --selection all_responses --loss_type gpo --output_dir runs/offline-gpo

The data are scored groups (`prompt`, `responses`, `scores`; see gpm_hf/data/policy_data.py), out of which
`--selection` makes pairs or single responses, or rows that are made already. `--config FILE.yaml` reads any of the
options from a file, `--use_peft` trains LoRA adapters, `--push_to_hub` uploads the result, `--resume_from_checkpoint
true` goes on from the last whole checkpoint (or from one that is named). The policy may be a folder with one `.gguf`
file.
"""

from dataclasses import dataclass

from datasets import Dataset
from trl import ModelConfig, ScriptArguments

from gpm_hf.data.policy_data import SELECTIONS, select_rows
from gpm_hf.data.splits import load_splits, split_of
from gpm_hf.options import choice, described
from gpm_hf.scripts.command_line import run_script
from gpm_hf.scripts.runs import finish, policy_arguments
from gpm_hf.training import OfflineGPOConfig, OfflineGPOTrainer
from gpm_hf.training.bars import show_one_bar


@described
@dataclass
class OfflineGPOScriptArguments(ScriptArguments):
    """
    TRL's script arguments, what to make of scored groups, and who scored them.

    Args:
        selection: What to learn from of each scored group: the pair of highest and lowest mean score, the von Neumann
            winner with its worst reply, all pairs weighted, or all responses.
        with_policy_log_probs: Take the reference's log-probabilities from the data's `policy_log_probs`.
        preference_name: Who scored the responses, for the card.
    """

    selection: str = choice(*SELECTIONS, default="mean")
    with_policy_log_probs: bool = False
    preference_name: str | None = None


def _rows(rows, script_args: OfflineGPOScriptArguments) -> Dataset:
    if "responses" not in rows.column_names:
        return rows
    return select_rows(rows, script_args.selection, script_args.with_policy_log_probs)


def main(script_args: OfflineGPOScriptArguments, training_args: OfflineGPOConfig, model_args: ModelConfig) -> None:
    if script_args.dataset_name is None:
        raise ValueError("--dataset_name is needed: a data set of the Hub, or a local .jsonl file.")
    if script_args.dataset_streaming:
        raise ValueError("--dataset_streaming is not possible: references are computed before the training.")
    dataset = load_splits(script_args.dataset_name, script_args.dataset_config)
    evaluates = training_args.eval_strategy != "no"
    test_rows = split_of(dataset, script_args.dataset_test_split) if evaluates else None
    trainer = OfflineGPOTrainer(
        **policy_arguments(training_args, model_args),
        args=training_args,
        train_dataset=_rows(split_of(dataset, script_args.dataset_train_split), script_args),
        eval_dataset=None if test_rows is None else _rows(test_rows, script_args),
        preference_name=script_args.preference_name,
    )
    show_one_bar(trainer)
    trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    trainer.save_model(training_args.output_dir)
    trainer.save_state()
    finish(trainer, training_args, dataset_name=script_args.dataset_name)


def run() -> None:
    """Trains by what the command line says."""
    run_script("offline-gpo", main, OfflineGPOScriptArguments, OfflineGPOConfig, ModelConfig)


if __name__ == "__main__":
    run()
