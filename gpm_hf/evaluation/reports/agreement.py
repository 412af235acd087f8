"""How much of one judge another model keeps: its probabilities, its pairs, its cycles and its winners."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gpm_hf.evaluation.benchmarks.ring_accuracy import scalar_ceiling
from gpm_hf.evaluation.statistics.bootstrap import interval_text, share_interval
from gpm_hf.preference import find_cycles
from gpm_hf.tables import markdown_table


class PromptAgreement(NamedTuple):
    """
    One prompt.

    Attributes:
        judged: pairs of which the judge says something.
        cross_entropy: of the model against the judge, summed over these, nats.
        entropy: the judge's own.
        pairs: those of them that the judge decides, P != 1/2.
        pairs_kept: that the model decides in the same way.
        ceiling: the most that one ranking, and so any scalar reward, could; `None` where more than 18 responses beat
            each other in a roundabout way.
        cycles: triples that the judge prefers in a ring.
        cycles_kept: that the model prefers in the same ring.
        model_cycles: triples that the model prefers in any ring.
        winners: 1 where one response beats all others by the judge, else 0.
        winners_kept: whether it does so by the model.
    """

    judged: int
    cross_entropy: float
    entropy: float
    pairs: int
    pairs_kept: int
    ceiling: int | None
    cycles: int
    cycles_kept: int
    model_cycles: int
    winners: int
    winners_kept: int


@dataclass
class Agreement:
    """
    Attributes:
        prompts: one by one.
    """

    prompts: list[PromptAgreement]

    def total(self, name: str) -> float:
        """A count of [`PromptAgreement`], or a sum of nats, over all prompts."""
        return sum(getattr(one, name) for one in self.prompts)

    def share(self, of: str) -> float | None:
        """What is kept of `"pairs"`, `"cycles"` or `"winners"`; `None` where the judge has none."""
        return self.total(f"{of}_kept") / self.total(of) if self.total(of) else None

    def interval(self, of: str) -> tuple[float, float] | None:
        """Its 95% bootstrap interval over prompts, where enough prompts have any."""
        if not self.total(of):
            return None
        kept, total = ([getattr(one, name) for one in self.prompts] for name in (f"{of}_kept", of))
        return share_interval(kept, total)

    @property
    def ceiling(self) -> float | None:
        """The largest share of the pairs that any scalar reward could keep, exactly; `None` where it is not known."""
        known = all(one.ceiling is not None for one in self.prompts)
        return self.total("ceiling") / self.total("pairs") if known and self.total("pairs") else None

    @property
    def cross_entropy(self) -> float:
        """Of the model against the judge, nats a pair."""
        return self.total("cross_entropy") / self.total("judged")

    @property
    def entropy(self) -> float:
        """The judge's own, nats a pair: what no model's cross entropy is below."""
        return self.total("entropy") / self.total("judged")

    def to_dict(self) -> dict[str, Any]:
        """Shares, counts and intervals, for JSON and a card."""
        found: dict[str, Any] = {"prompts": len(self.prompts), "pairs": self.total("pairs")}
        for of in ("pairs", "cycles", "winners"):
            found |= {of: self.total(of), f"{of}_kept": self.share(of)}
            found[f"{of}_kept_interval"] = self.interval(of)
        found |= {"model_cycles": self.total("model_cycles"), "scalar_ceiling": self.ceiling}
        return found | {"cross_entropy": self.cross_entropy, "judge_entropy": self.entropy}


def agreement(judge: Sequence[np.ndarray], model: Sequence[np.ndarray]) -> Agreement:
    """
    Compares a model with the judge that it was to learn from, prompt by prompt.

    Args:
        judge: K x K probabilities that the row's response beats the column's, NaN where it says nothing;
            P + P^T = 1.
        model: K x K log-odds, skew-symmetric.

    Raises:
        ValueError: no prompts, or matrices of different shapes.
    """
    if not judge or [one.shape for one in judge] != [one.shape for one in model]:
        raise ValueError("A judge and a model are compared on the same prompts, at least one, and responses.")
    return Agreement([_compare(*both) for both in zip(judge, model, strict=True)])


def _compare(judge: np.ndarray, model: np.ndarray) -> PromptAgreement:
    upper = np.triu_indices(len(judge), 1)
    said = ~np.isnan(judge[upper])
    labels, log_odds = judge[upper][said], model[upper][said]
    # log(1 + exp(-s)) without an overflow.
    losses = labels * np.logaddexp(0, -log_odds) + (1 - labels) * np.logaddexp(0, log_odds)
    own = -sum(part * np.log(np.where(part > 0, part, 1.0)) for part in (labels, 1 - labels))
    leans = np.nan_to_num(judge - 0.5)
    edges = [(int(i), int(j)) for i, j in zip(*np.nonzero(leans > 0))]
    wins = model > 0
    rings = [cycle.members for cycle in find_cycles(leans)]
    best = [i for i in range(len(judge)) if (np.delete(leans[i], i) > 0).all()]
    return PromptAgreement(
        judged=int(said.sum()),
        cross_entropy=float(losses.sum()),
        entropy=float(own.sum()),
        pairs=len(edges),
        pairs_kept=sum(bool(wins[edge]) for edge in edges),
        ceiling=_ceiling(edges),
        cycles=len(rings),
        cycles_kept=sum(bool(wins[i, j] and wins[j, k] and wins[k, i]) for i, j, k in rings),
        model_cycles=len(find_cycles(model)),
        winners=len(best),
        winners_kept=sum(bool(np.delete(wins[i], i).all()) for i in best),
    )


def _ceiling(edges: list[tuple[int, int]]) -> int | None:
    if not edges:
        return 0
    try:
        return scalar_ceiling(edges)
    except ValueError:  # too many responses for an exact one
        return None


def agreement_table(results: Mapping[str, Agreement]) -> str:
    """A Markdown table with a row per model, and the ceiling of any scalar reward below."""
    rows = []
    for name, one in results.items():
        shares = [
            "-" if share is None else f"{share:.1%}{interval_text(one.interval(of))}"
            for of in ("pairs", "cycles", "winners")
            for share in [one.share(of)]
        ]
        rows.append([name, *shares, f"{one.cross_entropy:.4f}", f"{one.cross_entropy - one.entropy:.4f}"])
    first = next(iter(results.values()))
    rows.append(["the judge itself", "100.0%", *(["100.0%"] * 2), f"{first.entropy:.4f}", "0.0000"])
    if first.ceiling is not None:
        rows.append(["ceiling of any scalar reward", f"{first.ceiling:.1%}", "0.0%" if first.total("cycles") else "-"])
        rows[-1] += ["", "", ""]
    header = ["model", "pairs kept", "cycles kept", "winners kept", "cross entropy", "above the judge's entropy"]
    return markdown_table(header, rows)
