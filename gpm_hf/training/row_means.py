"""Means of trainers as means over rows, and metrics of evaluations under the evaluation's own name."""

from collections import defaultdict
from typing import Any

import torch
from accelerate.utils import pad_across_processes
from datasets import Dataset
from transformers import Trainer
from typing_extensions import override

# Which rows of a batch count: those that accelerate did not repeat to fill it up.
COUNTED = "counted"
# Sampling strategies that read the rows' lengths.
BY_LENGTH = ("group_by_length", "batch_rebalance")
NO_SEARCH = (
    "This trainer settles much with its first model (heads, data, adapters), so it cannot exchange it from trial to "
    "trial. Make a trainer for each: optuna and Ray Tune take a function that builds one, trains it and returns "
    '`trainer.evaluate()["eval_loss"]`.'
)


def fetch_own_batches(args: Any) -> None:
    """
    Makes each process of a trainer read its own batches, of a stream too.

    Args:
        args: the trainer's; `accelerator_config.dispatch_batches` is set.

    Raises:
        ValueError: `dispatch_batches=True`, which cuts batches between any two rows of their tensors.
    """
    if args.accelerator_config.dispatch_batches:
        raise ValueError(
            "dispatch_batches=True cuts a batch between the rows of its tensors, of which one row of the data has "
            "several. Leave it unset."
        )
    args.accelerator_config.dispatch_batches = False


class NamedEvaluationsMixin(Trainer):
    """
    Metrics of an evaluation bear its name, `eval_a_accuracy` for the data set `a` or `test_accuracy` for
    `metric_key_prefix="test"`, so `metric_for_best_model` and the card find them. TRL calls all of them `eval_...`.
    """

    model: Any
    _metrics: Any

    @override
    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ):
        """As the parent's, with the means of what the evaluation recorded among its metrics."""
        recorded = self._metrics["eval"]
        recorded.clear()
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        means = self.means_of(recorded)
        metrics: Any = output.metrics
        metrics.update({f"{metric_key_prefix}_{name}": mean for name, mean in means.items()})
        recorded.clear()  # or `log` would add them once more
        return output

    @override
    def hyperparameter_search(self, *arguments, **options):
        """Refused: see the message."""
        raise NotImplementedError(f"hyperparameter_search is not offered. {NO_SEARCH}")

    def means_of(self, recorded: dict[str, list[float]]) -> dict[str, float | None]:
        """What is logged of the values that an evaluation recorded under each name."""
        return {name: sum(values) / len(values) for name, values in recorded.items()}


class CompletionMeansMixin(NamedEvaluationsMixin):
    """
    Means of GRPO's evaluations: a batch weighs as the completions in it, or as the tokens or completions that a metric
    counts. Training batches are all of one size. (Where prompts do not divide evenly among processes, accelerate
    evaluates some twice.)
    """

    # How much the batches of the running evaluation weigh; under "" by their completions.
    _weights: dict[str, list[float]]

    @override
    def evaluation_loop(self, *arguments, **options):
        """As the parent's, batches weighed."""
        self._weights = defaultdict(list)
        return super().evaluation_loop(*arguments, **options)

    @override
    def prediction_step(self, model, inputs, *arguments, **options):
        """As the parent's, with the size of the batch taken down."""
        self._weights[""].append(len(inputs))
        return super().prediction_step(model, inputs, *arguments, **options)

    def log_mean(self, mode: str, name: str, values: torch.Tensor, mask: torch.Tensor) -> None:
        """Logs the mean of the values under the mask, over all processes."""
        total = torch.stack([values.detach().masked_fill(mask == 0, 0.0).sum(), mask.sum().float()])
        total = self.accelerator.reduce(total, reduction="sum")
        self._metrics[mode][name].append((total[0] / total[1].clamp(min=1.0)).item())
        if mode == "eval":
            self._weights[name].append(total[1].item())

    @override
    def means_of(self, recorded):
        """A NaN is what was undefined in a batch, and `None` what was undefined in all."""
        means: dict[str, float | None] = {}
        for name, values in recorded.items():
            weights = self._weights.get(name, self._weights[""])
            if len(values) != len(weights):  # of what is measured now and then
                weights = [1.0] * len(values)
            pairs = [(value, weight) for value, weight in zip(values, weights) if value == value and weight > 0]
            total = sum(weight for _, weight in pairs)
            means[name] = sum(value * weight for value, weight in pairs) / total if pairs else None
        return means


