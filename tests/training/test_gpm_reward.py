"""GPMReward in TRL's own trainers: GRPO, RLOO, Online DPO."""

import pytest
import torch
from datasets import Dataset

from tests.conftest import build_gpm, build_tokenizer, save_backbone
from tests.training.online import OPTIONS, build_policy, chat_prompts, prefer_by_text, skew

TRL_OPTIONS = {name: value for name, value in OPTIONS.items() if name not in ("gpo_beta", "win_rate_prompts")}


@pytest.fixture
def reward():
    from gpm_hf.training.gpm_reward import GPMReward

    return GPMReward(prefer_by_text)


@pytest.mark.parametrize("layout", ["contiguous", "interleaved"])
def test_rewards_by_prompt(reward, layout):
    groups = {"p": ["one", "two"], "q": ["three", "four"]}
    rows = [("p", "one"), ("p", "two"), ("q", "three"), ("q", "four")]
    if layout == "interleaved":
        rows = [rows[0], rows[2], rows[1], rows[3]]
    rewards = reward(prompts=[row[0] for row in rows], completions=[row[1] for row in rows], trainer_state=None)
    for (prompt, text), value in zip(rows, rewards):
        assert value == pytest.approx(sum(skew(text, other) for other in groups[prompt]) / 2, abs=1e-5)


@pytest.mark.parametrize("reward_head", [False, True])
def test_empty_completion_is_none(reward_head):
    from gpm_hf.training.gpm_reward import GPMReward

    gpm, tokenizer = build_gpm(embedding_dim=4, reward_head=reward_head), build_tokenizer()
    rewards = GPMReward(gpm, tokenizer)(prompts=["p"] * 3 + ["q"] * 2, completions=["Red", "", "Blue", "x", ""])
    expected = gpm.preference_scores(tokenizer, "p", ["Red", "Blue"]).mean(-1)
    assert rewards[1] is rewards[3] is rewards[4] is None
    assert [rewards[0], rewards[2]] == pytest.approx(expected.tolist(), abs=1e-4)


def test_refusals(reward):
    with pytest.raises(ValueError, match="A preference needs two completions, and the prompt 'q' has one"):
        reward(prompts=["p", "p", "q"], completions=["1", "2", "3"])


@pytest.mark.parametrize("name", ["GRPO", "RLOO"])
def test_in_trl(tmp_path, reward, name):
    """GRPO's advantage is s_hat exactly; RLOO's is the leave-one-out mean, K/(K-1) times as large."""
    import trl

    extra = {"scale_rewards": "none"} if name == "GRPO" else {"beta": 0.0}
    trainer = getattr(trl, f"{name}Trainer")(
        model=build_policy(),
        reward_funcs=reward,
        args=getattr(trl, f"{name}Config")(
            str(tmp_path), **TRL_OPTIONS, **extra, gradient_accumulation_steps=2, max_steps=2
        ),
        train_dataset=chat_prompts(),
        processing_class=build_tokenizer(),
    )
    found, inner = [], trainer._generate_and_score_completions

    def record(inputs):
        output = inner(inputs)
        texts = trainer.processing_class.batch_decode(output["completion_ids"], skip_special_tokens=True)
        found.append((texts, output["advantages"].clone()))
        return output

    trainer._generate_and_score_completions = record
    trainer.train()
    assert len(found) == 2
    for texts, advantages in found:
        for i, text in enumerate(texts):
            group = texts[i // 4 * 4 : i // 4 * 4 + 4]
            count = 4 if name == "GRPO" else 3
            expected = sum(skew(text, other) for other in group) / count
            assert advantages[i].item() == pytest.approx(expected, abs=1e-5)
    assert trainer.state.log_history[0]["rewards/GPMReward/mean"] == pytest.approx(0.0, abs=1e-5)


def test_in_online_dpo(tmp_path, reward):
    """Its batch is [a, b, a, b]: the first halves are compared with the second ones."""
    from transformers import AutoModelForCausalLM
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    class RecordingReward:
        calls = []

        def __call__(self, prompts, completions, **columns):
            self.calls.append((prompts, completions, reward(prompts=prompts, completions=completions)))
            return self.calls[-1][2]

    policy = AutoModelForCausalLM.from_pretrained(save_backbone(tmp_path / "policy"))
    names = ("num_generations", "per_device_train_batch_size", "max_completion_length")
    options = {key: value for key, value in TRL_OPTIONS.items() if key not in names}
    recording = RecordingReward()
    trainer = OnlineDPOTrainer(
        model=policy,
        reward_funcs=recording,
        args=OnlineDPOConfig(
            str(tmp_path), **options, per_device_train_batch_size=2, max_new_tokens=6, max_steps=2, max_length=64
        ),
        train_dataset=Dataset.from_list([{"prompt": f"Question {i}?"} for i in range(8)]),
        processing_class=build_tokenizer(chat=False),
    )
    start = [value.clone() for value in policy.parameters()]
    trainer.train()
    assert len(recording.calls) == 2
    for prompts, completions, rewards in recording.calls:
        assert prompts[0] == prompts[2] != prompts[1] == prompts[3]
        for first, second in ((0, 2), (1, 3)):
            expected = skew(completions[first], completions[second]) / 2
            assert [rewards[first], rewards[second]] == pytest.approx([expected, -expected], abs=1e-5)
    assert any(not torch.equal(a, b) for a, b in zip(start, policy.parameters()))
