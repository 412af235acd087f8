"""One way to load and to call every kind of preference model."""

from .gpm_scorer import GPMScorer
from .load_scorer import load_scorer
from .pair_classifier_scorer import PAIRRM_TEMPLATE, PairClassifierScorer
from .pair_completion_scorer import RLHFLOW_CONTEXT, RLHFLOW_TEMPLATE, PairCompletionScorer
from .preference_model import (
    hub_options_of,
    load_gguf_language_model,
    load_or_start_preference_model,
    load_preference_model,
    load_tokenizer,
    whole_models,
    with_gguf_file,
)
from .remote_scorer import RemoteScorer
from .response_scorer import BlockScorer, ResponseScorer
from .reward_model_scorer import RewardModelScorer, load_reward_model
from .scorer import ScoredMatrix, Scorer, ScorerBase, largest_asymmetry, score_with
from .scorer_models import is_classifier
from .served_heads import SETTINGS_FILE, ServedHeads, served_heads, stacked_heads
from .simple_scorers import CallableScorer, ConstantScorer, RandomScorer

__all__ = [
    "PAIRRM_TEMPLATE",
    "RLHFLOW_CONTEXT",
    "RLHFLOW_TEMPLATE",
    "SETTINGS_FILE",
    "BlockScorer",
    "CallableScorer",
    "ConstantScorer",
    "GPMScorer",
    "PairClassifierScorer",
    "PairCompletionScorer",
    "RandomScorer",
    "RemoteScorer",
    "ResponseScorer",
    "RewardModelScorer",
    "ScoredMatrix",
    "Scorer",
    "ScorerBase",
    "ServedHeads",
    "hub_options_of",
    "is_classifier",
    "largest_asymmetry",
    "load_gguf_language_model",
    "load_or_start_preference_model",
    "load_preference_model",
    "load_reward_model",
    "load_scorer",
    "load_tokenizer",
    "score_with",
    "served_heads",
    "stacked_heads",
    "whole_models",
    "with_gguf_file",
]
