"""
What can only be checked on a GPU: that the model says there what it says on a CPU in float32, by every attention that
is installed, and that training under FSDP2, ZeRO-3 and QLoRA is what it is called and learns. Stops at the first
failure.

    python benchmarks/gpu_checks.py scores --output scores.json
    python benchmarks/gpu_checks.py train --output plain.json
    accelerate launch --config_file trainers/configs/fsdp2.yaml --num_processes 1 \
        benchmarks/gpu_checks.py train --sharded fsdp2 --like plain.json --output fsdp2.json
    python benchmarks/gpu_checks.py train --qlora --output qlora.json

`--model tiny --device cpu` runs what a CPU can.
"""

import argparse
import contextlib
import json
import math
import tempfile
from collections.abc import Iterator

import torch
from transformers.utils import is_flash_attn_2_available, is_torch_flex_attn_available

from gpm_hf.files import written_whole
from gpm_hf.modeling import EncodedGroup, GPMForPreference, preference_matrix
from gpm_hf.modeling.encoding_gpm import rows_of_groups
from gpm_hf.modeling.engine_gpm import embed_rows
from gpm_hf.recipes.heads import find_base_model, unpacked_backbone
from gpm_hf.scoring import load_preference_model, load_tokenizer

# Largest difference of log-odds that rounding may make. Embeddings of unit norm and tau = 0.1 put these within +-10.
FLOAT32_BOUND = 0.01
BFLOAT16_BOUND = 0.5
# Root mean square, over all pairs of responses.
BFLOAT16_RMS_BOUND = 0.15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=["scores", "train"])
    parser.add_argument("--model", help="a language model, or `tiny` (default: SmolLM2-135M-Instruct)")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--sharded", choices=["fsdp2", "zero3"], help="train: what the launcher was told to start")
    parser.add_argument("--qlora", action="store_true", help="train: LoRA on a backbone in 4 bits")
    parser.add_argument("--like", help="train: a JSON file of an unsharded run, whose first loss must be the same")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--output", help="a JSON file")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU here. `--device cpu` runs what a CPU can.")
    with _backbone_folder(options.model) as folder:
        report = _scores(folder, options) if options.check == "scores" else _train(folder, options)
    print(json.dumps(report, indent=1))
    if options.output:
        with written_whole(options.output) as file:
            json.dump(report, file, indent=1)


@contextlib.contextmanager
def _backbone_folder(name: str | None) -> Iterator[str]:
    """A language model's name, or a folder of plain files."""
    if name == "tiny":
        from tests.conftest import save_backbone

        with tempfile.TemporaryDirectory() as folder:
            # On a CPU a row of weights in 4 bits must be whole blocks of 64.
            yield save_backbone(folder, hidden_size=64, intermediate_size=128, head_dim=16)
    else:
        with unpacked_backbone(name or find_base_model()) as unpacked:
            yield unpacked()


