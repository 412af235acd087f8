"""Bradley-Terry ratings by Newton's method, with ties, a ridge and the advantage of being shown first."""

from dataclasses import dataclass, replace

import numpy as np

from .graph import comparability
from .outcomes import log_likelihood, outcome_probabilities
from .votes import Votes

# Each group's items have a dense matrix.
MOST_ITEMS = 5000
TIES = ("davidson", "half")
# A normal prior of standard deviation 5 on the advantage of the first: a judge may name none but the first.
_FIRST_RIDGE = 0.04
# A step of this size leaves its square as the error.
_STEPS, _HALVINGS, _TOLERANCE = 100, 40, 1e-6


@dataclass(frozen=True)
class BradleyTerryFit:
    """
    Attributes:
        rating: shape (N,), log-odds, mean 0 (within each group): `rating[i] - rating[j]` is the log-odds of i over j
            among votes that decide.
        log_tie: log nu of [`gpm_hf.ratings.outcomes`]; minus infinity where ties do not occur or count half.
        first: log-odds by which being shown first helps; 0 where no order is known or it was not asked for.
        ridge: with which it was fitted.
        log_likelihood: of the votes, in nats, without the ridge's part.
    """

    rating: np.ndarray
    log_tie: float
    first: float
    ridge: float
    log_likelihood: float

    def scores(self, a, b) -> np.ndarray:
        """Log-odds of items a over items b (numbers, of one shape)."""
        return self.rating[a] - self.rating[b]


def fit_bradley_terry(
    votes: Votes,
    ridge: float = 0.0,
    ties: str = "davidson",
    order: bool = False,
    start: BradleyTerryFit | None = None,
) -> BradleyTerryFit:
    """
    Maximises `sum log P(votes) - ridge / 2 * sum r_i^2` (a normal prior of variance 1 / ridge on ratings).

    Args:
        votes: of one group of items or of many.
        ridge: 0 for maximum likelihood.
        ties: `"davidson"` (a tie is an outcome of its own, with one parameter for all) or `"half"` (half a win for
            both; as Chatbot Arena, choix and evalica have it).
        order: also fit the advantage of being shown first, from the votes whose order is known, with a normal prior of
            mean 0 and standard deviation 5.
        start: a fit near by.

    Raises:
        ValueError: without a ridge, votes that no finite ratings fit best (an item that never lost, parts that were
            never compared); the message names them. Nothing but ties. An unknown `ties`, a negative ridge.
        RuntimeError: no convergence, which concavity should exclude.
    """
    if ties not in TIES:
        raise ValueError(f"ties={ties!r}: choose one of {', '.join(TIES)}.")
    if not ridge >= 0:
        raise ValueError(f"ridge={ridge}: it is at least 0.")
    cells = votes if order else votes.by_pair()
    if ties == "half":
        cells = halved(cells)
    if cells.ties.sum() == cells.total:
        raise ValueError("Every vote is a tie: there is nothing to rate.")
    if ridge == 0:
        _check_determined(cells)
    return _Newton(cells, ridge, order and bool(cells.ordered.any())).run(start)


def halved(votes: Votes) -> Votes:
    """Votes with each tie as half a win of both."""
    half = votes.ties / 2
    return replace(votes, wins=votes.wins + half, losses=votes.losses + half, ties=np.zeros_like(half))


def _check_determined(cells: Votes) -> None:
    found = comparability(cells)
    groups = len(np.unique(cells.group))
    if found.is_bounded and len(found.components) == groups:
        return
    raise ValueError(
        f"No finite Bradley-Terry ratings fit these votes best. {' '.join(found.sentences())} Give a ridge, which "
        "holds such ratings near the others', or leave those items out."
    )


