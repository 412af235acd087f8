"""Measurements of preference models, and pictures of them."""

from .cyclic import CyclicResult, evaluate_rings, result_table, ring_edges, scalar_ceiling

__all__ = ["CyclicResult", "evaluate_rings", "result_table", "ring_edges", "scalar_ceiling"]
