"""Measurements of preference models and pictures of what they learnt."""

from .benchmarks.rewardbench import RewardBenchResult, evaluate_rewardbench, rewardbench_table
from .benchmarks.rewardbench2 import RewardBench2Result, evaluate_rewardbench2, rewardbench2_table
from .reports.disagreement import disagreement_table, disagreements
from .reports.intransitivity import Intransitivity, intransitivity_report, intransitivity_table
from .reports.length_bias import length_report, length_table
from .reports.pairs import PairResult, pairs_table, score_pairs
from .statistics.bootstrap import bootstrap_interval
from .statistics.calibration import calibration_report, calibration_table

__all__ = [
    "Intransitivity",
    "PairResult",
    "RewardBench2Result",
    "RewardBenchResult",
    "bootstrap_interval",
    "calibration_report",
    "calibration_table",
    "disagreement_table",
    "disagreements",
    "evaluate_rewardbench",
    "evaluate_rewardbench2",
    "intransitivity_report",
    "intransitivity_table",
    "length_report",
    "length_table",
    "pairs_table",
    "rewardbench2_table",
    "rewardbench_table",
    "score_pairs",
]
