"""
What the suites take from the Hub, made here: tiny random models in a cache of their own, under the names that the
suites know, so that every `from_pretrained` finds them offline.
"""

import os
from pathlib import Path

LINES = [
    "Beautiful is better than ugly.",
    "Explicit is better than implicit.",
    "Simple is better than complex.",
    "Complex is better than complicated.",
    "Flat is better than nested.",
    "Sparse is better than dense.",
    "Readability counts a great deal.",
    "Errors should never pass silently.",
    "Now is better than never at all.",
    "Namespaces are one honking great idea.",
]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer():
    """Bytes and a few merges, with Qwen's markers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bare.train_from_iterator(LINES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bare, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )


def config(kind, **options):
    from transformers import AutoConfig

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"vocab_size": 400, "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 512}
    if kind == "qwen3_moe":
        sizes |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "decoder_sparse_step": 1}
    ids = {"pad_token_id": 0, "eos_token_id": 2, "bos_token_id": None}
    return AutoConfig.for_model(kind, **{**sizes, **ids, "initializer_range": 0.2, **options})


def add(name, model):
    """Puts a model with its tokenizer into the cache, as downloading it would have."""
    repository = Path(os.environ["HF_HOME"], "hub", f"models--{name.replace('/', '--')}")
    commit = "0" * 40
    folder = repository / "snapshots" / commit
    if not folder.exists():
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(commit)
        model.save_pretrained(folder)
        tokenizer().save_pretrained(folder)


def zen(name, split, variant):
    """Rows in the forms of `trl-internal-testing/zen`."""
    from datasets import Dataset

    if variant == "gpm":
        # A gate reads the prompt, so it needs one that is explicit.
        name = name.replace("implicit_prompt_", "")
    rows = []
    for number, line in enumerate(LINES * (2 if split == "train" else 1)):
        words = line.split()
        texts = {"prompt": " ".join(words[:2]), "chosen": f" {words[-1]}", "rejected": f" {words[0]} {number}"}
        texts["completion"] = texts["chosen"]
        if "conversational" in name:
            texts = {
                key: [{"role": "user" if key == "prompt" else "assistant", "content": text.strip()}]
                for key, text in texts.items()
            }
        if "implicit" in name:
            texts = {key: texts["prompt"] + texts[key] for key in ("chosen", "rejected")}
        elif name.endswith("preference"):
            texts.pop("completion")
            if variant == "dpo":
                # Log-odds; TRL's own trainer does not read them.
                texts |= {"chosen_score": 1.0, "rejected_score": -1.0}
        elif name.endswith("prompt_only"):
            texts = {"prompt": texts["prompt"]}
        else:
            texts = {key: texts[key] for key in ("prompt", "completion")}
        rows.append(texts)
    return Dataset.from_list(rows)
