"""
Two processes that train a preference model under DDP, DeepSpeed's ZeRO and torch's FSDP2, whole and with LoRA: they
train alike, and what they save scores as what they had in memory.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import build_tokenizer, save_backbone
from tests.training.test_reward_trainer import ring_rows

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
HEADS = ("embedding_head.weight", "gate_head.weight")
WRAPPED = {
    "ddp": "DistributedDataParallel",
    "zero2": "DeepSpeedEngine",
    "zero3": "DeepSpeedEngine",
    "fsdp2": "FSDPGPMForPreference",
    "fsdp2 lora": "FSDPPeftModelForFeatureExtraction",
    "fsdp2 qlora": "FSDPPeftModelForFeatureExtraction",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """`run("zero2")` or `run("zero2 lora")`: its folder and what each process saw; each is run once."""
    done = {}

    def run_once(case):
        if case not in done:
            if "qlora" in case:
                pytest.importorskip("bitsandbytes")
            folder = tmp_path_factory.mktemp(case.replace(" ", "_"))
            # Rows of a multiple of 64 entries, the blocks that are quantised together.
            save_backbone(folder / "backbone", hidden_size=64, intermediate_size=128, head_dim=16)
            cpu = {"DS_ACCELERATOR": "cpu"} if case.startswith("zero") else {"ACCELERATE_USE_CPU": "true"}
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
            finished = subprocess.run(
                [*torchrun, "-m", "tests.training.reward_scale_worker", str(folder), *case.split()],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **cpu},
                capture_output=True,
                text=True,
                timeout=600,
            )
            assert finished.returncode == 0, finished.stderr[-5000:]
            done[case] = folder / "run", [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
        return done[case]

    return run_once


def scores_of(model):
    tokenizer = build_tokenizer()
    rows = ring_rows(5)
    return [
        model.preference_scores(tokenizer, row["prompt"], [row["chosen"], row["rejected"]])[0, 1].item()
        for row in rows
    ]


CASES = ["ddp", "zero2", "zero3", "fsdp2", "ddp lora", "zero3 lora", "fsdp2 lora", "ddp qlora", "fsdp2 qlora"]


def plain_case(case):
    return " ".join(["ddp", *case.split()[1:]])


@pytest.mark.parametrize("case", CASES)
def test_the_processes_train_alike(run, case):
    """Both hold the same heads, which move, and as in a plain data parallel run."""
    _, (first, second) = run(case)
    _, (plain, _) = run(plain_case(case))
    kind = case.split()[0]
    for facts in (first, second):
        assert facts["world_size"] == 2
        assert facts["wrapped"] == WRAPPED.get(case, WRAPPED[kind])
    if kind == "fsdp2" and "qlora" not in case:  # 4-bit weights are not split
        assert first["local"] + second["local"] == plain["local"]
    for name in ("before", "after", "log_odds"):
        assert first[name] == second[name]
    assert first["before"].keys() == plain["before"].keys()
    heads = [name for name in first["before"] if name.endswith(HEADS) or "_head.modules_to_save" in name]
    trained = [name for name in heads if "original_module" not in name] + [n for n in first["before"] if "lora_" in n]
    assert len(trained) == (2 + 2 * 2 if "lora" in case else 2)
    for name, value in first["before"].items():
        before, after = torch.tensor(value), torch.tensor(first["after"][name])
        moved = (after - before).abs()
        if name in trained:
            # Every one of the heads' weights has a gradient, so a process that does not train its part would show.
            assert moved.min() > 1e-4 if name in heads else moved.max() > 1e-4
        elif "lora" in case:
            assert moved.max() == 0
        torch.testing.assert_close(before, torch.tensor(plain["before"][name]), atol=0, rtol=0)
        torch.testing.assert_close(after, torch.tensor(plain["after"][name]), atol=1e-4, rtol=0)
    # TRL computes the adapters of quantised models in bfloat16, which rounds log-odds of 5 by 0.03.
    assert first["log_odds"] == pytest.approx(plain["log_odds"], abs=0.2 if "qlora" in case else 1e-2)


@pytest.mark.parametrize("case", CASES)
def test_what_is_saved_scores_as_in_memory(run, case):
    from gpm_hf import GPMForPreference, load_preference_model
    from gpm_hf.training.quantized_layers import keep_trainable

    folder, (first, _) = run(case)
    plain, _ = run(plain_case(case))
    # The code too: FSDP2's class for the model is not in a file of ours.
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in plain.iterdir())
    config = json.loads((folder / "config.json").read_text())
    assert config["auto_map"]["AutoModel"] == "modeling_gpm.GPMForPreference"
    is_lora = "lora" in case
    saved = load_file(folder / ("adapter_model.safetensors" if is_lora else "model.safetensors"))
    for head in HEADS:
        in_memory = f"base_model.model.{head[:-7]}.modules_to_save.default.weight" if is_lora else head
        name = f"base_model.model.{head}" if is_lora else head
        assert saved[name].dtype == torch.float32
        torch.testing.assert_close(saved[name], torch.tensor(first["after"][in_memory]), atol=0, rtol=0)
    model = load_preference_model(str(folder))
    if "qlora" in case:
        # As TRL computes the adapters of quantised models, and our trainer the layers that they stand beside;
        # test_reward_quantized.py compares without the first.
        keep_trainable(model)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.bfloat16()
    assert scores_of(model) == pytest.approx(first["log_odds"], abs=1e-4)
    if "qlora" in case:
        return
    if is_lora:
        merged = model.merge_and_unload()
        merged.save_pretrained(folder.parent / "merged")
        again = GPMForPreference.from_pretrained(folder.parent / "merged").eval()
        assert scores_of(again) == pytest.approx(first["log_odds"], abs=1e-4)
    else:
        assert scores_of(GPMForPreference.from_pretrained(folder).eval()) == scores_of(model)


@pytest.mark.parametrize("case", ["zero2 bf16", "zero3 bf16", "zero3 lora bf16", "fsdp2 bf16", "fsdp2 lora bf16"])
def test_bfloat16(run, case):
    """As the recipes train. DeepSpeed's weights are bfloat16, the heads' too; FSDP2 computes with rounded ones."""
    from gpm_hf import load_preference_model

    folder, (first, second) = run(case)
    kind, is_lora = case.split()[0], "lora" in case
    for facts in (first, second):
        assert facts["world_size"] == 2
        assert facts["wrapped"] == WRAPPED.get(case.removesuffix(" bf16"), WRAPPED[kind])
    saved = load_file(folder / ("adapter_model.safetensors" if is_lora else "model.safetensors"))
    for head in HEADS:
        in_memory = f"base_model.model.{head[:-7]}.modules_to_save.default.weight" if is_lora else head
        before, after = (torch.tensor(first[when][in_memory]) for when in ("before", "after"))
        assert first["after"][in_memory] == second["after"][in_memory]
        assert (after - before).abs().min() > 1e-3
        weight = saved[f"base_model.model.{head}" if is_lora else head]
        assert weight.dtype == (torch.float32 if kind == "fsdp2" else torch.bfloat16)
        torch.testing.assert_close(weight.float(), after, atol=0, rtol=0)
    model = load_preference_model(str(folder), dtype=torch.bfloat16)
    assert all(parameter.dtype == torch.float32 for head in model.heads().values() for parameter in head.parameters())
    assert scores_of(model) == pytest.approx(first["log_odds"], abs=0.25)
    assert max(map(abs, first["log_odds"])) > 1


@pytest.mark.parametrize("kind", ["zero3", "fsdp2"])
def test_groups_train_as_in_one_process(run, tmp_path, kind):
    """Whose batch has the groups of both. Each group's pairs weigh alike, however many the other process has."""
    from gpm_hf import GPMRewardTrainer
    from tests.training.reward_scale_worker import many_groups
    from tests.training.test_reward_trainer import config

    folder, (first, second) = run(f"{kind} groups")
    alone = GPMRewardTrainer(
        str(folder.parent / "backbone"),
        config(tmp_path, embedding_dim=4, per_device_train_batch_size=8, per_device_eval_batch_size=2, max_steps=2),
        train_dataset=many_groups(),
    )
    assert "pairs" in alone.train_dataset.column_names
    names = first["before"]
    before = {name: value.detach().clone() for name, value in alone.model.named_parameters() if name in names}
    assert before.keys() == names.keys() and len(before) == 4
    alone.train()
    expected = dict(alone.model.named_parameters())
    for facts in (first, second):
        assert facts["world_size"] == 2 and facts["wrapped"] == WRAPPED[kind]
    for name, value in before.items():
        torch.testing.assert_close(torch.tensor(first["before"][name]), value, atol=0, rtol=0)
        after = torch.tensor(first["after"][name])
        assert first["after"][name] == second["after"][name]
        assert (after - value).abs().max() > 1e-3
        torch.testing.assert_close(after, expected[name].detach(), atol=1e-4, rtol=0)
    assert first["log_odds"] == second["log_odds"]
    assert first["log_odds"] == pytest.approx(alone.predict(many_groups()).predictions.tolist(), abs=1e-2)
