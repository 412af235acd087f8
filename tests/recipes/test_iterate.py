"""Iterative alignment: its data by hand, whose weights and reference an iteration has, what is skipped and refused."""

import json
from dataclasses import fields
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gpm_hf.recipes import iterate as job
from gpm_hf.recipes import iterate_training
from gpm_hf.recipes.iterate_config import METHODS, IterateConfig
from tests.conftest import build_gpm, build_tokenizer, save_backbone
from tests.generation.templates import template_policy, template_tokenizer
from tests.training.test_offline_gpo import sequence_log_prob

TRAINING: dict[str, Any] = {
    "bf16": False,
    "use_cpu": True,
    "report_to": "none",
    "disable_tqdm": True,
    "gradient_checkpointing": False,
    "learning_rate": 0.02,
    "optim": "sgd",
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "gpo_beta": 0.1,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A policy, a preference model and eight prompts."""
    folder = tmp_path_factory.mktemp("world")
    save_backbone(folder / "policy")
    build_gpm(embedding_dim=4).save_pretrained(folder / "gpm")
    build_tokenizer().save_pretrained(folder / "gpm")
    prompts = [{"prompt": f"Question {number}?"} for number in range(8)]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    return folder


def options_of(world, output, **options):
    from gpm_hf.training import OfflineGPOConfig

    of_job = {field.name for field in fields(IterateConfig)}
    training = {**TRAINING, **{name: options.pop(name) for name in list(options) if name not in of_job}}
    config = {
        "policy": str(world / "policy"),
        "scorer": f"gpm:{world / 'gpm'}",
        "prompts": str(world / "prompts.jsonl"),
        "output": str(output),
        "iterations": 2,
        "num_generations": 2,
        "max_new_tokens": 6,
        "shard_size": 3,
        **options,
    }
    return IterateConfig(**config), OfflineGPOConfig(**training)


def run(world, output, **options):
    return job.run_iterate(*options_of(world, output, **options))


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("size", [2, 5, 16])
def test_the_data_of_an_iteration_by_hand(world, tmp_path, size):
    from gpm_hf import load_preference_model, load_tokenizer

    run(world, tmp_path, iterations=1, num_generations=size, max_steps=1)
    model, tokenizer = load_preference_model(str(world / "gpm")), load_tokenizer(str(world / "gpm"))
    samples, scored = (read(tmp_path / "iteration-1" / f"{name}.jsonl") for name in ("samples", "scored"))
    assert len(samples) == 8 and all(len(row["responses"]) == size for row in samples)
    written = {row["prompt"]: [text for text in row["responses"] if text.strip()] for row in samples}
    for row in scored:
        assert row["responses"] == written[row["prompt"]]
        expected = model.preference_scores(tokenizer, row["prompt"], row["responses"])
        assert torch.tensor(row["scores"]) == pytest.approx(expected, abs=3e-5)
        by_hand = [sum(line) / len(line) for line in expected.tolist()]
        assert row["mean_scores"] == pytest.approx(by_hand, abs=3e-5)
    assert {row["prompt"] for row in scored} == {one for one, texts in written.items() if len(texts) > 1}


def test_the_next_iteration_starts_from_and_refers_to_the_policy_that_sampled(world, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM

    seen = []

    class Watched(iterate_training.OfflineGPOTrainer):
        def train(self, **options):
            found = {name: value.clone() for name, value in self.model.state_dict().items()}
            seen.append((found, self.train_dataset[0]))
            return super().train(**options)

    monkeypatch.setattr(iterate_training, "OfflineGPOTrainer", Watched)
    assert run(world, tmp_path) == tmp_path / "iteration-2" / "policy"
    first, second = (weights(tmp_path / f"iteration-{t}" / "policy") for t in (1, 2))
    assert same(weights(world / "policy"), seen[0][0]) and same(first, seen[1][0])
    assert not same(first, seen[0][0]) and not same(second, first)

    policy = AutoModelForCausalLM.from_pretrained(tmp_path / "iteration-1" / "policy")
    row = read(tmp_path / "iteration-2" / "scored.jsonl")[0]
    best = max(range(2), key=lambda index: row["mean_scores"][index])
    expected = sequence_log_prob(policy, row["prompt_ids"], row["response_ids"][best])
    assert seen[1][1]["ref_chosen_logps"] == pytest.approx(expected.item(), abs=1e-3)

    # It answered as that policy does: the file is made again from its folder alone.
    again = options_of(world, tmp_path / "again")[0].sampling_options()
    from gpm_hf.generation import shard_seed
    from gpm_hf.recipes.policies import load_sampler

    sampler = load_sampler(str(tmp_path / "iteration-1" / "policy"), again)
    samples = read(tmp_path / "iteration-2" / "samples.jsonl")[3:6]
    assert [one["responses"] for one in samples] == sampler([one["prompt"] for one in samples], shard_seed(42, 2, 1))


def test_each_iteration_takes_its_own_prompts(world, tmp_path):
    run(world, tmp_path, prompts_per_iteration=4)
    for iteration, numbers in ((1, range(4)), (2, range(4, 8))):
        rows = read(tmp_path / f"iteration-{iteration}" / "samples.jsonl")
        assert [row["prompt"] for row in rows] == [f"Question {number}?" for number in numbers]
    with pytest.raises(ValueError, match="2 iterations of prompts_per_iteration=5 need 10 prompts, and there are 8"):
        run(world, tmp_path / "more", prompts_per_iteration=5)


@pytest.mark.slow
def test_what_is_done_is_not_done_again(world, tmp_path, monkeypatch):
    from gpm_hf.generation import PolicySampler
    from gpm_hf.scoring import GPMScorer

    calls = {"sample": 0, "score": 0, "train": 0}

    def count(owner, name, what):
        original = getattr(owner, name)

        def counted(*arguments, **options):
            calls[what] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, counted)

    count(PolicySampler, "sample", "sample")
    count(GPMScorer, "__call__", "score")
    count(iterate_training.OfflineGPOTrainer, "train", "train")
    run(world, tmp_path)
    assert calls == {"sample": 6, "score": 6, "train": 2}
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    run(world, tmp_path)
    assert calls == {"sample": 6, "score": 6, "train": 2}
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before

    # A stage is made from what lies before it.
    (tmp_path / "iteration-2" / "scored.jsonl").unlink()
    (tmp_path / "iteration-2" / "policy").rename(tmp_path / "gone")
    run(world, tmp_path)
    assert calls == {"sample": 6, "score": 9, "train": 3}
    assert same(weights(tmp_path / "gone"), weights(tmp_path / "iteration-2" / "policy"))
    # More iterations go on after the last.
    run(world, tmp_path, iterations=3)
    assert calls == {"sample": 9, "score": 12, "train": 4}


@pytest.mark.slow
def test_a_training_goes_on_from_its_last_whole_checkpoint(world, tmp_path, monkeypatch):
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **options):
            if state.global_step == 5:
                raise KeyboardInterrupt

    def training(output):
        config, options = options_of(world, output, iterations=1, max_steps=8)
        options.save_steps, options.save_strategy = 2, "steps"
        return config, options

    job.run_iterate(*training(tmp_path / "whole"))
    original, resumed_from = iterate_training.OfflineGPOTrainer, []

    class Killed(original):
        def train(self, resume_from_checkpoint=None):
            resumed_from.append(resume_from_checkpoint)
            if len(resumed_from) == 1:
                self.add_callback(Stop())
            return super().train(resume_from_checkpoint)

    monkeypatch.setattr(iterate_training, "OfflineGPOTrainer", Killed)
    with pytest.raises(KeyboardInterrupt):
        job.run_iterate(*training(tmp_path / "cut"))
    folder = tmp_path / "cut" / "iteration-1"
    assert not (folder / "policy").exists()
    # As a kill in the middle of the next checkpoint leaves it.
    half = folder / "training" / "checkpoint-6"
    half.mkdir()
    (half / "trainer_state.json").write_text('{"global_step": 6, "ep')
    job.run_iterate(*training(tmp_path / "cut"))
    assert resumed_from[1].endswith("checkpoint-4")
    assert same(*(weights(tmp_path / name / "iteration-1" / "policy") for name in ("whole", "cut")))
    assert not (folder / "training").exists()


def checkpoint(folder, step, *states, whole=True):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    for name in (*states, "running_figures.json"):
        (path / name).write_bytes(b"")
    (path / "trainer_state.json").write_text('{"global_step": 2}' if whole else '{"global')
    return path


@pytest.mark.parametrize(
    ("written", "processes"),
    [(["rng_state_0.pth", "rng_state_1.pth"], 1), (["rng_state.pth"], 2), (["rng_state_0.pth", "rng_state_1.pth"], 3)],
)
def test_a_checkpoint_of_other_processes_is_kept_and_named(tmp_path, written, processes):
    from types import SimpleNamespace

    state = SimpleNamespace(num_processes=processes, is_main_process=True, wait_for_everyone=lambda: None)
    path = checkpoint(tmp_path, 4, *written)
    with pytest.raises(
        ValueError, match=rf"checkpoint-4 was not written by as many processes .* now, {processes} \(it"
    ):
        iterate_training.last_whole_checkpoint(tmp_path, state)
    assert path.is_dir()
    # What was never whole is of no use to anyone.
    (path / "trainer_state.json").unlink()
    half = checkpoint(tmp_path, 6, *written, whole=False)
    assert iterate_training.last_whole_checkpoint(tmp_path, state) is None
    assert not path.exists() and not half.exists()


def test_a_job_says_at_once_that_its_checkpoint_is_of_other_processes(world, tmp_path):
    run(world, tmp_path, iterations=1)
    folder = tmp_path / "iteration-1"
    (folder / "policy").rename(tmp_path / "gone")
    path = checkpoint(folder / "training", 1, "rng_state_0.pth", "rng_state_1.pth")
    with pytest.raises(ValueError, match="go on with as many as wrote it, or remove that folder"):
        run(world, tmp_path, iterations=1)
    assert path.is_dir()


@pytest.mark.parametrize("name", ["samples.jsonl", "scored.jsonl"])
def test_samples_of_an_earlier_version_are_not_gone_on_with(world, tmp_path, name):
    run(world, tmp_path, iterations=1)
    folder = tmp_path / "iteration-1"
    (folder / "policy").rename(tmp_path / "gone")
    rows = [{key: value for key, value in row.items() if "ids" not in key} for row in read(folder / name)]
    (folder / name).write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match=rf"{name} was made by an earlier version, without prompt_ids, response_ids"):
        run(world, tmp_path, iterations=1)


def test_parts_of_an_earlier_version_are_not_gone_on_with(world, tmp_path):
    parts = tmp_path / "iteration-1" / ".samples.jsonl.parts"
    parts.mkdir(parents=True)
    (parts / "settings.json").write_text('{"shard_size": 3}')
    (parts / "000000000.jsonl").write_text('{"prompt": "Question 0?", "responses": ["a", "b"]}\n')
    with pytest.raises(ValueError, match=r"samples\.jsonl that was interrupted under an earlier version.*remove"):
        run(world, tmp_path, iterations=1)


def test_a_prompt_that_the_template_refuses_is_named(world, tmp_path):
    prompts = [{"prompt": "Red?"}, {"prompt": [{"role": "tool", "content": "4"}]}]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    with pytest.raises(
        ValueError, match=r"prompts\.jsonl, row 2: The chat template cannot .* \['tool'\]: unknown role"
    ):
        run(world, tmp_path / "out", prompts=str(tmp_path / "prompts.jsonl"))


def test_the_prompt_whose_answers_the_scorer_refuses_is_named(world, tmp_path, monkeypatch):
    def refuse(prompts, groups):
        if "Question 4?" in prompts:
            raise ValueError(f"Prompt {prompts.index('Question 4?')}: too long.")
        return [[[0.0] * len(group) for _ in group] for group in groups]

    monkeypatch.setattr(job, "load_placed_scorer", lambda *_: refuse)
    with pytest.raises(ValueError, match=r"The prompt 'Question 4\?' cannot be scored: Prompt 0: too long"):
        run(world, tmp_path, iterations=1)


@pytest.mark.parametrize("method", ["gpo", "dpo"])
@pytest.mark.parametrize("template", ["qwen3", "deepseek_r1_distill", "gptoss"])
def test_the_sampled_ids_are_trained_under_real_templates(world, tmp_path, monkeypatch, method, template):
    """These templates render none of the answers as they were sampled."""
    tokenizer = template_tokenizer(template)
    template_policy(tokenizer).save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    seen = []
    for name in ("OfflineGPOTrainer", "PrecomputedReferenceDPOTrainer"):

        class Watched(getattr(iterate_training, name)):
            def train(self, **options):
                seen.append(list(self.train_dataset))
                return super().train(**options)

        monkeypatch.setattr(iterate_training, name, Watched)
    run(world, tmp_path / "out", policy=str(tmp_path / "policy"), method=method, iterations=1, num_generations=3)
    rows = read(tmp_path / "out" / "iteration-1" / "scored.jsonl")
    (trained,) = seen
    assert len(trained) == len(rows) == 8
    for pair, row in zip(trained, rows):
        best, worst = (row["mean_scores"].index(one(row["mean_scores"])) for one in (max, min))
        assert (pair["prompt_ids"], pair["chosen_ids"]) == (row["prompt_ids"], row["response_ids"][best])
        assert pair["rejected_ids"] == row["response_ids"][worst]
        assert pair["ref_chosen_logps"] == pytest.approx(row["policy_log_probs"][best], abs=1e-4)
    ends = [ids[-1] == tokenizer.eos_token_id for row in rows for ids in row["response_ids"]]
    assert not all(ends), "an answer that was cut has no end"


def test_other_settings_are_refused_and_named(world, tmp_path):
    run(world, tmp_path, iterations=1)
    with pytest.raises(ValueError, match=r"temperature was 0.7, is 0.9; training.seed was 42, is 1\. Go on"):
        run(world, tmp_path, iterations=1, temperature=0.9, seed=1)
    prompts = world / "prompts.jsonl"
    original = prompts.read_text()
    prompts.write_text(original + "\n" + json.dumps({"prompt": "One more?"}))
    try:
        with pytest.raises(ValueError, match="prompts was 'sha256:"):
            run(world, tmp_path, iterations=1)
    finally:
        prompts.write_text(original)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains(world, tmp_path, method, monkeypatch):
    losses = []
    for name in ("OfflineGPOTrainer", "PrecomputedReferenceDPOTrainer"):
        original = getattr(iterate_training, name)

        class Watched(original):
            def __init__(self, *arguments, **options):
                super().__init__(*arguments, **options)
                losses.append((type(self).__mro__[1].__name__, self.args.loss_type, self.args.length_normalize))
                losses.append(self.args.beta)

        monkeypatch.setattr(iterate_training, name, Watched)
    run(world, tmp_path, method=method, iterations=1, dpo_beta=0.3)
    is_dpo = method in ("dpo", "ipo", "sppo_hard")
    trainer, loss, normalized = losses[0]
    assert trainer == ("PrecomputedReferenceDPOTrainer" if is_dpo else "OfflineGPOTrainer")
    assert normalized == (method == "ln-gpo")
    assert loss == {"ln-gpo": "gpo", "dpo": ["sigmoid"], "ipo": ["ipo"], "sppo_hard": ["sppo_hard"]}.get(
        method, method
    )
    assert losses[1] == (0.3 if is_dpo else 0.1)
    assert not same(weights(world / "policy"), weights(tmp_path / "iteration-1" / "policy"))


@pytest.mark.parametrize("selection", ["von_neumann", "all", "all_responses"])
def test_every_selection_with_the_policys_own_log_probs(world, tmp_path, selection):
    """The trainer compares them with the policy's at its first step, so wrong ones would be refused."""
    run(world, tmp_path, selection=selection, iterations=1, policy_log_probs=True, num_generations=3)
    row = read(tmp_path / "iteration-1" / "scored.jsonl")[0]
    assert len(row["policy_log_probs"]) == len(row["responses"]) and all(one < 0 for one in row["policy_log_probs"])


def test_long_prompts_are_left_out_and_said(world, tmp_path, capsys):
    prompts = [{"prompt": "Short?"}, {"prompt": "How? " * 60}]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    run(world, tmp_path / "out", prompts=str(tmp_path / "prompts.jsonl"), max_prompt_length=60, iterations=1)
    assert "1 of 2 prompts are over 60 tokens." in capsys.readouterr().out
    assert [row["prompt"] for row in read(tmp_path / "out" / "prompts.jsonl")] == ["Short?"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "gpo2"}, "method='gpo2' is unknown"),
        ({"selection": "best"}, "selection='best' is unknown"),
        ({"method": "rebel", "selection": "all_responses"}, "compares two responses"),
        ({"method": "dpo", "selection": "all"}, "weighs all pairs alike"),
        ({"method": "dpo", "policy_log_probs": True}, "computes its reference itself"),
        ({"num_generations": 1}, "at least two responses"),
        ({"iterations": 0}, "iterations=0"),
        ({"method": "gpo", "loss_type": "sppo"}, "chosen by the method"),
        ({"eval_strategy": "steps"}, "no evaluation data"),
    ],
)
def test_impossible_options_are_refused(world, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(world, tmp_path, **options)
    assert not list(tmp_path.iterdir())
