"""What votes say: who is better, by which model, and whether cycles are real."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gpm_hf.tables import markdown_table

from .blocks import BlockFit
from .bradley_terry import BradleyTerryFit, fit_bradley_terry
from .graph import comparability
from .held_out import MODELS, Comparison, Fit, compare_models, fit_model
from .intervals import mean_score_intervals, rating_intervals
from .null import CycleTest, UntestableVotes, cycle_test
from .power import Power, cycle_power
from .votes import Votes

# Of ratings that were not chosen by cross-validation: a normal prior of standard deviation 3.
_WEAK_RIDGE = 1 / 9
_FOLDS = 5
# Each resample of a model with blocks is fitted anew.
_MOST_REFITTED = 200


@dataclass(frozen=True)
class RatingsReport:
    """
    Attributes:
        votes: as they were read.
        ties: how ties were modelled, see [`gpm_hf.ratings.bradley_terry.fit_bradley_terry`].
        undetermined: sentences on what the votes leave open, see [`gpm_hf.ratings.graph.comparability`].
        rating: Bradley-Terry.
        intervals: of its ratings, shape (N, 2), or `None`.
        mean_intervals: of the mean scores by the best model, where that has blocks and items are at most 200, shape
            (N, 2); `None` elsewhere.
        comparisons: by what was held out; empty where there is not enough, or responses compete within prompts.
        fits: the models of the comparison, fitted to all votes.
        cycles: `None` where nothing can be told.
        power: `None` likewise.
        no_test: why there is no test of cycles.
    """

    votes: Votes
    ties: str
    undetermined: list[str]
    rating: BradleyTerryFit
    intervals: np.ndarray | None
    mean_intervals: np.ndarray | None
    comparisons: dict[str, Comparison]
    fits: dict[str, Fit]
    cycles: CycleTest | None
    power: Power | None
    no_test: str | None

    @property
    def best(self) -> str:
        """The model that held-out votes speak for, pairs before prompts; Bradley-Terry where none were held out."""
        return next(iter(self.comparisons.values())).best if self.comparisons else "bradley_terry"

    def scores(self, model: str) -> np.ndarray:
        """Log-odds of each item over each other by one of the models, shape (N, N), skew-symmetric."""
        fit = self.fits.get(model, self.rating)
        size = np.arange(len(self.votes.items))
        return fit.scores(size[:, None], size[None])

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        items = {}
        for place, name in enumerate(self.votes.items):
            found: dict[str, Any] = {"rating": float(self.rating.rating[place])}
            if self.intervals is not None:
                found["interval"] = self.intervals[place].tolist()
            for model in self.fits:
                found[f"mean_score_{model}"] = float(self.scores(model)[place].mean())
            if self.mean_intervals is not None:
                found[f"mean_score_{self.best}_interval"] = self.mean_intervals[place].tolist()
            items[str(name)] = found
        return {
            "votes": self.votes.total,
            "prompts": self.votes.prompts,
            "ties": self.ties,
            "ridge": self.rating.ridge,
            "undetermined": self.undetermined,
            "items": items,
            "best": self.best if self.comparisons else None,
            "held_out": {unit: asdict(one) for unit, one in self.comparisons.items()},
            "cycles": None if self.cycles is None else self.cycles.to_dict(),
            "power": None if self.power is None else asdict(self.power),
            "no_test": self.no_test,
        }


def rate(
    votes: Votes,
    blocks: int = 1,
    ties: str = "davidson",
    quick: bool = False,
    simulations: int = 400,
    seed: int = 0,
) -> RatingsReport:
    """
    All that this room has to say about votes.

    Args:
        votes: see [`gpm_hf.ratings.vote_rows.read_votes`].
        blocks: of the hybrid.
        ties: `"davidson"` or `"half"`.
        quick: ratings alone, without held-out votes and simulations.
        simulations: see [`gpm_hf.ratings.null.cycle_test`].
        seed: the result is a function of the arguments.

    Raises:
        ValueError: votes that cannot be rated (nothing but ties).
    """
    grouped = len(np.unique(votes.group)) > 1
    comparisons: dict[str, Comparison] = {}
    if not quick and not grouped and len(votes.items) >= max(3, 2 * blocks):
        for unit, count in (("pairs", len(votes.by_pair().a)), ("prompts", votes.prompts)):
            if count >= 2 * _FOLDS:
                comparisons[unit] = compare_models(votes, blocks, ties, unit, _FOLDS, seed)
    first = next(iter(comparisons.values()), None)
    fits: dict[str, Fit] = {} if first is None else {name: fit_model(votes, first, name, ties) for name in MODELS}
    chosen = fits.get("bradley_terry")
    rating = chosen if isinstance(chosen, BradleyTerryFit) else fit_bradley_terry(votes, _WEAK_RIDGE, ties)
    best = None if first is None else fits[first.best]
    mean_intervals = None
    if isinstance(best, BlockFit) and len(votes.items) <= _MOST_REFITTED:
        mean_intervals = mean_score_intervals(votes, best, ties, seed=seed)
    cycles = power = no_test = None
    if not quick:
        try:
            cycles = cycle_test(votes, simulations, seed)
            power = cycle_power(votes, max(100, simulations // 2), seed)
        except UntestableVotes as error:
            no_test = str(error)
    return RatingsReport(
        votes=votes,
        ties=ties,
        undetermined=[] if grouped else comparability(votes).sentences(),
        rating=rating,
        intervals=None if grouped else rating_intervals(votes, rating, ties, seed=seed),
        mean_intervals=mean_intervals,
        comparisons=comparisons,
        fits=fits,
        cycles=cycles,
        power=power,
        no_test=no_test,
    )


def rating_table(report: RatingsReport, limit: int | None = None) -> str:
    """Markdown, best first: rating with its interval, and the mean score by the model that the votes speak for."""
    names, rating = report.votes.items, report.rating.rating
    best = report.best
    header = ["item", "votes", "rating (log-odds)"] + (["95% interval"] if report.intervals is not None else [])
    means = report.scores(best).mean(1) if best != "bradley_terry" else None
    header += [f"mean score by {_name(best)}"] if means is not None else []
    header += ["95% interval"] if report.mean_intervals is not None else []
    count = report.votes.of_items
    rows = []
    for place in np.argsort(-(rating if means is None else means), kind="stable")[:limit]:
        row = [names[place], f"{count[place]:g}", f"{rating[place]:+.3f}"]
        if report.intervals is not None:
            row.append("{:+.3f} to {:+.3f}".format(*report.intervals[place]))
        if means is not None:
            row.append(f"{means[place]:+.3f}")
        if report.mean_intervals is not None:
            row.append("{:+.3f} to {:+.3f}".format(*report.mean_intervals[place]))
        rows.append(row)
    return markdown_table(header, rows)


def model_table(comparison: Comparison) -> str:
    """Markdown, a row per model: what held-out votes cost."""
    rows = []
    for name, found in comparison.models.items():
        gain = ""
        if name in comparison.gains:
            low, high = (1e3 * end for end in comparison.gain_intervals[name])
            gain = f"{1e3 * comparison.gains[name]:+.2f} ({low:+.2f} to {high:+.2f})"
        label = _name(name, comparison.blocks)
        rows.append([label, f"{found.log_loss:.4f}", f"{1e3 * found.excess:.2f}", gain])
    columns = ["log loss (nats)", "excess (10^-3)", "gain over Bradley-Terry (10^-3, 95%)"]
    return markdown_table([f"held-out {comparison.unit}", *columns], rows)


def sentences(report: RatingsReport) -> list[str]:
    """What the votes say, what they cannot say, and what was presumed."""
    found = list(report.undetermined)
    if report.undetermined:
        found.append(f"The ridge of {report.rating.ridge:.3g} holds these ratings near the mean.")
    for comparison in report.comparisons.values():
        text = f"Held-out {comparison.unit} speak for {_name(comparison.best, comparison.blocks)}."
        if comparison.floor is not None:
            text += f" Sampling alone makes an excess of {1e3 * comparison.floor:.2f} x 10^-3 nats a vote."
        found.append(text)
    if report.cycles is not None:
        found.append(report.cycles.verdict())
        if report.cycles.flips is not None:
            found.append(f"Of the pairs judged in both orders {report.cycles.flips:.1%} flip with the order.")
    if report.power is not None:
        found.append(report.power.sentence())
    if report.no_test:
        found.append(report.no_test)
    if report.votes.ties.any():
        how = "an outcome of their own (Davidson's model)" if report.ties == "davidson" else "half a win for both"
        found.append(f"Ties are {how}.")
    return found


def _name(model: str, blocks: int = 1) -> str:
    if model == "hybrid":
        return f"a reward and {blocks} block{'s' * (blocks > 1)}"
    return {"bradley_terry": "Bradley-Terry", "blocks": f"{blocks + 1} blocks alone"}[model]
