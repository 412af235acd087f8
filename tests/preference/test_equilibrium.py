"""The von Neumann winner against hand answers, the support equations and an independent quadratic program."""

import importlib
import sys
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from gpm_hf.preference import duality_gap, equilibrium, optimistic_multiplicative_weights, von_neumann_winner
from gpm_hf.preference.exact_simplex import exact_vertex

from .games import ORDER, ROCK_PAPER_SCISSORS, TIE, WEIGHTED_RING, WITH_DOMINANT, WITH_DOMINATED, matrices, skew

PROPERTY = settings(derandomize=True, deadline=None, max_examples=100)


def nearest_by_enumeration(matrix):
    """
    The strategy of least norm with S p <= 0: whichever supports and tight rows it has, it is the point of least norm
    where the other probabilities and those rows vanish, so the best feasible one of all such points is it.
    """
    size = len(matrix)
    best = None
    everyone = range(size)
    subsets = [subset for count in range(size + 1) for subset in combinations(everyone, count)]
    for zeros in subsets:
        for tight in subsets:
            rows = [np.eye(size)[list(zeros)], matrix[list(tight)], np.ones((1, size))]
            system = np.vstack([row for row in rows if len(row)])
            point = np.linalg.pinv(system) @ np.append(np.zeros(len(system) - 1), 1.0)
            feasible = point.min() > -1e-9 and (matrix @ point).max() < 1e-9 and abs(point.sum() - 1) < 1e-9
            if feasible and (best is None or point @ point < best @ best):
                best = point
    return best


def test_the_named_games():
    answers = [
        (ROCK_PAPER_SCISSORS, [1 / 3, 1 / 3, 1 / 3]),
        (WEIGHTED_RING, [2 / 6, 3 / 6, 1 / 6]),
        (WITH_DOMINANT, [0, 0, 0, 1]),
        (WITH_DOMINATED, [0, 1 / 3, 1 / 3, 1 / 3]),
        (ORDER, [0, 0, 1]),
        (TIE, [1 / 3, 1 / 3, 1 / 3]),
    ]
    for game, expected in answers:
        winner = von_neumann_winner(game)
        assert winner == pytest.approx(expected, abs=1e-12)
        assert (winner @ game).min() >= -1e-9
        assert duality_gap(game, winner) == pytest.approx(0, abs=1e-12)


