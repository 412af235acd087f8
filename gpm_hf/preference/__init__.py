"""Algebra of preference matrices: embeddings, cycles, winners, decomposition, selection, self-play."""

from .cycles import Cycle, find_cycles, is_transitive
from .decomposition import Decomposition, decompose
from .embedding import embed_matrix, embedding_errors, minimal_dimension, reconstruct_matrix
from .equilibrium import duality_gap, von_neumann_winner
from .multiplicative_weights import (
    ApproximateEquilibrium,
    multiplicative_weights,
    optimistic_multiplicative_weights,
)
from .selection import ranking, select
from .self_play import SelfPlayRate, best_step, gap_bound, random_games, self_play_rate
from .winners import condorcet_winner, copeland, smith_set

__all__ = [
    "ApproximateEquilibrium",
    "Cycle",
    "Decomposition",
    "SelfPlayRate",
    "best_step",
    "condorcet_winner",
    "copeland",
    "decompose",
    "duality_gap",
    "embed_matrix",
    "embedding_errors",
    "find_cycles",
    "gap_bound",
    "is_transitive",
    "minimal_dimension",
    "multiplicative_weights",
    "optimistic_multiplicative_weights",
    "random_games",
    "ranking",
    "reconstruct_matrix",
    "select",
    "self_play_rate",
    "smith_set",
    "von_neumann_winner",
]