class _Newton:
    """Ratings of all groups at once: a stack of systems of equations, bordered by what all groups share."""

    def __init__(self, cells: Votes, ridge: float, order: bool):
        self.cells, self.ridge, self.order = cells, ridge, order
        self.has_ties = bool((cells.ties > 0).any())
        self.layout = Layout(cells.group)
        self.place = self.layout.group[cells.a], self.layout.local[cells.a], self.layout.local[cells.b]

    def run(self, start: BradleyTerryFit | None) -> BradleyTerryFit:
        rating = np.zeros(len(self.cells.items)) if start is None else start.rating
        shared = np.zeros(2)
        if self.has_ties:
            known = start is not None and np.isfinite(start.log_tie)
            decided = (self.cells.wins + self.cells.losses).sum()
            shared[0] = start.log_tie if known else np.log(2 * self.cells.ties.sum() / max(decided, 1.0))  # type: ignore[union-attr]
        if self.order and start is not None:
            shared[1] = start.first
        value = self.value(rating, shared)
        for _ in range(_STEPS):
            step, shared_step = self.step(rating, shared)
            factor = 1.0
            for _ in range(_HALVINGS):
                moved = rating + factor * step, shared + factor * shared_step
                new = self.value(*moved)
                if new >= value - 1e-12 * abs(value):
                    break
                factor /= 2
            rating, shared = moved
            converged = factor == 1 and max(np.abs(step).max(), np.abs(shared_step).max()) < _TOLERANCE * (
                1 + np.abs(rating).max()
            )
            value = new
            if converged:
                return self.result(rating, shared)
        raise RuntimeError(
            f"Bradley-Terry ratings did not converge in {_STEPS} steps: the ridge {self.ridge} is small."
        )

    def log_tie(self, shared: np.ndarray) -> float:
        return float(shared[0]) if self.has_ties else -np.inf

    def scores(self, rating: np.ndarray, shared: np.ndarray) -> np.ndarray:
        found = rating[self.cells.a] - rating[self.cells.b]
        return found + shared[1] * self.cells.ordered if self.order else found

    def value(self, rating: np.ndarray, shared: np.ndarray) -> float:
        fit = log_likelihood(self.cells, self.scores(rating, shared), self.log_tie(shared)).sum()
        return float(fit - self.ridge / 2 * np.square(rating).sum() - _FIRST_RIDGE / 2 * shared[1] ** 2)

    def step(self, rating: np.ndarray, shared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cells, size = self.cells, self.cells.size
        found = outcome_probabilities(self.scores(rating, shared), self.log_tie(shared))
        slope = (cells.wins - cells.losses - size * (found.win - found.loss)) / 2
        weight = size * found.information
        matrix = self.layout.hessian(*self.place, weight, self.ridge)
        gradient = self.layout.stacked(self.by_item(slope) - self.ridge * rating)
        # Derivatives by log nu and by the advantage of the first, where these are fitted.
        mixed, slopes, curves = [], [], np.zeros((2, 2))
        by_tie, by_order = -size * found.tie * (found.win - found.loss) / 2, weight * cells.ordered
        used = [number for number, has in enumerate((self.has_ties, self.order)) if has]
        for number in used:
            mixed.append(self.layout.stacked(self.by_item((by_tie, by_order)[number])))
            slopes.append(
                (cells.ties - size * found.tie).sum()
                if number == 0
                else (slope * cells.ordered).sum() - _FIRST_RIDGE * shared[1]
            )
        curves[0, 0] = (size * found.tie * (1 - found.tie)).sum()
        curves[1, 1] = by_order.sum() + _FIRST_RIDGE
        curves[0, 1] = curves[1, 0] = (by_tie * cells.ordered).sum()
        right = np.stack([gradient, *mixed], -1)
        solved = _solved(matrix, right)
        shared_step = np.zeros(2)
        if used:
            borders, inner = right[..., 1:], solved[..., 1:]
            schur = curves[np.ix_(used, used)] - np.einsum("gnx,gny->xy", borders, inner)
            rest = np.array(slopes) - np.einsum("gnx,gn->x", borders, solved[..., 0])
            shared_step[used] = np.linalg.solve(schur, rest)
            stacked = solved[..., 0] - inner @ shared_step[used]
        else:
            stacked = solved[..., 0]
        return self.layout.flat(stacked), shared_step

    def by_item(self, values: np.ndarray) -> np.ndarray:
        size = len(self.cells.items)
        return np.bincount(self.cells.a, values, size) - np.bincount(self.cells.b, values, size)

    def result(self, rating: np.ndarray, shared: np.ndarray) -> BradleyTerryFit:
        centred = self.layout.centred(rating)
        fit = log_likelihood(self.cells, self.scores(rating, shared), self.log_tie(shared)).sum()
        first = float(shared[1]) if self.order else 0.0
        return BradleyTerryFit(centred, self.log_tie(shared), first, self.ridge, float(fit))


def _solved(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solutions of a stack of positive definite systems."""
    if len(matrix) > 1:
        return np.linalg.solve(matrix, right)
    from scipy.linalg import cho_factor, cho_solve

    return cho_solve(cho_factor(matrix[0], overwrite_a=True, check_finite=False), right[0], check_finite=False)[None]


class Layout:
    """Items of groups of different sizes in one stack of shape (groups, largest group)."""

    def __init__(self, group: np.ndarray):
        _, self.group, sizes = np.unique(group, return_inverse=True, return_counts=True)
        by_group = np.argsort(self.group, kind="stable")
        self.local = np.empty(len(group), np.int64)
        self.local[by_group] = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        self.sizes, self.groups, self.largest = sizes, len(sizes), int(sizes.max())
        if self.largest > MOST_ITEMS:
            raise ValueError(f"{self.largest} items are compared with each other; at most {MOST_ITEMS} can be rated.")

    def stacked(self, values: np.ndarray) -> np.ndarray:
        found = np.zeros((self.groups, self.largest))
        found[self.group, self.local] = values
        return found

    def flat(self, stacked: np.ndarray) -> np.ndarray:
        return stacked[..., self.group, self.local]

    def centred(self, values: np.ndarray) -> np.ndarray:
        means = np.bincount(self.group, values, self.groups) / self.sizes
        return values - means[self.group]

    def hessian(self, group, first, second, weight, ridge) -> np.ndarray:
        """Minus the second derivatives by ratings, shape (groups, n, n), regular also where a constant is free."""
        size = self.largest
        places = (group * size + first) * size + second
        off = np.bincount(places, weight, self.groups * size * size).reshape(self.groups, size, size)
        off += off.swapaxes(-1, -2)
        matrix = -off
        rows = np.arange(size)
        matrix[:, rows, rows] = off.sum(-1) + ridge
        if ridge == 0:
            # The mean rating is free: any weight on it gives the step whose mean is 0.
            matrix += (weight.sum() / max(1, len(weight))) / size
        empty = rows >= self.sizes[:, None]
        matrix[np.broadcast_to(empty[:, :, None], matrix.shape) | np.broadcast_to(empty[:, None, :], matrix.shape)] = 0
        matrix[:, rows, rows] += empty
        return matrix
