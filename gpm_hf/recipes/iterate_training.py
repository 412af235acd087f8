"""The training of one iteration: from its scored answers to a whole folder with the next policy."""

import copy
import shutil
import tempfile
from pathlib import Path
from typing import Any

from accelerate import DistributedType, PartialState
from accelerate.state import AcceleratorState
from datasets import Dataset

from gpm_hf.data.policy_data import select_rows
from gpm_hf.data.sampled_ids import tokenizer_digest
from gpm_hf.generation.prompts import encode_prompt
from gpm_hf.recipes.iterate_config import DPO_METHODS, METHODS, IterateConfig
from gpm_hf.recipes.policies import is_gguf
from gpm_hf.scoring import load_gguf_language_model, load_tokenizer
from gpm_hf.shards import written_rows
from gpm_hf.training import OfflineGPOConfig, OfflineGPOTrainer
from gpm_hf.training.bars import show_one_bar
from gpm_hf.training.checkpoints import whole_checkpoints
from gpm_hf.training.offline_batches import PAIR
from gpm_hf.training.policy_adapter import load_if_adapter
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

    Raises:
        ValueError: a checkpoint there of another number of processes.
    """
    state = PartialState()
    args = iteration_options(config, training, iteration, folder / "training")
    checkpoint = last_whole_checkpoint(args.output_dir, state)
    trainer = _make_trainer(config, args, policy, _rows(written_rows(folder / "scored.jsonl"), config))
    show_one_bar(trainer)
    trainer.train(resume_from_checkpoint=checkpoint)
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
    _forget_deepspeed(trainer)


def check_training(config: IterateConfig, training: OfflineGPOConfig, prompts: list[Any]) -> None:
    """
    Makes the first iteration's trainer on made-up answers, with its batches, optimizer and scheduler, and drops it:
    what is wrong in the options of the training shows before anything is sampled for it.

    Args:
        config, training: see [`~gpm_hf.recipes.iterate.run_iterate`].
        prompts: of the first iteration.

    Raises:
        ValueError: options that the trainer, its optimizer or its schedule refuses; an iteration that can never have
            as many rows as a batch takes; no prompt that fits into `max_length`.
        ImportError: an optimizer or a logger that is not installed.
    """
    for name in ("per_device_train_batch_size", "gradient_accumulation_steps"):
        if getattr(training, name) < 1:
            raise ValueError(f"{name}={getattr(training, name)}: at least 1 is needed.")
    hub_options = {name: value for name, value in (training.model_init_kwargs or {}).items() if name == "revision"}
    tokenizer = load_tokenizer(config.policy, **hub_options)
    with tempfile.TemporaryDirectory() as folder:
        args = iteration_options(config, training, 1, Path(folder))
        # As many as a batch takes, and no more than there will be.
        count = min(len(prompts), args.train_batch_size * args.world_size)
        groups = [_made_up_group(config, tokenizer, prompts)] * count
        trainer = _make_trainer(config, args, config.policy, _rows(groups, config))
        try:
            trainer.get_train_dataloader()
            trainer.create_optimizer_and_scheduler(num_training_steps=1)
        except (TypeError, ValueError) as error:
            # Of torch and of schedules, which do not say whose options these are.
            raise ValueError(f"The options of the training are refused: {error}") from error
    _forget_deepspeed(trainer)


def _made_up_group(config: IterateConfig, tokenizer: Any, prompts: list[Any]) -> dict[str, Any]:
    """A scored row with answers of one token to the shortest prompt."""
    encoded = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    shortest = min(range(len(prompts)), key=lambda number: len(encoded[number]))
    places = range(config.num_generations)
    return {
        "prompt": prompts[shortest],
        "responses": [str(place) for place in places],
        "scores": [[float(other - place) for other in places] for place in places],
        "prompt_ids": encoded[shortest],
        "response_ids": [encoded[shortest][-1:]] * len(places),
        "policy_log_probs": [0.0] * len(places),
        "tokenizer_digest": tokenizer_digest(tokenizer),
    }


def _make_trainer(config: IterateConfig, args: OfflineGPOConfig, policy: str, dataset: Dataset) -> Any:
    hub_options = {name: value for name, value in (args.model_init_kwargs or {}).items() if name == "revision"}
    model, tokenizer = policy, load_tokenizer(policy, **hub_options)
    if is_gguf(policy):
        dtype = (args.model_init_kwargs or {}).get("dtype", "float32")
        model = load_gguf_language_model(policy, dtype=dtype)
        args.model_init_kwargs = None
    else:
        model, _ = load_if_adapter(policy, args, tokenizer)
        if model is not policy:
            args.model_init_kwargs = None
    if config.method in DPO_METHODS:
        return PrecomputedReferenceDPOTrainer(model, args=args, train_dataset=dataset, processing_class=tokenizer)
    # A local path in it is stripped where the record is made.
    scorer = config.scorer.partition(":")[2] or config.scorer
    return OfflineGPOTrainer(model, args, dataset, processing_class=tokenizer, preference_name=scorer)


def _forget_deepspeed(trainer: Any) -> None:
    """Makes room for the next trainer: accelerate knows one set of DeepSpeed's options in a process."""
    if trainer.accelerator.distributed_type == DistributedType.DEEPSPEED:
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


def _rows(rows: Any, config: IterateConfig) -> Dataset:
    """What the trainer reads of scored rows."""
    found = select_rows(rows, config.selection, config.policy_log_probs)
    if config.method not in DPO_METHODS:
        return found
    return found.select_columns([*PAIR, "prompt", *(f"{side}_ids" for side in ("prompt", *PAIR)), "tokenizer_digest"])


def last_whole_checkpoint(folder: str | Path, state: PartialState) -> str | None:
    """
    The last checkpoint that was written to its end; others are removed.

    Args:
        folder: the trainer's.
        state: of the processes: one removes, all get the same answer.

    Raises:
        ValueError: a checkpoint that another number of processes wrote, which is left where it is.
    """
    whole, others = whole_checkpoints(folder)
    for path in whole:
        _check_processes(path, state.num_processes)
    state.wait_for_everyone()
    if state.is_main_process:
        for path, lacks in others.items():
            print(f"{path} is removed, it was not written to its end: {lacks}.", flush=True)
            shutil.rmtree(path)
    state.wait_for_everyone()
    return str(whole[-1]) if whole else None


def _check_processes(checkpoint: Path, processes: int) -> None:
    """
    Raises `ValueError` for a checkpoint of another number of processes: they would share rows, steps and the state of
    the optimizer differently.
    """
    # In which each process keeps the state of its random numbers.
    states = {path.name for path in checkpoint.glob("rng_state*.pth")}
    expected = {"rng_state.pth"} if processes == 1 else {f"rng_state_{rank}.pth" for rank in range(processes)}
    if states != expected:
        raise ValueError(
            f"{checkpoint} was not written by as many processes as there are now, {processes} (it holds "
            f"{', '.join(sorted(states))}): go on with as many as wrote it, or remove that folder to train this "
            "iteration from its beginning."
        )
