"""
Cycle or noise? The cycles that votes show, against those that a ranking would show under the same votes, ties and
noise of the judge (a parametric bootstrap), and whether a difference of ratings is enough.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .cycle_evidence import CycleCount, Tournament, pair_evidence
from .exact_cycles import MOST_TRIPLES, exact_cycle_p
from .noise import NoisyRanking, fit_noisy_ranking
from .outcomes import draw_outcomes, outcome_probabilities
from .votes import MIN_PROMPTS, Votes, effective_votes

# Numbers held at once, in each array of a simulation.
_AT_ONCE = 1 << 21
_LEVEL = 0.05


class UntestableVotes(ValueError):
    """Votes of which nobody could tell cycles from noise; the message says why."""


@dataclass(frozen=True)
class NullTest:
    """
    One number of the votes against its distribution under a null hypothesis.

    Attributes:
        observed: of the votes.
        expected: its mean under the null hypothesis.
        p_value: share of simulations that reach the observed one, which counts as one of them.
        excess: observed less expected.
        excess_interval: 95%: observed less the ends of the null's middle 95%.
    """

    observed: float
    expected: float
    p_value: float
    excess: float
    excess_interval: tuple[float, float]

    @property
    def null_interval(self) -> tuple[float, float]:
        """The null's middle 95%."""
        low, high = self.excess_interval
        return self.observed - high, self.observed - low


@dataclass(frozen=True)
class CycleTest:
    """
    Attributes:
        pairs, votes, triples: compared pairs, votes in all, triples of items whose three pairs were compared.
        share: cyclic triples among these, against a ranking.
        evidence: what the votes have for the weakest pair of each cycle, in nats, summed, against a ranking. The test
            of cycles: one cycle that hundreds of votes speak for counts more than many of a vote or two.
        curl: root mean square of the part of the log-odds that no rating explains, weighted by what the votes say
            about each pair, against ratings (Bradley-Terry) with noise; in `excess` the noise is taken out.
        variance, spread, first: of the null hypothesis, see [`gpm_hf.ratings.noise.NoisyRanking`].
        tie_rate: share of votes that are ties.
        flips: of the pairs judged in both orders, the share whose majority names another item by the order; `None`
            where there are none.
        simulations: of each null hypothesis.
        exact: p-value of cycles by binomial tests alone, of votes that make few triples, in place of the evidence's;
            `None` for others, see [`gpm_hf.ratings.exact_cycles.exact_cycle_p`].
    """

    pairs: int
    votes: float
    triples: int
    share: NullTest
    evidence: NullTest
    curl: NullTest
    variance: float
    spread: float
    first: float
    tie_rate: float
    flips: float | None
    simulations: int
    exact: float | None = None

    @property
    def p_value(self) -> float:
        """Of cycles, against every ranking: exact where there are few triples, by simulation elsewhere."""
        return self.evidence.p_value if self.exact is None else self.exact

    @property
    def is_cyclic(self) -> bool:
        """Whether the votes contradict every ranking, at level 0.05."""
        return self.p_value <= _LEVEL

    @property
    def is_more_than_rating(self) -> bool:
        """Whether the votes contradict ratings (Bradley-Terry), at level 0.05; a ranking may still explain them."""
        return self.curl.p_value <= _LEVEL

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"p_value": self.p_value}

    def verdict(self) -> str:
        """In a sentence or two."""
        share, seen = self.share, f"{self.share.observed:.1%} of {self.triples} triples are cyclic"
        between = "{:.1%} to {:.1%}".format(*share.null_interval)
        noise = f"a ranking with these votes and this noise would show {share.expected:.1%} ({between})"
        found, p = f"{seen}; {noise}. ", f"p = {self.p_value:.2g}" + ", exact" * (self.exact is not None)
        if self.is_cyclic:
            return found + f"The cycles are more than noise ({p})."
        found += f"The cycles are no more than noise would make ({p})"
        if self.is_more_than_rating:
            return (
                found
                + f", but the votes are not additive: no rating alone explains them (p = {self.curl.p_value:.3g})."
            )
        return found + f", and a rating is enough (p = {self.curl.p_value:.2g})."


