"""Cycle or noise: statistics by hand, and rates of false alarms and of finds on votes of known truth."""

import math

import numpy as np
import pytest

from gpm_hf.ratings import Power, count_votes, cycle_power, cycle_test
from gpm_hf.ratings.cycle_evidence import LEVELS, Tournament, pair_evidence
from tests.ratings.simulated import bradley_terry_votes, noisy_judge_votes, planted_votes, round_robin


def test_evidence_is_the_log_likelihood_ratio_to_a_coin():
    assert pair_evidence(np.array(7.0), np.array(3.0)) == pytest.approx(
        7 * math.log(0.7) + 3 * math.log(0.3) - 10 * math.log(0.5)
    )
    assert pair_evidence(np.array(0.0), np.array(2.0)) == pytest.approx(-2 * math.log(2))
    assert pair_evidence(np.array(0.0), np.array(0.0)) == 0


def test_cycles_and_their_evidence_are_counted_one_by_one():
    votes = bradley_terry_votes(np.random.default_rng(0), items=6, repeats=5, groups=3, scale=0.3)
    votes = votes.where(np.random.default_rng(1).random(len(votes.a)) < 0.9)
    pairs = votes.by_pair()
    evidence = pair_evidence(pairs.wins, pairs.losses)
    signed = {}
    for a, b, value in zip(pairs.a.tolist(), pairs.b.tolist(), evidence.tolist()):
        signed[a, b], signed[b, a] = value, -value
    triples, weakest = 0, []
    for i in range(len(votes.items)):
        for j in range(i + 1, len(votes.items)):
            for k in range(j + 1, len(votes.items)):
                if (i, j) in signed and (j, k) in signed and (k, i) in signed:
                    triples += 1
                    ring = [signed[i, j], signed[j, k], signed[k, i]]
                    if all(value > 0 for value in ring) or all(value < 0 for value in ring):
                        weakest.append(min(map(abs, ring)))
    tournament = Tournament(pairs)
    found = tournament.count(np.stack([evidence, -evidence]))
    assert tournament.triples == triples and len(weakest) > 3
    assert found.cycles.tolist() == [len(weakest)] * 2
    steps = sum(max([level for level in LEVELS if level < value], default=0.0) for value in weakest)
    np.testing.assert_allclose(found.evidence, steps)


def alarms(draw, runs, simulations=100):
    results = [cycle_test(draw(np.random.default_rng(run)), simulations, seed=run) for run in range(runs)]
    return results, sum(result.is_cyclic for result in results)


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: bradley_terry_votes(rng, items=8, repeats=4, ties=0.2),
        lambda rng: noisy_judge_votes(rng, items=8, repeats=3, error=0.2),
        lambda rng: round_robin(rng, np.zeros((1, 6, 6)), repeats=4),
    ],
    ids=["ratings", "noisy judge", "coin"],
)
def test_transitive_votes_raise_few_alarms(draw):
    # At level 0.05 more than 3 of 12 have a chance of 0.2%.
    assert alarms(draw, runs=12)[1] <= 3


def test_planted_cycles_are_found_and_measured():
    results, found = alarms(lambda rng: planted_votes(rng, items=14, repeats=30, strength=3.0)[0], runs=6)
    assert found == 6
    assert all(result.is_more_than_rating and result.share.excess > 0.05 for result in results)


def test_one_strong_cycle_counts_more_than_its_number():
    votes = count_votes(list("ABCABC"), list("BCABCA"), [1, 1, 1, 0, 0, 0], count=[80, 80, 80, 20, 20, 20])
    result = cycle_test(votes, 200)
    assert result.triples == 1 and result.share.observed == 1
    assert result.evidence.p_value < 0.03 < result.share.p_value


def test_flips_and_the_advantage_of_the_first():
    # A judge who always names the first of the two: nothing but flips, and no cycle.
    items = range(5)
    a, b = zip(*[(i, j) for i in items for j in items if i != j])
    result = cycle_test(count_votes(a, b, [1] * 20, ordered=[True] * 20), 50)
    assert result.flips == 1 and result.first > 2 and result.share.observed == 0
    # One who does not look at the order.
    result = cycle_test(count_votes(a, b, [float(i < j) for i, j in zip(a, b)], ordered=[True] * 20), 50)
    assert result.flips == 0 and abs(result.first) < 1e-6


def test_votes_that_cannot_tell_are_refused():
    single = count_votes(list("ABC"), list("BCA"), [1, 1, 1])
    with pytest.raises(ValueError, match=r"judged once.*both orders"):
        cycle_test(single)
    with pytest.raises(ValueError, match="probabilities"):
        cycle_test(count_votes(list("ABC"), list("BCA"), [0.9, 0.8, 0.7]))
    with pytest.raises(ValueError, match="No three items"):
        cycle_test(count_votes(list("ABAB"), list("BABC"), [1, 1, 1, 0]))


def test_power_grows_with_votes():
    rng = np.random.default_rng(5)
    few = cycle_power(bradley_terry_votes(rng, items=8, repeats=2), simulations=60)
    many = cycle_power(bradley_terry_votes(rng, items=12, repeats=60), simulations=60)
    assert few.detectable is None or few.detectable > many.detectable
    assert many.detectable is not None and many.detectable < 0.2
    assert "found in 80% of cases" in many.sentence()
    weak = Power([0.0, 0.1, 0.26], [0.05, 0.2, 0.51], None)
    assert "even cycles in 26% of the triples" in weak.sentence() and "found in 51% of cases" in weak.sentence()
    assert all(0 <= share <= 0.5 for share in many.shares) and many.power[0] == 0.05