def _scores(folder: str, options: argparse.Namespace) -> dict:
    # Else the float32 of a GPU is TF32, of 10 bits.
    torch.set_float32_matmul_precision("highest")
    torch.manual_seed(0)
    start = GPMForPreference.from_backbone(folder, embedding_dim=6, dtype=torch.float32)
    # A new gate is zero, and no check would notice what it reads.
    torch.nn.init.normal_(start.gate_head.weight, std=0.02)
    groups = _random_groups(start.config.text_config.vocab_size)
    expected = _log_odds(start.eval(), groups)
    report: dict = {"float32, CPU: largest log-odds": float(_flat(expected).abs().max())}

    with tempfile.TemporaryDirectory() as saved:
        start.save_pretrained(saved)

        def load(dtype: torch.dtype, attention: str) -> GPMForPreference:
            model = GPMForPreference.from_pretrained(saved, dtype=dtype, attn_implementation=attention)
            assert model.model.config._attn_implementation == attention
            return model.to(options.device).eval()

        def compare(name: str, found: list, bound: float, rms_bound: float | None = None) -> None:
            difference = _flat(found) - _flat(expected)
            largest, rms = float(difference.abs().max()), float(difference.square().mean().sqrt())
            report[name] = {"largest difference": largest, "at most": bound, "root mean square": rms}
            print(name, report[name], flush=True)
            assert largest <= bound, f"{name}: log-odds differ by {largest:.4f}, more than {bound}"
            if rms_bound is not None:
                report[name]["root mean square at most"] = rms_bound
                assert rms <= rms_bound, f"{name}: log-odds differ by {rms:.4f} on average, more than {rms_bound}"
            assert all(torch.equal(matrix, -matrix.T) for matrix in found), f"{name}: not skew-symmetric"

        for attention in ("eager", "sdpa"):
            model = load(torch.float32, attention)
            compare(f"float32, {attention}, prompt shared", _log_odds(model, groups), FLOAT32_BOUND)
            compare(f"float32, {attention}, separate", _separate_log_odds(model, groups, 16), FLOAT32_BOUND)
            compare(f"float32, {attention}, one by one", _separate_log_odds(model, groups, 1), FLOAT32_BOUND)
        compare("float32, packed", _packed_log_odds(load(torch.float32, "sdpa"), groups), FLOAT32_BOUND)

        backends = ["eager", "sdpa"]
        if options.device == "cuda":
            backends += ["flash_attention_2"] * is_flash_attn_2_available()
            backends += ["flex_attention"] * is_torch_flex_attn_available()
        report["attention in bfloat16"] = backends
        for attention in backends:
            model = load(torch.bfloat16, attention)
            assert all(
                weight.dtype == torch.float32 for head in model.heads().values() for weight in head.parameters()
            )
            bounds = BFLOAT16_BOUND, BFLOAT16_RMS_BOUND
            compare(f"bfloat16, {attention}, prompt shared", _log_odds(model, groups), *bounds)
            compare(f"bfloat16, {attention}, separate", _separate_log_odds(model, groups, 16), *bounds)
            if attention != "eager":
                compare(f"bfloat16, {attention}, packed", _packed_log_odds(model, groups), *bounds)
                compare(f"bfloat16, {attention}, separate again", _separate_log_odds(model, groups, 16), *bounds)

        model = load(torch.bfloat16, "sdpa")
        before = _flat(_log_odds(model, groups))
        with tempfile.TemporaryDirectory() as again:
            model.save_pretrained(again)
            reloaded = GPMForPreference.from_pretrained(again).to(options.device).eval()
            assert reloaded.dtype == torch.bfloat16
            assert torch.equal(_flat(_log_odds(reloaded, groups)), before), "a saved model scores otherwise"
        report["saved and loaded again"] = "the same bits"
    return report


def _random_groups(vocabulary: int) -> list[EncodedGroup]:
    """Prompts of several lengths, long and short against their responses, each with four of these."""
    generator = torch.Generator().manual_seed(0)

    def ids(length: int) -> list[int]:
        return torch.randint(10, vocabulary, (length,), generator=generator).tolist()

    groups = []
    for length, tails in [(150, (5, 20, 40, 60)), (90, (1, 2, 3, 30)), (12, (60, 80, 30, 9)), (60, (50, 50, 50, 50))]:
        prompt = ids(length)
        groups.append(EncodedGroup([prompt + ids(tail) for tail in tails], prompt))
    return groups


def _log_odds(model: GPMForPreference, groups: list[EncodedGroup]) -> list[torch.Tensor]:
    """As users get them: long prompts are encoded once."""
    return [preference_matrix(*embedded, model.config.tau).cpu() for embedded in model.embed_groups(groups)]


def _separate_log_odds(model: GPMForPreference, groups: list[EncodedGroup], batch_size: int) -> list[torch.Tensor]:
    rows, prompt_lengths, gate_rows = rows_of_groups(groups)
    embeddings, scales = embed_rows(model, rows, prompt_lengths, batch_size)
    parts = embeddings.split([len(group.sequences) for group in groups])
    return [preference_matrix(part, scales[row], model.config.tau).cpu() for part, row in zip(parts, gate_rows)]


