"""The model as shipped to the Hub: torch, transformers and these files, nothing else."""

from .configuration_gpm import GPMConfig
from .encoding_gpm import EncodedGroup, collate_groups, encode_group
from .engine_gpm import sharing_obstacle
from .errors_gpm import EmptyResponseError, PromptError, at_prompt
from .evaluation_gpm import evaluation_mode
from .heads_gpm import embeddings_of_heads, scales_of_gate
from .messages_gpm import is_empty, read_group
from .modeling_gpm import GPMForPreference, GPMOutput
from .packing_gpm import packing_obstacle
from .pipeline_gpm import PreferencePipeline
from .pooling_gpm import input_device
from .probing_gpm import can_be_asked, merged_exactly, plain_states
from .rounding_gpm import raw_moves, rounding_bound, within_rounding
from .scores_gpm import condorcet_winner, has_cycle, mean_scores, pair_scores, preference_matrix, rank_responses
from .template_date_gpm import TEMPLATE_DATE, UNKNOWN_DATE, checked_date, fixed_templates
from .weight_files_gpm import (
    ADAPTER_BASE_NAME,
    check_base_elsewhere,
    check_one_model,
    is_weight_file,
    saved_as_one_model,
)

__all__ = [
    "ADAPTER_BASE_NAME",
    "TEMPLATE_DATE",
    "UNKNOWN_DATE",
    "EmptyResponseError",
    "EncodedGroup",
    "GPMConfig",
    "GPMForPreference",
    "GPMOutput",
    "PreferencePipeline",
    "PromptError",
    "at_prompt",
    "can_be_asked",
    "check_base_elsewhere",
    "check_one_model",
    "checked_date",
    "collate_groups",
    "condorcet_winner",
    "embeddings_of_heads",
    "encode_group",
    "evaluation_mode",
    "fixed_templates",
    "has_cycle",
    "input_device",
    "is_empty",
    "is_weight_file",
    "mean_scores",
    "merged_exactly",
    "packing_obstacle",
    "pair_scores",
    "plain_states",
    "preference_matrix",
    "rank_responses",
    "raw_moves",
    "read_group",
    "rounding_bound",
    "saved_as_one_model",
    "scales_of_gate",
    "sharing_obstacle",
    "within_rounding",
]
