"""
Cycles by binomial tests alone: exact for any number of votes, whatever the ratings, ties and strengths of pairs are.

In a ranking, of the pairs of a ring i > j > k > i at least one is not won as the ring says, with a chance of at most
1/2 among votes that decide. So the largest of the ring's three one-sided binomial p-values is one of the ring (an
intersection-union test, Berger 1982). A ranking contradicts one way around a triple in one pair at least and the other
way in two, whose votes are independent: the smaller p of both ways has a chance of at most `p + p^2`. Triples are put
together by Bonferroni's inequality.
"""

from collections.abc import Sequence

import numpy as np

from gpm_hf.preference.arrays import sigmoid

from .votes import Votes

# Beyond it the bootstrap, which adds up what many cycles have for themselves, finds more.
MOST_TRIPLES = 4
_LEVEL, _WANTED, _MOST_VOTES = 0.05, 0.8, 100_000


def exact_cycle_p(votes: Votes) -> float | None:
    """
    The p-value of the strongest cycle of three, of whole votes.

    Args:
        votes: any; orders and prompts are summed over.

    Returns:
        From 0 to 1; `None` for probabilities, where pairs were not seen in both orders alike (an advantage of the
        first would count as a preference), and where the triples are more than [`MOST_TRIPLES`].
    """
    if not votes.are_whole or not _orders_are_balanced(votes):
        return None
    pairs = votes.by_pair()
    tail = {}
    for a, b, wins, losses in zip(pairs.a.tolist(), pairs.b.tolist(), pairs.wins, pairs.losses):
        tail[a, b], tail[b, a] = _tail(wins, wins + losses), _tail(losses, wins + losses)
    found = []
    for i, j in zip(pairs.a.tolist(), pairs.b.tolist()):
        for k in range(j + 1, len(votes.items)):
            if (i, k) in tail and (j, k) in tail:
                ways = ((i, j), (j, k), (k, i)), ((j, i), (k, j), (i, k))
                found.append(min(max(tail[edge] for edge in way) for way in ways))
                if len(found) > MOST_TRIPLES:
                    return None
    if not found:
        return None
    return float(min(1.0, len(found) * (min(found) + min(found) ** 2)))


def votes_to_find(log_odds: Sequence[float]) -> int | None:
    """
    How many votes on each pair of a ring find it, at level 0.05 in 80% of cases, by the test of that ring.

    Args:
        log_odds: of each member of the ring against the next, above 0, with which people would vote.

    Returns:
        At least 5, whose unanimity has p = 1/32; `None` beyond 100,000.
    """
    from scipy.stats import binom

    chances = sigmoid(log_odds)

    def power(size: int) -> float:
        least = binom.isf(_LEVEL, size, 0.5) + 1
        return float(np.prod(binom.sf(least - 1, size, chances)))

    low, high = 4, 8
    while power(high) < _WANTED:
        low, high = high, 2 * high
        if high > _MOST_VOTES:
            return None
    # Power goes up in jumps; this is where it last comes to what is wanted within a jump or two.
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if power(middle) < _WANTED else (low, middle)
    return high


def _tail(wins: float, size: float) -> float:
    """P(at least so many of size fair coins)."""
    from scipy.special import bdtrc

    return float(bdtrc(wins - 1, size, 0.5)) if wins else 1.0


def _orders_are_balanced(votes: Votes) -> bool:
    known = votes.where(votes.ordered)
    if not len(known.a):
        return True
    size = len(votes.items)
    forth = np.bincount(known.a * size + known.b, known.size, size * size)
    return bool((forth.reshape(size, size) == forth.reshape(size, size).T).all())
