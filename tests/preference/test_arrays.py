"""What counts as a preference matrix, and that the kind of array survives."""

import numpy as np
import pytest
import torch

from gpm_hf import preference
from gpm_hf.preference.arrays import as_array, like, read_scores, sigmoid

from .games import ORDER, ROCK_PAPER_SCISSORS

# Every public function of one matrix, with its further arguments.
FUNCTIONS = {
    "condorcet_winner": (),
    "copeland": (),
    "decompose": (),
    "duality_gap": (np.full(3, 1 / 3),),
    "embed_matrix": (),
    "embedding_errors": (),
    "find_cycles": (),
    "is_transitive": (),
    "minimal_dimension": (),
    "multiplicative_weights": (3, 0.5),
    "optimistic_multiplicative_weights": (),
    "ranking": (),
    "select": (),
    "self_play_rate": ((4, 8),),
    "smith_set": (),
    "von_neumann_winner": (),
}


def test_every_public_name_is_there():
    assert preference.__all__ == sorted(preference.__all__)
    for name in preference.__all__:
        assert callable(getattr(preference, name))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_no_preference_matrix_is_refused(name):
    function = getattr(preference, name)
    tilted = ROCK_PAPER_SCISSORS.copy()
    tilted[1, 2] += 0.5
    with pytest.raises(ValueError, match=r"not skew-symmetric: S\[1, 2\] \+ S\[2, 1\] = -0.5 \+ 1"):
        function(tilted, *FUNCTIONS[name])
    for bad in (np.nan, np.inf):
        broken = ROCK_PAPER_SCISSORS.copy()
        broken[0, 2], broken[2, 0] = bad, -bad
        with pytest.raises(ValueError, match=r"non-finite entry .* at \(0, 2\)"):
            function(torch.tensor(broken), *FUNCTIONS[name])
    for shape in ((2, 3), (3,), (0, 0)):
        with pytest.raises(ValueError, match="square"):
            function(np.zeros(shape), *FUNCTIONS[name])


@pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - {"find_cycles", "self_play_rate"}))
def test_the_same_kind_comes_out(name):
    function, arguments = getattr(preference, name), FUNCTIONS[name]

    def leaves(result):
        return [leaf for leaf in (result if isinstance(result, tuple) else (result,)) if leaf is not None]

    in_numpy = leaves(function(ORDER, *arguments))
    in_torch = leaves(function(torch.tensor(ORDER), *arguments))
    in_single = leaves(function(torch.tensor(ORDER, dtype=torch.float32, requires_grad=True), *arguments))
    in_lists = leaves(function(ORDER.tolist(), *arguments))
    for expected, tensor, single, plain in zip(in_numpy, in_torch, in_single, in_lists):
        assert isinstance(expected, np.ndarray | np.generic)
        assert isinstance(tensor, torch.Tensor)
        assert tensor.numpy().dtype == expected.dtype
        assert (tensor.numpy() == expected).all()
        assert (plain == expected).all()
        assert single.dtype == (torch.float32 if tensor.dtype == torch.float64 else tensor.dtype)
        assert np.allclose(single.numpy(), expected, atol=1e-5)


def test_rounding_is_forgiven_and_removed():
    half = np.random.default_rng(0).normal(size=(5, 5))
    exact = half - half.T
    for factor in (1.0, 5e-324, 1e300):
        assert (read_scores(np.round(exact, 1) * 10 * factor) == np.round(exact, 1) * 10 * factor).all()
    assert (read_scores(exact) == exact).all()
    rounded = exact * (1 + 1e-12 * half)
    matrix = read_scores(rounded)
    assert (matrix == -matrix.T).all()
    assert np.abs(matrix - exact).max() < 1e-11
    single = (exact * (1 + 1e-7 * half)).astype(np.float32)
    assert (read_scores(single) == -read_scores(single).T).all()
    with pytest.raises(ValueError, match="skew"):
        read_scores(exact * (1 + 1e-7 * half))


def test_the_offending_entry_of_a_batch():
    batch = np.stack([ROCK_PAPER_SCISSORS, ROCK_PAPER_SCISSORS])
    batch[1, 0, 0] = 3.0
    with pytest.raises(ValueError, match=r"S\[1, 0, 0\] \+ S\[1, 0, 0\] = 3 \+ 3"):
        read_scores(batch)


def test_coarse_and_other_types():
    brain = torch.tensor(ROCK_PAPER_SCISSORS, dtype=torch.bfloat16)
    assert (read_scores(brain) == ROCK_PAPER_SCISSORS).all()
    assert like(np.array([0.5]), brain).dtype == torch.bfloat16
    assert like(np.array([0.5]), torch.tensor([1])).dtype == torch.float64
    assert like(np.array([0.5]), np.array([1], dtype=np.float16)).dtype == np.float16
    assert as_array(torch.tensor([1 + 2j]).conj())[0] == 1 - 2j
    with pytest.raises(ValueError, match="real"):
        read_scores(np.zeros((2, 2), dtype=complex))
    with pytest.raises(ValueError, match="below zero"):
        preference.copeland(ORDER, min_score=-1.0)


def test_results_are_no_views_of_the_input():
    scores = torch.tensor(ROCK_PAPER_SCISSORS)
    transitive, cyclic = preference.decompose(scores)
    cyclic += 1
    transitive += 1
    assert (scores.numpy() == ROCK_PAPER_SCISSORS).all()


def test_probabilities_of_log_odds_do_not_overflow():
    assert sigmoid([[0, -800], [800, np.log(3)]]).tolist() == [[0.5, 0.0], [1.0, pytest.approx(0.75)]]
