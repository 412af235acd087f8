"""
Cycle or noise, of a scorer that reads each pair in both orders: what it says differently by the order is noise that
its averages have too, and their cycles are held against those that a ranking with it would show.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import comb
from typing import Any

import numpy as np

from .cycle_evidence import CycleCount, count_cycles
from .null import NullTest, compare_with_null
from .power import Power, crossing

# Numbers held at once, in each array of a simulation.
_AT_ONCE = 1 << 21
_LEVEL = 0.05
# Of the size of the scores: what two orders differ by less is rounding.
_ROUNDING = 1e-5
# Standard deviations of the noise up to which a pair is taken for a coin.
_UNDECIDED = 1.0
# Of a planted block, in units of the scores.
_STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_REFITS = 2


class NoNoise(ValueError):
    """Scores that have no noise to tell; the message says why."""


@dataclass(frozen=True)
class ScoreCycleTest:
    """
    Attributes:
        pairs, triples: of responses to one prompt.
        share: cyclic triples among these, against a ranking.
        evidence: nats that the scores have for the weakest pair of each cycle, `s^2 / (2 noise^2)`, summed, against a
            ranking. The test of cycles.
        additive_p: p-value of the F-test of the part of the scores that no rating explains against the noise; small
            where they are more than ratings, which a ranking may still explain.
        noise: standard deviation of the noise of a score (the average of both orders), log-odds.
        first: by how much the response that is read first is preferred, log-odds.
        simulations: of the null hypothesis.
    """

    pairs: int
    triples: int
    share: NullTest
    evidence: NullTest
    additive_p: float
    noise: float
    first: float
    simulations: int

    @property
    def p_value(self) -> float:
        """Of cycles, against every ranking."""
        return self.evidence.p_value

    @property
    def is_cyclic(self) -> bool:
        """Whether the scores contradict every ranking, at level 0.05."""
        return self.p_value <= _LEVEL

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"p_value": self.p_value}

    def verdict(self) -> str:
        """In a sentence or two."""
        low, high = self.share.null_interval
        found = (
            f"{self.share.observed:.1%} of {self.triples} triples are cyclic; a ranking with the noise of these "
            f"scores (a standard deviation of {self.noise:.3g}, from both orders) would show "
            f"{self.share.expected:.1%} ({low:.1%} to {high:.1%}). "
        )
        if self.is_cyclic:
            return found + f"The cycles are more than noise (p = {self.p_value:.2g})."
        found += f"The cycles are no more than noise would make (p = {self.p_value:.2g})"
        if self.additive_p <= _LEVEL:
            return found + f", but the scores are not additive: no rating explains them (p = {self.additive_p:.2g})."
        return found + f", and a rating is enough (p = {self.additive_p:.2g})."


def score_cycle_test(
    scores: Sequence[np.ndarray], disagreements: Sequence[np.ndarray], simulations: int = 400, seed: int = 0
) -> ScoreCycleTest:
    """
    Tests whether the cycles of a scorer's averages are more than the noise that its two orders show.

    Read with i first, a pair has the log-odds s_ij + b + e, with j first s_ij - b + e', with independent normal errors
    of one variance. Half the sum and half the difference then have noise of one variance, and it shows in what the
    orders disagree by, b + (e - e') / 2. Errors that both orders share count as what the scorer believes.

    The null hypothesis is that of [`gpm_hf.ratings.null.cycle_test`], a ranking in which each pair's strength is its
    own, here at its least favourable: items stand in the order of their wins, and pairs that contradict it, or are
    within one standard deviation of 0, are coins (moment selection, Andrews and Soares 2010).

    Args:
        scores: of each prompt, shape (K, K), K >= 2: averages of both orders, log-odds, skew-symmetric.
        disagreements: of each prompt, shape (K, K): half the sum of both orders, log-odds, symmetric.
        simulations: scores drawn under the null hypothesis.
        seed: the result is a function of the arguments.

    Raises:
        NoNoise: orders that agree but for rounding or a constant.
        ValueError: no three responses to one prompt.
    """
    found = _NoisyScores.of(scores, disagreements)
    rng = np.random.default_rng(seed)
    observed = found.cycles(found.scores[None])
    simulated = found.simulate(rng, simulations)
    return ScoreCycleTest(
        pairs=found.pairs,
        triples=found.triples,
        share=compare_with_null(observed.cycles[0] / found.triples, simulated.cycles / found.triples),
        evidence=compare_with_null(observed.evidence[0], simulated.evidence),
        additive_p=found.additive_p(),
        noise=found.noise,
        first=found.first,
        simulations=simulations,
    )


def score_cycle_power(
    scores: Sequence[np.ndarray], disagreements: Sequence[np.ndarray], simulations: int = 100, seed: int = 0
) -> Power:
    """
    How many cycles the test would find with this noise: as [`gpm_hf.ratings.power.cycle_power`], with scores in the
    place of votes. Arguments and errors are those of [`score_cycle_test`].
    """
    rng = np.random.default_rng(seed)
    given = _NoisyScores.of(scores, disagreements)
    ranking = given.ranking()
    unit = np.sqrt(np.square(given.scores).sum() / given.mask.sum())
    shares, power = [0.0], [_LEVEL]
    for strength in _STRENGTHS:
        found, true, threshold = [], [], None
        for size in given.blocks(simulations):
            angle = rng.uniform(0, 2 * np.pi, (size, *given.mask.shape[:2]))
            block = np.sin(angle[..., :, None] - angle[..., None, :]) * given.mask
            planted = ranking + strength * unit * block
            seen = given.with_noise(rng, planted)
            if threshold is None:
                nulls = [replace(given, scores=one).simulate(rng, simulations // _REFITS) for one in seen[:_REFITS]]
                threshold = float(np.quantile(np.concatenate([one.evidence for one in nulls]), 1 - _LEVEL))
            found.append(given.cycles(seen).evidence > threshold)
            true.append(given.cycles(planted).cycles / given.triples)
        shares.append(float(np.concatenate(true).mean()))
        power.append(float(np.concatenate(found).mean()))
        if power[-1] >= 0.95:
            break
    return Power(shares, power, crossing(shares, power))


@dataclass(frozen=True)
class _NoisyScores:
    """
    Scores of G prompts with n responses at most.

    Attributes:
        scores: shape (G, n, n), 0 where there is no pair.
        mask: shape (G, n, n), whether there is one.
        noise, first: as in [`ScoreCycleTest`].
    """

    scores: np.ndarray
    mask: np.ndarray
    noise: float
    first: float

    @classmethod
    def of(cls, scores: Sequence[np.ndarray], disagreements: Sequence[np.ndarray]) -> "_NoisyScores":
        if max((len(matrix) for matrix in scores), default=0) < 3:
            raise ValueError("No prompt has three responses, so that no cycle of three could show.")
        values, off = (
            np.concatenate([matrix[np.triu_indices(len(matrix), 1)] for matrix in given])
            for given in (scores, disagreements)
        )
        noise = float(off.std(ddof=1))
        if noise <= _ROUNDING * np.sqrt(np.square(values).mean()):
            raise NoNoise(
                "Both orders of a pair say the same, or differ by the same everywhere: these scores have no noise, "
                "and their cycles are what the scorer believes."
            )
        largest = max(len(matrix) for matrix in scores)
        stack = np.zeros((len(scores), largest, largest))
        mask = np.zeros(stack.shape, bool)
        for place, matrix in enumerate(scores):
            size = len(matrix)
            stack[place, :size, :size] = matrix
            mask[place, :size, :size] = ~np.eye(size, dtype=bool)
        return cls(stack, mask, noise, float(off.mean()))

    @property
    def sizes(self) -> np.ndarray:
        """Responses of each prompt, shape (G,)."""
        return self.mask.sum(-1).max(-1) + 1

    @property
    def pairs(self) -> int:
        """Of all prompts."""
        return int(self.mask.sum()) // 2

    @property
    def triples(self) -> int:
        """Of all prompts."""
        return sum(comb(int(size), 3) for size in self.sizes)

    def additive_p(self) -> float:
        """Mean square that no rating explains against that of the noise."""
        from scipy.stats import f

        sizes = self.sizes
        rating = self.scores.sum(-1) / sizes[:, None]
        rest = (self.scores - (rating[:, :, None] - rating[:, None, :])) * self.mask
        freedom = ((sizes - 1) * (sizes - 2) / 2).sum()
        return float(f.sf(np.square(rest).sum() / 2 / freedom / self.noise**2, freedom, self.pairs - 1))

    def ranking(self) -> np.ndarray:
        """What is left of the scores in the least favourable ranking, shape (G, n, n)."""
        # Of equal numbers of wins the larger sum of scores decides, which is smaller than a win.
        total = self.scores.sum(-1)
        order = (self.scores > 0).sum(-1) + total / (1 + 2 * np.abs(total).max(-1, keepdims=True))
        ahead = np.sign(order[:, :, None] - order[:, None, :])
        return np.where(ahead * self.scores > _UNDECIDED * self.noise, self.scores, 0.0)

    def blocks(self, samples: int) -> list[int]:
        """How many simulations are held at once, one block after another."""
        most = max(1, _AT_ONCE // self.scores.size)
        return [min(most, samples - start) for start in range(0, samples, most)]

    def cycles(self, scores: np.ndarray) -> CycleCount:
        """Of scores of shape (..., G, n, n)."""
        return count_cycles(np.sign(scores) * np.square(scores / self.noise) / 2)

    def simulate(self, rng: np.random.Generator, samples: int) -> CycleCount:
        """Cycles of the ranking's scores, read with noise."""
        ranking = self.ranking()
        found = [
            self.cycles(self.with_noise(rng, np.broadcast_to(ranking, (size, *ranking.shape))))
            for size in self.blocks(samples)
        ]
        return CycleCount(*(np.concatenate(part) for part in zip(*found)))

    def with_noise(self, rng: np.random.Generator, truth: np.ndarray) -> np.ndarray:
        """Scores as they would be read, shape (samples, G, n, n); few pairs leave the noise uncertain."""
        freedom = self.pairs - 1
        noise = self.noise * np.sqrt(freedom / rng.chisquare(freedom, len(truth)))
        upper = np.triu(rng.standard_normal(truth.shape), 1)
        return truth + noise[:, None, None, None] * (upper - upper.swapaxes(-1, -2)) * self.mask
