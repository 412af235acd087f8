"""Measurements of preference models and pictures of what they learnt."""

from .benchmarks.rewardbench import RewardBenchResult, evaluate_rewardbench, rewardbench_table
from .benchmarks.rewardbench2 import RewardBench2Result, evaluate_rewardbench2, rewardbench2_table
from .benchmarks.rewardbench_sections import leaderboard_average, paper_average, section_scores
from .benchmarks.ring_accuracy import (
    CyclicResult,
    comparison_table,
    evaluate_cyclic,
    evaluate_pairs,
    result_table,
    scalar_ceiling,
)
from .reports.best_of_n_regret import best_of_n_regret
from .reports.disagreement import Disagreement, disagreement_table, disagreements
from .reports.intransitivity import Intransitivity, intransitivity_report, intransitivity_table
from .reports.length_bias import LengthReport, length_report, length_table
from .reports.pairs import PairResult, pairs_table, score_pairs
from .reports.policy_answers import PolicyAnswers, read_answers
from .reports.win_rates import WinRates, measure_win_rates, policy_table, win_rate_table
from .statistics.bootstrap import bootstrap_interval
from .statistics.calibration import Calibration, calibration_report, calibration_table

__all__ = [
    "Calibration",
    "CyclicResult",
    "Disagreement",
    "Intransitivity",
    "LengthReport",
    "PairResult",
    "PolicyAnswers",
    "RewardBench2Result",
    "RewardBenchResult",
    "WinRates",
    "best_of_n_regret",
    "bootstrap_interval",
    "calibration_report",
    "calibration_table",
    "comparison_table",
    "disagreement_table",
    "disagreements",
    "evaluate_cyclic",
    "evaluate_pairs",
    "evaluate_rewardbench",
    "evaluate_rewardbench2",
    "intransitivity_report",
    "intransitivity_table",
    "leaderboard_average",
    "length_report",
    "length_table",
    "measure_win_rates",
    "pairs_table",
    "paper_average",
    "policy_table",
    "read_answers",
    "result_table",
    "rewardbench2_table",
    "rewardbench_table",
    "scalar_ceiling",
    "score_pairs",
    "section_scores",
    "win_rate_table",
]
