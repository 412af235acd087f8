"""Samples of a policy: the distribution, the same ones again, what ends them, and what is refused."""

import sys
import types
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from gpm_hf.generation import (
    PolicySampler,
    SamplingOptions,
    VLLMSampler,
    encode_prompt,
    read_engine_options,
    read_policy,
    read_prompts,
    shard_seed,
)
from tests.conftest import build_tokenizer
from tests.training.online import build_policy, tabular_policy

PROMPTS = ["Short?", "How do I bake bread in a hot oven?", [{"role": "user", "content": "Red, green or blue?"}]]


def sampler(policy=None, tokenizer=None, **options):
    options = SamplingOptions(**{"num_generations": 3, "max_new_tokens": 8, **options})
    return PolicySampler(policy or build_policy(), tokenizer or build_tokenizer(), options)


def test_the_same_seed_gives_the_same_answers_in_the_prompts_order():
    sample = sampler()
    first = sample(PROMPTS, 7)
    assert [len(group) for group in first] == [3, 3, 3]
    torch.rand(5)
    assert sample(PROMPTS, 7) == first != sample(PROMPTS, 8)
    # The caller's random numbers are left alone.
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    sample(PROMPTS, 7)
    assert torch.rand(1) == expected


def test_greedy_answers_are_those_of_one_unpadded_prompt_at_a_time():
    policy, tokenizer = build_policy(), build_tokenizer()
    together = sampler(policy, tokenizer, num_generations=1, temperature=0.0)(PROMPTS, 0)
    for prompt, (answer,) in zip(PROMPTS, together):
        ids = encode_prompt(tokenizer, prompt)
        start = len(ids)
        while len(ids) < start + 8 and (len(ids) == start or ids[-1] != tokenizer.eos_token_id):
            ids.append(int(policy(torch.tensor([ids])).logits[0, -1].argmax()))
        assert answer == tokenizer.decode(ids[start:], skip_special_tokens=True)


def test_temperature_and_top_p_shape_the_samples_and_the_policys_own_settings_do_not():
    """Three answers of one token with p = 0.5, 0.3, 0.2; at T = 0.5 proportional to their squares: 25, 9, 4 of 38."""
    tokenizer = build_tokenizer()
    ids = tokenizer.convert_tokens_to_ids(["a", "b", "c"])
    policy = tabular_policy(ids, [0.5, 0.3, 0.2])
    policy.generation_config.top_k = 1
    policy.generation_config.repetition_penalty = 9.0
    options = {"num_generations": 2000, "max_new_tokens": 1, "batch_size": 500}

    def shares(**more):
        (answers,) = sampler(policy, tokenizer, **options, **more)(["?"], 1)
        return [answers.count(letter) / 2000 for letter in "abc"]

    assert shares(temperature=1.0, top_p=1.0) == pytest.approx([0.5, 0.3, 0.2], abs=0.04)
    assert shares(temperature=0.5, top_p=1.0) == pytest.approx([25 / 38, 9 / 38, 4 / 38], abs=0.04)
    assert shares(temperature=1.0, top_p=0.7) == pytest.approx([0.625, 0.375, 0], abs=0.04)
    assert policy.generation_config.top_k == 1


def test_any_of_the_ending_tokens_ends_an_answer():
    tokenizer = build_tokenizer()
    letter, end = tokenizer.convert_tokens_to_ids(["a", "<|im_end|>"])
    policy = tabular_policy([letter, end], [0.5, 0.5])
    policy.generation_config.eos_token_id = [tokenizer.eos_token_id, end]
    (answers,) = sampler(policy, tokenizer, num_generations=50, max_new_tokens=6, temperature=1.0, top_p=1.0)(["?"], 0)
    assert {len(answer) for answer in answers} >= {0, 1, 2} and set("".join(answers)) == {"a"}


def test_the_template_alone_writes_bos():
    tokenizer = build_tokenizer(bos=True)
    ids = encode_prompt(tokenizer, "Red?")
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(ids) == "<bos><|im_start|>user\nRed?<|im_end|>\n<|im_start|>assistant\n"


def test_seeds_differ_by_place():
    seeds = {shard_seed(seed, iteration, shard) for seed in (0, 1) for iteration in (1, 2) for shard in range(50)}
    assert len(seeds) == 200 and all(0 <= seed < 2**63 for seed in seeds)
    assert shard_seed(3, 1, 2) == shard_seed(3, 1, 2)


