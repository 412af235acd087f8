"""
One process of a two-process training of a preference model, for test_reward_scale.py: trains, predicts, saves, and
writes down what it saw.

    torchrun --standalone --nproc_per_node 2 -m tests.training.reward_scale_worker FOLDER KIND [lora | qlora] [bf16]

With `groups` behind it on groups, not on pairs.
"""

import json
import os
import sys
from pathlib import Path

import torch
import yaml
from accelerate import PartialState
from accelerate.utils import DistributedType
from datasets import Dataset
from transformers import TrainerCallback

from gpm_hf.data.columns import dataset_of_rows
from tests.training.online_worker import zero_config
from tests.training.test_groups import group
from tests.training.test_reward_trainer import config, ring_rows

ROOT = Path(__file__).resolve().parents[2]


def many_groups():
    """Groups of unequal size, so that the processes' parts of a step have unequal numbers of pairs."""
    sizes = [2, 7, 3, 4, 5, 2, 6, 3, 4, 2, 3, 7, 5, 3, 2, 4]
    return dataset_of_rows([group(size, number, ranking=list(range(size))) for number, size in enumerate(sizes)])


def fsdp2_options():
    """Training arguments for torch's FSDP2 as in the shipped configuration, on a CPU."""
    settings = yaml.safe_load((ROOT / "trainers/configs/fsdp2.yaml").read_text())["fsdp_config"]
    settings["version"] = settings.pop("fsdp_version")
    # What `accelerate launch` sets, and transformers asks when it loads a model.
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    return {"fsdp": True, "fsdp_config": settings}


def whole_weights(model, kind, names):
    """The named parameters, gathered from both processes."""
    parameters = {name: value for name, value in model.named_parameters() if any(part in name for part in names)}
    if kind == "zero3":
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(parameters.values())):
            return {name: value.detach().clone().tolist() for name, value in parameters.items()}
    if kind == "fsdp2":
        parameters = {
            name: value.full_tensor() if isinstance(value, torch.distributed.tensor.DTensor) else value
            for name, value in parameters.items()
        }
    return {name: value.detach().tolist() for name, value in parameters.items()}


def main(folder, kind, *details):
    from gpm_hf import GPMRewardTrainer

    torch.set_num_threads(1)
    options = {}
    if kind.startswith("zero"):
        import deepspeed

        # With `use_cpu` the training arguments start torch's process group but not DeepSpeed's view of it.
        deepspeed.init_distributed("gloo")
        options = {"deepspeed": zero_config(int(kind[-1])), "optim": "adamw_torch"}
        options["deepspeed"]["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] = True
        options["deepspeed"]["bf16"] = {"enabled": "auto"}
    elif kind == "fsdp2":
        options = fsdp2_options()
    peft_config = quantization_config = None
    if "qlora" in details:
        from transformers import BitsAndBytesConfig

        quantization_config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    if "lora" in details or "qlora" in details:
        from peft import LoraConfig

        peft_config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    args = config(
        folder / "run",
        embedding_dim=4,
        per_device_train_batch_size=4,
        per_device_eval_batch_size=2,
        max_steps=2,
        bf16="bf16" in details,
        **options,
    )
    if kind == "fsdp2":
        # Accelerate offers FSDP to processes with a GPU each. Torch can shard on a CPU, so it need not know.
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    rows = many_groups() if "groups" in details else Dataset.from_list(ring_rows(5))
    trainer = GPMRewardTrainer(
        str(folder / "backbone"),
        args,
        train_dataset=rows,
        peft_config=peft_config,
        quantization_config=quantization_config,
    )
    names = ("embedding_head", "gate_head", "q_proj")
    before = {}

    class AtTheStart(TrainerCallback):
        def on_train_begin(self, *arguments, model, **options):
            before.update(whole_weights(model, kind, names))

    trainer.add_callback(AtTheStart())
    trainer.train()
    after = whole_weights(trainer.model, kind, names)
    log_odds = trainer.predict(rows).predictions.tolist()
    trainer.save_model()
    rank = torch.distributed.get_rank()
    facts = {
        "world_size": torch.distributed.get_world_size(),
        "wrapped": type(trainer.model_wrapped).__name__,
        "distributed_type": str(trainer.accelerator.distributed_type),
        "before": before,
        "after": after,
        "log_odds": log_odds,
        "local": sum(
            value.to_local().numel() if isinstance(value, torch.distributed.tensor.DTensor) else value.numel()
            for value in trainer.model.parameters()
        ),
        "optimizer": type(trainer.optimizer).__name__,
    }
    (folder / f"rank{rank}.json").write_text(json.dumps(facts))
    torch.distributed.barrier()
    # Both are done. Leave at once: gloo's threads can abort a process while Python tears it down.
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
