#!/usr/bin/env bash
# trl 1.16.0 (transformers 5.23.0, datasets 5.2.0, torch 2.13.0, Python 3.11).
# DPOTrainer takes a data set that has token ids already (prompt_ids, chosen_ids, rejected_ids) beside the messages,
# and replaces them by a new rendering, without a word. A comment in its `evaluate` says that tokenised data sets are
# left as they are. Whoever stored the ids that a policy sampled trains on other ones.
# Seen: chosen_ids given [9]; in trainer.train_dataset [4, 1], what the template makes of the message.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet torch==2.13.0
env/bin/pip install --quiet transformers==5.23.0 trl==1.16.0 datasets==5.2.0 accelerate==1.15.0
cat > run.py <<'PY'
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

words = ["<pad>", "<eos>", "user", "assistant", "yes", "no", "why"]
words = {word: number for number, word in enumerate(words)} | {f"w{n}": 7 + n for n in range(9)}
core = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")
tokenizer.chat_template = (
    "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' <eos> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant ' }}{% endif %}"
)
torch.manual_seed(0)
model = AutoModelForCausalLM.from_config(
    LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
)
model.save_pretrained("policy")
row = {
    "prompt": [{"role": "user", "content": "why"}],
    "chosen": [{"role": "assistant", "content": "yes"}],
    "rejected": [{"role": "assistant", "content": "no"}],
    "prompt_ids": [7, 8],
    "chosen_ids": [9],
    "rejected_ids": [10],
}
args = DPOConfig("out", use_cpu=True, bf16=False, report_to="none")
trainer = DPOTrainer(model="policy", args=args, train_dataset=Dataset.from_list([row]), processing_class=tokenizer)
kept = trainer.train_dataset[0]
found = {name: kept[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")}
print(found)
assert found["chosen_ids"] != [9] and found["rejected_ids"] != [10] and found["prompt_ids"] != [7, 8], "kept now"
PY
HF_HUB_OFFLINE=1 env/bin/python run.py
echo "As described: the given ids were replaced."
