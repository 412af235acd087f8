"""Bootstrap intervals of Bradley-Terry ratings."""

import numpy as np

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
    if votes.prompts >= MIN_PROMPTS and (votes.prompt >= 0).all():
        slope = (cells.wins - cells.losses - cells.size * lead) / 2
        names, prompt = np.unique(cells.prompt, return_inverse=True)
        by_prompt = _by_item(cells, slope, size, prompt, len(names))
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), samples)
        off = (drawn - 1) @ by_prompt
    elif not votes.are_whole:
        return None
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


def _by_item(cells: Votes, slope: np.ndarray, size: int, prompt: np.ndarray, prompts: int) -> np.ndarray:
    """Sums of the slopes by prompt and item, shape (prompts, N)."""
    found = np.bincount(prompt * size + cells.a, slope, prompts * size)
    return (found - np.bincount(prompt * size + cells.b, slope, prompts * size)).reshape(prompts, size)
