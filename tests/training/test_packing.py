"""GPMRewardTrainer with packed rows: the losses, gradients and measurements of separate ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import build_gpm, build_tokenizer
from tests.training.test_reward_trainer import batch_of, log_odds_by_hand, make_trainer, ring_rows

ROOT = Path(__file__).resolve().parents[2]


def rows_of_all_lengths(count=6):
    """Prompts from a few to a hundred tokens, one of them a conversation of several turns."""
    rows = ring_rows(2)[:count]
    for number, row in enumerate(rows):
        row["prompt"] += " And why is that so, if I may ask?" * number
        row["rejected"] += " It depends." * (number % 3)
    return rows


def loss_and_gradients(trainer, batch):
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}


def assert_same(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=5e-5)
    assert found[1].keys() == expected[1].keys() and len(found[1]) > 5
    for name, gradient in expected[1].items():
        assert gradient.norm() > 0, name
        assert (found[1][name] - gradient).norm() <= 1e-5 * gradient.norm(), name


@pytest.mark.parametrize("backbone", ["llama", "gemma3_text", "mistral", "gpt2"])
@pytest.mark.parametrize(
    "options",
    [{"embedding_dim": 4}, {"embedding_dim": 4, "reward_head": True}, {"embedding_dim": 4, "scale_gate": False}],
    ids=["gate", "gate and reward", "no gate"],
)
def test_loss_and_gradients_are_those_of_separate_rows(tmp_path, backbone, options):
    rows = rows_of_all_lengths()
    results = {}
    for packing in (True, False):
        trainer = make_trainer(tmp_path, build_gpm(backbone, **options), rows, packing=packing)
        batch = batch_of(trainer, len(rows))
        assert ("response_lengths" in batch) == packing
        assert len(batch["input_ids"]) == len(rows) * (1 if packing else 2)
        results[packing] = loss_and_gradients(trainer, batch)
    assert_same(results[True], results[False])
    expected = (
        [log_odds_by_hand(trainer.model, trainer.processing_class, row) for row in rows] if len(options) < 2 else []
    )
    if expected:  # -log sigmoid(s) = log(1 + exp(-s))
        by_hand = sum(torch.log1p(torch.exp(-log_odds)).item() for log_odds in expected) / len(rows)
        assert results[True][0] == pytest.approx(by_hand, rel=1e-4)


def test_bradley_terry_shares_whatever_the_sequences_begin_with(tmp_path):
    """Plain text without a prompt: "It is" is said by both, and at least a token is left to each."""
    from datasets import Dataset

    from gpm_hf import GPMRewardTrainer
    from tests.training.test_reward_trainer import config

    texts = [("It is red and blue", "It is green"), ("It is red", "It is red and blue, a city")]
    rows = [{"chosen": chosen, "rejected": rejected} for chosen, rejected in texts]
    results = {}
    for packing in (True, False):
        trainer = GPMRewardTrainer(
            build_gpm(embedding_dim=1, tau=5.0),
            config(tmp_path, packing=packing),
            train_dataset=Dataset.from_list(rows),
            processing_class=build_tokenizer(chat=False),
        )
        batch = batch_of(trainer, 2)
        results[packing] = loss_and_gradients(trainer, batch)
        if packing:
            for index, row in enumerate(trainer.train_dataset):
                pairs = zip(row["chosen_ids"], row["rejected_ids"], strict=False)
                shared = [one == other for one, other in pairs].index(False)
                assert batch["prompt_lengths"][index] == shared > 0
                assert batch["response_lengths"][index].tolist() == [
                    len(row["chosen_ids"]) - shared,
                    len(row["rejected_ids"]) - shared,
                ]
    assert_same(results[True], results[False])


class TestCollator:
    def rows(self, prompt, chosen, rejected, **labels):
        shared = list(range(10, 10 + prompt))
        return {
            "prompt_ids": shared,
            "chosen_ids": shared + [300] * chosen,
            "rejected_ids": shared + [301] * rejected,
            **labels,
        }

    def collator(self, with_prompts=True, **options):
        from gpm_hf.data.collator import PreferenceCollator
        from gpm_hf.data.packed_collator import PackedPreferenceCollator

        return PackedPreferenceCollator(PreferenceCollator(0, with_prompts), **{"hidden_size": 64, **options})

    def test_rows(self):
        batch = self.collator(always=True)([self.rows(2, 1, 3, margin=0.5), self.rows(4, 2, 1, margin=0.0)])
        assert {name: value.tolist() for name, value in batch.items()} == {
            "input_ids": [[10, 11, 300, 301, 301, 301, 0], [10, 11, 12, 13, 300, 300, 301]],
            "attention_mask": [[1, 1, 1, 1, 1, 1, 0], [1] * 7],
            "prompt_lengths": [2, 4],
            "response_lengths": [[1, 3], [2, 1]],
            "gate_rows": [0, 2],
            "margin": [0.5, 0.0],
        }

    def test_what_is_not_shared_stays_separate(self):
        good = self.rows(5, 2, 2)
        merged = good | {"rejected_ids": [10, 11, 12, 13, 99, 99, 99]}
        empty = good | {"chosen_ids": good["prompt_ids"]}
        for row in (merged, empty):
            batch = self.collator(always=True)([good, row])
            assert "response_lengths" not in batch and len(batch["input_ids"]) >= 4
        assert "response_lengths" in self.collator(always=True)([good, good])
        nothing = good | {"rejected_ids": [99, 99]}
        assert "response_lengths" not in self.collator(with_prompts=False, always=True)([good, nothing])

    @pytest.mark.parametrize(
        ("prompt", "response", "packed"),
        [(512, 32, True), (512, 128, True), (128, 128, True), (64, 256, False), (4, 64, False)],
    )
    def test_the_choice_depends_on_what_is_saved(self, prompt, response, packed):
        batch = self.collator(hidden_size=576)([self.rows(prompt, response, response)] * 2)
        assert ("response_lengths" in batch) == packed
        assert "response_lengths" in self.collator(hidden_size=576, always=True)(
            [self.rows(prompt, response, response)]
        )

    def test_padding_that_packed_rows_do_not_have_counts(self):
        """64/256 alone is not packed; beside a long row it is."""
        short, long = self.rows(64, 256, 256), self.rows(1500, 20, 20)
        collator = self.collator(hidden_size=576)
        assert "response_lengths" not in collator([short])
        assert "response_lengths" in collator([short, short, long])


def test_the_default_chooses_by_the_batch(tmp_path):
    trainer = make_trainer(tmp_path, rows=rows_of_all_lengths())
    long, short = (
        dict(trainer.train_dataset[5]),
        {"prompt_ids": [5], "chosen_ids": [5, *[6] * 90], "rejected_ids": [5] * 91},
    )
    assert "response_lengths" in trainer.data_collator([long] * 2)
    assert "response_lengths" not in trainer.data_collator([short] * 2)
    never = make_trainer(tmp_path, rows=rows_of_all_lengths(), packing=False)
    assert "response_lengths" not in never.data_collator([long] * 2)


@pytest.mark.parametrize("attention", ["flash_attention_2", "flex_attention"])
def test_other_attentions_pack_when_asked(tmp_path, attention):
    for packing in (None, True):
        model = build_gpm()
        model.config.text_config._attn_implementation = attention
        trainer = make_trainer(tmp_path, model, rows_of_all_lengths(), packing=packing)
        assert ("response_lengths" in batch_of(trainer, 6)) == bool(packing)


def test_training_and_evaluation_are_the_same(tmp_path):
    rows, results = rows_of_all_lengths(), {}
    for packing in (True, False):
        trainer = make_trainer(
            tmp_path,
            rows=rows,
            eval_rows=rows[:5],
            packing=packing,
            max_steps=3,
            per_device_train_batch_size=3,
            per_device_eval_batch_size=2,
            learning_rate=1e-3,
        )
        before = trainer.predict(trainer.eval_dataset).predictions
        trainer.train()
        results[packing] = before, trainer.evaluate(), trainer.state.log_history
    (packed, measured, history), (separate, expected, other_history) = results[True], results[False]
    assert packed == pytest.approx(separate, rel=3e-5, abs=3e-5)
    for name in ("loss", "accuracy", "mean_log_odds", "mean_probability"):
        assert measured[f"eval_{name}"] == pytest.approx(expected[f"eval_{name}"], rel=1e-4), name
    losses, others = ([entry["loss"] for entry in log if "loss" in entry] for log in (history, other_history))
    assert losses == pytest.approx(others, rel=1e-4) and len(losses) == 3
    tokens = [[entry["num_tokens"] for entry in log if "loss" in entry][-1] for log in (history, other_history)]
    assert tokens[0] < 0.75 * tokens[1]


def test_lora_with_gradient_checkpointing(tmp_path):
    from peft import LoraConfig

    rows, results = rows_of_all_lengths(), {}
    for packing in (True, False):
        trainer = make_trainer(
            tmp_path,
            rows=rows,
            packing=packing,
            peft_config=LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False),
            gradient_checkpointing=True,
        )
        trainer.model.train()
        results[packing] = loss_and_gradients(trainer, batch_of(trainer, len(rows)))
    assert_same(results[True], results[False])


class TestRefusals:
    def test_a_backbone_that_cannot(self, tmp_path):
        with pytest.raises(ValueError, match="packing=True is not possible: gemma2 attends by 'eager'"):
            make_trainer(tmp_path, build_gpm("gemma2", embedding_dim=4), packing=True)

    def test_it_trains_separately_by_default(self, tmp_path):
        trainer = make_trainer(tmp_path, build_gpm("gemma2", embedding_dim=4), rows_of_all_lengths(), max_steps=1)
        assert "response_lengths" not in batch_of(trainer, 2)
        trainer.train()

    def test_stored_states(self, tmp_path):
        with pytest.raises(ValueError, match="packing=True has no meaning with train_heads_only"):
            make_trainer(tmp_path, packing=True, train_heads_only=True)

    def test_another_collator(self, tmp_path):
        from gpm_hf import GPMRewardTrainer
        from tests.training.test_reward_trainer import config

        with pytest.raises(ValueError, match="you passed one of your own"):
            GPMRewardTrainer(
                build_gpm(), config(tmp_path, packing=True), data_collator=list, processing_class=build_tokenizer()
            )


def launch(output, mode):
    output.mkdir()
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "tests.training.ddp_reward", str(output), mode]
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return [json.loads((output / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
def test_two_ranks_train_packed_as_separate(tmp_path):
    packed, other = launch(tmp_path / "packed", "packed")
    separate, _ = launch(tmp_path / "separate", "separate")
    assert packed["world_size"] == separate["world_size"] == 2
    assert packed["class"] == separate["class"] == "DistributedDataParallel"
    assert packed["parameters"] == other["parameters"]
    assert packed["losses"] == pytest.approx(separate["losses"], rel=1e-3, abs=1e-3)
    assert packed["metrics"] == pytest.approx(separate["metrics"], rel=1e-2, abs=1e-3)
    assert packed["tokens"] < separate["tokens"]


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path):
    report = tmp_path / "report.json"
    command = [sys.executable, "benchmarks/reward_step.py", "--model", "tiny", "--device", "cpu", "--rounds", "1"]
    command += ["--lengths", "64/16", "8/64", "--output", str(report)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "| prompt/response | TRL, seconds | separate / TRL | separate / packed |" in finished.stdout
    rows = json.loads(report.read_text())["rows"]
    assert [(row["prompt/response"], row["chosen"]) for row in rows] == [("64/16", "packed"), ("8/64", "separate")]
    assert all(len(seconds) == 1 for row in rows for seconds in row["seconds"].values())
    assert rows[0]["memory, packed / separate"] < 0.8
