"""Scorers whose rows are a preference model's embeddings, wherever they were computed."""

import torch

from gpm_hf.modeling import preference_matrix

from .response_scorer import BlockScorer


class EmbeddingScorer(BlockScorer):
    """
    A row is a response's embedding and, with a scale gate, the scales of its prompt.

    Attributes:
        embedding_size (`int`): of the embedding, with a reward head's block, see
            [`~gpm_hf.modeling.GPMConfig.output_dim`].
        tau (`float`): temperature of the log-odds.
    """

    embedding_size: int
    tau: float

    def set_sizes(self, embedding_size: int, has_gate: bool, tau: float) -> None:
        """Sets what rows are made of."""
        self.embedding_size, self.tau = embedding_size, tau
        self.width = embedding_size + (embedding_size // 2 if has_gate else 0)
        self.block_count = max(1, embedding_size // 2)

    def matrix(self, rows: torch.Tensor) -> torch.Tensor:
        embeddings, scales = self._split(rows)
        return preference_matrix(embeddings, scales, self.tau)

    def block_matrices(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A reward head is the last block, with scale 1; a Bradley-Terry model is one block."""
        embeddings, scales = self._split(rows)
        parts = embeddings.chunk(self.block_count, dim=-1)
        blocks = torch.stack([preference_matrix(one.contiguous(), tau=self.tau) for one in parts])
        return blocks, embeddings.new_ones(self.block_count) if scales is None else scales

    def joined(self, found: list[tuple[torch.Tensor, torch.Tensor | None]]) -> torch.Tensor:
        """Rows out of the embeddings of each group, shape (K, embedding_size), and its scales or `None`."""
        if not found:
            return torch.zeros(0, self.width)
        return torch.cat(
            [
                embeddings if scales is None else torch.cat([embeddings, scales.expand(len(embeddings), -1)], dim=-1)
                for embeddings, scales in found
            ]
        )

    def _split(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Embeddings, and the scales of their prompt."""
        embeddings, scales = rows.split([self.embedding_size, self.width - self.embedding_size], dim=-1)
        # Whoever read a part of a group computed the prompt's scales in other batches: one of them is taken, so that
        # the matrix is exactly skew-symmetric.
        return embeddings.contiguous(), scales[0] if self.width > self.embedding_size else None
