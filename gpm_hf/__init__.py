"""
General preference models for transformers, TRL and the Hugging Face Hub.

Importing this package loads nothing heavy: every name is imported when it is first used. The model is known to
transformers' Auto classes and to `pipeline` as soon as these are imported.
"""

import importlib
from typing import TYPE_CHECKING, Any

from gpm_hf.registration import register_when_imported

if TYPE_CHECKING:
    from gpm_hf.data.cyclic import build_cyclic_dataset
    from gpm_hf.data.judgments import cycles_from_judgments
    from gpm_hf.hub.conversion import convert_reference_checkpoint
    from gpm_hf.hub.publishing import publish
    from gpm_hf.modeling import (
        GPMConfig,
        GPMForPreference,
        GPMOutput,
        PreferencePipeline,
        condorcet_winner,
        has_cycle,
        mean_scores,
        pair_scores,
        preference_matrix,
        rank_responses,
    )
    from gpm_hf.preference import decompose, duality_gap, embed_matrix, find_cycles, select, von_neumann_winner
    from gpm_hf.scoring import load_preference_model, load_tokenizer
    from gpm_hf.training import (
        GPMReward,
        GPMRewardConfig,
        GPMRewardTrainer,
        OfflineGPOConfig,
        OfflineGPOTrainer,
        OnlineGPOConfig,
        OnlineGPOTrainer,
    )

__version__ = "0.1.0"

register_when_imported()

# Public name -> the room it lives in.
_LAZY = {
    "GPMConfig": "gpm_hf.modeling",
    "GPMForPreference": "gpm_hf.modeling",
    "GPMOutput": "gpm_hf.modeling",
    "GPMReward": "gpm_hf.training",
    "GPMRewardConfig": "gpm_hf.training",
    "GPMRewardTrainer": "gpm_hf.training",
    "OfflineGPOConfig": "gpm_hf.training",
    "OfflineGPOTrainer": "gpm_hf.training",
    "OnlineGPOConfig": "gpm_hf.training",
    "OnlineGPOTrainer": "gpm_hf.training",
    "PreferencePipeline": "gpm_hf.modeling",
    "build_cyclic_dataset": "gpm_hf.data.cyclic",
    "condorcet_winner": "gpm_hf.modeling",
    "convert_reference_checkpoint": "gpm_hf.hub.conversion",
    "cycles_from_judgments": "gpm_hf.data.judgments",
    "decompose": "gpm_hf.preference",
    "duality_gap": "gpm_hf.preference",
    "embed_matrix": "gpm_hf.preference",
    "find_cycles": "gpm_hf.preference",
    "has_cycle": "gpm_hf.modeling",
    "load_preference_model": "gpm_hf.scoring",
    "load_tokenizer": "gpm_hf.scoring",
    "mean_scores": "gpm_hf.modeling",
    "pair_scores": "gpm_hf.modeling",
    "preference_matrix": "gpm_hf.modeling",
    "publish": "gpm_hf.hub.publishing",
    "rank_responses": "gpm_hf.modeling",
    "select": "gpm_hf.preference",
    "von_neumann_winner": "gpm_hf.preference",
}

__all__ = [
    "GPMConfig",
    "GPMForPreference",
    "GPMOutput",
    "GPMReward",
    "GPMRewardConfig",
    "GPMRewardTrainer",
    "OfflineGPOConfig",
    "OfflineGPOTrainer",
    "OnlineGPOConfig",
    "OnlineGPOTrainer",
    "PreferencePipeline",
    "build_cyclic_dataset",
    "condorcet_winner",
    "convert_reference_checkpoint",
    "cycles_from_judgments",
    "decompose",
    "duality_gap",
    "embed_matrix",
    "find_cycles",
    "has_cycle",
    "load_preference_model",
    "load_tokenizer",
    "mean_scores",
    "pair_scores",
    "preference_matrix",
    "publish",
    "rank_responses",
    "select",
    "von_neumann_winner",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'gpm_hf' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
