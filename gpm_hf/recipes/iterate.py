"""
Iterative alignment, the pipeline of the paper's table 3: the policy answers prompts K times, a preference model scores
the answers against each other, the policy learns from it, and the next iteration starts from what it has become.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accelerate import PartialState

from gpm_hf.data.policy_data import rows_to_score
from gpm_hf.data.sampled_ids import ID_COLUMNS
from gpm_hf.data.scored_rows import score_columns
from gpm_hf.files import written_whole
from gpm_hf.generation import check_prompts, read_prompts, shard_seed
from gpm_hf.locks import only_run
from gpm_hf.preference import select
from gpm_hf.recipes.iterate_config import IterateConfig
from gpm_hf.recipes.iterate_settings import check_settings, check_training_options
from gpm_hf.recipes.iterate_training import check_training, train_policy
from gpm_hf.recipes.policies import check_readable, free_memory, load_placed_scorer, load_sampler
from gpm_hf.scoring import load_tokenizer, whole_models
from gpm_hf.scoring.streaming import score_stream
from gpm_hf.shards import map_in_shards, written_rows
from gpm_hf.training import OfflineGPOConfig


def run_iterate(config: IterateConfig, training: OfflineGPOConfig) -> Path:
    """
    Aligns a policy in several iterations.

    Every stage writes its result whole, in `output/iteration-T/`: `samples.jsonl` (`prompt`, `responses`, the token
    ids that were sampled and their log-probabilities; see [`gpm_hf.data.sampled_ids`]), then `scored.jsonl` (also
    `scores`, K x K log-odds, and `mean_scores`; see [`gpm_hf.data.policy_data`]), then `policy/`, trained on these
    ids. What is there is not made again, so a job that was killed goes on: sampling and scoring after the last
    finished shard, training from its last checkpoint. Under a launcher the processes share all of it.

    Args:
        config: what is sampled, scored and learned from.
        training: how the policy is trained. Its `seed` is also that of the samples; its `output_dir` is not used.

    Returns:
        The folder of the last iteration's policy.

    Raises:
        ValueError: another run is writing to this folder, impossible options, too few prompts, a prompt that cannot be
            put to the policy (the message names its row) or that the scorer cannot read, a scorer that cannot be
            loaded, options that the trainer or its optimizer refuses, something in the same folder made with other
            settings (it names the difference), or samples there that an earlier version made without their ids. All
            of these before the first sample.
    """
    check_training_options(config, training)
    # Connects the processes, or says that this is the only one: everything below asks for it.
    training.device  # noqa: B018
    with only_run(config.output):
        output = Path(config.output)
        check_settings(config, training)
        prompts = _prompts(config, training, output)
        _check_scorer(config, prompts, output)
        if not (output / "iteration-1" / "scored.jsonl").exists():
            check_training(config, training, _slice(config, prompts, 1))
        free_memory()
        policy = config.policy
        for iteration in range(1, config.iterations + 1):
            folder = output / f"iteration-{iteration}"
            say = _Herald(iteration, config.iterations)
            if (folder / "policy").is_dir():
                say("done already")
            else:
                _check_samples_have_ids(folder)
                _sample(config, training, policy, prompts, iteration, say)
                free_memory()
                _score(config, folder, say)
                free_memory()
                say(f"training by {config.method}, selection {config.selection}")
                train_policy(config, training, policy, iteration, folder)
                free_memory()
                say(f"policy in {folder / 'policy'}")
            _tidy(folder)
            policy = str(folder / "policy")
        return Path(policy)


class _Herald:
    """Says how far the job is, once and not by every process."""

    def __init__(self, iteration: int, iterations: int):
        self.beginning = f"Iteration {iteration}/{iterations}"

    def __call__(self, text: str) -> None:
        PartialState().print(f"{self.beginning}: {text}.", flush=True)


def _prompts(config: IterateConfig, training: OfflineGPOConfig, output: Path) -> list[Any]:
    """All prompts that can be answered, in their order; read again only by one process, and once for a job."""
    path = output / "prompts.jsonl"
    state = PartialState()
    if state.is_main_process and not path.exists():
        prompts = read_prompts(config.prompts, config.prompts_split)
        revision = {name: value for name, value in model_options(training, 1).items() if name == "revision"}
        tokenizer = load_tokenizer(config.policy, **revision)
        lengths = check_prompts(tokenizer, prompts, config.prompts)
        if config.max_prompt_length is not None:
            kept = [one for one, length in zip(prompts, lengths) if length <= config.max_prompt_length]
            print(f"{len(prompts) - len(kept)} of {len(prompts)} prompts are over {config.max_prompt_length} tokens.")
            prompts = kept
        _check_number_of_prompts(config, len(prompts))
        with written_whole(path) as file:
            file.writelines(json.dumps({"prompt": prompt}, ensure_ascii=False) + "\n" for prompt in prompts)
    state.wait_for_everyone()
    prompts = [row["prompt"] for row in written_rows(path)]
    _check_number_of_prompts(config, len(prompts))
    return prompts


def _check_scorer(config: IterateConfig, prompts: list[Any], output: Path) -> None:
    """Loads the scorer once before anything is sampled for it, and shows it every prompt."""
    if (output / "iteration-1" / "samples.jsonl").exists():
        return
    if config.selection == "von_neumann":
        select([[0.0, 1.0], [-1.0, 0.0]], "von_neumann")  # says what it needs where that is not installed
    with whole_models():
        scorer = load_placed_scorer(config.scorer, config.scoring_batch_size)
        check_readable(scorer, prompts, f"{config.output}/prompts.jsonl")


def _check_number_of_prompts(config: IterateConfig, count: int) -> None:
    size = config.prompts_per_iteration
    if count == 0:
        raise ValueError(f"All prompts are over max_prompt_length={config.max_prompt_length} tokens: raise it.")
    if size is not None and size * config.iterations > count:
        raise ValueError(
            f"{config.iterations} iterations of prompts_per_iteration={size} need {config.iterations * size} prompts, "
            f"and there are {count}. Lower it, or leave it out: then each iteration takes all."
        )


def _slice(config: IterateConfig, prompts: list[Any], iteration: int) -> list[Any]:
    size = config.prompts_per_iteration
    return prompts if size is None else prompts[(iteration - 1) * size : iteration * size]


def _sample(
    config: IterateConfig, training: OfflineGPOConfig, policy: str, prompts: list[Any], iteration: int, say: _Herald
) -> None:
    path = Path(config.output, f"iteration-{iteration}", "samples.jsonl")
    if path.exists():
        return
    own = _slice(config, prompts, iteration)
    say(f"sampling {config.num_generations} answers to each of {len(own)} prompts")
    load_options = model_options(training, iteration)
    # For training only.
    load_options.pop("dtype", None)
    with whole_models():
        sampler = load_sampler(
            policy,
            config.sampling_options(),
            config.generation_dtype,
            config.use_vllm,
            config.engine_options(),
            **load_options,
        )

        if iteration == 1:
            # Those of later iterations too.
            sampler.check(prompts, f"{config.output}/prompts.jsonl")

        def answer(number: int, shard: list[dict]) -> Iterator[dict]:
            groups = sampler.sample([row["prompt"] for row in shard], shard_seed(training.seed, iteration, number))
            for row, group in zip(shard, groups):
                yield row | group.columns()

        # What else it depends on is in the job's own settings.
        settings = {"columns": list(ID_COLUMNS)}
        map_in_shards(({"prompt": prompt} for prompt in own), answer, path, settings, config.shard_size)


def _check_samples_have_ids(folder: Path) -> None:
    """Raises `ValueError` for samples of an earlier version, whose texts alone do not say what was sampled."""
    for path in (folder / "scored.jsonl", folder / "samples.jsonl"):
        if path.exists():
            missing = [column for column in ID_COLUMNS if column not in next(written_rows(path), {})]
            if missing:
                raise ValueError(
                    f"{path} was made by an earlier version, without {', '.join(missing)}: what was sampled, and is "
                    "to be trained, is not known. Remove its folder to sample again, or name another output."
                )


def _score(config: IterateConfig, folder: Path, say: _Herald) -> None:
    path = folder / "scored.jsonl"
    if path.exists():
        return
    say(f"scoring by {config.scorer}")

    def named(place: int, row: dict[str, Any]) -> str:
        return f"The prompt {row['prompt']!r}"

    skipped: Counter = Counter()
    rows = (row for _, row in rows_to_score(written_rows(folder / "samples.jsonl"), skipped))
    with whole_models():
        scorer = load_placed_scorer(config.scorer, config.scoring_batch_size)
        score_stream(
            rows,
            scorer,
            lambda row, scores: score_columns(named(0, row), scores, len(row["responses"])),
            path,
            {},
            config.shard_size,
            name=named,
        )
    if skipped := +skipped:
        say("left out " + ", ".join(f"{number} {reason}" for reason, number in sorted(skipped.items())))


def _tidy(folder: Path) -> None:
    """Removes the training's checkpoints, and what a kill may have left beside the results."""
    if PartialState().is_main_process:
        for path in (folder / "training", *folder.glob(".*")):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def model_options(training: OfflineGPOConfig, iteration: int) -> dict[str, Any]:
    """What `model_init_kwargs` says for an iteration's policy: a revision is of the one on the Hub, the first."""
    options = dict(training.model_init_kwargs or {})
    if iteration > 1:
        options.pop("revision", None)
    return options
