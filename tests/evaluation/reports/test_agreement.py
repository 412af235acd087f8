"""What is kept of a judge, counted by hand."""

import itertools
import math

import numpy as np
import pytest

from gpm_hf.evaluation.reports.agreement import agreement, agreement_table

NAN = math.nan
# 0 > 1 > 2 > 0 and all of them > 3; the other prompt is a ranking with a tie and a pair that was not judged.
RING = np.array([[0.5, 0.9, 0.2, 0.8], [0.1, 0.5, 0.7, 0.6], [0.8, 0.3, 0.5, 0.9], [0.2, 0.4, 0.1, 0.5]])
RANKED = np.array([[0.5, 1.0, 0.75], [0.0, 0.5, NAN], [0.25, NAN, 0.5]])


def skew(size, **edges):
    matrix = np.zeros((size, size))
    for name, score in edges.items():
        i, j = map(int, name[1:])
        matrix[i, j], matrix[j, i] = score, -score
    return matrix


MODEL = [skew(4, e01=1, e12=2, e20=0.5, e03=1, e13=-1, e23=3), skew(3, e01=3, e02=-1, e12=5)]


def test_counts_by_hand():
    found = agreement([RING, RANKED], MODEL)
    first, second = found.prompts
    assert (first.pairs, first.pairs_kept, first.cycles, first.cycles_kept) == (6, 5, 1, 1)
    # 0 > 1 > 2 > 0; 0 > 3 > 1 > 2 > 0 are four, of which the triples: 0 1 2, and 3 1 2 (3 > 1 > 2 > 3).
    assert first.model_cycles == 2 and first.winners == 0
    assert (second.pairs, second.pairs_kept, second.judged, second.cycles) == (2, 1, 2, 0)
    assert (second.winners, second.winners_kept) == (1, 0)
    assert found.share("pairs") == 6 / 8 and found.share("cycles") == 1.0 and found.share("winners") == 0.0
    assert found.interval("pairs") is None  # two prompts

    orders = itertools.permutations(range(4))
    wins = [(i, j) for i in range(4) for j in range(4) if RING[i, j] > 0.5]
    assert first.ceiling == max(sum(order.index(i) < order.index(j) for i, j in wins) for order in orders) == 5
    assert found.ceiling == (5 + 2) / 8


def test_cross_entropies_by_hand():
    found = agreement([RING, RANKED], MODEL)
    losses, entropies = [], []
    pairs = [(0, i, j) for i in range(4) for j in range(i + 1, 4)] + [(1, 0, 1), (1, 0, 2)]
    for prompt, i, j in pairs:
        p, q = (RING, RANKED)[prompt][i, j], 1 / (1 + math.exp(-MODEL[prompt][i, j]))
        losses.append(-p * math.log(q) - (1 - p) * math.log(1 - q))
        entropies.append(-sum(x * math.log(x) for x in (p, 1 - p) if x > 0))
    assert found.cross_entropy == pytest.approx(sum(losses) / 8)
    assert found.entropy == pytest.approx(sum(entropies) / 8)
    text = agreement_table({"mine": found})
    assert "| mine | 75.0% | 100.0% | 0.0% |" in text
    assert "| ceiling of any scalar reward | 87.5% | 0.0% |" in text


def test_a_judge_keeps_all_of_itself_and_large_scores_do_not_overflow():
    judge = np.where(np.isnan(RING), 0.5, RING)
    found = agreement([judge], [np.log(judge / (1 - judge))])
    assert found.share("pairs") == found.share("cycles") == 1.0 and found.share("winners") is None
    assert found.cross_entropy == pytest.approx(found.entropy)
    assert agreement([RANKED], [skew(3, e01=-5000)]).cross_entropy == pytest.approx((5000 + math.log(2)) / 2)


def test_what_cannot_be_compared():
    for judge, model in (([], []), ([RING], [RING[:3, :3]]), ([RING], [RING, RING])):
        with pytest.raises(ValueError, match="same prompts"):
            agreement(judge, model)
