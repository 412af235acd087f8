"""Tiny random models of every kind that a scorer takes, and data for them."""

from tests.conftest import backbone_config, build_gpm, build_tokenizer

PROMPTS = [
    "What is the capital of France?",
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How do I bake bread?"},
        {"role": "assistant", "content": "With flour."},
        {"role": "user", "content": "And the oven?"},
    ],
    "Red, green or blue?",
]
GROUPS = [
    ["Paris, a city on the river Seine.", "The capital of France is Paris.", "Bread."],
    ["Hot.", [{"role": "assistant", "content": "Bake it in a hot oven, then let it rest."}]],
    [
        "Red",
        "Green and blue beat each other in a ring",
        "Blue.",
        "No one of them is the best answer, and rock is not.",
    ],
]


# Batch sizes with sides on which the tokenizer would pad.
BATCHES = [(size, side) for size in (1, 3, 8) for side in ("left", "right")]


def chat_text(prompt, response=None):
    """What `CHAT_TEMPLATE` of the tests makes of a prompt, spelled out; a reply is asked for where there is none."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    if isinstance(response, str):
        messages.append({"role": "assistant", "content": response})
    elif response is not None:
        messages += response
    text = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in messages)
    return text if response is not None else text + "<|im_start|>assistant\n"


def build_llama_classifier(num_labels=1, seed=0, backbone="llama", **options):
    """A sequence classification model on a decoder."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)
    config = backbone_config(backbone, num_labels=num_labels, **options)
    return AutoModelForSequenceClassification.from_config(config).eval()


def build_deberta_classifier(num_labels=1, seed=0, **options):
    """A sequence classification model as PairRM has it: DeBERTa v2 with relative positions."""
    import torch
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    torch.manual_seed(seed)
    sizes = {
        "vocab_size": 400,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "initializer_range": 0.3,
    }
    return DebertaV2ForSequenceClassification(DebertaV2Config(num_labels=num_labels, **{**sizes, **options})).eval()


def save_every_kind(folder):
    """A model of each kind with its tokenizer, in folders of these names: what a user names to a scorer."""
    models = {
        "gpm": build_gpm(embedding_dim=4),
        "bt": build_gpm(embedding_dim=1),
        "reward": build_llama_classifier(),
        "pair": build_deberta_classifier(2),
        "judge": build_language_model(),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        build_tokenizer().save_pretrained(folder / name)
    return {name: str(folder / name) for name in models}


def build_language_model(seed=0, backbone="llama", **options):
    """A causal language model."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(backbone_config(backbone, **options)).eval()
