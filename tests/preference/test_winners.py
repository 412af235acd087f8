"""Winners of the named games, and of random ones by their definitions."""

from itertools import combinations

import numpy as np
import torch
from hypothesis import given, settings

from gpm_hf import modeling
from gpm_hf.preference import condorcet_winner, copeland, ranking, smith_set

from .games import ORDER, ROCK_PAPER_SCISSORS, TIE, WEIGHTED_RING, WITH_DOMINANT, WITH_DOMINATED, matrices, skew

PROPERTY = settings(derandomize=True, deadline=None, max_examples=60)


def smith_by_definition(matrix):
    """The smallest set each of whose members beats all outside, by trying sets in order of size."""
    size = len(matrix)
    for count in range(1, size + 1):
        for members in combinations(range(size), count):
            outside = [j for j in range(size) if j not in members]
            if all(matrix[i, j] > 0 for i in members for j in outside):
                return set(members)
    raise AssertionError


def test_the_named_games():
    #      game, Condorcet winner, Smith set, Copeland scores, ranking by mean score
    answers = [
        (ROCK_PAPER_SCISSORS, -1, [0, 1, 2], [0, 0, 0], [0, 1, 2]),
        (WEIGHTED_RING, -1, [0, 1, 2], [0, 0, 0], [1, 2, 0]),  # row sums -2, 1, 1
        (WITH_DOMINANT, 3, [3], [-1, -1, -1, 3], [3, 0, 1, 2]),
        (WITH_DOMINATED, -1, [1, 2, 3], [-3, 1, 1, 1], [1, 2, 3, 0]),
        (ORDER, 2, [2], [0, -2, 2], [2, 0, 1]),
        (TIE, -1, [0, 1, 2], [0, 0, 0], [0, 1, 2]),
    ]
    for game, winner, members, scores, order in answers:
        assert condorcet_winner(game) == winner
        assert np.flatnonzero(smith_set(game)).tolist() == members
        assert copeland(game).tolist() == scores
        assert ranking(game).tolist() == order


def test_the_shipped_models_own_condorcet_winner_is_this_one():
    half = np.triu(np.random.default_rng(1).integers(-1, 2, (200, 5, 5)), 1)
    games = torch.tensor(half - half.swapaxes(-1, -2))
    assert (modeling.condorcet_winner(games) == condorcet_winner(games)).all()
    assert (condorcet_winner(games) >= 0).any()


def test_mean_scores_and_duels_can_disagree():
    """0 wins both duels narrowly; 1 beats 2 by far."""
    narrow = skew({(0, 1): 0.1, (0, 2): 0.1, (1, 2): 5}, 3)
    assert condorcet_winner(narrow) == 0
    assert ranking(narrow).tolist() == [1, 0, 2]


def test_a_tie_enlarges_the_smith_set():
    """0 beats 2 and ties with 1, which beats nobody."""
    tied = skew({(0, 2): 1}, 3)
    assert smith_set(tied).tolist() == [True, True, True]
    assert smith_set(skew({(0, 2): 1, (1, 2): 1}, 3)).tolist() == [True, True, False]
    assert condorcet_winner(ORDER, min_score=1.0) == -1
    assert smith_set(ORDER, min_score=1.0).tolist() == [True, False, True]  # 2 and 0 now tie
    assert copeland(ORDER, min_score=1.0).tolist() == [1, -2, 1]


def test_one_response_wins():
    assert condorcet_winner([[0.0]]) == 0
    assert smith_set([[0.0]]).tolist() == [True]


@PROPERTY
@given(matrices())
def test_definitions(matrix):
    size = len(matrix)
    undefeated = [i for i in range(size) if all(matrix[i, j] > 0 for j in range(size) if j != i)]
    assert condorcet_winner(matrix) == (undefeated[0] if undefeated else -1)
    scores = [sum(np.sign(matrix[i, j]) for j in range(size)) for i in range(size)]
    assert copeland(matrix).tolist() == scores
    if size <= 9:
        assert set(np.flatnonzero(smith_set(matrix)).tolist()) == smith_by_definition(matrix)
    order = ranking(matrix)
    assert sorted(order.tolist()) == list(range(size))
    means = matrix.sum(1)[order] / size
    assert (np.diff(means) <= 1e-12 * (1 + np.abs(matrix).max())).all()


def test_batches():
    half = np.triu(np.random.default_rng(0).integers(-1, 2, (4, 50, 5, 5)), 1)
    games = half - half.swapaxes(-1, -2)
    for function in (condorcet_winner, smith_set, copeland, ranking):
        together = function(games)
        assert (function(torch.tensor(games)).numpy() == together).all()
        for place in np.ndindex(4, 50):
            assert (function(games[place]) == together[place]).all()
