"""How many cycles it would take for these votes to tell: power of the test in [`gpm_hf.ratings.null`]."""

from dataclasses import dataclass, replace

import numpy as np

from .noise import NoisyRanking, fit_noisy_ranking
from .null import Measure, draw_votes, testable
from .votes import Votes

# Log-odds of a planted block: `strength * sin(angle_i - angle_j)`.
_STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_LEVEL, _WANTED = 0.05, 0.8
_REFITS = 2


@dataclass(frozen=True)
class Power:
    """
    Attributes:
        shares: true shares of cyclic triples that were planted.
        power: how often each was found at level 0.05.
        detectable: the share that is found in 80% of cases, between two that were tried; `None` where none was.
    """

    shares: list[float]
    power: list[float]
    detectable: float | None

    def sentence(self, what: str = "votes") -> str:
        """What these votes (or scores) can tell."""
        if self.detectable is None:
            return (
                f"With these {what} even cycles in {self.shares[-1]:.0%} of the triples, the most that was planted, "
                f"would be found in {self.power[-1]:.0%} of cases: that none are found says little."
            )
        return (
            f"Cycles in {self.detectable:.1%} of the triples would be found in 80% of cases with these {what}; a "
            "smaller share can hardly be told from 0."
        )


def cycle_power(votes: Votes, simulations: int = 200, seed: int = 0) -> Power:
    """
    Plants cycles into the ranking that was fitted to the votes: each item gets a place on a circle and `strength *
    sin(difference of angles)` is added to the log-odds, as one block of a general preference model does. The same
    votes are cast again. The test's threshold is of rankings refitted to such votes.

    Args:
        votes: as [`gpm_hf.ratings.null.cycle_test`] takes them.
        simulations: for each strength.
        seed: the result is a function of the arguments.
    """
    rng = np.random.default_rng(seed)
    ranking = fit_noisy_ranking(testable(votes))
    measure = Measure(ranking)
    shares, power = [0.0], [_LEVEL]
    for strength in _STRENGTHS:
        block = max(1, min(simulations, measure.block))
        found, true = [], []
        threshold = None
        for start in range(0, simulations, block):
            planted = _planted(measure, rng, min(block, simulations - start), strength)
            wins, ties, losses = draw_votes(ranking, planted, rng)
            if threshold is None:
                threshold = _threshold(ranking.cells, wins, ties, losses, rng, simulations)
            found.append(measure.cycles(wins, losses).evidence > threshold)
            true.append(measure.tournament.count(planted).cycles / measure.tournament.triples)
        shares.append(float(np.concatenate(true).mean()))
        power.append(float(np.concatenate(found).mean()))
        if power[-1] >= 0.95:
            break
    return Power(shares, power, crossing(shares, power))


def _planted(measure: Measure, rng: np.random.Generator, samples: int, strength: float) -> np.ndarray:
    ranking, pairs = measure.ranking, measure.pairs
    angle = rng.uniform(0, 2 * np.pi, (samples, len(pairs.items)))
    return ranking.draw(rng, samples, additive=True) + strength * np.sin(angle[:, pairs.a] - angle[:, pairs.b])


def _threshold(
    cells: Votes,
    wins: np.ndarray,
    ties: np.ndarray,
    losses: np.ndarray,
    rng: np.random.Generator,
    simulations: int,
) -> float:
    """What 5% of rankings exceed that are fitted to votes with cycles."""
    found = []
    for number in range(min(_REFITS, len(wins))):
        refit: NoisyRanking = fit_noisy_ranking(
            replace(cells, wins=wins[number], ties=ties[number], losses=losses[number])
        )
        found.append(Measure(refit).simulate(rng, simulations // _REFITS, additive=False).evidence)
    return float(np.quantile(np.concatenate(found), 1 - _LEVEL))


def crossing(shares: list[float], power: list[float]) -> float | None:
    """The share that is found in 80% of cases, by interpolation; `None` where none is."""
    above = next((place for place, value in enumerate(power) if value >= _WANTED), None)
    if above is None:
        return None
    low, high = power[above - 1], power[above]
    return shares[above - 1] + (_WANTED - low) / (high - low) * (shares[above] - shares[above - 1])
