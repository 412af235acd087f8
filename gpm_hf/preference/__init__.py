"""Algebra of preference matrices."""

from .cycles import Cycle, find_cycles

__all__ = ["Cycle", "find_cycles"]
