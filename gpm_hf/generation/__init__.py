"""A policy answers prompts."""

from .engine_check import PolicyReading, read_policy
from .engine_options import read_engine_options
from .prompts import check_prompts, encode_prompt, prompt_messages, read_prompts
from .sampled_group import SampledGroup
from .sampling import PolicySampler, Sampler, SamplingOptions, shard_seed
from .sampling_check import SamplingRoad, find_sampling_road
from .vllm_sampler import VLLMSampler, import_vllm

__all__ = [
    "PolicyReading",
    "PolicySampler",
    "SampledGroup",
    "Sampler",
    "SamplingOptions",
    "SamplingRoad",
    "VLLMSampler",
    "check_prompts",
    "encode_prompt",
    "find_sampling_road",
    "import_vllm",
    "prompt_messages",
    "read_engine_options",
    "read_policy",
    "read_prompts",
    "shard_seed",
]
