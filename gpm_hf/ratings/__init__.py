"""
Ratings from votes, with and without cycles: Bradley-Terry, a reward with skew-symmetric blocks, blocks alone; and
whether the cycles that votes show are more than noise.
"""

from .blocks import BlockFit, fit_blocks
from .bradley_terry import BradleyTerryFit, fit_bradley_terry
from .graph import Comparability, comparability
from .null import CycleTest, NullTest, UntestableVotes, cycle_test
from .power import Power, cycle_power
from .votes import Votes, count_votes

__all__ = [
    "BlockFit",
    "BradleyTerryFit",
    "Comparability",
    "CycleTest",
    "NullTest",
    "Power",
    "UntestableVotes",
    "Votes",
    "comparability",
    "count_votes",
    "cycle_power",
    "cycle_test",
    "fit_blocks",
    "fit_bradley_terry",
]
