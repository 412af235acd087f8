"""Exact p-values of cycles: level by enumeration, binomial sums written out, and what they are not asked of."""

import itertools
import math

import numpy as np
import pytest

from gpm_hf.ratings import count_votes, cycle_test
from gpm_hf.ratings.exact_cycles import exact_cycle_p, votes_to_find
from tests.ratings.simulated import round_robin

RING = (("A", "B"), ("B", "C"), ("C", "A"))


def ring_votes(wins, sizes):
    """So many of the votes on each pair of A > B > C > A as the ring says."""
    a, b, outcome, count = [], [], [], []
    for (first, second), won, size in zip(RING, wins, sizes):
        for value, number in ((1.0, won), (0.0, size - won)):
            if number:
                a.append(first)
                b.append(second)
                outcome.append(value)
                count.append(number)
    return count_votes(a, b, outcome, count)


def at_least(wins, size, chance=0.5):
    return sum(math.comb(size, k) * chance**k * (1 - chance) ** (size - k) for k in range(wins, size + 1))


@pytest.mark.parametrize(("wins", "sizes"), [((7, 8, 9), (8, 8, 10)), ((5, 5, 5), (5, 5, 5)), ((0, 1, 2), (9, 9, 9))])
def test_p_is_the_weakest_pair_of_the_stronger_way(wins, sizes):
    ways = [max(at_least(won, size) for won, size in zip(wins, sizes))]
    ways.append(max(at_least(size - won, size) for won, size in zip(wins, sizes)))
    expected = min(1.0, min(ways) + min(ways) ** 2)
    votes = ring_votes(wins, sizes)
    assert exact_cycle_p(votes) == pytest.approx(expected, rel=1e-9)
    found = cycle_test(votes, 20)
    assert found.exact == found.p_value == pytest.approx(expected, rel=1e-9)
    assert found.is_cyclic == (expected <= 0.05) and ", exact" in found.verdict()


def test_a_ranking_is_called_cyclic_in_at_most_5_percent():
    """Every outcome of seven votes a pair, with the chance that it has under a ranking (ties at 1/2 included)."""
    size = 7
    found = {wins: exact_cycle_p(ring_votes(wins, (size,) * 3)) for wins in itertools.product(range(8), repeat=3)}
    for chances in ((1.0, 1.0, 0.5), (0.9, 0.8, 0.5), (0.5, 0.5, 0.5), (0.8, 0.5, 0.5)):
        alarm = 0.0
        for wins, p_value in found.items():
            parts = (math.comb(size, won) * p**won * (1 - p) ** (size - won) for won, p in zip(wins, chances))
            alarm += math.prod(parts) * (p_value <= 0.05)
        assert 0 < alarm <= 0.05


def test_what_it_is_not_asked_of():
    assert exact_cycle_p(count_votes(list("ABC"), list("BCA"), [0.9] * 3)) is None
    assert exact_cycle_p(count_votes(list("ABAC"), list("BABA"), [1, 1, 0, 1])) is None
    many = round_robin(np.random.default_rng(0), np.zeros((1, 5, 5)), repeats=4)
    assert exact_cycle_p(many) is None and cycle_test(many, 20).exact is None
    # The first of the two always wins: seen in one order it looks like a cycle, in both it does not.
    pairs = [*RING, *[(b, a) for a, b in RING]]
    one = count_votes(*zip(*RING * 9), [1] * 27, ordered=[True] * 27)
    both = count_votes(*zip(*pairs * 9), [1] * 54, ordered=[True] * 54)
    assert exact_cycle_p(one) is None and exact_cycle_p(both) > 0.9


def test_votes_to_find_a_ring():
    assert votes_to_find([9.0, 9.0, 9.0]) == 5
    found = votes_to_find([1.0, 2.0, 0.8])

    def power(size):
        least = next(k for k in range(size + 2) if at_least(k, size) <= 0.05)
        return math.prod(at_least(least, size, 1 / (1 + math.exp(-score))) for score in (1.0, 2.0, 0.8))

    assert power(found) >= 0.8 > power(found - 1)
    assert votes_to_find([1e-3] * 3) is None
