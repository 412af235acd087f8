"""
Advantages by blocks of a general preference model, after General Preference Reinforcement Learning (GPRL,
arXiv:2605.18721): no block outweighs another by its size, and one that runs away is noticed.

With B^l_ij = <v_i, R v_j>_l / tau the log-odds of block l, so that S_ij = sum_l lambda_l(x) B^l_ij, and K responses to
one prompt x:

| what | formula | unit |
|---|---|---|
| a block's mean score | b^l_i = 1/K sum_j B^l_ij | log-odds |
| normalised in the group | A^l_i = (b^l_i - mean_i b^l) / (std_i b^l + 1e-4) | standard deviations |
| together | A_i = sum_l m_l lambda_l A^l_i / sum_l lambda_l | standard deviations |
| a block's share | a_l = V_l / sum_l V_l, V_l = mean over prompts of var_i(lambda_l b^l_i) | of 1 |
| drift | D = sum_l a_l log(a_l / a_l at the start) | nats |

The first three rows are GPRL's, with std that of GRPO (K - 1 in its denominator): a model of one block has the
advantages of GRPO with `scale_rewards="group"`. Where scales do not sum to 1 (no gate, softplus, a reward head) they
are divided by their sum. That the shares of variance are compared with those of the start by a divergence, and that
too large a drift lowers the weights m_l and tightens the trust region, is GPRL's too; its constants, its rule for m_l
and what exactly its shares are of are in no public code, so V_l and the rule are ours, see [`BlockMonitor`].
"""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from typing_extensions import override

from gpm_hf.files import written_whole
from gpm_hf.news import get_logger
from gpm_hf.scoring import BlockScorer
from gpm_hf.training.losses import gpo_targets, group_mean_scores, less_log_z, opponent_mean_scores
from gpm_hf.training.preference_signal import PreferenceSignal, ResponseSignal
from gpm_hf.training.publishing_mixin import PublishingMixin

logger = get_logger(__name__)

MONITORS = ("log", "reweigh", "stop")
MONITOR_FILE = "block_monitor.json"
# As GRPO has it, in the unit of what is divided.
_EPSILON = 1e-4
# A share below it counts as it: the drift of a block that said nothing at the start is not infinite.
_LEAST_SHARE = 1e-3
_LEAST_WEIGHT = 1e-6


def block_means(blocks: torch.Tensor, against: int | None = None) -> torch.Tensor:
    """
    b^l_i, in log-odds.

    Args:
        blocks: B^l of one group, shape (k, n, n); rows and columns of unscorable responses NaN.
        against: K, where the responses after the first K are an opponent's, whom those are scored against.

    Returns:
        Shape (k, n), or (k, K); NaN for an unscorable response, and where it has none to be compared with.
    """
    if against is not None:
        return opponent_mean_scores(blocks[:, :against, against:])
    return torch.stack([group_mean_scores(one) for one in blocks])


