"""Run by torchrun in test_row_means.py: one step and one evaluation on seven rows; writes down what each rank saw."""

import json
import os
import sys
from pathlib import Path

import torch
from datasets import Dataset

from tests.conftest import build_gpm, build_tokenizer
from tests.training.online import build_policy

output, kind = Path(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
ranks = int(os.environ["WORLD_SIZE"])
options = {
    "per_device_train_batch_size": 4 if ranks == 2 else 7,
    "per_device_eval_batch_size": 4 if ranks == 2 else 7,
    "max_steps": 1,
    "learning_rate": 0.1,
    "optim": "sgd",
    "max_grad_norm": 0.0,
    "lr_scheduler_type": "constant",
    "train_sampling_strategy": "sequential",
    "gradient_checkpointing": False,
    "bf16": False,
    "use_cpu": True,
    "report_to": "none",
    "save_strategy": "no",
    "logging_steps": 1,
    "disable_tqdm": True,
}
if kind in ("reward", "groups", "prompts", "tokens"):
    from gpm_hf import GPMRewardConfig, GPMRewardTrainer
    from gpm_hf.data.columns import dataset_of_rows
    from tests.training.test_groups import RAGGED
    from tests.training.test_reward_trainer import ring_rows

    rows = Dataset.from_list([row | {"margin": 0.5 * n} for n, row in enumerate(ring_rows(3)[:7])])
    if kind != "reward":  # of 1, 3, 5 and 14 pairs
        rows = dataset_of_rows([*RAGGED, *RAGGED[1:3], RAGGED[0]])
        options["pair_weight"] = "prompt" if kind == "prompts" else "pair"
    if kind == "tokens":  # batches of any size, all of them in one step
        options |= {"max_tokens_per_batch": 120, "gradient_accumulation_steps": 50}
    trainer = GPMRewardTrainer(
        build_gpm(embedding_dim=4),
        GPMRewardConfig(str(output / "run"), **options),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=build_tokenizer(),
    )
else:
    from gpm_hf.training import OfflineGPOConfig, OfflineGPOTrainer
    from tests.training.test_offline_gpo import scored_rows, selected

    rows = selected(scored_rows(7), "mean")
    trainer = OfflineGPOTrainer(
        build_policy(),
        OfflineGPOConfig(str(output / "run"), gpo_beta=0.1, **options),
        rows,
        eval_dataset=rows,
        processing_class=build_tokenizer(),
    )
wrapped = {}
inner = trainer.compute_loss


def compute_loss(model, *rest, **more):
    wrapped["class"] = type(model).__name__
    return inner(model, *rest, **more)


trainer.compute_loss = compute_loss
before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
trainer.train()
train_class = wrapped["class"]  # an evaluation on its own does not wrap the model
# Of the weights that the training left.
evaluated = trainer.evaluate()
if kind == "reward":  # eight rows: of a stream that does not divide evenly, repeated rows count
    evaluated |= trainer.evaluate(rows.select([*range(7), 2]).to_iterable_dataset(), metric_key_prefix="stream")
change = {name: (p.detach() - before[name]).flatten().tolist() for name, p in trainer.model.named_parameters()}
unimportant = ("runtime", "per_second", "time", "num_tokens", "epoch")
facts = {
    "world_size": torch.distributed.get_world_size(),
    "class": train_class,
    "change": change,
    "train": {k: v for k, v in trainer.state.log_history[0].items() if not k.endswith(unimportant)},
    "eval": {k: v for k, v in evaluated.items() if not k.endswith(unimportant)},
}
(output / f"rank{torch.distributed.get_rank()}.json").write_text(json.dumps(facts))

# Both ranks are done. Leave at once: on a busy machine gloo's threads can abort a process while Python tears it down.
torch.distributed.barrier()
os._exit(0)
