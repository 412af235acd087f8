"""What [`GPMRewardTrainer`] logs of pairs, and of groups as wholes."""

from collections.abc import Mapping

import torch
from typing_extensions import override

from gpm_hf.data.preference_rows import IDENTICAL
from gpm_hf.training.group_batches import BatchPairs, whole_groups
from gpm_hf.training.losses import label_sides
from gpm_hf.training.row_means import RowMeansMixin

# Recorded in evaluations beside each pair's weighted loss.
_LOSS_WEIGHT = "loss_weight"


class PairMetricsMixin(RowMeansMixin):
    """Metrics of pairs and groups; their meaning is said at [`GPMRewardTrainer`]."""

    _train_counts: dict[str, int] | None
    _total_train_tokens: int

    def record_pairs(
        self,
        mode: str,
        labels: Mapping[str, torch.Tensor],
        pairs: BatchPairs,
        counted_rows: torch.Tensor,
        weights: torch.Tensor,
        losses: torch.Tensor,
        log_odds: torch.Tensor,
        reversed_log_odds: torch.Tensor,
    ) -> None:
        """
        Adds one value per pair, so that the logged means are exact whatever the sizes of the batches.

        Args:
            mode: "train" or "eval".
            labels: of the P pairs, as collated.
            pairs: where they are.
            counted_rows: which of the G data rows count, shape (G,).
            weights: how much each pair counts in the loss, shape (P,).
            losses, log_odds, reversed_log_odds: of the pairs, shape (P,) each.
        """
        metrics = self._metrics[mode]
        metrics["num_tokens"] = [self._total_train_tokens]
        sides = label_sides(labels, self.args.loss_type, log_odds)
        identical = labels.get(IDENTICAL, torch.zeros_like(sides))
        skew = (log_odds + reversed_log_odds).abs()
        if pairs.are_grouped:
            whole = whole_groups(pairs, sides * (identical == 0), log_odds * sides)
            for right, is_cyclic, decided in self.gather_rows(whole, counted_rows).tolist():
                if decided:
                    metrics["groups_right"].append(right)
                if decided and is_cyclic:
                    metrics["cycles_right"].append(right)
        # In the direction that the label prefers.
        values = torch.stack([losses * weights, weights, sides, identical, log_odds * sides, log_odds, skew], 1)
        counted = counted_rows.repeat_interleave(pairs.counts)
        values = self.gather_rows(values, counted, ragged=pairs.are_grouped)
        losses, weights, sides, identical, log_odds, margins, skew = values.unbind(1)
        metrics["skew_error"] = [max([*metrics["skew_error"], *skew.tolist()])]
        if mode == "train":  # its loss is logged by the parent
            metrics.update({name: [count] for name, count in (self._train_counts or {}).items()})
        else:
            metrics["loss"].extend(losses.tolist())
            metrics[_LOSS_WEIGHT].extend(weights.tolist())
            for name, left_out in (("identical_pairs", identical), ("undecided_labels", sides == 0)):
                if left_out.any():
                    metrics[name] = [sum(metrics[name]) + int(left_out.sum())]
        # TRL's, which does not ask which response the label prefers.
        metrics["margin"].extend(margins.tolist())
        log_odds = log_odds[(sides != 0) & (identical == 0)]
        if len(log_odds):
            metrics["accuracy"].extend((log_odds > 0).float().tolist())
            metrics["mean_probability"].extend(log_odds.sigmoid().tolist())
            metrics["mean_log_odds"].extend(log_odds.tolist())

    @override
    def means_of(self, recorded):
        """As the parent's; the loss is a mean by the pairs' weights."""
        means = super().means_of(recorded)
        weight = means.pop(_LOSS_WEIGHT, None)
        loss = means.get("loss")
        if weight and loss is not None:
            means["loss"] = loss / weight
        return means
