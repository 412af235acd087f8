"""Answers worked out by hand: rings, rings with an outsider, an order, ties, a ring of four."""

import json
from itertools import combinations, permutations

import numpy as np
import pytest
import torch

from gpm_hf.evaluation.reports.inspection import FoundCycle, inspect_scores

THIRD = pytest.approx(1 / 3, abs=1e-9)


def matrix(size, edges):
    """Log-odds from {(i, j): how much i is preferred to j}."""
    scores = np.zeros((size, size))
    for (i, j), value in edges.items():
        scores[i, j], scores[j, i] = value, -value
    return scores


RING = {(0, 1): 1.0, (1, 2): 1.0, (2, 0): 1.0}


def test_rock_paper_scissors():
    found = inspect_scores(matrix(3, RING))
    assert found.cycles == [FoundCycle(members=(0, 1, 2), strength=1.0, weakest_edge=(0, 1))]
    assert (found.three_cycles, found.transitive, found.condorcet_winner) == (1, False, None)
    assert found.smith_set == [0, 1, 2] and found.copeland == [0, 0, 0]
    assert found.von_neumann_winner == [THIRD] * 3
    assert found.mean_scores == [0, 0, 0] and found.ranking == [0, 1, 2]
    assert (found.transitive_share, found.cyclic_share) == (0, 1)
    assert (found.pairs, found.pairs_as_rated) == (3, 0)


def test_an_unequal_ring_is_as_strong_as_its_weakest_edge():
    found = inspect_scores(matrix(3, {(0, 1): 2.0, (1, 2): 1.0, (2, 0): 1.5}))
    assert found.cycles == [FoundCycle((0, 1, 2), 1.0, (1, 2))]
    # The mixture is proportional to the opposite edges.
    assert found.von_neumann_winner == pytest.approx([1 / 4.5, 1.5 / 4.5, 2 / 4.5], abs=1e-9)
    assert found.mean_scores == pytest.approx([0.5 / 3, -1 / 3, 0.5 / 3])


def test_a_dominant_option_wins_though_the_ring_stays():
    found = inspect_scores(matrix(4, RING | {(3, i): 2.0 for i in range(3)}))
    assert found.condorcet_winner == 3 and found.smith_set == [3]
    assert found.von_neumann_winner == pytest.approx([0, 0, 0, 1], abs=1e-9)
    assert found.copeland == [-1, -1, -1, 3] and found.ranking == [3, 0, 1, 2]
    assert found.mean_scores == [-0.5, -0.5, -0.5, 1.5]
    assert [cycle.members for cycle in found.cycles] == [(0, 1, 2)] and not found.transitive
    # Ratings explain its edges, 6 x 2^2, and nothing of the ring's, 6 x 1^2.
    assert found.transitive_share == pytest.approx(24 / 30) and found.cyclic_share == pytest.approx(6 / 30)
    assert (found.pairs, found.pairs_as_rated) == (6, 3)


def test_a_dominated_option_changes_nothing_at_the_top():
    found = inspect_scores(
        matrix(4, {(i + 1, j + 1): v for (i, j), v in RING.items()} | {(i, 0): 2 for i in (1, 2, 3)})
    )
    assert found.condorcet_winner is None and found.smith_set == [1, 2, 3]
    assert found.von_neumann_winner == [pytest.approx(0, abs=1e-9), THIRD, THIRD, THIRD]
    assert found.cycles == [FoundCycle((1, 2, 3), 1.0, (1, 2))]
    assert found.transitive_share == pytest.approx(24 / 30)


def test_rewards_are_a_ranking():
    rewards = np.array([0.0, 3.0, 1.0])
    found = inspect_scores(rewards[:, None] - rewards)
    assert found.transitive and found.cycles == [] and found.three_cycles == 0
    assert found.ranking == [1, 2, 0] and found.condorcet_winner == 1 and found.smith_set == [1]
    assert found.von_neumann_winner == pytest.approx([0, 1, 0], abs=1e-9)
    assert found.transitive_share == pytest.approx(1)
    assert (found.pairs, found.pairs_as_rated) == (3, 3)


