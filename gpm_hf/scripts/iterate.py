"""
Aligns a policy in several iterations: it answers prompts, a preference model scores the answers, it learns from them.

    accelerate launch --config_file trainers/configs/zero3.yaml trainers/iterate.py \
        --policy HuggingFaceTB/SmolLM2-135M-Instruct --scorer gpm:my-name/my-gpm --prompts prompts.jsonl \
        --iterations 3 --num_generations 5 --method gpo --output runs/iterate

The options are those of [`~gpm_hf.recipes.iterate_config.IterateConfig`] and, for the training, of
[`~gpm_hf.training.OfflineGPOConfig`]; `--config FILE.yaml` reads any of them from a file. Started again, it goes on
where it was. On one device `gpm-hf iterate POLICY ...` is the same.
"""

from gpm_hf.recipes.iterate import run_iterate
from gpm_hf.recipes.iterate_config import IterateConfig
from gpm_hf.scripts.command_line import run_script
from gpm_hf.training import OfflineGPOConfig


def main(config: IterateConfig, training: OfflineGPOConfig) -> None:
    policy = run_iterate(config, training)
    if training.process_index == 0:
        print(f"The last policy is in {policy}.")


def run() -> None:
    """Trains by what the command line says."""
    run_script("iterate", main, IterateConfig, OfflineGPOConfig)


if __name__ == "__main__":
    run()
