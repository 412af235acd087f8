"""The training of one iteration: from its scored answers to a whole folder with the next policy."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

from accelerate import DistributedType, PartialState
from accelerate.state import AcceleratorState
from datasets import Dataset
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from gpm_hf.data.policy_data import all_responses, select_pairs
from gpm_hf.recipes.iterate_config import DPO_METHODS, METHODS, IterateConfig
from gpm_hf.recipes.policies import is_gguf
from gpm_hf.scoring import load_gguf_language_model, load_tokenizer
from gpm_hf.shards import written_rows
from gpm_hf.training import OfflineGPOConfig, OfflineGPOTrainer
from gpm_hf.training.precomputed_reference import PrecomputedReferenceDPOTrainer


def train_policy(config: IterateConfig, training: OfflineGPOConfig, policy: str, iteration: int, folder: Path) -> None:
    """
    Trains a policy on what was sampled from it, which is also the reference, and writes it to `folder/policy`.

    A training that was killed goes on from its last whole checkpoint in `folder/training`.

    Args:
        config, training: see [`~gpm_hf.recipes.iterate.run_iterate`].
        policy: the one that sampled.
        iteration: counted from 1.
        folder: of the iteration, with `scored.jsonl`.
    """
    state = PartialState()
    args = iteration_options(config, training, iteration, folder / "training")
    dataset = select_rows(written_rows(folder / "scored.jsonl"), config)
    model, tokenizer = policy, None
    if is_gguf(policy):
        dtype = (args.model_init_kwargs or {}).get("dtype", "float32")
        model, tokenizer = load_gguf_language_model(policy, dtype=dtype), load_tokenizer(policy)
        args.model_init_kwargs = None
    if config.method in DPO_METHODS:
        trainer: Any = PrecomputedReferenceDPOTrainer(
            model, args=args, train_dataset=dataset, processing_class=tokenizer
        )
    else:
        trainer = OfflineGPOTrainer(
            model, args, dataset, processing_class=tokenizer, preference_name=_name_of(config.scorer)
        )
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(args.output_dir, state))
    aside = folder / ".policy.part"
    if state.is_main_process:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
    state.wait_for_everyone()
    args.output_dir = str(aside)
    trainer.save_model()
    trainer.save_state()
    state.wait_for_everyone()
    if state.is_main_process:
        # A pickle of options, with paths of this machine.
        (aside / "training_args.bin").unlink(missing_ok=True)
        aside.rename(folder / "policy")
    state.wait_for_everyone()
    trainer.accelerator.free_memory()
    if state.distributed_type == DistributedType.DEEPSPEED:
        # Else accelerate refuses the next iteration's trainer: it knows one set of DeepSpeed's options in a process.
        AcceleratorState._reset_state()


def iteration_options(
    config: IterateConfig, training: OfflineGPOConfig, iteration: int, output: Path
) -> OfflineGPOConfig:
    """The trainer's options of one iteration."""
    args = copy.copy(training)
    # The trainer writes its numbers of steps, rows and so on in it.
    args.deepspeed_plugin = copy.deepcopy(training.deepspeed_plugin)
    args.output_dir = str(output)
    # Checkpoints are for going on; the policies of the iterations are kept anyway.
    args.save_total_limit = training.save_total_limit or 1
    args.model_init_kwargs = dict(training.model_init_kwargs or {})
    if iteration > 1:
        args.model_init_kwargs.pop("revision", None)
    for name, value in METHODS[config.method].items():
        setattr(args, name, value)
    if config.method in DPO_METHODS:
        args.beta = config.dpo_beta
    return args


def select_rows(rows: Any, config: IterateConfig) -> Dataset:
    """What the trainer reads of scored rows."""
    if config.selection == "all_responses":
        return all_responses(rows, config.policy_log_probs)
    pairs = select_pairs(rows, config.selection, config.policy_log_probs)
    return pairs.select_columns(["prompt", "chosen", "rejected"]) if config.method in DPO_METHODS else pairs


def last_whole_checkpoint(folder: str | Path, state: PartialState) -> str | None:
    """
    The last checkpoint that was written to its end; others are removed.

    Args:
        folder: the trainer's.
        state: of the processes: one removes, all get the same answer.
    """
    found = sorted(Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=lambda path: int(path.name.rsplit("-")[-1]))
    whole = [path for path in found if _is_whole(path, state.num_processes)]
    state.wait_for_everyone()
    if state.is_main_process:
        for path in set(found) - set(whole):
            shutil.rmtree(path)
    state.wait_for_everyone()
    return str(whole[-1]) if whole else None


def _is_whole(checkpoint: Path, processes: int) -> bool:
    """The trainer writes its state last, and each process the state of its random numbers."""
    states = ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return all((checkpoint / name).exists() for name in states)


def _name_of(scorer: str) -> str:
    """For a card, which names folders but not where they lie."""
    name = scorer.partition(":")[2] or scorer
    return Path(name).resolve().name if Path(name).is_dir() else name
