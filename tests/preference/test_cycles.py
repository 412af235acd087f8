"""Cycles of small games, by name and by brute force."""

from itertools import permutations

import numpy as np
import pytest
import torch

from gpm_hf.preference import find_cycles

ROCK_PAPER_SCISSORS = np.array([[0, -1, 2], [1, 0, -3], [-2, 3, 0]])  # paper > rock > scissors > paper


def brute_force(scores, length):
    found = set()
    for members in permutations(range(len(scores)), length):
        if members[0] == min(members) and all(
            scores[members[k], members[(k + 1) % length]] > 0 for k in range(length)
        ):
            found.add(members)
    return found


def test_rock_paper_scissors():
    (cycle,) = find_cycles(ROCK_PAPER_SCISSORS)
    assert cycle.members == (0, 2, 1)  # rock beats scissors beats paper beats rock
    assert cycle.weakest == 1.0


def test_a_ranking_has_none():
    ratings = np.array([3.0, 1.0, 2.0, 0.5])
    assert find_cycles(ratings[:, None] - ratings[None, :], max_length=4) == []


def test_ties_are_no_preference():
    assert find_cycles(np.zeros((3, 3))) == []


def test_a_threshold_drops_weak_edges():
    assert find_cycles(ROCK_PAPER_SCISSORS, min_score=1.0) == []


@pytest.mark.parametrize("seed", range(5))
def test_every_cycle_once_as_brute_force_finds_it(seed):
    half = np.random.default_rng(seed).normal(size=(7, 7))
    scores = half - half.T
    cycles = find_cycles(scores, max_length=5)
    for length in (3, 4, 5):
        found = [cycle.members for cycle in cycles if len(cycle.members) == length]
        assert len(found) == len(set(found))
        assert set(found) == brute_force(scores, length)
    for members, weakest in cycles:
        assert weakest == min(scores[i, j] for i, j in zip(members, members[1:] + members[:1])) > 0
    assert find_cycles(torch.tensor(scores), max_length=5) == cycles
    assert find_cycles(scores, max_length=5, limit=2) == cycles[:2]


def test_errors():
    with pytest.raises(ValueError, match="square"):
        find_cycles(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="at least three"):
        find_cycles(np.zeros((3, 3)), max_length=2)
