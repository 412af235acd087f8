"""Scorers without a model of ours: floors to compare with, and a function of your own."""

import hashlib
import inspect
import json
import random
from collections.abc import Callable
from typing import Any

import torch

from gpm_hf.modeling import PromptError

from .scorer import ScorerBase


class RandomScorer(ScorerBase):
    """
    Normally distributed log-odds that depend on the seed, the prompt and the two responses alone: not on the order or
    grouping of the data, so that a resumed run goes on as it began. Equal responses tie. No forward passes, asymmetry
    0.

    Args:
        seed (`int`, defaults to 0): another seed gives other scores.
    """

    def __init__(self, seed: int = 0, name: str | None = None):
        super().__init__(name or f"random (seed {seed})")
        self.seed = seed

    def _score(self, prompts: list, groups: list[list]) -> list[torch.Tensor]:
        return [self._matrix(prompt, responses) for prompt, responses in zip(prompts, groups)]

    def _matrix(self, prompt: Any, responses: list) -> torch.Tensor:
        matrix = torch.zeros(len(responses), len(responses))
        texts = [json.dumps(response, sort_keys=True) for response in responses]
        for i, first in enumerate(texts):
            for j, second in enumerate(texts[:i]):
                if first != second:
                    key = json.dumps([self.seed, prompt, *sorted((first, second))], sort_keys=True)
                    # Python's own `hash` differs from process to process.
                    value = random.Random(hashlib.sha256(key.encode()).digest()).gauss(0, 1)
                    matrix[i, j] = value if first < second else -value
                    matrix[j, i] = -matrix[i, j]
        return matrix


class ConstantScorer(ScorerBase):
    """Log-odds 0 for every pair: what a benchmark gives to ties. No forward passes, asymmetry 0."""

    def __init__(self, name: str = "constant"):
        super().__init__(name)

    def _score(self, prompts: list, groups: list[list]) -> list[torch.Tensor]:
        return [torch.zeros(len(responses), len(responses)) for responses in groups]


class CallableScorer(ScorerBase):
    """
    A function of your own: a model in another library, a judge behind an API, a table. Its matrices need not be
    skew-symmetric: the asymmetry is measured.

    Args:
        function (`Callable`): `f(prompts, groups)` returns for each group a K x K matrix of log-odds (a tensor, an
            array or nested lists), its diagonal zero.
        name (`str`, *optional*): how a table calls it; by default the function's name.
        passes (`Callable`, *optional*): `passes(K)` is the number of forward passes that the function takes for a
            group of K responses. Without it they are not known here and `forward_passes` stays 0.

    Raises:
        ValueError: when called, for another number of matrices, or a matrix that has another shape, is not finite, or
            is no log-odds (a diagonal other than zero).
    """

    def __init__(
        self,
        function: Callable[[list, list[list]], Any],
        name: str | None = None,
        passes: Callable[[int], int] | None = None,
    ):
        super().__init__(name or _name_of_function(function))
        self.function = function
        self.passes = passes

    def _score(self, prompts: list, groups: list[list]) -> list[tuple[torch.Tensor, int]]:
        found = list(self.function(prompts, groups))
        if len(found) != len(groups):
            raise ValueError(f"{self.name} returned {len(found)} matrices for {len(groups)} groups.")
        matrices = [torch.as_tensor(matrix, dtype=torch.float32) for matrix in found]
        for number, (matrix, responses) in enumerate(zip(matrices, groups)):
            size = len(responses)
            if matrix.shape != (size, size):
                raise PromptError(
                    number,
                    f"{self.name} returned a matrix of shape {tuple(matrix.shape)} for {size} responses; "
                    f"{(size, size)} is needed.",
                )
            # Not "> 0": NaN is for the check of all scorers to name.
            if bool((matrix.diagonal().abs() > 1e-4).any()):
                raise PromptError(
                    number,
                    f"{self.name} prefers a response to itself, by {matrix.diagonal().tolist()}. It must return "
                    "log-odds; a matrix of probabilities P becomes one by `log(P / (1 - P))`.",
                )
        passes = self.passes or (lambda size: 0)
        return [(matrix, passes(len(matrix))) for matrix in matrices]


def _name_of_function(function: Callable) -> str:
    # `functools.partial` and objects with `__call__` have no name of their own.
    return function.__name__ if inspect.isroutine(function) else type(function).__name__
