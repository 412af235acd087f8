#!/usr/bin/env bash
# transformers 5.23.0 (accelerate 1.15.0, torch 2.13.0, Python 3.11).
# Trainer.train(resume_from_checkpoint=...) with the checkpoint of the last step trains one step more than max_steps,
# where that step lies within an epoch, and returns other weights than the run that made the checkpoint. A job that was
# killed between its last checkpoint and its end is not finished by resuming it, but changed.
# Seen: max_steps=3, stopped at step 3; resumed from checkpoint-3 it stops at step 4, and the weight has moved on.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet torch==2.13.0
env/bin/pip install --quiet transformers==5.23.0 accelerate==1.15.0
cat > run.py <<'PY'
import torch
from transformers import Trainer, TrainingArguments


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, labels):
        return {"loss": ((self.weight * x - labels) ** 2).mean()}


rows = [{"x": torch.tensor(float(n)), "labels": torch.tensor(2.0 * n)} for n in range(1, 6)]


def trainer():
    args = TrainingArguments(
        "out", max_steps=3, save_steps=3, per_device_train_batch_size=1, learning_rate=0.01, use_cpu=True,
        lr_scheduler_type="constant", report_to="none", disable_tqdm=True,
    )
    return Trainer(Line(), args, train_dataset=rows)


whole = trainer()
whole.train()
resumed = trainer()
resumed.train(resume_from_checkpoint="out/checkpoint-3")
print("run:     step", whole.state.global_step, "weight", whole.model.weight.item())
print("resumed: step", resumed.state.global_step, "weight", resumed.model.weight.item())
assert (whole.state.global_step, resumed.state.global_step) == (3, 4), "the behaviour has changed"
assert whole.model.weight.item() != resumed.model.weight.item(), "the behaviour has changed"
PY
env/bin/python run.py
echo "As described: a step more than max_steps."
