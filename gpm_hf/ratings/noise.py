"""
A ranking with noise, fitted to votes: ratings by empirical Bayes, ties, the advantage of being shown first, and how
far single pairs stray from a difference of ratings. Draws from it are the null hypothesis of [`gpm_hf.ratings.null`].
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .bradley_terry import BradleyTerryFit, Layout, fit_bradley_terry
from .outcomes import log_likelihood, outcome_probabilities
from .votes import Votes

_SPREADS = (0.0, 0.15, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
_ROUNDS, _PRECISION = 40, 0.01
_LEAST_VARIANCE, _MOST_VARIANCE = 1e-4, 1e3
_NEWTON_STEPS = 8


@dataclass(frozen=True)
class NoisyRanking:
    """
    Attributes:
        cells: the votes; of each pair those with either order, and those whose order is not known.
        pair: shape (C,), number of each cell's pair in `cells.by_pair()`.
        fit: ratings with the ridge 1 / variance.
        variance: of ratings, log-odds squared, by empirical Bayes.
        spread: standard deviation of a pair's log-odds around the difference of ratings, by maximum likelihood; 0
            where no pair has two votes, of which alone it could be told.
    """

    cells: Votes
    pair: np.ndarray
    fit: BradleyTerryFit
    variance: float
    spread: float

    def draw(self, rng: np.random.Generator, samples: int, additive: bool) -> np.ndarray:
        """
        Log-odds of each pair, shape (samples, P), that are a ranking: ratings from their posterior (Laplace's), and
        unless `additive` each pair's own log-odds from its posterior about their difference, moved to 0 where it
        contradicts the order of the ratings. A tie is where a transitive truth comes nearest to a contradiction.
        """
        layout = Layout(self.cells.group)
        ratings = self.fit.rating + layout.flat(_posterior_noise(self, layout, rng, samples))
        pairs = self.cells.by_pair()
        difference = ratings[:, pairs.a] - ratings[:, pairs.b]
        if additive or self.spread == 0:
            return difference
        mode, deviation = self._pair_posterior(difference)
        sign = np.sign(difference)
        return sign * np.maximum(sign * (mode + deviation * rng.standard_normal(mode.shape)), 0)

    def cell_scores(self, of_pairs: np.ndarray) -> np.ndarray:
        """Log-odds of each cell's a over its b, shape (..., C), from those of pairs."""
        turned = np.where(self.cells.a > self.cells.b, -1.0, 1.0)
        return of_pairs[..., self.pair] * turned + self.fit.first * self.cells.ordered

    def pair_sums(self, of_cells: np.ndarray) -> np.ndarray:
        """Sums over the cells of each pair, shape (..., P)."""
        return (self.sums @ np.atleast_2d(of_cells).T).T.reshape(*of_cells.shape[:-1], self.sums.shape[0])

    @cached_property
    def sums(self):
        """Sparse matrix of shape (P, C) that sums cells by pair."""
        from scipy.sparse import csr_matrix

        count = len(self.pair)
        return csr_matrix((np.ones(count), (self.pair, np.arange(count))), shape=(int(self.pair.max()) + 1, count))

    def _pair_posterior(self, difference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mode and standard deviation of each pair's log-odds given its votes and the difference of ratings."""
        cells, own = self.cells, difference.copy()
        turned = np.where(cells.a > cells.b, -1.0, 1.0)
        precision = 1 / self.spread**2
        for _ in range(_NEWTON_STEPS):
            found = outcome_probabilities(self.cell_scores(own), self.fit.log_tie)
            slope = (cells.wins - cells.losses - cells.size * (found.win - found.loss)) / 2
            curve = self.pair_sums(cells.size * found.information) + precision
            step = (self.pair_sums(slope * turned) - precision * (own - difference)) / curve
            own += np.clip(step, -2, 2)
        found = outcome_probabilities(self.cell_scores(own), self.fit.log_tie)
        return own, 1 / np.sqrt(self.pair_sums(cells.size * found.information) + precision)


def fit_noisy_ranking(votes: Votes) -> NoisyRanking:
    """
    Fits all parts. The variance of ratings maximises the marginal likelihood (EM with Laplace's approximation), so
    that the ratings are not as far apart as maximum likelihood has them, which takes noise for distance.
    """
    cells = votes.by_pair(by_order=True)
    pair = np.unique(cells.pair_key, return_inverse=True)[1]
    layout, variance, fit = Layout(cells.group), 1.0, None
    for _ in range(_ROUNDS):
        fit = fit_bradley_terry(cells, ridge=1 / variance, order=True, start=fit)
        inverse = np.linalg.inv(_precision(cells, fit, layout))
        own = np.diagonal(inverse, axis1=-2, axis2=-1)[layout.group, layout.local]
        new = float(np.clip((np.square(fit.rating) + own).mean(), _LEAST_VARIANCE, _MOST_VARIANCE))
        change, variance = abs(new / variance - 1), new
        if change < _PRECISION:
            break
    assert fit is not None
    ranking = NoisyRanking(cells, pair, fit, variance, 0.0)
    return NoisyRanking(cells, pair, fit, variance, _spread(ranking))


def _precision(cells: Votes, fit: BradleyTerryFit, layout: Layout) -> np.ndarray:
    scores = fit.rating[cells.a] - fit.rating[cells.b] + fit.first * cells.ordered
    weight = cells.size * outcome_probabilities(scores, fit.log_tie).information
    place = layout.group[cells.a], layout.local[cells.a], layout.local[cells.b]
    return layout.hessian(*place, weight, fit.ridge)


def _posterior_noise(ranking: NoisyRanking, layout: Layout, rng: np.random.Generator, samples: int) -> np.ndarray:
    lower = np.linalg.cholesky(_precision(ranking.cells, ranking.fit, layout))
    noise = rng.standard_normal((layout.groups, layout.largest, samples))
    return np.moveaxis(np.linalg.solve(lower.swapaxes(-1, -2), noise), -1, 0)


def _spread(ranking: NoisyRanking) -> float:
    """The likeliest standard deviation of pairs around the difference of ratings, of a few."""
    cells, fit = ranking.cells, ranking.fit
    votes_of_pair = ranking.pair_sums(cells.size)
    if not (votes_of_pair >= 2).any():
        return 0.0
    pairs = cells.by_pair()
    difference = fit.rating[pairs.a] - fit.rating[pairs.b]
    best, chosen = -np.inf, 0.0
    for spread in _SPREADS:
        nodes = [
            ranking.pair_sums(log_likelihood(cells, ranking.cell_scores(difference + spread * node), fit.log_tie))
            for node in (_NODES if spread else [0.0])
        ]
        weights = np.log(_WEIGHTS / _WEIGHTS.sum()) if spread else np.zeros(1)
        value = float(np.logaddexp.reduce(np.array(nodes) + weights[:, None], axis=0).sum())
        if value > best + 1e-9:
            best, chosen = value, spread
    return chosen
