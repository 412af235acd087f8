"""Benchmarks of the LM evaluation harness (GSM8K, MMLU, ...) on a policy, run by the package `lm_eval`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers.utils import ADAPTER_CONFIG_NAME, CONFIG_NAME

from gpm_hf.evaluation.benchmarks.optional_packages import import_error
from gpm_hf.evaluation.statistics.bootstrap import MIN_CLUSTERS, Z, wilson_interval
from gpm_hf.modeling import GPMConfig, check_one_model

# Metrics of the harness that are not bounded by 0 and 1; all others whose value lies there are taken for shares.
_PERPLEXITIES = ("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte")
_NO_SHARES = (*_PERPLEXITIES, "likelihood", "bleu", "chrf", "chrf++", "ter", "mcc")


class TaskScore(NamedTuple):
    """
    Attributes:
        name: task, metric and, where there is one, filter: "gsm8k exact_match (strict-match)".
        value: as the harness gives it.
        standard_error: `None` where the harness gives none.
        samples: examples behind it; `None` where the harness does not say.
    """

    name: str
    value: float
    standard_error: float | None
    samples: int | None = None

    @property
    def interval(self) -> list[float] | None:
        """
        95% interval: the normal one, and for a share whose normal one would leave [0, 1] or have no width (none or all
        of the examples right) Wilson's score interval. `None` without a standard error, for fewer than five examples,
        and where no example differs from another and the number of examples would not help.
        """
        if self.standard_error is None or (self.samples is not None and self.samples < MIN_CLUSTERS):
            return None
        low, high = self.value - Z * self.standard_error, self.value + Z * self.standard_error
        if self.standard_error > 0 and (not self._is_share or 0 <= low <= high <= 1):
            return [low, high]
        # Of examples that are right or wrong exactly their number; for other means, and groups of tasks, as many such
        # examples as have the same standard error.
        size = self.value * (1 - self.value) / self.standard_error**2 + 1 if self.standard_error else self.samples
        if size is None or not self._is_share or (not self.standard_error and 0 < self.value < 1):
            return None
        return wilson_interval(self.value, size)

    @property
    def _is_share(self) -> bool:
        return 0 <= self.value <= 1 and self.name.split(" ")[1] not in _NO_SHARES


def model_arguments(model: str) -> dict[str, Any]:
    """
    What the harness's `hf` model is to load.

    Args:
        model: Hub id or folder of a causal language model, or folder of a LoRA adapter of one.

    Raises:
        ValueError: a folder with a preference model, which writes no text, or with the weights of two models.
    """
    folder = Path(model)
    check_one_model(folder, both_formats=True)
    config = _read_json(folder / CONFIG_NAME)
    if config.get("model_type") == GPMConfig.model_type:
        raise ValueError(
            f"{model} holds a preference model, which writes no text: `gpm-hf eval rewardbench` and `gpm-hf eval "
            "pairs` measure it."
        )
    adapter = _read_json(folder / ADAPTER_CONFIG_NAME)
    if adapter:
        return {"pretrained": adapter["base_model_name_or_path"], "peft": model, "tokenizer": model}
    return {"pretrained": model}


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def run_lm_eval(
    model: str, tasks: Sequence[str], include_path: str | None = None, dtype: str = "auto", **options: Any
) -> list[TaskScore]:
    """
    Runs tasks of the harness.

    Args:
        model: see [`model_arguments`].
        tasks: the harness's names, such as "gsm8k" and "mmlu".
        include_path: a folder with task files of your own.
        dtype: "float32", "bfloat16", ...; as saved by default.
        options: of `lm_eval.simple_evaluate`: `num_fewshot`, `batch_size`, `device`, `limit`,
            `apply_chat_template`, ...

    Returns:
        The scores of each task (and group of tasks), in the harness's order; under a launcher on the first process,
        and none on the others.

    Raises:
        ImportError: the package is not installed.
        ValueError: a preference model, or a task that the harness does not know.
    """
    arguments = {**model_arguments(model), "dtype": dtype}
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise import_error(error, "lm_eval", "A task of the LM evaluation harness") from error
    manager = TaskManager(include_path=include_path)
    unknown = sorted(set(tasks) - set(manager.all_tasks))
    if unknown:
        raise ValueError(f"The harness has no task {', '.join(unknown)}: `lm-eval ls tasks` lists them.")
    answer = lm_eval.simple_evaluate(
        model="hf", model_args=arguments, tasks=list(tasks), task_manager=manager, log_samples=False, **options
    )
    if answer is None:
        return []  # under a launcher the first process has the results
    scores = []
    for task, metrics in answer["results"].items():
        for key, value in metrics.items():
            metric, _, kind = key.partition(",")
            # `sample_len` has no kind.
            if not kind or metric.endswith("_stderr") or isinstance(value, str):
                continue
            spread = metrics.get(f"{metric}_stderr,{kind}")
            name = f"{task} {metric}" if kind == "none" else f"{task} {metric} ({kind})"
            deviation = spread if isinstance(spread, float) else None
            scores.append(TaskScore(name, float(value), deviation, metrics.get("sample_len")))
    return scores
