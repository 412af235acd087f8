"""Bootstrap intervals of ratings, and of mean scores by models with blocks."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from .blocks import BlockFit, fit_blocks
from .bradley_terry import BradleyTerryFit, Layout, halved
from .outcomes import outcome_probabilities
from .votes import MIN_PROMPTS, Votes


def rating_intervals(
    votes: Votes, fit: BradleyTerryFit, ties: str = "davidson", samples: int = 1000, seed: int = 0
) -> np.ndarray | None:
    """
    Percentile intervals of 95%: prompts are drawn with replacement where at least five are named, else votes, each a
    Poisson number of times. Each resample's ratings are one Newton step from the fit, which leaves an error of
    second order; the ridge and the tie parameter stay as they are.

    Args:
        votes: of one group of items.
        fit: to these votes, without the advantage of the first.
        ties: with which it was fitted.
        samples: resamples.
        seed: the result is a function of the arguments.

    Returns:
        Log-odds of shape (N, 2), of ratings with mean 0; `None` for probabilities without enough prompts, which do not
        show how they spread.
    """
    cells = halved(votes) if ties == "half" else votes
    rng, size = np.random.default_rng(seed), len(votes.items)
    found = outcome_probabilities(fit.rating[cells.a] - fit.rating[cells.b], fit.log_tie)
    lead = found.win - found.loss
    if not _shows_its_spread(votes):
        return None
    if _by_prompts(votes):
        slope = (cells.wins - cells.losses - cells.size * lead) / 2
        names, prompt = np.unique(cells.prompt, return_inverse=True)
        by_prompt = _by_item(cells, slope, size, prompt, len(names))
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), samples)
        off = (drawn - 1) @ by_prompt
    else:
        off = np.empty((samples, size))
        for sample in range(samples):
            wins, tied, losses = rng.poisson(votes.wins), rng.poisson(votes.ties), rng.poisson(votes.losses)
            slope = (wins - losses - (wins + tied + losses) * lead) / 2 - (
                votes.wins - votes.losses - votes.size * lead
            ) / 2
            off[sample] = np.bincount(cells.a, slope, size) - np.bincount(cells.b, slope, size)
    layout = Layout(np.zeros(size, int))
    place = np.zeros(len(cells.a), int), cells.a, cells.b
    matrix = layout.hessian(*place, cells.size * found.information, fit.ridge)[0]
    ratings = fit.rating + np.linalg.solve(matrix, off.T).T
    ratings -= ratings.mean(-1, keepdims=True)
    return np.quantile(ratings, [0.025, 0.975], axis=0).T


def mean_score_intervals(
    votes: Votes, fit: BlockFit, ties: str = "davidson", samples: int = 200, seed: int = 0
) -> np.ndarray | None:
    """
    Percentile intervals of 95% of each item's mean score against all (itself at 0): resamples as in
    [`rating_intervals`], to each of which the model is fitted anew, from the fit to all votes and with its ridges.

    Args:
        votes, ties, seed: as in [`rating_intervals`].
        fit: to these votes.
        samples: resamples.

    Returns:
        Log-odds of shape (N, 2), or `None`, as there.
    """
    if not _shows_its_spread(votes):
        return None
    size, reward = np.arange(len(votes.items)), bool(fit.rating.any())
    means = []
    for drawn in _resamples(votes, samples, np.random.default_rng(seed)):
        options = (reward, fit.ridge or 1.0, fit.block_ridge, ties)
        again = fit_blocks(drawn, fit.vectors.shape[1] // 2, *options, start=fit)
        means.append(again.scores(size[:, None], size[None]).mean(1))
    return np.quantile(means, [0.025, 0.975], axis=0).T


def _by_prompts(votes: Votes) -> bool:
    return votes.prompts >= MIN_PROMPTS and bool((votes.prompt >= 0).all())


def _shows_its_spread(votes: Votes) -> bool:
    return _by_prompts(votes) or votes.are_whole


def _resamples(votes: Votes, samples: int, rng: np.random.Generator) -> Iterator[Votes]:
    names, prompt = np.unique(votes.prompt, return_inverse=True)
    parts = (votes.wins, votes.ties, votes.losses)
    for _ in range(samples):
        if _by_prompts(votes):
            times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)))[prompt]
            drawn = [part * times for part in parts]
        else:
            drawn = [rng.poisson(part).astype(float) for part in parts]
        wins, ties, losses = drawn
        kept = wins + ties + losses > 0
        if kept.any():
            yield replace(votes, wins=wins, ties=ties, losses=losses).where(kept)


def _by_item(cells: Votes, slope: np.ndarray, size: int, prompt: np.ndarray, prompts: int) -> np.ndarray:
    """Sums of the slopes by prompt and item, shape (prompts, N)."""
    found = np.bincount(prompt * size + cells.a, slope, prompts * size)
    return (found - np.bincount(prompt * size + cells.b, slope, prompts * size)).reshape(prompts, size)
