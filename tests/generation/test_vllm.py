"""vLLM itself samples from a policy as transformers does: on a CPU too, in an environment that has it."""

import json
from importlib.util import find_spec

import pytest
import torch

from gpm_hf.generation import SamplingOptions, VLLMSampler, encode_prompt, read_policy
from tests.cli.conftest import ask
from tests.generation.log_probs import token_log_probs
from tests.generation.templates import TEMPLATES, template_policy, template_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")]

# vLLM's kernels know no smaller heads.
SIZES = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64}
SIZES |= {"initializer_range": 0.1}
ENGINE = {"enforce_eager": True, "gpu_memory_utilization": 0.02, "max_model_len": 256, "kv_cache_memory_bytes": 2**26}
OPTIONS = [f"{name}={json.dumps(value)}" for name, value in ENGINE.items()]
PROMPTS = [f"What is {number} plus {number + 1}, and why{' so' * number}?" for number in range(10)]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")


def save_policy(folder, name="qwen3", dtype=torch.float32, seed=0):
    tokenizer = template_tokenizer(name)
    policy = template_policy(tokenizer, seed, **SIZES).to(dtype)
    policy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return policy, tokenizer


def test_answers_of_the_command_are_those_of_transformers(capfd, tmp_path):
    """Greedy ones of a policy in float32, token for token; log-probabilities; what leaves no room; another policy."""
    from gpm_hf.recipes.policies import load_sampler

    _, tokenizer = save_policy(tmp_path / "policy")
    options = SamplingOptions(1, 0.0, 1.0, 24)
    own = load_sampler(str(tmp_path / "policy"), options)
    by_vllm = load_sampler(str(tmp_path / "policy"), options, use_vllm=True, engine_options=ENGINE)
    assert by_vllm.engine.model_config.dtype == torch.float32 and by_vllm.context_length == 256
    expected, found = own.sample(PROMPTS, 0), by_vllm.sample(PROMPTS, 0)
    worst = max(abs(a.policy_log_probs[0] - b.policy_log_probs[0]) for a, b in zip(expected, found))
    equal = sum(a.response_ids == b.response_ids for a, b in zip(expected, found))
    print(f"greedy answers equal: {equal} of {len(PROMPTS)}, log-probabilities to {worst:.2g}")
    assert [one.responses for one in found] == [one.responses for one in expected] and equal == 10
    assert worst < 1e-3
    own.context_length = 256
    for sampler in (own, by_vllm):
        sampler.check(["x " * 100], "here")
        with pytest.raises(ValueError, match=r"here, row 1 has .* context of 256"):
            sampler.check(["x " * 230], "here")
    with pytest.raises(ValueError, match=r"vLLM .* says something else than other itself"):
        by_vllm._compare("other", read_policy(template_policy(tokenizer, 1, **SIZES), tokenizer))
    del by_vllm

    data = tmp_path / "prompts.jsonl"
    data.write_text("\n".join(json.dumps({"prompt": prompt}) for prompt in PROMPTS))
    command = ["answer", tmp_path / "policy", "--prompts", data, "--temperature", 0, "--max-new-tokens", 24]
    code, out, err = ask(capfd, *command, "--output", tmp_path / "vllm.json", "--use-vllm", "--vllm-options", *OPTIONS)
    assert code == 0 and "10 answers written" in out, err
    rows = json.loads((tmp_path / "vllm.json").read_text())
    assert [row["output"] for row in rows] == [one.responses[0] for one in expected]


def test_best_of_n_and_iterate_sample_by_it(capfd, tmp_path):
    from gpm_hf.recipes.iterate import run_iterate
    from gpm_hf.recipes.iterate_config import IterateConfig
    from gpm_hf.training import OfflineGPOConfig

    policy, _ = save_policy(tmp_path / "policy", "llama3")
    command = ["best-of-n", tmp_path / "policy", "--scorer", "random:1", "--n", 3, "--max-new-tokens", 8]
    command += ["--prompt", PROMPTS[0], "--format", "json", "--use-vllm", "--vllm-options", *OPTIONS]
    code, out, err = ask(capfd, *command)
    assert code == 0, err
    check_samples(policy, json.loads(out), 3)

    data = tmp_path / "prompts.jsonl"
    data.write_text("\n".join(json.dumps({"prompt": prompt}) for prompt in PROMPTS[:2]))
    config = IterateConfig(
        policy=str(tmp_path / "policy"),
        scorer="random:1",
        prompts=str(data),
        output=str(tmp_path / "job"),
        iterations=1,
        num_generations=2,
        max_new_tokens=8,
        use_vllm=True,
        vllm_options=OPTIONS,
    )
    training = OfflineGPOConfig(
        use_cpu=True, bf16=False, report_to="none", save_strategy="no", gradient_checkpointing=False
    )
    run_iterate(config, training)
    for line in (tmp_path / "job" / "iteration-1" / "samples.jsonl").read_text().splitlines():
        check_samples(policy, json.loads(line), 2)


def check_samples(policy, row, count):
    assert len(row["response_ids"]) == count
    (values,) = token_log_probs(policy, [row["prompt_ids"]], [row["response_ids"]])
    assert row["policy_log_probs"] == pytest.approx(values, abs=1e-3)


@pytest.mark.parametrize("name", TEMPLATES)
def test_vllm_gives_the_ids_and_their_log_probs(tmp_path, name):
    policy, tokenizer = save_policy(tmp_path, name)
    options = SamplingOptions(num_generations=6, max_new_tokens=12)
    sampler = VLLMSampler(str(tmp_path), tokenizer, options, read_policy(policy, tokenizer), **ENGINE)
    groups = sampler.sample(PROMPTS[:3], 3)
    found = token_log_probs(policy, [one.prompt_ids for one in groups], [one.response_ids for one in groups])
    for group, prompt, values in zip(groups, PROMPTS, found):
        assert group.prompt_ids == encode_prompt(tokenizer, prompt) and len(group.responses) == 6
        assert group.policy_log_probs == pytest.approx(values, abs=1e-3)
        for ids in group.response_ids:
            assert tokenizer.eos_token_id not in ids[:-1] and (ids[-1] == tokenizer.eos_token_id or len(ids) == 12)
    assert [one.response_ids for one in sampler.sample(PROMPTS[:3], 3)] == [one.response_ids for one in groups]


def test_bfloat16_is_rounding(tmp_path):
    """A policy saved in bfloat16 is computed in it, and passes the comparison with itself."""
    policy, tokenizer = save_policy(tmp_path, dtype=torch.bfloat16)
    reading = read_policy(policy, tokenizer)
    sampler = VLLMSampler(str(tmp_path), tokenizer, SamplingOptions(1, 0.0, 1.0, 8), reading, **ENGINE)
    assert sampler.engine.model_config.dtype == torch.bfloat16
