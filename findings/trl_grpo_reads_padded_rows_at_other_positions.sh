#!/usr/bin/env bash
# trl 1.16.0 (transformers 5.23.0, torch 2.13.0, Python 3.11).
# GRPOTrainer samples with transformers' generate, which numbers the tokens of a prompt that is padded on the left from
# its first real token. The forward that it trains on hands no positions on, so a model with learned positions (GPT-2,
# OPT, ...) reads the same tokens at other places: the gradient is that of log-probabilities under which nothing was
# sampled, for every prompt in a batch but the longest. Rotary positions are relative and hide it.
# Seen, GPT-2 with random weights: log-probabilities of a padded row are off by up to 1.77, of the longest by 7e-7.
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
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

core = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1} | {f"w{n}": 2 + n for n in range(30)}, unk_token="<pad>"))
core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", padding_side="left")
torch.manual_seed(0)
config = GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.5)
AutoModelForCausalLM.from_config(config).save_pretrained("policy")
trainer = GRPOTrainer(
    model="policy",
    reward_funcs=lambda completions, **columns: [0.0] * len(completions),
    args=GRPOConfig("out", use_cpu=True, bf16=False, report_to="none", per_device_train_batch_size=2, num_generations=2),
    train_dataset=Dataset.from_list([{"prompt": "w1 w2"}, {"prompt": "w3 w4 w5 w6 w7 w8 w9"}]),
    processing_class=tokenizer,
)
model = trainer.model.eval()
batch = tokenizer(["w1 w2", "w3 w4 w5 w6 w7 w8 w9"], padding=True, return_tensors="pt", return_token_type_ids=False)
with torch.no_grad():
    sampled = model.generate(
        **batch, max_new_tokens=6, min_new_tokens=6, do_sample=False, return_dict_in_generate=True, output_logits=True
    )
    width = batch["input_ids"].shape[1]
    answers = sampled.sequences[:, width:]
    drawn = torch.stack(sampled.logits, 1).log_softmax(-1).gather(-1, answers[..., None])[..., 0]
    mask = torch.cat([batch["attention_mask"], torch.ones_like(answers)], 1)
    # What the trainer computes of rollouts, in the loss and before it.
    trained, *_ = trainer._get_per_token_logps_and_entropies(model, sampled.sequences, mask, answers.shape[1])
off = (trained - drawn).abs().amax(1).tolist()
print(f"largest difference: padded row {off[0]:.3g}, longest row {off[1]:.3g}")
assert off[0] > 0.5, "the padded row is read where it was sampled now"
assert off[1] < 1e-4, "the longest row differs too"
PY
HF_HUB_OFFLINE=1 env/bin/python run.py
echo "As described: padded rows are trained at other positions than they were sampled at."