@torch.no_grad()
def _packed_log_odds(model: GPMForPreference, groups: list[EncodedGroup]) -> list[torch.Tensor]:
    """By the rows of the trainer: a prompt and all its responses in one."""
    rows, response_lengths = [], []
    for group in groups:
        tails = [ids[len(group.prompt_ids) :] for ids in group.sequences]
        rows.append([*group.prompt_ids, *(token for tail in tails for token in tail)])
        response_lengths.append([len(tail) for tail in tails])
    length = max(map(len, rows))
    output = model(
        torch.tensor([row + [0] * (length - len(row)) for row in rows], device=model.device),
        torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], device=model.device),
        prompt_lengths=torch.tensor([len(group.prompt_ids) for group in groups], device=model.device),
        response_lengths=torch.tensor(response_lengths, device=model.device),
    )
    first, matrices = 0, []
    for group in groups:
        last = first + len(group.sequences)
        matrices.append(preference_matrix(output.embeddings[first:last], output.scales[first], model.config.tau).cpu())
        first = last
    return matrices


def _flat(matrices: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([matrix.flatten() for matrix in matrices]).float()


def _train(folder: str, options: argparse.Namespace) -> dict:
    """A few steps on the same 12 pairs of the generated cycles."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig

    from gpm_hf import GPMRewardConfig, GPMRewardTrainer
    from gpm_hf.data.generator import generate_rings, ring_pairs

    on_gpu = options.device == "cuda"
    quantization, lora = None, None
    if options.qlora:
        quantization = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
        lora = LoraConfig(r=8, target_modules="all-linear")
    with tempfile.TemporaryDirectory() as output, tempfile.TemporaryDirectory() as start:
        # Saved first, so that all kinds start from the same heads.
        torch.manual_seed(0)
        GPMForPreference.from_backbone(folder, embedding_dim=4, dtype=torch.float32).save_pretrained(start)
        load_tokenizer(folder).save_pretrained(start)
        arguments = GPMRewardConfig(
            output,
            max_steps=options.steps,
            per_device_train_batch_size=12,
            learning_rate=5e-3 if options.model == "tiny" else 5e-4 if options.qlora else 5e-5,
            lr_scheduler_type="constant",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            bf16=on_gpu,
            use_cpu=not on_gpu,
            seed=0,
        )
        trainer = GPMRewardTrainer(
            start,
            arguments,
            train_dataset=Dataset.from_list(ring_pairs(generate_rings(4, seed=0))),
            quantization_config=quantization,
            peft_config=lora,
        )
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        wrapped = type(trainer.model_wrapped).__name__
        report = {
            "processes": trainer.accelerator.num_processes,
            "kind": str(trainer.accelerator.distributed_type),
            "class": wrapped,
            "device": str(trainer.accelerator.device),
            "losses": losses,
        }
        print(report, flush=True)
        assert trainer.accelerator.device.type == options.device, report["device"]
        assert len(losses) == options.steps and all(map(math.isfinite, losses)), losses
        assert losses[-1] < 0.9 * losses[0], f"the loss did not fall: {losses}"
        if options.sharded == "fsdp2":
            assert trainer.accelerator.distributed_type.value == "FSDP" and wrapped.startswith("FSDP"), report
        elif options.sharded == "zero3":
            assert wrapped == "DeepSpeedEngine" and trainer.model_wrapped.zero_optimization_stage() == 3, report
        else:
            assert trainer.accelerator.distributed_type.value == "NO", report["kind"]
        if options.like:
            with open(options.like) as file:
                unsharded = json.load(file)["losses"]
            # Later ones drift apart, as rounding differs.
            report["first loss without sharding"] = unsharded[0]
            assert abs(losses[0] - unsharded[0]) <= 0.02, (losses, unsharded)
        trainer.save_model(output)
        trainer.accelerator.wait_for_everyone()
        if trainer.accelerator.is_main_process:
            report["a probability after saving and loading"] = _reloaded_probability(output, options.device)
    return report


def _reloaded_probability(folder: str, device: str) -> float:
    model = load_preference_model(folder, dtype=torch.float32).to(device)
    probability = model.compare(load_tokenizer(folder), "How do I boil an egg?", "Seven minutes.", "Ask a cook.")
    assert 0.0 < probability < 1.0, probability
    return probability


if __name__ == "__main__":
    main()
