"""
One process of a two-process online run, for test_online_gpo_distributed.py: trains a few steps and writes what it saw.

    torchrun --nproc_per_node 2 -m tests.training.online_worker FOLDER KIND
"""

import hashlib
import json
import sys
from pathlib import Path

import torch
from accelerate.utils import gather_object
from datasets import Dataset

from tests.conftest import build_gpm, build_tokenizer
from tests.training.online import chat_prompts, logged, make_trainer, prefer_by_text, text_of


def zero_config(stage):
    return {
        "zero_optimization": {"stage": stage},
        "train_micro_batch_size_per_gpu": "auto",
        "train_batch_size": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }


def recording_trainer():
    from gpm_hf.training.online_gpo_trainer import OnlineGPOTrainer

    class RecordingTrainer(OnlineGPOTrainer):
        """Keeps the rollouts of all processes, and the opponents' texts."""

        def __init__(self, *arguments, **options):
            self.rollouts, self.opponents = [], []
            super().__init__(*arguments, **options)

        def _score(self, groups, ours, theirs=None):
            if theirs is not None:
                self.opponents.append(gather_object([text_of(completion) for completion in theirs.completions]))
            return super()._score(groups, ours, theirs)

        def _generate_and_score_completions(self, inputs):
            output = super()._generate_and_score_completions(inputs)
            texts = self.processing_class.batch_decode(output["completion_ids"], skip_special_tokens=True)
            rows = [
                {"prompt": row["prompt"], "text": text, "target": target, "rank": self.accelerator.process_index}
                for row, text, target in zip(inputs, texts, output["targets"].tolist())
            ]
            self.rollouts.append(gather_object(rows))
            return output

    return RecordingTrainer


def scorers(folder):
    """Trains by a scorer of each kind, as a user names it, the models in float64."""
    from tests.training.test_preference_kinds import described

    results = {}
    for kind in (
        "gpm:gpm",
        "reward:reward",
        "pair:pair",
        "judge:judge",
        "function:tests.training.online.prefer_by_text",
    ):
        has_model = not kind.startswith("function")
        trainer = make_trainer(
            Path(folder, "run", kind.partition(":")[0]),
            None,
            described(Path(folder), kind),
            chat_prompts(9),
            trainer_class=recording_trainer(),
            # As below: the second of three groups lies on both processes.
            num_generations=2,
            per_device_train_batch_size=3,
            preference_batch_size=2,
            max_steps=4,
            **({"preference_model_init_kwargs": {"dtype": "float64"}} if has_model else {}),
        )
        trainer.train()
        # GRPO takes a reward model's rewards themselves.
        signal = trainer.preference_signal
        results[kind] = {
            "world_size": trainer.accelerator.num_processes,
            "wrapped": type(trainer.model_wrapped).__name__,
            "rollouts": trainer.rollouts,
            "passes": None if signal is None else signal.scorer.forward_passes,
        }
    Path(folder, f"scorers-{trainer.accelerator.process_index}.json").write_text(json.dumps(results))
    trainer.accelerator.wait_for_everyone()
    trainer.end()


def main(folder, kind):
    torch.set_num_threads(1)
    if kind == "scorers":
        scorers(folder)
        return
    options = {"optim": "adamw_torch", "learning_rate": 1e-3}
    prompts = chat_prompts(9)
    if kind == "stored":
        prompts = Dataset.from_list(
            [{**row, "opponent_responses": [f"{i} and {j}" for j in range(3)]} for i, row in enumerate(prompts)]
        )
        options["opponent"] = "reference"
    if kind.endswith("mixture"):
        options |= {"opponent": "mixture", "num_opponent_generations": 3}
    if kind.startswith("lora"):
        from peft import LoraConfig

        options["peft_config"] = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"])
    if kind.startswith("zero"):
        import deepspeed

        # With `use_cpu` the training arguments start torch's process group but not DeepSpeed's view of it.
        deepspeed.init_distributed("gloo")
        options["deepspeed"] = zero_config(int(kind[len("zero")]))
    if kind == "callable":
        preference = prefer_by_text
    elif kind.startswith("zero"):
        # By path, as a launch script does: under ZeRO-3 it must not be split while loading.
        preference = str(Path(folder, "gpm"))
    else:
        # A backbone in float64: what is left of a difference to a single process is not rounding in other batches.
        preference, options["preference_processing_class"] = build_gpm(embedding_dim=4).double(), build_tokenizer()
    policy = str(Path(folder, "policy")) if kind.startswith("zero") else None
    trainer = make_trainer(
        Path(folder, kind),
        policy,
        preference,
        prompts,
        trainer_class=recording_trainer(),
        # Two processes with three completions each, groups of two: the second of three groups lies on both.
        num_generations=2,
        per_device_train_batch_size=3,
        # One completion of a process may need a prompt row of its own: forwards have to be evened out.
        preference_batch_size=2,
        max_steps=4,
        win_rate_prompts=3,
        win_rate_steps=2,
        **options,
    )
    trainer.train()
    model = trainer.accelerator.unwrap_model(trainer.model)
    if kind.startswith("zero3"):
        with deepspeed.zero.GatheredParameters(list(model.parameters())):
            values = [value.detach().clone() for value in model.parameters()]
    else:
        values = [value.detach() for value in model.parameters()]
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in values)).hexdigest()
    scorer = trainer.preference_signal.scorer
    result = {
        "world_size": trainer.accelerator.num_processes,
        "wrapped": type(trainer.model_wrapped).__name__,
        "backbone": None if kind == "callable" else type(scorer.model.model).__name__,
        "head": None if kind == "callable" else str(scorer.model.embedding_head.weight.dtype),
        "digest": digest,
        "sum": sum(value.double().abs().sum().item() for value in values),
        "win_rates": logged(trainer, "win_rate"),
        "unscorable": logged(trainer, "gpo/unscorable"),
        "losses": logged(trainer, "loss"),
        "answers": trainer.initial_policy.answers.completions,
        "rollouts": trainer.rollouts,
        "opponents": trainer.opponents,
        "reference": type(trainer.opponent.reference).__name__ if kind.endswith("mixture") else None,
    }
    path = Path(folder, f"{kind}-{trainer.accelerator.process_index}.json")
    path.write_text(json.dumps(result))
    trainer.accelerator.wait_for_everyone()
    trainer.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
