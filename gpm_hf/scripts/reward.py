"""
Trains a preference model.

    accelerate launch trainers/reward.py \
        --model_name_or_path HuggingFaceTB/SmolLM2-135M-Instruct \
        --dataset_name trl-lib/ultrafeedback_binarized \
        --embedding_dim 6 --output_dir runs/gpm

`--config FILE.yaml` reads any of the options from a file; `--embedding_dim 1` trains a Bradley-Terry reward model;
`--resume_from_checkpoint true` goes on from the last whole checkpoint (or from one that is named). The data set may be
a local `.jsonl` file and the model a folder with one `.gguf` file.
"""

from dataclasses import dataclass, field

from trl import ModelConfig, ScriptArguments, get_peft_config, get_quantization_config

from gpm_hf import GPMRewardConfig, GPMRewardTrainer
from gpm_hf.data.splits import load_preference_dataset, split_of
from gpm_hf.scripts.command_line import run_script


@dataclass
class RewardScriptArguments(ScriptArguments):
    """TRL's script arguments and a choice of rows."""

    dataset_keep: str | None = field(
        default=None, metadata={"help": "COLUMN=VALUE: use only the rows whose column has this value."}
    )
    dataset_aspects: str | None = field(
        default=None,
        metadata={
            "help": "Of rows of UltraFeedback's form: whose ratings count (their mean), separated by commas. All if "
            "None."
        },
    )


def main(script_args: RewardScriptArguments, training_args: GPMRewardConfig, model_args: ModelConfig) -> None:
    if script_args.dataset_name is None:
        raise ValueError("--dataset_name is needed: a data set of the Hub, or a local .jsonl file.")
    training_args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        **(training_args.model_init_kwargs or {}),
    }
    dataset = load_preference_dataset(
        script_args.dataset_name,
        script_args.dataset_config,
        keep=script_args.dataset_keep,
        streaming=script_args.dataset_streaming,
        aspects=[one.strip() for one in (script_args.dataset_aspects or "").split(",") if one.strip()] or None,
    )
    evaluates = training_args.eval_strategy != "no"
    trainer = GPMRewardTrainer(
        model=model_args.model_name_or_path,
        args=training_args,
        train_dataset=split_of(dataset, script_args.dataset_train_split),
        eval_dataset=split_of(dataset, script_args.dataset_test_split) if evaluates else None,
        quantization_config=get_quantization_config(model_args),
        peft_config=get_peft_config(model_args),
    )
    trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    trainer.save_model(training_args.output_dir)
    trainer.create_model_card(dataset_name=script_args.dataset_name)
    trainer.accelerator.print(f"Saved to {training_args.output_dir}.")
    if training_args.push_to_hub:
        trainer.push_to_hub(dataset_name=script_args.dataset_name)
    trainer.end()


def run() -> None:
    """Trains by what the command line says."""
    run_script("reward", main, RewardScriptArguments, GPMRewardConfig, ModelConfig)


if __name__ == "__main__":
    run()