def test_of_many_winners_the_one_nearest_to_uniform():
    # 0 and 1 tie and beat the rest, which tie: every mixture of 0 and 1 wins.
    clones = skew({(i, j): 1 for i in (0, 1) for j in (2, 3)}, 4)
    assert von_neumann_winner(clones) == pytest.approx([0.5, 0.5, 0, 0], abs=1e-12)
    # 0 beats 2 and ties with 1, which ties with 2: any p with 1's weight w and the rest on 0.
    assert von_neumann_winner(skew({(0, 2): 1}, 3)) == pytest.approx([0.5, 0.5, 0], abs=1e-12)
    # Scissors twice: p_1 = 1/3 each for rock and paper, scissors' third shared.
    twice = ROCK_PAPER_SCISSORS[np.ix_([0, 1, 2, 2], [0, 1, 2, 2])]
    assert von_neumann_winner(twice) == pytest.approx([1 / 3, 1 / 3, 1 / 6, 1 / 6], abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_against_enumeration(seed):
    random = np.random.default_rng(seed)
    half = np.triu(random.integers(-1, 2, (4, 4)), 1).astype(float)
    matrix = half - half.T
    assert von_neumann_winner(matrix) == pytest.approx(nearest_by_enumeration(matrix), abs=1e-9)


@PROPERTY
@given(matrices())
def test_no_response_beats_it(matrix):
    winner = von_neumann_winner(matrix)
    assert winner.min() >= 0
    assert winner.sum() == pytest.approx(1, abs=1e-12)
    assert (winner @ matrix).min() >= -1e-9
    assert duality_gap(matrix, winner) == pytest.approx(-2 * (winner @ matrix).min(), abs=1e-14)


@PROPERTY
@given(matrices())
def test_nearest_to_uniform_by_the_optimality_condition(matrix):
    """
    p is the point of least norm iff p . q >= |p|^2 for every other winner q: the least p . q is found by an interior
    point method and by simplex in integers, neither of which takes part in the answer.
    """
    from scipy.optimize import linprog

    winner = von_neumann_winner(matrix)
    scale = max(np.abs(matrix).max(), 1e-300)
    if 0 < np.abs(matrix / scale)[matrix != 0].min(initial=1.0) < 1e-6:
        return  # which entries are ties is then a matter of tolerance
    if matrix.any():
        in_integers = exact_vertex(matrix / 2 ** np.ceil(np.log2(scale)), winner)
        assert winner @ in_integers >= winner @ winner - 1e-10
    program = linprog(
        winner,
        A_ub=matrix / scale,
        b_ub=np.zeros(len(matrix)),
        A_eq=np.ones((1, len(matrix))),
        b_eq=[1.0],
        method="highs-ipm",
    )
    assert program.fun >= winner @ winner - 1e-6


@pytest.mark.parametrize("noise", [1e-7, 1e-9, 1e-13])
def test_ties_but_for_noise(noise):
    """What float32 models return for equal responses: here HiGHS gives up, or is off by more than promised."""
    random = np.random.default_rng(0)
    for _ in range(30):
        size = int(random.integers(3, 10))
        half = np.triu(random.integers(-1, 2, (size, size)) + noise * random.normal(size=(size, size)), 1)
        matrix = half - half.T
        winner = von_neumann_winner(matrix)
        assert winner.min() >= 0
        assert (winner @ matrix).min() >= -1e-11 * np.abs(matrix).max()


def test_integers_solve_alone_when_highs_fails(monkeypatch):
    monkeypatch.setattr(equilibrium, "_highs_vertex", lambda game, objective: None)
    test_the_named_games()
    test_of_many_winners_the_one_nearest_to_uniform()


def test_a_game_that_neither_solves_is_an_error():
    """Sixty ties but for noise: HiGHS cycles, and integers would take too long. The approximate solver does it."""
    random = np.random.default_rng(0)
    half = np.triu(random.integers(-1, 2, (60, 60)) + 1e-7 * random.normal(size=(60, 60)), 1)
    matrix = half - half.T
    with pytest.raises(RuntimeError, match="HiGHS did not solve this game of 60 responses"):
        von_neumann_winner(matrix)
    assert optimistic_multiplicative_weights(matrix, gap=0.01).gap <= 0.01
    rounded = von_neumann_winner(matrix.round(6))
    assert (rounded @ matrix).min() >= -1e-6


def test_large_games_are_solved_to_rounding():
    """HiGHS alone is off by up to 1e-11 here."""
    random = np.random.default_rng(7)
    for _ in range(5):
        half = np.round(random.normal(size=(100, 100)) * 8) / 8
        matrix = half - half.T
        assert (von_neumann_winner(matrix) @ matrix).min() >= -1e-14


def test_scale_does_not_matter():
    for factor in (1e-300, 1e-9, 1e9, 1e300):
        assert von_neumann_winner(WEIGHTED_RING * factor) == pytest.approx([2 / 6, 3 / 6, 1 / 6], abs=1e-12)


def test_batches():
    games = np.stack([WITH_DOMINANT, WITH_DOMINATED])[:, None]
    winners = von_neumann_winner(torch.tensor(games))
    assert winners.shape == (2, 1, 4)
    assert winners[0, 0].tolist() == pytest.approx([0, 0, 0, 1])
    assert winners[1, 0].tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    gaps = duality_gap(torch.tensor(games), torch.full((4,), 0.25, dtype=torch.float64))
    assert gaps.flatten().tolist() == pytest.approx([2 * 6 / 4, 2 * 2 / 4])
    assert von_neumann_winner([[0.0]]).tolist() == [1.0]


def test_duality_gap_is_that_of_both_players():
    random = np.random.default_rng(0)
    half = random.normal(size=(6, 6))
    matrix = half - half.T
    strategy = random.dirichlet(np.ones(6))
    by_hand = max(matrix @ strategy) - min(strategy @ matrix)
    assert duality_gap(matrix, strategy) == pytest.approx(by_hand)


def test_errors():
    with pytest.raises(ValueError, match=r"shape \(..., 3\)"):
        duality_gap(ORDER, [0.5, 0.5])
    for bad in ([0.5, 0.5, 0.5], [1.5, -0.5, 0.0], [np.nan, 0.5, 0.5]):
        with pytest.raises(ValueError, match="probability vector"):
            duality_gap(ORDER, bad)


def test_scipy_is_imported_when_needed_and_missed_by_name(monkeypatch):
    """The room is imported anew with SciPy hidden; only the winner of a game, a linear program, asks for it."""
    import gpm_hf.preference

    monkeypatch.setattr(gpm_hf, "preference", gpm_hf.preference)  # put back at the end, as are the modules
    for name in [name for name in sys.modules if name.startswith("gpm_hf.preference")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.split(".")[0] == "scipy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "scipy", None)
    preference = importlib.import_module("gpm_hf.preference")
    game = np.array([[0.0, 1, -2], [-1, 0, 1], [2, -1, 0]])
    for name in ("find_cycles", "decompose", "embed_matrix", "optimistic_multiplicative_weights", "select"):
        getattr(preference, name)(game)
    with pytest.raises(ImportError, match=r"pip install 'gpm-hf\[eval\]'"):
        preference.von_neumann_winner(game)
