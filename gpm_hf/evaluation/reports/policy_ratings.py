"""Ratings of policies from their win rates: what is a ranking, what is left, which model is supported."""

from itertools import combinations

import numpy as np

from gpm_hf.evaluation.reports.win_rates import WinRates
from gpm_hf.ratings.report import RatingsReport, rate
from gpm_hf.ratings.votes import Votes, count_votes
from gpm_hf.tables import markdown_table


def policy_votes(result: WinRates) -> Votes:
    """The judge's probabilities as votes: one for each prompt and pair of policies."""
    a: list[str] = []
    b: list[str] = []
    outcome: list[float] = []
    prompt: list[int] = []
    for first, second in combinations(range(len(result.policies)), 2):
        a += [result.policies[first]] * len(result.prompts)
        b += [result.policies[second]] * len(result.prompts)
        outcome += result.probabilities[:, first, second].tolist()
        prompt += range(len(result.prompts))
    return count_votes(a, b, outcome, prompt=prompt)


def rate_policies(result: WinRates, simulations: int = 400) -> RatingsReport:
    """
    Rates policies by Bradley-Terry, by a reward with a block, and by blocks alone: [`gpm_hf.ratings.report.rate`]. A
    probability of exactly 1/2, which equal answers have, is half a win for both.
    """
    return rate(policy_votes(result), ties="half", simulations=simulations)


def policy_rating_table(result: WinRates, report: RatingsReport) -> str:
    """Markdown, a row per policy, the best first: mean length, rating, and the mean score by each model."""
    models = list(report.fits)
    header = ["policy", "characters", "rating (log-odds)"] + (["95% interval"] if report.intervals is not None else [])
    header += [f"mean score, {name.replace('_', ' ')}" for name in models]
    means = [report.scores(model).mean(1) for model in models]
    rows = []
    for place in np.argsort(-report.rating.rating, kind="stable"):
        name = report.votes.items[place]
        row = [
            name,
            f"{result.characters[:, result.policies.index(name)].mean():.0f}",
            f"{report.rating.rating[place]:+.3f}",
        ]
        if report.intervals is not None:
            row.append("{:+.3f} to {:+.3f}".format(*report.intervals[place]))
        rows.append([*row, *[f"{mean[place]:+.3f}" for mean in means]])
    return markdown_table(header, rows)
