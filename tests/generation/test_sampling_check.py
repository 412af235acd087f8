"""What is sampled is from the policy, or it is refused: whatever kind of policy, on each release of transformers."""

import warnings

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import GenerationConfig

from gpm_hf.generation import SamplingRoad, encode_prompt, find_sampling_road
from tests.conftest import build_tokenizer
from tests.generation.log_probs import token_log_probs
from tests.generation.policies import KINDS, build, greedy, logits
from tests.generation.test_sampling import PROMPTS, sampler
from tests.training.online import build_policy

# From here on generate's cache has a name that PEFT 0.21.2 and older code do not know.
RENAMED = Version(transformers.__version__) >= Version("5.24")
WITHOUT_CACHE = {"custom", "remote", "prompt", "p-tuning", "cpt", "shadow"} if RENAMED else set()


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_the_policys_own(kind, tmp_path):
    policy, tokenizer = build(kind, tmp_path).eval(), build_tokenizer()
    sample = sampler(policy, tokenizer, num_generations=1, temperature=0.0)
    if RENAMED and kind == "prefix":
        with pytest.raises(
            ValueError, match=r"\(llama\) with a PREFIX_TUNING adapter \(transformers 5.* not from the"
        ):
            sample(PROMPTS, 0)
        return
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        groups = sample.sample(PROMPTS, 0)
        sample.sample(PROMPTS[:1], 0)
    assert (not sample.road.use_cache) == (kind in WITHOUT_CACHE)
    said = [str(one.message) for one in said]
    assert sum("samples without one, which takes longer" in one for one in said) == (kind in WITHOUT_CACHE)
    for prompt, group in zip(PROMPTS, groups):
        ids = encode_prompt(tokenizer, prompt)
        assert group.response_ids == [greedy(policy, ids, 8, tokenizer.eos_token_id)]
        (answer,) = group.response_ids
        own = logits(policy, ids + answer)[len(ids) - 1 : -1].log_softmax(-1)
        assert group.policy_log_probs[0] == pytest.approx(
            own.gather(1, torch.tensor(answer)[:, None]).sum().item(), abs=1e-3
        )


def test_no_random_numbers_are_drawn_and_nothing_is_left_behind(tmp_path):
    policy = build("lora", tmp_path).train()
    settings = GenerationConfig(pad_token_id=0, eos_token_id=1)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    own = policy.get_base_model().generation_config
    assert find_sampling_road(policy, build_tokenizer(), settings) == SamplingRoad()
    assert torch.rand(1) == expected
    assert policy.training and policy.get_base_model().generation_config is own


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backbone", ["llama", "gemma2"])
def test_rounding_is_no_fault(dtype, backbone):
    settings = GenerationConfig(pad_token_id=0, eos_token_id=1)
    policy = build_policy(backbone=backbone).to(dtype).eval()
    assert find_sampling_road(policy, build_tokenizer(), settings) == SamplingRoad()


def test_broken_models_are_seen_in_low_precision(tmp_path):
    settings = GenerationConfig(pad_token_id=0, eos_token_id=1)
    policy = build("prompt", tmp_path).to(torch.bfloat16).eval()
    assert not find_sampling_road(policy, build_tokenizer(), settings).padding


def test_a_model_that_never_samples_its_own_is_refused():
    policy = build_policy().eval()
    policy.prepare_inputs_for_generation = lambda input_ids, **kwargs: {"input_ids": input_ids.flip(-1)}
    with pytest.raises(ValueError, match=r"^LlamaForCausalLM \(llama\) \(transformers 5.*no way around was found"):
        find_sampling_road(policy, build_tokenizer(), GenerationConfig(pad_token_id=0, eos_token_id=1))


def test_log_probs_and_samples_of_an_offloaded_policy():
    from accelerate import cpu_offload

    policy, tokenizer = build_policy().eval(), build_tokenizer()
    expected = sampler(policy, tokenizer).sample(PROMPTS, 3)
    cpu_offload(policy, execution_device=torch.device("cpu"))
    assert policy.device.type == "meta"
    found = sampler(policy, tokenizer).sample(PROMPTS, 3)
    assert found == expected
    group = found[0]
    (log_probs,) = token_log_probs(policy, [group.prompt_ids], [group.response_ids])
    assert log_probs == pytest.approx(group.policy_log_probs, abs=1e-4)