def block_advantages(means: torch.Tensor, scales: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """
    A_i, in standard deviations, of one group.

    Args:
        means: b^l_i of [`block_means`], shape (k, K).
        scales: lambda, shape (k,).
        weights: m, shape (k,); ones by default.

    Returns:
        Shape (K,): NaN for an unscorable response; 0 for the only scorable one.
    """
    scorable = ~means[0].isnan()
    found = torch.full_like(means[0], torch.nan)
    kept = means[:, scorable]
    if kept.shape[1]:
        off = kept - kept.mean(-1, keepdim=True)
        deviation = kept.std(-1, keepdim=True) if kept.shape[1] > 1 else torch.zeros_like(kept)
        shares = scales / scales.sum() * (1 if weights is None else weights)
        found[scorable] = (shares[:, None] * off / (deviation + _EPSILON)).sum(0)
    return found


def block_variances(means: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """var_i(lambda_l b^l_i) in one group, log-odds squared, shape (k,); 0 for fewer than two scorable responses."""
    kept = means[:, ~means[0].isnan()]
    if kept.shape[1] < 2:
        return torch.zeros_like(scales)
    return (scales[:, None] * kept).var(-1)


@dataclass
class BlockMonitor:
    """
    Watches the blocks' shares, of all prompts of a round.

    V_l is averaged over the first `rounds` rounds for the start, and from then on exponentially over as many. While
    the drift D exceeds `max_drift`, `"reweigh"` multiplies the m_l of every block whose share has grown by
    `a_l at the start / a_l` each round, and divides advantages by D / max_drift, which is a trust region that much
    tighter (`gpo_beta` that much larger). Below it the weights come back: each m_l is raised to the power
    1 - 1 / rounds. `"stop"` ends the training; `"log"` does neither.

    Attributes:
        action: one of [`MONITORS`].
        max_drift: nats.
        rounds: see above.
        seen: rounds so far.
        start, present: averaged V_l, log-odds squared.
        weights: m_l.
        drift: D of the last round, nats; 0 during the first `rounds`.
    """

    action: str = "log"
    max_drift: float = 0.1
    rounds: int = 10
    seen: int = 0
    start: list[float] = field(default_factory=list)
    present: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    drift: float = 0.0

    def __post_init__(self):
        if self.action not in MONITORS:
            raise ValueError(f"The monitor of blocks {self.action!r} is unknown: choose one of {MONITORS}.")
        if not self.max_drift > 0 or self.rounds < 1:
            raise ValueError(
                f"A drift of {self.max_drift} nats over {self.rounds} rounds cannot be watched: the first is above 0, "
                "the second at least 1."
            )

    @property
    def has_run_away(self) -> bool:
        """Whether the shares are further from the start's than they may be."""
        return self.drift > self.max_drift

    @property
    def shares(self) -> list[float]:
        """a_l."""
        return _shares(self.present)

    @property
    def tightening(self) -> float:
        """By what advantages are divided: 1, or D / max_drift where that is more and the monitor reweighs."""
        return max(1.0, self.drift / self.max_drift) if self.action == "reweigh" else 1.0

    def update(self, variances: torch.Tensor) -> None:
        """Takes in a round: V_l, shape (k,), the same on every process."""
        new = variances.tolist()
        self.weights = self.weights or [1.0] * len(new)
        self.seen += 1
        if self.seen <= self.rounds:
            old = self.start or [0.0] * len(new)
            self.start = [a + (b - a) / self.seen for a, b in zip(old, new, strict=True)]
            self.present = list(self.start)
            return
        self.present = [a + (b - a) / self.rounds for a, b in zip(self.present, new, strict=True)]
        had_run_away = self.has_run_away
        start, present = _shares(self.start), _shares(self.present)
        self.drift = sum(b * math.log(b / a) for a, b in zip(start, present))
        if self.has_run_away and not had_run_away:
            grown = max(range(len(start)), key=lambda one: present[one] / start[one])
            logger.warning(
                f"Block {grown} of the preference model runs away: its share of the scores' variance was "
                f"{start[grown]:.1%} and is {present[grown]:.1%}, a drift of {self.drift:.3f} nats."
            )
        if self.action == "reweigh":
            self.weights = [
                max(m * min(1.0, a / b), _LEAST_WEIGHT) if self.has_run_away else m ** (1 - 1 / self.rounds)
                for m, a, b in zip(self.weights, start, present)
            ]

    def numbers(self) -> dict[str, float]:
        """For a log."""
        found = {"block_drift": self.drift}
        for number, (share, weight) in enumerate(zip(self.shares, self.weights)):
            found |= {f"block_share_{number}": share, f"block_weight_{number}": weight}
        return found

    def save(self, path: Path) -> None:
        """Writes all of it, JSON."""
        with written_whole(path) as file:
            json.dump(asdict(self), file)

    def load(self, path: Path) -> None:
        """Goes on from what [`~BlockMonitor.save`] wrote; options stay as they are here."""
        kept = json.loads(path.read_text(encoding="utf-8"))
        for name in ("seen", "start", "present", "weights", "drift"):
            setattr(self, name, kept[name])


class BlockSignal(ResponseSignal):
    """A general preference model's signal, of which the blocks of the last call stay here."""

    scorer: BlockScorer

    def __init__(self, signal: PreferenceSignal, monitor: BlockMonitor):
        """
        Args:
            signal: of a scorer with blocks.

        Raises:
            ValueError: another one.
        """
        if not isinstance(signal.scorer, BlockScorer):
            raise ValueError(
                f"Advantages by blocks need the blocks of a general preference model (gpm:NAME), and "
                f"{signal.scorer.name} gives whole matrices alone: leave `block_advantages` out."
            )
        super().__init__(signal.scorer)
        self.monitor = monitor
        self.blocks: list[tuple[torch.Tensor, torch.Tensor]] = []

    @override
    def __call__(self, prompts: list, completions: list, groups: list[list[int]]) -> list[torch.Tensor]:
        self.blocks = []
        return super().__call__(prompts, completions, groups)

    @override
    def _matrix(self, number: int, rows: torch.Tensor) -> torch.Tensor:
        scorable = ~rows.isnan().any(-1)
        if bool(scorable.any()):
            found, scales = self.scorer.block_matrices(rows[scorable])
            blocks = torch.full((len(scales), len(rows), len(rows)), torch.nan, dtype=found.dtype, device=rows.device)
            blocks[:, scorable[:, None] & scorable] = found.flatten(1)
        else:
            count = self.scorer.block_count
            blocks = torch.full((count, len(rows), len(rows)), torch.nan, device=rows.device)
            scales = torch.ones(count, device=rows.device)
        self.blocks.append((blocks, scales))
        return super()._matrix(number, rows)

    def advantages(self, against: int | None = None, watch: bool = True) -> list[torch.Tensor]:
        """
        A_i of each group of the last call, shape (K,), with the weights that the monitor gives.

        Args:
            against: see [`block_means`].
            watch: whether this is a round of the training, which the monitor takes in first.
        """
        means = [block_means(blocks, against) for blocks, _ in self.blocks]
        scales = [one for _, one in self.blocks]
        if watch:
            self.monitor.update(torch.stack([block_variances(*one) for one in zip(means, scales)]).mean(0))
        weights = self.monitor.weights or [1.0] * len(scales[0])
        return [
            block_advantages(mean, scale, torch.tensor(weights).to(mean)) / self.monitor.tightening
            for mean, scale in zip(means, scales)
        ]


def with_blocks(args: Any, signal: PreferenceSignal | None, others: bool) -> BlockSignal:
    """
    The signal of an [`~gpm_hf.OnlineGPOConfig`] with `block_advantages`.

    Args:
        args: it.
        signal: of the preference model, where there is one.
        others: whether there are rewards beside it.

    Raises:
        ValueError: no preference model; rewards beside it, which are no blocks; and as [`BlockSignal`].
    """
    if signal is None or others:
        raise ValueError(
            "`block_advantages` put together the blocks of one preference model: give a `preference_model`, and no "
            "rewards beside it, or leave `block_advantages` out."
        )
    return BlockSignal(signal, BlockMonitor(args.block_monitor, args.block_drift_max, args.block_drift_rounds))


class StopAtDrift(TrainerCallback):
    """Ends a training whose monitor says `"stop"`, after the step in which a block has run away."""

    def __init__(self, monitor: BlockMonitor):
        self.monitor = monitor

    @override
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.monitor.has_run_away:
            control.should_training_stop = True


class BlockAdvantagesMixin(PublishingMixin):
    """What advantages by blocks add to an [`~gpm_hf.OnlineGPOTrainer`] whose signal is a [`BlockSignal`]."""

    args: Any
    preference_signal: PreferenceSignal | None
    _metrics: Any

    def stop_at_drift(self) -> None:
        """Ends the training where the monitor says so."""
        if isinstance(self.preference_signal, BlockSignal) and self.preference_signal.monitor.action == "stop":
            self.add_callback(StopAtDrift(self.preference_signal.monitor))

    def targets_of(self, scores: torch.Tensor, against: str, mode: str) -> torch.Tensor:
        """
        Targets of the groups that were scored last, shape (G, K): mean log-odds, or advantages by blocks (standard
        deviations), of which the monitor's numbers are logged.

        Args:
            scores, against: as in [`gpo_targets`].
            mode: "train", a round that the monitor takes in, or "eval".
        """
        args, signal = self.args, self.preference_signal
        if not isinstance(signal, BlockSignal):
            return gpo_targets(scores, args.gpo_beta, args.loss_type, args.log_z, args.include_self, against)
        opponent_from = scores.shape[1] if against == "opponent" else None
        targets = torch.stack(signal.advantages(opponent_from, watch=mode == "train"))
        for name, value in signal.monitor.numbers().items():
            self._metrics[mode][f"gpo/{name}"].append(value)
        return less_log_z(targets, args.gpo_beta) if args.log_z == "group" else targets

    @override
    def write_beside_state(self, folder):
        super().write_beside_state(folder)
        if isinstance(self.preference_signal, BlockSignal):
            self.preference_signal.monitor.save(folder / MONITOR_FILE)

    @override
    def check_checkpoint(self, folder):
        super().check_checkpoint(folder)
        if isinstance(self.preference_signal, BlockSignal):
            path = folder / MONITOR_FILE
            if not path.is_file():
                raise ValueError(
                    f"{folder} holds no shares of blocks ({path.name}), so that no drift could be told: its run had "
                    "no `block_advantages`. Go on without, or train from the beginning."
                )
            self.preference_signal.monitor.load(path)


def _shares(variances: list[float]) -> list[float]:
    total = sum(variances)
    found = [max(one / total if total else 1.0, _LEAST_SHARE) for one in variances]
    return [one / sum(found) for one in found]
