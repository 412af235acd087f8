"""
Trains a policy against a preference model by online General Preference Optimization.

    accelerate launch --config_file trainers/configs/zero2.yaml trainers/gpo.py \
        --model_name_or_path HuggingFaceTB/SmolLM2-135M-Instruct \
        --preference_model_name_or_path my-name/my-gpm \
        --dataset_name trl-lib/ultrafeedback-prompt \
        --num_generations 4 --output_dir runs/gpo

`--config FILE.yaml` reads any of the options from a file, `--use_peft` trains LoRA adapters, `--push_to_hub` uploads
the result, `--resume_from_checkpoint true` goes on from the last whole checkpoint (or from one that is named). The
data set may be a local `.jsonl` file with a `prompt` per line, and the policy a folder with one `.gguf` file.
`--reward_funcs module.function` adds TRL reward functions. `--opponent reference` scores the responses against another
policy's (the data set's `opponent_responses`, or samples of the initial policy) and `--opponent mixture --mixture_coef
0.5` against samples of Nash-MD's mixture, instead of against each other.
"""

from dataclasses import dataclass
from pathlib import Path

from trl import ModelConfig, ScriptArguments

from gpm_hf import OnlineGPOConfig, OnlineGPOTrainer
from gpm_hf.data.splits import load_splits, split_of
from gpm_hf.evaluation.plots.preference_plots import plot_policy_progress
from gpm_hf.hub.local_paths import without_paths
from gpm_hf.options import described
from gpm_hf.scoring.load_scorer import import_function
from gpm_hf.scripts.command_line import run_script
from gpm_hf.scripts.runs import finish, policy_arguments
from gpm_hf.training.bars import show_one_bar


@described
@dataclass
class GPOScriptArguments(ScriptArguments):
    """
    TRL's script arguments and the preference.

    Args:
        preference_model_name_or_path: Who prefers what: a preference model or reward model by its Hub id or folder, or
            as `gpm-hf iterate --scorer` takes it: gpm:NAME, reward:NAME, pair:NAME, judge:NAME, function:MODULE.NAME,
            ...
        reward_funcs: Reward functions by their import paths, such as trl.rewards.accuracy_reward.
    """

    preference_model_name_or_path: str | None = None
    reward_funcs: list[str] | None = None


def main(script_args: GPOScriptArguments, training_args: OnlineGPOConfig, model_args: ModelConfig) -> None:
    if script_args.dataset_name is None:
        raise ValueError("--dataset_name is needed: a data set of the Hub, or a local .jsonl file.")
    dataset = load_splits(
        script_args.dataset_name, script_args.dataset_config, streaming=script_args.dataset_streaming
    )
    evaluates = training_args.eval_strategy != "no"
    trainer = OnlineGPOTrainer(
        **policy_arguments(training_args, model_args),
        preference_model=script_args.preference_model_name_or_path,
        args=training_args,
        train_dataset=split_of(dataset, script_args.dataset_train_split),
        eval_dataset=split_of(dataset, script_args.dataset_test_split) if evaluates else None,
        reward_funcs=[import_function(path) for path in script_args.reward_funcs or []],
    )
    show_one_bar(trainer)
    trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    trainer.save_model(training_args.output_dir)
    trainer.save_state()
    card: dict = {"dataset_name": script_args.dataset_name}
    if training_args.win_rate_prompts and trainer.is_world_process_zero():
        picture = Path(training_args.output_dir, "progress.png")
        plot_policy_progress(picture, trainer.state.log_history, without_paths(str(model_args.model_name_or_path)))
        card["plots"] = {picture.name: "Win rate against the initial policy, KL divergence from it, and length."}
    finish(trainer, training_args, **card)


def run() -> None:
    """Trains by what the command line says."""
    run_script("gpo", main, GPOScriptArguments, OnlineGPOConfig, ModelConfig)


if __name__ == "__main__":
    run()