def cycle_test(votes: Votes, simulations: int = 400, seed: int = 0) -> CycleTest:
    """
    Tests whether votes are cyclic beyond the noise of a ranking, and whether they are more than ratings.

    The null hypothesis of `share` and `evidence` is a ranking in which each pair's strength is its own ("weak
    stochastic transitivity"); ratings, ties, the advantage of the first and the spread of pairs are fitted to the
    votes, and the ratings are drawn from their posterior, so that few votes make a wide null. That of `curl` has the
    difference of ratings for the log-odds. Votes on one pair are independent given its log-odds: noise is what differs
    between votes on one pair, by repeats or by order. Of whole votes that make few triples the p-value is exact.

    Args:
        votes: of one group of items or of many (`Votes.within_prompts`); probabilities with their prompts.
        simulations: votes drawn under each null hypothesis.
        seed: the result is a function of the arguments.

    Raises:
        UntestableVotes: probabilities that do not show their noise, no three items that were all compared with
            each other, or no pair with two votes.
    """
    given, votes = votes, testable(votes)
    ranking = fit_noisy_ranking(votes)
    rng = np.random.default_rng(seed)
    measure = Measure(ranking)
    if not measure.tournament.triples:
        raise UntestableVotes(
            "No three items were all compared with each other, so that no cycle of three could show."
        )
    observed = measure(ranking.cells.wins[None], ranking.cells.ties[None], ranking.cells.losses[None])
    by_ranking = measure.simulate(rng, simulations, additive=False)
    by_rating = by_ranking if ranking.spread == 0 else measure.simulate(rng, simulations, additive=True)
    cells, weight = ranking.cells, measure.weight.sum()
    triples = measure.tournament.triples
    return CycleTest(
        pairs=len(measure.expected),
        votes=cells.total,
        triples=triples,
        share=compare_with_null(observed.cycles[0] / triples, by_ranking.cycles / triples),
        evidence=compare_with_null(observed.evidence[0], by_ranking.evidence),
        curl=_compare_curl(observed.curl[0], by_rating.curl, weight),
        variance=ranking.variance,
        spread=ranking.spread,
        first=ranking.fit.first,
        tie_rate=float(cells.ties.sum() / cells.total),
        flips=_flips(cells),
        simulations=simulations,
        exact=exact_cycle_p(given) if triples <= MOST_TRIPLES else None,
    )


def testable(votes: Votes) -> Votes:
    """
    Votes whose noise can be told: whole ones as they are, probabilities by how they differ between prompts
    ([`gpm_hf.ratings.votes.effective_votes`]).

    Raises:
        UntestableVotes: others.
    """
    if not votes.are_whole:
        if votes.prompts < MIN_PROMPTS or (votes.prompt < 0).any() or votes.group.any():
            raise UntestableVotes(
                "The votes are probabilities, whose noise shows only between prompts, and those of "
                f"{MIN_PROMPTS} prompts at least are needed: name the prompts, or give whole votes (1, 0, 1/2)."
            )
        votes = effective_votes(votes)
    if not (votes.by_pair().size >= 2).any():
        raise UntestableVotes(
            "Each pair was judged once. In a full round of single votes the number of cycles follows from the items' "
            "numbers of wins, which a ranking with enough noise explains: whether cycles are real cannot be told. "
            "Judge the pairs again, or in both orders."
        )
    return votes


@dataclass
class Statistics:
    """Of many simulations, shape (samples,): cycles and their evidence, and the squared curl (Pearson's)."""

    cycles: np.ndarray
    evidence: np.ndarray
    curl: np.ndarray