def test_a_tie_of_all():
    found = inspect_scores(np.zeros((3, 3)))
    assert found.transitive and found.cycles == [] and found.condorcet_winner is None
    assert found.smith_set == [0, 1, 2] and found.von_neumann_winner == [THIRD] * 3
    assert (found.transitive_share, found.pairs, found.pairs_as_rated) == (1, 0, 0)


def test_a_ring_of_four_can_be_stronger_than_those_of_three():
    ring = {(0, 1): 5.0, (1, 2): 6.0, (2, 3): 4.0, (3, 0): 5.0}
    found = inspect_scores(matrix(4, ring | {(0, 2): 0.1, (1, 3): 0.2}))
    assert found.three_cycles == 2
    assert found.cycles == [
        FoundCycle((0, 1, 2, 3), 4.0, (2, 3)),
        FoundCycle((0, 1, 3), 0.2, (1, 3)),
        FoundCycle((0, 2, 3), 0.1, (0, 2)),
    ]
    # Where opposite corners tie there is none of three at all.
    found = inspect_scores(matrix(4, ring))
    assert found.three_cycles == 0 and found.cycles == [FoundCycle((0, 1, 2, 3), 4.0, (2, 3))]
    assert not found.transitive


def test_the_strongest_are_listed_and_all_are_counted():
    # Two rings, the second one stronger, the first preferred to it throughout.
    second = {(i + 3, j + 3): 2.0 for i, j in RING}
    scores = matrix(6, RING | second | {(i, j): 0.5 for i in range(3) for j in range(3, 6)})
    assert [cycle.members for cycle in inspect_scores(scores).cycles] == [(3, 4, 5), (0, 1, 2)]
    found = inspect_scores(scores, max_cycles=1)
    assert [cycle.members for cycle in found.cycles] == [(3, 4, 5)] and found.three_cycles == 2
    assert found.cycles[0].edges == [(3, 4), (4, 5), (5, 3)]


@pytest.mark.parametrize("seed", range(20))
def test_no_cycle_of_any_length_is_stronger_than_the_first(seed):
    values = np.random.default_rng(seed).integers(-4, 5, (5, 5)).astype(float)
    scores = np.triu(values, 1) - np.triu(values, 1).T
    strengths = [
        min(scores[i, j] for i, j in zip(ring, (*ring[1:], ring[0])))
        for length in (3, 4, 5)
        for members in combinations(range(5), length)
        for ring in permutations(members)
    ]
    found = inspect_scores(scores)
    assert [cycle.strength for cycle in found.cycles[:1]] == [best for best in [max(strengths)] if best > 0]
    for cycle in found.cycles:
        assert cycle.strength == min(scores[edge] for edge in cycle.edges) == scores[cycle.weakest_edge]
        assert cycle.members[0] == min(cycle.members)


def test_everything_is_json_whatever_came_in():
    scores = matrix(3, RING)
    for kind in (scores, torch.tensor(scores, dtype=torch.float32), scores.tolist()):
        found = json.loads(json.dumps(inspect_scores(kind).to_dict()))
        assert found["cycles"] == [{"members": [0, 1, 2], "strength": 1.0, "weakest_edge": [0, 1], "votes": 44}]
        assert found["scores"] == [[0, 1, -1], [-1, 0, 1], [1, -1, 0]] and found["condorcet_winner"] is None


def test_errors():
    with pytest.raises(ValueError, match="at least two responses"):
        inspect_scores(np.zeros((1, 1)))
    with pytest.raises(ValueError, match="one matrix"):
        inspect_scores(np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match="not skew-symmetric"):
        inspect_scores(np.ones((2, 2)))
    with pytest.raises(ValueError, match="at least the strongest"):
        inspect_scores(np.zeros((2, 2)), max_cycles=0)