class RowMeansMixin(NamedEvaluationsMixin):
    """
    Loss, gradient and metrics are means over the rows of an optimizer step or of an evaluation, whatever the sizes of
    its batches, on one process or several.

    transformers takes the mean over micro-batches of their means, so rows of a small last one weigh more; and where
    rows do not divide evenly among processes accelerate repeats the first ones. Here each batch is told which of its
    rows count. For a stream, whose rows are not known beforehand, repeated rows count.
    """

    _tp_size: int
    loss_is_scaled_for_ga: Any = True  # by the number of rows of the whole step, see `mean_over_rows`

    def rows_in(self, batch: dict[str, Any]) -> int:
        """The number of rows that a batch was made of."""
        raise NotImplementedError

    def weight_of(self, batch: dict[str, Any]) -> torch.Tensor:
        """How much a batch counts in a mean: the number of its rows that count."""
        return batch[COUNTED].sum()

    @override
    def _get_num_items_in_batch(self, batch_samples, device):
        """Rows of an optimizer step (or of one batch of an evaluation) on all processes, by [`weight_of`]."""
        for batch in batch_samples:
            batch[COUNTED] = torch.ones(self.rows_in(batch), dtype=torch.bool, device=device)
        # Batches are fetched ahead: only the last of them can be the data set's last.
        if batch_samples and self.accelerator.gradient_state.end_of_dataloader:
            counted = batch_samples[-1][COUNTED]
            counted[self._rows_before_repeats(len(counted)) :] = False
        rows = torch.tensor(sum(self.weight_of(batch).item() for batch in batch_samples), device=device)
        return self.accelerator.gather(rows).sum()

    def _rows_before_repeats(self, size: int) -> int:
        """How many of the `size` rows of this process's last batch are no repetitions."""
        processes = self.accelerator.num_processes // self._tp_size
        dataset = self.accelerator.gradient_state.active_dataloader.dataset
        fills_up = self.accelerator.even_batches and not self.args.dataloader_drop_last
        if processes == 1 or not fills_up or not isinstance(dataset, Dataset) or self._is_rebalanced:
            return size
        # Rows lie process by process, and the repeated ones come last.
        rest = len(dataset) % (size * processes) or size * processes
        return min(max(rest - size * (self.accelerator.process_index // self._tp_size), 0), size)

    @property
    def _is_rebalanced(self) -> bool:
        """Whether batches are of any size on any process, those of `batch_rebalance` or of a number of tokens."""
        return self.model.training and self._batches_differ

    @property
    def _batches_differ(self) -> bool:
        return self.args.train_sampling_strategy == "batch_rebalance"

    @override
    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """As the parent's, of a batch that knows which of its rows count."""
        self._get_num_items_in_batch([inputs], self.args.device)
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)

    def mean_over_rows(self, losses: torch.Tensor, weights: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
        """
        A batch's part of the step's mean.

        Args:
            losses: one per row, shape (B,).
            weights: how much each counts, or whether, shape (B,).
            rows: the sum of the weights of the whole step, on all processes; `None` for a batch on its own.
        """
        if rows is None:
            return (losses * weights).sum() / weights.sum()
        # Gradients are averaged over processes. A row that does not count has a zero gradient, not none: every
        # process needs all of its gradients.
        return (losses * weights).sum() * self.accelerator.num_processes / rows

    def gather_rows(self, values: torch.Tensor, counted: torch.Tensor, ragged: bool = False) -> torch.Tensor:
        """The values (B, ...) of all rows that count, of all processes (`ragged`: of any B on each), in float32."""
        if self.accelerator.num_processes == 1:
            return values[counted].float()
        both = torch.cat([counted[:, None], values.reshape(len(values), -1)], 1).float()
        if ragged or self._is_rebalanced:
            both = pad_across_processes(both)
        both = self.accelerator.gather(both)
        return both[both[:, 0] > 0][:, 1:].reshape(-1, *values.shape[1:])
