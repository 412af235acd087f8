"""A tiny random language model of each type that transformers knows as a causal one."""

import math

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 96
# By the names that configurations share. Windows and chunks are shorter than the sequences of the tests.
SIZES = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "unpadded_vocab_size"), VOCABULARY),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "emb_dim", "embedding_dim", "embedding_size"), 32),
    **dict.fromkeys(("word_embed_proj_dim", "input_embedding_size", "output_embedding_size", "lru_width"), 32),
    **dict.fromkeys(("attention_hidden_size", "ssm_intermediate_size"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "dim_ff", "dff", "d_inner", "ffn_hidden_size"), 64),
    **dict.fromkeys(("decoder_ffn_dim", "encoder_ffn_dim", "feed_forward_size", "intermediate_size_mlp"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 16),
    **dict.fromkeys(("shared_intermediate_size", "dense_intermediate_size"), 16),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "shared_experts_intermediate_size"), 16),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_blocks"), 2),
    **dict.fromkeys(("decoder_layers", "encoder_layers", "num_decoder_layers", "num_encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("num_decoder_attention_heads", "num_encoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "swa_num_key_value_heads", "num_query_groups"), 2),
    **dict.fromkeys(("swa_num_attention_heads",), 4),
    **dict.fromkeys(("head_dim", "dim_head", "d_head", "kv_channels", "swa_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "index_head_dim", "attention_head_dim"), 8),
    **dict.fromkeys(("qk_head_dim", "q_lora_rank", "kv_lora_rank", "o_lora_rank"), 16),
    "index_n_heads": 2,
    "index_topk": 64,
    "rotary_dim": 8,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "context_length", "max_seq_len"), 256),
    **dict.fromkeys(("model_max_length", "max_target_positions"), 256),
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("n_shared_experts", "n_group", "topk_group", "num_expert_group", "first_k_dense_replace"), 1),
    **dict.fromkeys(("sliding_window", "sliding_window_size", "attention_window_size", "window_size"), 8),
    **dict.fromkeys(("attention_chunk_size", "local_attention"), 8),
    **dict.fromkeys(("state_size", "mamba_d_state", "ssm_state_size"), 8),
    **dict.fromkeys(("mamba_n_heads", "n_mamba_heads", "mamba_num_heads"), 8),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "mamba_headdim"), 8),
    **dict.fromkeys(("mamba_n_groups", "mamba_ngroups", "n_groups"), 1),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size"), 8),
    **dict.fromkeys(("time_step_rank", "mamba_dt_rank"), 4),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "linear_num_heads"), 2),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "linear_head_dim"), 8),
    **dict.fromkeys(("hidden_size_per_layer_input", "laurel_rank", "lora_rank"), 8),
}
# Set even where a configuration leaves them open by default, for then there is no such model.
ROUTED = ("num_experts_per_tok", "n_routed_experts", "n_shared_experts")
DROPOUTS = ("dropout", "pdrop", "dropout_p", "dropout_prob", "layerdrop", "jitter_noise")
# Longer than 16 tokens, phi3 and phimoe turn all positions by other angles.
LONGROPE = {
    "original_max_position_embeddings": 16,
    "rope_parameters": {
        "rope_type": "longrope",
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
        "rope_theta": 1e4,
        "short_mscale": 1.0,
        "long_mscale": 1.2,
        "original_max_position_embeddings": 16,
    },
}
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
BYTES = {"vocab_size": 260, "max_position_embeddings": 256, **SMALL}
# The second attention layer has the weights of the first.
HYBRID = {"layers_block_type": ["mamba", "hybrid"] * 2, "num_hidden_layers": 4}
# Of whose defaults transformers itself makes no model.
NEEDED = {
    "gemma4_assistant": {
        "text_config": {"model_type": "gemma4_text", "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}
    },
}
OVERRIDES = {
    "bamba": {"attn_layer_indices": [1]},
    "blt": {
        "patcher_config": BYTES,
        "encoder_config": {**BYTES, "hidden_size_global": 32},
        "decoder_config": {**BYTES, "hidden_size_global": 32},
        "global_config": {**BYTES, "vocab_size": None},
        "vocab_size": 260,
        "encoder_hash_byte_group_vocab": 64,
        "encoder_hash_byte_group_size": [3],
    },
    "cohere_compass_text": {
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 1e4} for kind in ("full_attention", "sliding_attention")
        }
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
        "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2},
    },
    # Two layers once, two in a loop, two once.
    "dory": {
        "layer_types": ["sliding_attention", "full_attention"] * 3,
        "num_hidden_layers": 6,
        "n_input_layers": 2,
        "n_recurrent_layers": 2,
        "n_output_layers": 2,
    },
    # With large parts of its own for some of its layers.
    "dots3_note_text": {"head_dim": 16, "per_layer_config": {"1": {"kv_lora_rank": 8}}},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3n_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "intermediate_size": [64] * 4,
        "activation_sparsity_pattern": [0.0] * 4,
    },
    "git": {"vision_config": {**SMALL, "image_size": 16, "patch_size": 8}},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2, "head_dim": 8},
    "phi3": LONGROPE,
    "phimoe": LONGROPE,
    "phi4_multimodal": {
        "vision_config": {**SMALL, "image_size": 16, "crop_size": 16, "patch_size": 8},
        "audio_config": {**SMALL, "num_blocks": 1, "ext_pw_out_channel": 32, "nemo_conv_channels": 32},
    },
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 64,
        "indexer_compress_ratio": 4,
    },
    "zamba": {"attention_hidden_size": 64, "attention_head_dim": 16, **HYBRID},
    # Two blocks that attend, in turn.
    "zamba2": {
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "layers_block_type": ["mamba", "hybrid"] * 4,
        "num_hidden_layers": 8,
        "num_mem_blocks": 2,
        "use_shared_attention_adapter": True,
        "adapter_rank": 4,
    },
    "zaya": {"num_experts_per_tok": 1},
}

