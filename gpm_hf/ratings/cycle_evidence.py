"""Cycles among pairs that are decided: how many triples, and how much speaks for them."""

from typing import NamedTuple

import numpy as np

from .bradley_terry import Layout
from .votes import Votes

# Nats by which a side must be favoured, in steps: a cycle counts by the highest that all its pairs pass.
LEVELS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0)


class CycleCount(NamedTuple):
    """
    Attributes:
        cycles: shape (...), triples whose three majorities form a ring.
        evidence: shape (...), nats: the sum over these of what their weakest pair has for its majority, rounded down
            to one of [`LEVELS`].
    """

    cycles: np.ndarray
    evidence: np.ndarray


class Tournament:
    """The pairs that were compared, as a stack of one matrix for each group of items."""

    def __init__(self, pairs: Votes):
        """Args: pairs: see [`Votes.by_pair`]."""
        self.layout = Layout(pairs.group)
        self.place = (self.layout.group[pairs.a], self.layout.local[pairs.a], self.layout.local[pairs.b])
        compared = self.stacked(np.ones(len(pairs.a))) != 0
        # Of a triple of compared pairs both ways around are closed.
        self.triples = round(float(_closed_triples(compared))) // 2

    @property
    def entries(self) -> int:
        """Of the stack."""
        return self.layout.groups * self.layout.largest**2

    def stacked(self, values: np.ndarray) -> np.ndarray:
        """Skew-symmetric matrices of shape (..., groups, n, n) of values of shape (..., P), one for each pair."""
        group, first, second = self.place
        size = self.layout.largest
        found = np.zeros((*values.shape[:-1], self.layout.groups, size, size), np.float32)
        found[..., group, first, second] = values
        found[..., group, second, first] = -values
        return found

    def divergence(self):
        """Sparse matrix of shape (groups * n, P): what leaves each item, of flows along the pairs."""
        from scipy.sparse import csr_matrix

        group, first, second = self.place
        count, size = len(group), self.layout.largest
        rows = np.concatenate([group * size + first, group * size + second])
        signs = np.repeat([1.0, -1.0], count)
        columns = np.tile(np.arange(count), 2)
        return csr_matrix((signs, (rows, columns)), shape=(self.layout.groups * size, count))

    def count(self, evidence: np.ndarray) -> CycleCount:
        """Cycles by the signed evidence of each pair, shape (..., P), positive where a is ahead."""
        return count_cycles(self.stacked(evidence))


def count_cycles(evidence: np.ndarray) -> CycleCount:
    """Cycles of skew-symmetric matrices of signed nats, shape (..., groups, n, n); 0 where nothing was compared."""
    cycles = _closed_triples(evidence > 0)
    total, below = np.zeros(evidence.shape[:-3]), 0.0
    for level in LEVELS:
        passed = _closed_triples(evidence > level)
        if not passed.any():
            break
        total += (level - below) * passed
        below = level
    return CycleCount(np.rint(cycles), total)


def pair_evidence(wins: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """
    By how many nats decided votes are likelier under their own frequency than under a coin, signed: positive where the
    wins are more. Any shape; ties say nothing about either side.
    """
    decided = wins + losses
    safe = np.where(decided > 0, decided, 1.0)
    found = decided * np.log(2)
    for part in (wins, losses):
        share = part / safe
        found = found + part * np.log(np.where(share > 0, share, 1.0))
    return np.sign(wins - losses) * np.maximum(found, 0)


def _closed_triples(beats: np.ndarray) -> np.ndarray:
    """Triples (i, j, k) with i > j > k > i, each once, summed over the groups; shape (...)."""
    edges = beats.astype(np.float32)
    # Counts to 2^24 are exact in float32; sums are taken in float64.
    paths = edges @ edges
    return np.einsum("...gij,...gji->...", paths, edges, dtype=np.float64) / 3
