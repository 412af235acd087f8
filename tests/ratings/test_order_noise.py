"""Cycle or noise of scores that were read in both orders: numbers by hand, false alarms, finds, power."""

import numpy as np
import pytest
from scipy.stats import f

from gpm_hf.ratings.order_noise import NoNoise, score_cycle_power, score_cycle_test
from tests.ratings.simulated import SURE, additive, read_twice, rotated

# S_ab, S_bc, S_ca, by the two orders of a pair: with the first of the two read first, and with the second.
RING = [(0, 1, 3.0, -1.0), (1, 2, 2.5, -2.5), (2, 0, 4.0, -1.0)]


def ring():
    scores, apart = np.zeros((3, 3)), np.zeros((3, 3))
    for i, j, forth, back in RING:
        scores[i, j], scores[j, i] = (forth - back) / 2, (back - forth) / 2
        apart[i, j] = apart[j, i] = (forth + back) / 2
    return scores, apart


def test_numbers_by_hand():
    scores, apart = ring()
    assert (scores[0, 1], scores[1, 2], scores[2, 0]) == (2.0, 2.5, 2.5)
    found = score_cycle_test([scores], [apart], simulations=50)
    assert (found.pairs, found.triples, found.share.observed) == (3, 1, 1.0)
    # Orders disagree by 1, 0 and 1.5: their mean is the advantage of the first, the rest is noise.
    first = 2.5 / 3
    variance = ((1 - first) ** 2 + first**2 + (1.5 - first) ** 2) / 2
    assert (found.first, found.noise) == (pytest.approx(first), pytest.approx(variance**0.5))
    # The weakest pair has 2^2 / (2 variance) = 3.43 nats, counted in steps of which 3 is the last.
    assert 3 < 2.0**2 / (2 * variance) < 4 and found.evidence.observed == 3.0
    # A rating explains nothing of a ring but the rest of its mean, 7 / 3 in each pair: one degree of freedom.
    square = 3 * (7 / 3) ** 2
    assert found.additive_p == pytest.approx(f.sf(square / variance, 1, 2))


def test_the_null_of_one_ring_by_hand():
    """Two of its pairs stay, the third is a coin: so a ring comes by half of the noise's draws at most."""
    scores, apart = ring()
    found = score_cycle_test([20 * scores], [apart], simulations=2000)
    assert found.share.expected == pytest.approx(0.5, abs=0.05)
    # What noise gives to the coin is never near to 40^2 / (2 variance).
    assert found.evidence.p_value < 0.05 and found.is_cyclic and "more than noise" in found.verdict()
    assert found.to_dict()["p_value"] == found.evidence.p_value


@pytest.mark.parametrize(
    ("draw", "noise"),
    [
        (lambda rng: additive(rng, 10, 5), 1.0),
        (lambda rng: np.zeros((10, 4, 4)), 1.0),
        (lambda rng: np.sign(additive(rng, 10, 5)) * 0.5, 0.5),
        (lambda rng: np.sign(additive(rng, 1, 6)) * SURE, 1.0),
    ],
    ids=["ratings", "coins", "ranking", "sure ranking"],
)
def test_transitive_scores_raise_few_alarms(draw, noise):
    found = []
    for run in range(12):
        rng = np.random.default_rng(run)
        found.append(score_cycle_test(*read_twice(rng, draw(rng), noise, first=0.7), 100, seed=run).is_cyclic)
    # At level 0.05 more than 3 of 12 have a chance of 0.2%.
    assert sum(found) <= 3


def test_planted_cycles_are_found_whatever_the_sizes_of_groups():
    rng = np.random.default_rng(0)
    truth = [*(additive(rng, 20, 4) + 3 * rotated(rng, 20, 4)), *additive(rng, 5, 6), *additive(rng, 5, 2)]
    found = score_cycle_test(*read_twice(rng, truth, noise=0.5, first=1.0), 100)
    assert found.is_cyclic and found.additive_p < 1e-6 and found.share.excess > 0
    assert (found.pairs, found.triples) == (20 * 6 + 5 * 15 + 5, 20 * 4 + 5 * 20)
    # The noise of an average of two is that of one, by the root of 2.
    assert found.noise == pytest.approx(0.5 / 2**0.5, rel=0.15) and found.first == pytest.approx(1.0, abs=0.15)


def test_power_grows_as_noise_falls():
    truth = additive(np.random.default_rng(0), 30, 5)
    loud, quiet = (score_cycle_power(*read_twice(np.random.default_rng(1), truth, noise)) for noise in (2.0, 0.2))
    assert quiet.detectable < 0.2 and (loud.detectable is None or loud.detectable > quiet.detectable)
    assert "with these scores; a smaller share" in quiet.sentence("scores")


def test_no_noise_is_said():
    scores, apart = ring()
    for one in (np.zeros((3, 3)), np.ones((3, 3)) - np.eye(3), 1e-7 * apart):
        with pytest.raises(NoNoise, match="no noise, and their cycles are what the scorer believes"):
            score_cycle_test([scores], [one])
    with pytest.raises(ValueError, match="No prompt has three responses"):
        score_cycle_test([scores[:2, :2]], [apart[:2, :2]])