# Drawn by seed 0, the tiny language model chooses other experts for a token where it is rounded to bfloat16, and then
# its own states of a batch are not those of a sequence alone.
SEEDS = {"hy_v3": 1}


def model_types():
    """All that transformers has in its mapping of causal language models, sorted."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def default_config(model_type):
    """A configuration of the sizes that its class comes with, where these fit each other."""
    return CONFIG_MAPPING[model_type](**NEEDED.get(model_type, {}))


def tiny_config(model_type, **options):
    """A configuration of the type's own class with the sizes above, wherever it has such a one."""
    config_class = CONFIG_MAPPING[model_type]
    overrides = {**OVERRIDES.get(model_type, {}), **options}
    default = default_config(model_type).to_dict()
    settings = {
        name: size
        for name, size in SIZES.items()
        if isinstance(default.get(name), int) or (name in ROUTED and name in default)
    }
    for name, value in default.items():
        if name.endswith(DROPOUTS) and isinstance(value, float):
            settings[name] = 0.0
    for heads in ("num_attention_heads", "swa_num_attention_heads"):
        pairs = heads.replace("attention", "key_value")
        if pairs in settings and default.get(pairs) == default.get(heads):
            settings[pairs] = settings.get(heads, settings[pairs])
    layers = layer_kinds(default)
    if layers:
        settings |= layers
    settings |= {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    return config_class(**{**settings, **overrides})


def layer_kinds(default):
    """Lists that name a kind for each layer, as short as can be with each kind in it."""
    names = [n for n in ("layer_types", "mlp_layer_types", "layers_block_type") if isinstance(default.get(n), list)]
    kinds = {name: list(dict.fromkeys(default[name])) for name in names}
    count = max([2, *map(len, kinds.values())])
    settings = {name: (found * count)[:count] for name, found in kinds.items()}
    if settings:
        settings["num_hidden_layers"] = count
    return settings


def build_language_model(config, seed=0):
    """With weights as wide as their inputs are many, so that each token and each layer shows in the states."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and not name.endswith(("A_log", "dt_bias")) and parameter.is_floating_point():
                std = 0.7 if "embed" in name or "wte" in name else 1.2 / math.sqrt(max(parameter.shape[-1], 4))
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
    return model
