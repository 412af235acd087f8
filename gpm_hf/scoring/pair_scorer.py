"""What the scorers share that read two responses at once."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any

import torch

from gpm_hf.modeling import at_prompt

from .batches import check_length
from .pair_text import as_text
from .scorer import ScorerBase


class PairScorer(ScorerBase):
    """
    Reads the pairs of a group in both orders, K(K-1) forward passes, or in one, K(K-1)/2; the asymmetry, the largest
    |P(i > j) + P(j > i) - 1|, says how much the order matters to the model.

    Args:
        name (`str`): how a table calls it.
        both_orders (`bool`): whether each pair is read in both orders. With one order, the earlier response first,
            S_ji = -S_ij by definition, and the asymmetry is not known (`None`).
        average (`bool`): with both orders, (s_ij - s_ji) / 2, skew-symmetric; without averaging the matrix is as the
            model gave it. A response is never compared with itself: the diagonal is 0.
        max_length (`int` or `None`): the most tokens the model reads.
        template_date (`str`, *optional*): the date that the chat template writes.
    """

    def __init__(
        self,
        name: str,
        both_orders: bool,
        average: bool,
        max_length: int | None,
        template_date: str | None = None,
    ):
        super().__init__(name, measures_asymmetry=both_orders, template_date=template_date)
        self.both_orders = both_orders
        self.average = average
        self.max_length = max_length

    def _encode_groups(self, prompts: list, groups: list[list]) -> tuple[list[tuple[int, int, int]], list[list[int]]]:
        cells: list[tuple[int, int, int]] = []
        rows: list[list[int]] = []
        for number, (prompt, responses) in enumerate(zip(prompts, groups)):
            with at_prompt(number):
                texts = [as_text(response, "assistant") for response in responses]
                shown = self._prompt_text(prompt)
                for i, j in permutations(range(len(responses)), 2):
                    if i < j or self.both_orders:
                        ids = self._encode(shown, texts[i], texts[j])
                        check_length(len(ids), self.max_length, f"the prompt with the responses {i} and {j}")
                        cells.append((number, i, j))
                        rows.append(ids)
        return cells, rows

    def _score(self, prompts: list, groups: list[list]) -> list[tuple[torch.Tensor, int]]:
        cells, rows = self._encode_groups(prompts, groups)
        matrices = [torch.zeros(len(responses), len(responses)) for responses in groups]
        for batch, log_odds in self._batches(rows):
            for row, value in zip(batch, log_odds.tolist()):
                number, i, j = cells[row]
                matrices[number][i, j] = value
                if not self.both_orders:
                    matrices[number][j, i] = -value
        passes = Counter(number for number, _, _ in cells)
        return [(matrix, passes[number]) for number, matrix in enumerate(matrices)]

    def _finish(self, matrix: torch.Tensor) -> torch.Tensor:
        return (matrix - matrix.T) / 2 if self.both_orders and self.average else matrix

    def _prompt_text(self, prompt: Any) -> str:
        """The prompt as the model's template shows it."""
        return as_text(prompt, "user")

    @abstractmethod
    def _encode(self, prompt: str, a: str, b: str) -> list[int]:
        """Token ids of the prompt with two responses."""

    @abstractmethod
    def _batches(self, rows: Sequence[list[int]]) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Batch by batch: row numbers, and the log-odds, of shape (those rows,), that the first response is better."""