class Measure:
    """Statistics of votes that have the sizes of the cells of a noisy ranking."""

    def __init__(self, ranking: NoisyRanking):
        self.ranking, cells = ranking, ranking.cells
        pairs = cells.by_pair()
        self.pairs, self.tournament = pairs, Tournament(pairs)
        self.turned = cells.a > cells.b
        scores = ranking.cell_scores(ranking.fit.rating[pairs.a] - ranking.fit.rating[pairs.b])
        found = outcome_probabilities(scores, ranking.fit.log_tie)
        sign = np.where(self.turned, -1.0, 1.0)
        self.expected = ranking.pair_sums(sign * cells.size * (found.win - found.loss) / 2)
        self.weight = ranking.pair_sums(cells.size * found.information)
        layout = self.tournament.layout
        self._divergence = self.tournament.divergence()
        self._inverse = np.linalg.inv(layout.hessian(*self.tournament.place, self.weight, 1e-9 * self.weight.mean()))

    def __call__(self, wins: np.ndarray, ties: np.ndarray, losses: np.ndarray) -> "Statistics":
        """Of votes of shape (samples, C)."""
        found = self.cycles(wins, losses)
        wins, losses = self._of_pairs(wins, losses)
        return Statistics(found.cycles, found.evidence, self.curl((wins - losses) / 2))

    def cycles(self, wins: np.ndarray, losses: np.ndarray) -> CycleCount:
        """Cycles of the majorities of votes of shape (samples, C)."""
        return self.tournament.count(pair_evidence(*self._of_pairs(wins, losses)))

    def _of_pairs(self, wins: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first, second = np.where(self.turned, losses, wins), np.where(self.turned, wins, losses)
        return self.ranking.pair_sums(first), self.ranking.pair_sums(second)

    def curl(self, score: np.ndarray) -> np.ndarray:
        """
        Pearson's statistic of the pairs, less what ratings explain: the weighted least squares of the Hodge
        decomposition on the graph of compared pairs, linearised at the fitted ratings.
        """
        off = score - self.expected
        layout = self.tournament.layout
        slopes = (self._divergence @ off.T).T.reshape(len(off), layout.groups, layout.largest)
        explained = np.einsum("sgi,gij,sgj->s", slopes, self._inverse, slopes, optimize=True)
        return np.square(off) @ (1 / self.weight) - explained

    @property
    def block(self) -> int:
        """Simulations that are held at once."""
        return max(1, _AT_ONCE // max(len(self.ranking.cells.a), self.tournament.entries))

    def simulate(self, rng: np.random.Generator, samples: int, additive: bool) -> "Statistics":
        """Statistics of votes drawn from the ranking, or from its ratings alone."""
        found = []
        for start in range(0, samples, self.block):
            pairs = self.ranking.draw(rng, min(self.block, samples - start), additive)
            found.append(self(*draw_votes(self.ranking, pairs, rng)))
        return Statistics(
            *(np.concatenate([getattr(one, name) for one in found]) for name in ("cycles", "evidence", "curl"))
        )


def draw_votes(
    ranking: NoisyRanking, of_pairs: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wins, ties and losses of each cell, shape (samples, C), from log-odds of pairs, shape (samples, P)."""
    chance = outcome_probabilities(ranking.cell_scores(of_pairs), ranking.fit.log_tie)
    return draw_outcomes(chance, ranking.cells.size, rng)


def compare_with_null(observed: float, simulated: np.ndarray) -> NullTest:
    """One number against its simulations under the null hypothesis, shape (samples,)."""
    reached = (simulated >= observed - 1e-9 * max(1.0, abs(observed))).sum()
    low, high = np.quantile(simulated, [0.025, 0.975])
    mean = float(simulated.mean())
    return NullTest(
        observed=float(observed),
        expected=mean,
        p_value=float((1 + reached) / (1 + len(simulated))),
        excess=float(observed) - mean,
        excess_interval=(float(observed - high), float(observed - low)),
    )


def _compare_curl(observed: float, simulated: np.ndarray, weight: float) -> NullTest:
    """In log-odds: squares are compared, and their excess is what noise does not make."""
    squares = compare_with_null(observed, simulated)

    def root(value: float) -> float:
        return float(np.sqrt(max(value, 0.0) / weight))

    return NullTest(
        observed=root(squares.observed),
        expected=root(squares.expected),
        p_value=squares.p_value,
        excess=root(squares.excess),
        excess_interval=(root(squares.excess_interval[0]), root(squares.excess_interval[1])),
    )


def _flips(cells: Votes) -> float | None:
    known = cells.where(cells.ordered)
    majority = np.sign(known.wins - known.losses)
    keys, backward = known.a * len(cells.items) + known.b, known.b * len(cells.items) + known.a
    _, forth, back = np.intersect1d(keys, backward, assume_unique=True, return_indices=True)
    # Each pair is met twice, once from either side; of b over a the majority has the other sign.
    return float((majority[forth] * majority[back] > 0).mean()) if len(forth) else None
