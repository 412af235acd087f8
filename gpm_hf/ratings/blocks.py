"""
Ratings that hold cycles: a reward and k skew-symmetric blocks, or blocks alone. The log-odds of i over j among votes
that decide are `S_ij = r_i - r_j + sum_l (u_il v_jl - v_il u_jl)`: section 4 of the paper ("Beyond Bradley-Terry
Models") with free embeddings in place of a language model's, the scales taken into them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .bradley_terry import TIES, BradleyTerryFit, fit_bradley_terry, halved
from .outcomes import log_likelihood, log_normaliser, outcome_probabilities
from .votes import Votes

_ITERATIONS = 500


@dataclass(frozen=True)
class BlockFit:
    """
    Attributes:
        rating: shape (N,), log-odds, mean 0; zeros for blocks alone.
        vectors: shape (N, 2k): u_1, v_1, u_2, v_2, ..., blocks by falling strength.
        log_tie: log nu of [`gpm_hf.ratings.outcomes`].
        ridge, block_ridge: with which it was fitted.
        log_likelihood: of the votes, in nats, without the ridges' part.
    """

    rating: np.ndarray
    vectors: np.ndarray
    log_tie: float
    ridge: float
    block_ridge: float
    log_likelihood: float

    def scores(self, a, b) -> np.ndarray:
        """Log-odds of items a over items b (numbers, of one shape)."""
        own, other = self.vectors[a], self.vectors[b]
        turn = (own[..., 0::2] * other[..., 1::2] - own[..., 1::2] * other[..., 0::2]).sum(-1)
        return self.rating[a] - self.rating[b] + turn


def fit_blocks(
    votes: Votes,
    blocks: int = 1,
    reward: bool = True,
    ridge: float = 1e-3,
    block_ridge: float = 1.0,
    ties: str = "davidson",
    start: "BradleyTerryFit | BlockFit | None" = None,
) -> BlockFit:
    """
    Maximises `sum log P(votes) - ridge / 2 sum r_i^2 - block_ridge / 2 sum (u_il^2 + v_il^2)` by L-BFGS. The second
    ridge is a penalty on the strengths of the blocks (their nuclear norm), and takes out blocks that the votes do not
    speak for. The first is 1e-3 times it at least where there is a reward, so that a rating is bounded.

    Args:
        votes: of one group of items.
        blocks: k, at least 1.
        reward: whether there is a reward beside the blocks.
        ridge, block_ridge: positive.
        ties: see [`gpm_hf.ratings.bradley_terry.fit_bradley_terry`].
        start: a Bradley-Terry fit of the same votes, which is computed where it is not given; or a fit near by, of as
            many blocks.

    Raises:
        ValueError: no blocks, more than half of the items, a ridge that is not positive.
    """
    from scipy.optimize import minimize

    items = len(votes.items)
    if not 1 <= blocks <= max(1, items // 2):
        raise ValueError(f"{blocks} blocks of {items} items: from 1 to {max(1, items // 2)}, which hold every matrix.")
    if not (ridge > 0 and block_ridge > 0):
        raise ValueError(f"The ridges {ridge} and {block_ridge} must be positive: they bound what votes leave open.")
    if ties not in TIES:
        raise ValueError(f"ties={ties!r}: choose one of {', '.join(TIES)}.")
    cells = votes.by_pair()
    cells = halved(cells) if ties == "half" else cells
    problem = _Problem(cells, blocks, reward, ridge, block_ridge)
    if isinstance(start, BlockFit):
        log_tie = start.log_tie if problem.ties and np.isfinite(start.log_tie) else 0.0
        begin = np.concatenate([start.rating, start.vectors.ravel(), [log_tie]])
    else:
        begin = problem.start((start or fit_bradley_terry(cells, ridge, ties)) if reward else None)
    found = minimize(
        problem,
        begin,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _ITERATIONS, "maxfun": 2 * _ITERATIONS, "maxcor": 20, "ftol": 1e-9, "gtol": 1e-6},
    )
    rating, vectors, log_tie = problem.parts(found.x)
    scores = problem.scores(rating, vectors)
    return BlockFit(
        rating=rating - rating.mean(),
        vectors=_by_strength(vectors),
        log_tie=log_tie,
        ridge=ridge,
        block_ridge=block_ridge,
        log_likelihood=float(log_likelihood(cells, scores, log_tie).sum()),
    )


class _Problem:
    """Minus the penalised log-likelihood per vote, and its gradient, of one vector of all parameters."""

    def __init__(self, cells: Votes, blocks: int, reward: bool, ridge: float, block_ridge: float):
        from scipy.sparse import csr_matrix

        self.cells, self.blocks, self.reward = cells, blocks, reward
        self.ridge, self.block_ridge = ridge, block_ridge
        self.size, self.items = cells.size, len(cells.items)
        self.total, self.ties = float(self.size.sum()), float(cells.ties.sum())
        shape = (self.items, self.items)
        # The slopes by S, skew-symmetric, in the order in which a sparse matrix keeps them.
        count = len(cells.a)
        numbers = np.arange(1, count + 1)
        rows, columns = np.concatenate([cells.a, cells.b]), np.concatenate([cells.b, cells.a])
        self.slopes = csr_matrix(
            (np.concatenate([numbers, numbers + count]).astype(float), (rows, columns)), shape=shape
        )
        self.order = self.slopes.data.astype(np.int64) - 1

    def start(self, first: BradleyTerryFit | None) -> np.ndarray:
        """Bradley-Terry, and the blocks that the gradient asks for most, small."""
        rating = np.zeros(self.items) if first is None else first.rating
        log_tie = 0.0
        if self.ties:
            decided = self.total - self.ties
            log_tie = first.log_tie if first is not None else float(np.log(2 * self.ties / max(decided, 1.0)))
        scores = rating[self.cells.a] - rating[self.cells.b]
        matrix = self._slope_matrix(self._slope(scores, log_tie if self.ties else -np.inf))
        vectors = _leading_blocks(matrix, self.blocks)
        typical = float(np.sqrt(np.square(vectors).mean()))
        return np.concatenate([rating, (0.3 / typical * vectors).ravel(), [log_tie]])

    def parts(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        rating = parameters[: self.items] if self.reward else np.zeros(self.items)
        log_tie = float(parameters[-1]) if self.ties else -np.inf
        return rating, parameters[self.items : -1].reshape(self.items, 2 * self.blocks), log_tie

    def scores(self, rating: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        a, b = self.cells.a, self.cells.b
        found = rating[a] - rating[b]
        for block in range(self.blocks):
            u, v = np.ascontiguousarray(vectors[:, 2 * block]), np.ascontiguousarray(vectors[:, 2 * block + 1])
            found += u[a] * v[b] - v[a] * u[b]
        return found

    def __call__(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        rating, vectors, log_tie = self.parts(parameters)
        scores = self.scores(rating, vectors)
        found = outcome_probabilities(scores, log_tie)
        value = -float(
            (self.cells.wins - self.cells.losses) @ scores / 2 - self.size @ log_normaliser(scores, log_tie)
        )
        value += (self.ridge * np.square(rating).sum() + self.block_ridge * np.square(vectors).sum()) / 2
        slope = (self.cells.wins - self.cells.losses - self.size * (found.win - found.loss)) / 2
        sums = self._slope_matrix(slope) @ np.column_stack([np.ones(self.items), vectors])
        gradient = np.empty_like(parameters)
        gradient[: self.items] = self.ridge * rating - sums[:, 0] if self.reward else 0.0
        turned = np.empty_like(vectors)
        # S_ij falls or grows with u_i as v_j, with v_i as -u_j.
        turned[:, 0::2], turned[:, 1::2] = sums[:, 2::2], -sums[:, 1::2]
        gradient[self.items : -1] = (self.block_ridge * vectors - turned).ravel()
        gradient[-1] = 0.0
        if self.ties:
            value -= self.ties * log_tie
            gradient[-1] = (self.size * found.tie).sum() - self.ties
        return value / self.total, gradient / self.total

    def _slope(self, scores: np.ndarray, log_tie: float) -> np.ndarray:
        found = outcome_probabilities(scores, log_tie)
        return (self.cells.wins - self.cells.losses - self.size * (found.win - found.loss)) / 2

    def _slope_matrix(self, slope: np.ndarray):
        self.slopes.data = np.concatenate([slope, -slope])[self.order]
        return self.slopes


def _leading_blocks(matrix, blocks: int) -> np.ndarray:
    """Vectors (N, 2k) of the blocks nearest to a sparse skew-symmetric matrix, as `embed_matrix` has them."""
    size = matrix.shape[0]
    values: Any
    found: Any
    if size <= 200:
        values, found = np.linalg.eigh(1j * matrix.toarray())
    else:
        from scipy.sparse.linalg import LinearOperator, eigsh

        operator = LinearOperator(matrix.shape, matvec=lambda x: 1j * (matrix @ x), dtype=complex)
        noise = np.random.default_rng(0).normal(size=size).astype(complex)
        # What the fit starts from need not be exact.
        values, found = eigsh(operator, k=min(blocks, size - 2), which="LA", v0=noise, tol=1e-2)
    leading = np.argsort(-values)[:blocks]
    strengths = np.sqrt(np.maximum(values[leading], 0))
    vectors = np.zeros((size, 2 * blocks))
    vectors[:, 0 : 2 * len(leading) : 2] = found[:, leading].imag * strengths
    vectors[:, 1 : 2 * len(leading) : 2] = found[:, leading].real * strengths
    # Where the votes ask for no block the gradient is 0, and L-BFGS must not start there.
    largest = float(np.abs(vectors).max())
    return vectors + 1e-3 * (largest or 1.0) * np.random.default_rng(0).normal(size=vectors.shape)


def _by_strength(vectors: np.ndarray) -> np.ndarray:
    """The same skew-symmetric matrix by orthogonal blocks, the strongest first."""
    width = vectors.shape[1]
    basis, triangle = np.linalg.qr(vectors)
    turn = np.zeros((width, width))
    turn[0::2, 1::2], turn[1::2, 0::2] = np.eye(width // 2), -np.eye(width // 2)
    small = triangle @ turn @ triangle.T
    values, found = np.linalg.eigh(1j * (small - small.T) / 2)
    leading = np.argsort(-values)[: width // 2]
    strengths = np.sqrt(2 * np.maximum(values[leading], 0))
    rotated = basis @ found[:, leading]
    result = np.empty_like(vectors)
    result[:, 0::2], result[:, 1::2] = rotated.imag * strengths, rotated.real * strengths
    return result