def test_impossible_options_and_prompts_are_refused(tmp_path):
    for options in ({"temperature": 0.0}, {"temperature": -1.0}, {"top_p": 0.0}, {"num_generations": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            SamplingOptions(**options)
    with pytest.raises(ValueError, match=r"Prompt 1 has .* context of 256"):
        sampler()(["Short?", "How? " * 200], 0)
    with pytest.raises(ValueError, match="no chat template"):
        sampler(tokenizer=build_tokenizer(chat=False))(["Short?"], 0)
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"instruction": "One?"}\n{"prompt": [{"role": "user", "content": "Two?"}]}\n')
    assert read_prompts(str(path)) == ["One?", [{"role": "user", "content": "Two?"}]]
    for line, message in (
        ('{"text": "One?"}', r"row 1 has no prompt to answer.*\['text'\]"),
        ('{"prompt": [{"role": "assistant", "content": "x"}]}', "row 1: the prompt ends with a message of the assis"),
        ("{", "row 1 is not JSON"),
        ("", "holds no prompts"),
    ):
        path.write_text(line)
        with pytest.raises(ValueError, match=message):
            read_prompts(str(path))


@dataclass
class EngineArgs:
    """Of vLLM's, what these tests give."""

    max_model_len: int | None = None
    enforce_eager: bool = False


class FakeEngine:
    """vLLM as far as it is asked: a policy of ours read alone, digits for samples."""

    policy = build_policy()
    calls: ClassVar[dict] = {}

    def __init__(self, name, max_model_len=None, **options):
        self.calls["engine"] = (name, options)
        self.model_config = types.SimpleNamespace(
            max_model_len=max_model_len or 256, dtype=torch.float32, quantization=None
        )

    def generate(self, prompts, settings, use_tqdm):
        if not isinstance(settings, list):
            return [self.read(prompts[0]["prompt_token_ids"], settings)]
        self.calls["prompts"], self.calls["settings"] = prompts, settings
        return [types.SimpleNamespace(outputs=[answer(i, k) for k in range(3)]) for i in range(len(prompts))]

    @torch.no_grad()
    def read(self, ids, settings):
        """The prompt's log-probabilities, and the most probable tokens after it."""
        assert settings["temperature"] == 0 and settings["prompt_logprobs"] == settings["logprobs"] == 0
        start = len(ids)
        for _ in range(settings["max_tokens"]):
            ids = [*ids, int(self.policy(torch.tensor([ids])).logits[0, -1].argmax())]
        log_probs = self.policy(torch.tensor([ids])).logits[0].log_softmax(-1)
        found = [{after: types.SimpleNamespace(logprob=float(row[after]))} for row, after in zip(log_probs, ids[1:])]
        drawn = types.SimpleNamespace(token_ids=ids[start:], logprobs=found[start - 1 :])
        return types.SimpleNamespace(prompt_logprobs=[None, *found[: start - 1]], outputs=[drawn])


def answer(i, k):
    """Digits as vLLM gives them: its text has no special tokens, its ids end with what ended the answer."""
    tokenizer = build_tokenizer()
    ids = [*tokenizer.convert_tokens_to_ids([str(i), "<|im_start|>", str(k)]), tokenizer.eos_token_id][: 4 - k]
    found = [{token: types.SimpleNamespace(logprob=-0.5 - place)} for place, token in enumerate(ids)]
    return types.SimpleNamespace(text=f"{i}{k}", token_ids=tuple(ids), logprobs=found)


@pytest.fixture
def vllm_sampler(monkeypatch):
    module = types.ModuleType("vllm")
    module.LLM, module.EngineArgs, module.SamplingParams, module.__version__ = FakeEngine, EngineArgs, dict, "0"
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(FakeEngine, "calls", {})

    def build(policy=None, **engine_options):
        tokenizer, options = build_tokenizer(), SamplingOptions(3, 0.7, 0.9, 8)
        reading = read_policy(build_policy() if policy is None else policy, tokenizer)
        return VLLMSampler("my-name/my-policy", tokenizer, options, reading, **engine_options)

    return build


def test_vllm_is_asked_for_the_same_distribution(vllm_sampler):
    tokenizer, sample, calls = build_tokenizer(), vllm_sampler(revision="main", enforce_eager=True), FakeEngine.calls
    texts = [
        ["0<|im_start|>0", "0<|im_start|>1", "0<|im_start|>"],
        ["1<|im_start|>0", "1<|im_start|>1", "1<|im_start|>"],
    ]
    assert sample(PROMPTS[:2], 5) == texts
    engine = {"generation_config": "vllm", "logprobs_mode": "raw_logprobs", "dtype": "float32", "revision": "main"}
    assert calls["engine"] == ("my-name/my-policy", engine | {"enforce_eager": True})
    first, second = sample.sample(PROMPTS[:2], 5)
    assert first.responses == texts[0] and first.prompt_ids == encode_prompt(tokenizer, PROMPTS[0])
    letters = tokenizer.convert_tokens_to_ids(["1", "<|im_start|>", "0", "<eos>"])
    assert second.response_ids == [letters, [letters[0], letters[1], letters[0]], letters[:2]]
    assert second.policy_log_probs == [-8.0, -4.5, -2.0]
    assert calls["prompts"][1] == {"prompt_token_ids": encode_prompt(tokenizer, PROMPTS[1])}
    first, second = calls["settings"]
    assert (first["n"], first["temperature"], first["top_p"], first["max_tokens"]) == (3, 0.7, 0.9, 8)
    assert first["stop_token_ids"] == [tokenizer.eos_token_id] and first["seed"] != second["seed"]
    assert first["logprobs"] == 0


def test_vllm_computes_in_the_type_of_the_checkpoint(vllm_sampler):
    """ "auto" is vLLM's word for bfloat16 where a policy is saved in float32."""
    for dtype in ("float32", "bfloat16"):
        vllm_sampler(policy=build_policy().to(getattr(torch, dtype)))
        assert FakeEngine.calls["engine"][1]["dtype"] == dtype


def test_vllm_that_says_something_else_is_refused(vllm_sampler):
    with pytest.raises(ValueError, match=r"vLLM 0 says something else than my-name/my-policy itself"):
        vllm_sampler(policy=build_policy(seed=1))


def test_vllm_refuses_what_leaves_no_room(vllm_sampler):
    """As transformers' sampler does; an engine may have a shorter context than the policy, and never a longer one."""
    long = "How? " * 200
    for engine_options, context in (({}, 256), ({"max_model_len": 64}, 64), ({"max_model_len": 1024}, 256)):
        sample = vllm_sampler(**engine_options)
        sample(["Short?"], 0)
        with pytest.raises(ValueError, match=rf"Prompt 1 has .* context of {context}"):
            sample(["Short?", long], 0)
        with pytest.raises(ValueError, match=rf"prompts.jsonl, row 1 has .* context of {context}"):
            sample.check([long], "prompts.jsonl")


def test_unknown_options_of_the_engine_are_refused(vllm_sampler):
    with pytest.raises(ValueError, match="vLLM knows no option max_modle_len"):
        vllm_sampler(max_modle_len=64)


def test_options_of_the_engine_have_types():
    given = ["max-model-len=64", "enforce_eager=true", "gpu_memory_utilization=0.5", "kv_cache_dtype=fp8"]
    given += ['compilation_config={"level": 0}', "quantization=a=b"]
    assert read_engine_options(given) == {
        "max_model_len": 64,
        "enforce_eager": True,
        "gpu_memory_utilization": 0.5,
        "kv_cache_dtype": "fp8",
        "compilation_config": {"level": 0},
        "quantization": "a=b",
    }
    assert read_engine_options(None) == {}
    for one, message in (
        (["enforce_eager"], "'enforce_eager' is not of the form key=value"),
        (["seed=1", "seed=2"], "seed is given twice"),
        (["dtype=float32"], "dtype is not to be given here, because it has an option of its own"),
        (["logprobs_mode=x"], "logprobs_mode is not to be given here, because log-probabilities are the policy's"),
    ):
        with pytest.raises(ValueError, match=message):
            read_engine_options(one)


def test_vllm_absent_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ImportError, match=r"gpm-hf\[vllm\]"):
        VLLMSampler(
            "my-name/my-policy", build_tokenizer(), SamplingOptions(), read_policy(build_policy(), build_tokenizer())
        )
