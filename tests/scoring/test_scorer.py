"""The protocol and what all scorers share: checks of the input, the measure of asymmetry, the order of results."""

import math
import pickle

import pytest
import torch

from gpm_hf.modeling import PromptError, at_prompt
from gpm_hf.scoring import ConstantScorer, Scorer, ScorerBase, largest_asymmetry
from tests.scoring.models import GROUPS, PROMPTS


class Fixed(ScorerBase):
    """Gives the same matrix to every group."""

    def __init__(self, matrix):
        super().__init__("fixed")
        self.matrix = torch.tensor(matrix)

    def _score(self, prompts, groups):
        return [self.matrix for _ in prompts]


def test_protocol():
    scorer = ConstantScorer()
    assert isinstance(scorer, Scorer)
    assert (scorer.name, scorer.forward_passes, scorer.asymmetry) == ("constant", 0, 0.0)
    assert [tuple(matrix.shape) for matrix in scorer(PROMPTS, GROUPS)] == [(3, 3), (2, 2), (4, 4)]
    assert not isinstance(object(), Scorer)


def test_asymmetry_by_hand():
    # P(0 > 1) = 3/4 and P(1 > 0) = 1/2.
    matrix = [[0.0, math.log(3)], [0.0, 0.0]]
    assert largest_asymmetry(torch.tensor(matrix)) == pytest.approx(0.25)
    scorer = Fixed(matrix)
    scorer(["x", "y"], [["a", "b"]] * 2)
    assert scorer.asymmetry == pytest.approx(0.25)


def test_asymmetry_of_a_skew_symmetric_matrix_is_exactly_zero():
    half = torch.randn(9, 9, generator=torch.Generator().manual_seed(0)) * 7
    assert largest_asymmetry(half - half.T) == 0.0
    # The probabilities themselves do not add up to 1 so exactly.
    assert largest_asymmetry(half) > 0.5


def test_asymmetry_is_the_largest_of_all_calls():
    scorer = Fixed([[0.0, 1.0], [0.0, 0.0]])
    scorer(["x"], [["a", "b"]])
    largest = scorer.asymmetry
    scorer.matrix = torch.zeros(2, 2)
    scorer(["x"], [["a", "b"]])
    assert scorer.asymmetry == largest > 0


def test_results_are_float32_on_the_cpu_without_gradients():
    scorer = Fixed([[0.0, 1.0], [-1.0, 0.0]])
    scorer.matrix = scorer.matrix.double().requires_grad_()
    (matrix,) = scorer(["x"], [["a", "b"]])
    assert (matrix.dtype, matrix.device.type, matrix.requires_grad) == (torch.float32, "cpu", False)


def test_nothing_to_score():
    assert ConstantScorer()([], []) == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_finite(value):
    with pytest.raises(ValueError, match=r"Prompt 0: the scores by fixed are not finite"):
        Fixed([[0.0, value], [0.0, 0.0]])(["x"], [["a", "b"]])


@pytest.mark.parametrize(
    ("prompts", "groups", "message"),
    [
        (["x"], [["a"], ["b"]], "of lengths 1 and 2"),
        ("x", ["a"], "takes a list of prompts"),
        (["x", None], [["a"], ["b"]], "Prompt 1: it is None, and "),
        (["x", "y"], [["a"], []], "Prompt 1: `responses` must be a list"),
        (["x", "y"], [["a"], "bc"], "Prompt 1: `responses` must be a list"),
        (["x", "y"], [["a"], ["b", " \n"]], r"Prompt 1: Response 1 is empty.*Leave it out"),
        (["x", "y"], [["a"], ["b", [{"role": "assistant", "content": ""}]]], "Prompt 1: Response 1 is empty"),
        (["x", "y"], [["a"], ["b", 3]], "Prompt 1: Response 1 is a int"),
    ],
)
def test_wrong_input_is_named(prompts, groups, message):
    with pytest.raises(ValueError, match=message):
        ConstantScorer()(prompts, groups)


def test_errors_have_the_prompts_number_as_data():
    with pytest.raises(PromptError) as found:
        ConstantScorer()(["x", "y", "z"], [["a"], ["b"], ["c", " "]])
    error = pickle.loads(pickle.dumps(found.value))
    assert (error.number, str(error)) == (2, f"Prompt 2: {error.reason}") and error.reason.startswith("Response 1 is")
    # Called for one prompt at a time, a scorer counts it as its first.
    with pytest.raises(PromptError, match=r"^Prompt 7: too long$"), at_prompt(7):
        raise PromptError(0, "too long")
