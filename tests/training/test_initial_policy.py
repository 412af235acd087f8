"""Progress against the initial policy: the divergence by hand, what is undefined, environments that own rewards."""

import json

import pytest
import torch

from gpm_hf.training.initial_policy import sampled_divergence
from tests.conftest import build_tokenizer
from tests.training.online import logged, make_trainer


def test_sampled_divergence_by_hand():
    """Over all answers of two tokens, weighted by p, it is KL(p || q) exactly, and never negative."""
    p = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]], dtype=torch.float64)
    q = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.1, 0.4]], dtype=torch.float64)
    answers = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    own, other = (table[torch.arange(2), answers] for table in (p, q))
    found = sampled_divergence(own.log(), other.log())
    exact = (p * (p / q).log()).sum().item()
    assert (own.prod(-1) * found).sum().item() == pytest.approx(exact, abs=1e-12)
    # The plain mean of log-ratios says less than 0 of most answers.
    assert found.min() >= 0 and (own.log() - other.log()).sum(-1).min() < -1
    assert sampled_divergence(own.log().float(), own.log().float() + 1e-7).min() >= 0


def test_a_win_rate_that_is_undefined_costs_no_checkpoint(tmp_path):
    """No source says anything about any answer: the win rate of the interval is logged as `None`."""

    def silent(prompts, completions, **columns):
        return [None] * len(prompts)

    trainer = make_trainer(
        tmp_path,
        None,
        None,
        reward_funcs=silent,
        max_steps=2,
        save_strategy="steps",
        save_steps=1,
        num_iterations=1,
        win_rate_prompts=2,
        win_rate_steps=1,
    )
    trainer.train()
    assert [entry["win_rate"] for entry in trainer.state.log_history if "win_rate" in entry] == [None, None]
    assert (tmp_path / "checkpoint-2" / "model.safetensors").is_file()
    assert not any(name.startswith("win rate") for name in trainer.run_record().metrics)
    assert any(name.startswith("kl start policy") for name in trainer.run_record().metrics)


def test_answers_of_an_earlier_version_are_refused_in_words(tmp_path):
    trainer = make_trainer(tmp_path, win_rate_prompts=1)
    prompt = trainer.initial_policy.all_rows[0]["prompt"]
    old = {"prompts": [prompt], "token_ids": [[1, 2]], "completions": ["a"], "log_probs": [-3.0]}
    (tmp_path / "old.json").write_text(json.dumps(old))
    with pytest.raises(ValueError, match="one log-probability per answer and not per token"):
        trainer.initial_policy.load(tmp_path / "old.json")


TOOL_TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for call in m.tool_calls or [] %}"
    "{{ call.function | tojson }}{% endfor %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


class Guess:
    """An environment that owns its reward, which goes round: 1, 2, 3, 0."""

    def reset(self, **columns):
        return None

    def get_reward(self):
        Guess.asked += 1
        return float(Guess.asked % 4)


def test_rewards_of_an_environment_are_a_signal(tmp_path):
    Guess.asked = 0
    tokenizer = build_tokenizer()
    tokenizer.chat_template = TOOL_TEMPLATE
    trainer = make_trainer(
        tmp_path, None, None, environment_factory=Guess, processing_class=tokenizer, max_steps=1, num_iterations=1
    )
    trainer.train()
    assert Guess.asked > 0 and logged(trainer, "rewards/Guess/mean") == [1.5]
    assert trainer.run_record().settings["preference"] == "`Guess`"
    # Their differences are the log-odds: mean scores are -0.5, 0.5, 1.5 and -1.5.
    assert trainer.state.log_history[0]["gpo/target_abs"] == pytest.approx(1.0)
