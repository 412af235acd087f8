"""What the scorers share that read one response at a time: each becomes a row of numbers, and rows become a matrix."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from gpm_hf.modeling import at_prompt

from .scorer import ScorerBase


class ResponseScorer(ScorerBase):
    """
    K responses cost K sequences and give K rows of `width` numbers, from which alone the matrix is made. So the
    responses to one prompt may be read in different places, as [`gpm_hf.training.preference_signal`] does beside a
    policy in training. The asymmetry is exactly 0.

    Attributes:
        width (`int`): numbers per response.
        reads_prompts_once (`bool`): whether responses to one prompt cost less when they are encoded together.
    """

    width: int
    reads_prompts_once = False

    @abstractmethod
    def encode(self, prompt: Any, responses: list) -> Any:
        """
        What the model reads of a group.

        Raises:
            ValueError: as scoring does; an [`~gpm_hf.modeling.EmptyResponseError`] for a response without text.
        """

    @abstractmethod
    def count_forwards(self, encoded: list) -> int:
        """The passes through the backbone that [`~ResponseScorer.rows`] takes for these groups."""

    @abstractmethod
    def shard(self, prepare: Callable[[nn.Module], nn.Module]) -> None:
        """Puts `prepare(module)`, which processes share, in the place of the module that holds the many weights."""

    @abstractmethod
    def matrix(self, rows: torch.Tensor) -> torch.Tensor:
        """Log-odds of shape (K, K), exactly skew-symmetric, of rows of shape (K, width)."""

    @abstractmethod
    def _rows(self, encoded: list, least_forwards: int) -> torch.Tensor:
        """As [`~ResponseScorer.rows`], which checks them."""

    def rows(self, encoded: list, least_forwards: int = 0) -> torch.Tensor:
        """
        Args:
            encoded: groups, as [`~ResponseScorer.encode`] gives them.
            least_forwards: passes through the backbone to make at least: the processes that share one all make as
                many.

        Returns:
            `torch.FloatTensor` of shape (responses of all groups, width).

        Raises:
            PromptError: numbers that are not finite.
        """
        rows = self._rows(encoded, least_forwards)
        if not bool(rows.isfinite().all()):
            parts = enumerate(rows.split([self._size(group) for group in encoded]))
            raise self._not_finite(next(number for number, own in parts if not bool(own.isfinite().all())))
        return rows

    def _size(self, encoded: Any) -> int:
        """The number of a group's responses."""
        return len(encoded)

    def _passes(self, encoded: Any) -> int:
        """The number of sequences that a group costs."""
        return self._size(encoded)

    def _encode_groups(self, prompts: list, groups: list[list]) -> list:
        encoded = []
        for number, (prompt, responses) in enumerate(zip(prompts, groups)):
            with at_prompt(number):
                encoded.append(self.encode(prompt, responses))
        return encoded

    def _score(self, prompts: list, groups: list[list]) -> list[tuple[torch.Tensor, int]]:
        encoded = self._encode_groups(prompts, groups)
        rows = self.rows(encoded).split([self._size(group) for group in encoded])
        results = []
        for number, (group, own) in enumerate(zip(encoded, rows)):
            with at_prompt(number):
                results.append((self.matrix(own), self._passes(group)))
        return results


class BlockScorer(ResponseScorer):
    """
    A scorer whose matrix is a sum over blocks, of which each holds preferences of its own kind.

    Attributes:
        block_count (`int`): k.
    """

    block_count: int

    @abstractmethod
    def block_matrices(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            rows: of one group, shape (K, width).

        Returns:
            Log-odds of each block, shape (k, K, K), each skew-symmetric, and their scales lambda, shape (k,): the
            matrix is the sum of the blocks times their scales.
        """
