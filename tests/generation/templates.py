# ruff: noqa: RUF001 (DeepSeek's bars are no slips)
"""Real chat templates on tiny tokenizers that hold their special tokens, and policies of that vocabulary."""

from pathlib import Path

import torch

from tests.conftest import backbone_config, build_tokenizer

# By template: the tokens that it writes and its models sample; the one that ends an answer is the first.
SPECIAL = {
    "llama3": ["<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"],
    "llama3_1": ["<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>"],
    "qwen3": ["<|im_end|>", "<|im_start|>"],
    "deepseek_r1_distill": ["<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"],
    "gptoss": ["<|return|>", "<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|call|>"],
}
TEMPLATES = ("llama3", "qwen3", "deepseek_r1_distill", "gptoss")


def chat_template(name):
    """A template as TRL ships it."""
    import trl

    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def template_tokenizer(name):
    from transformers import AddedToken

    tokenizer = build_tokenizer()
    tokenizer.add_tokens([AddedToken(token, special=True) for token in SPECIAL[name]])
    tokenizer.add_tokens([AddedToken(token, special=False) for token in ("<think>", "</think>")])
    tokenizer.eos_token = SPECIAL[name][0]
    if name.startswith(("llama3", "deepseek")):
        tokenizer.bos_token = SPECIAL[name][1]
    tokenizer.chat_template = chat_template(name)
    return tokenizer


def template_policy(tokenizer, seed=0, **options):
    """A random policy that draws special tokens as often as others."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    ids = {"eos_token_id": tokenizer.eos_token_id}
    config = backbone_config(vocab_size=len(tokenizer), max_position_embeddings=1024, **ids, **options)
    return AutoModelForCausalLM.from_config(config).eval()


def table_policy(tokenizer, table):
    """A policy that draws each token of a table with its probability, whatever came before."""
    policy = template_policy(tokenizer, num_hidden_layers=1)
    head = torch.nn.Linear(32, len(tokenizer))
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(-1e4)
        for token, probability in table.items():
            head.bias[tokenizer.convert_tokens_to_ids(token)] = torch.tensor(probability).log()
    policy.set_output_embeddings(head)
    return policy


def hand_log_prob(policy, prompt, response):
    """From plain logits of one unpadded sequence, in float64."""
    with torch.no_grad():
        logits = policy(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].double()
    return float(logits.log_softmax(-1)[torch.arange(len(response)), torch.tensor(response)].sum())
