"""OnlineGPOTrainer: its loss against a hand computation, the game it solves, what it logs, resumes and refuses."""

import math
import warnings

import pandas as pd
import pytest
import torch
from datasets import Dataset

from tests.conftest import build_gpm, build_tokenizer, save_backbone
from tests.training.by_hand import checked_trainer
from tests.training.online import (
    OPTIONS,
    build_policy,
    chat_prompts,
    logged,
    make_trainer,
    prefer_by_text,
    recorded_targets,
    skew,
    tabular_policy,
)

# --- the loss --------------------------------------------------------------------------------------------------------

CASES = {
    "gpo": {},
    "sppo": {"loss_type": "sppo", "gpo_beta": 0.05},
    "ln-gpo": {"length_normalize": True},
    "group log Z": {"log_z": "group"},
    "without self": {"include_self": False},
    "not rescaled": {"rescale_loss": False},
    "truncated left out": {"mask_truncated_completions": True},
    "sppo, ln, group, unrescaled": {
        "loss_type": "sppo",
        "length_normalize": True,
        "log_z": "group",
        "rescale_loss": False,
        "learning_rate": 0.02,
    },
    "kl anchor": {"beta": 0.3},
    "kl anchor, plain": {"beta": 0.1, "use_bias_correction_kl": False, "learning_rate": 0.002},
}


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_by_hand(tmp_path, case, double):
    from transformers import AutoModelForCausalLM

    policy = AutoModelForCausalLM.from_pretrained(save_backbone(tmp_path / "policy"), dtype=double)
    # Many tokens end a completion, so that lengths differ and some completions are truncated.
    policy.generation_config.eos_token_id = list(range(1, 60))
    trainer = make_trainer(
        tmp_path,
        policy,
        trainer_class=checked_trainer(),
        gradient_accumulation_steps=2,
        num_iterations=3,
        temperature=0.7,
        max_steps=4,
        **{"learning_rate": 0.004, **CASES[case]},
    )
    trainer.prepare_check()
    trainer.train()
    worst = {name: max(check[name] for check in trainer.checks) for name in trainer.checks[0]}
    print(case, worst)
    assert len(trainer.checks) == 8
    # The scores, and so the targets, are float32 as preference models give them.
    assert worst["loss"] < 2e-6 and worst["gradient"] < 2e-6
    assert worst["ratio"] > 0.05, "the policy has to have moved since it sampled"
    truncated = sum(check["truncated"] for check in trainer.checks)
    assert 0 < truncated < 4 * len(trainer.checks)


def test_one_gradient_step_is_rloo(tmp_path):
    """The first step's gradient is RLOO's times (2/beta)(K-1)/K, on the same completions."""
    from trl import RLOOConfig, RLOOTrainer

    from gpm_hf.training.gpm_reward import GPMReward

    beta, size = 0.5, 4
    trainer = make_trainer(tmp_path, num_iterations=1, max_steps=1, rescale_loss=False, learning_rate=1e-3)
    start = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    ours = {name: value - start[name] for name, value in trainer.model.named_parameters()}

    options = {name: value for name, value in OPTIONS.items() if name not in ("gpo_beta", "win_rate_prompts")}
    options |= {"max_steps": 1, "learning_rate": 1e-3, "beta": 0.0}
    other = RLOOTrainer(
        model=build_policy(),
        reward_funcs=GPMReward(prefer_by_text),
        args=RLOOConfig(str(tmp_path), **options),
        train_dataset=chat_prompts(),
        processing_class=build_tokenizer(),
    )
    other.train()
    factor = 2 / beta * (size - 1) / size
    for name, value in other.model.named_parameters():
        torch.testing.assert_close(ours[name], factor * (value - start[name]), rtol=1e-2, atol=3e-6)
    assert max(value.abs().max() for value in ours.values()) > 1e-3


# --- the game --------------------------------------------------------------------------------------------------------


class TabularGame:
    """Rock, paper, scissors by one-token answers: each round's policy, how far from multiplicative weights."""

    def __init__(self, folder, step, rounds, inner, learning_rate):
        from gpm_hf.training.online_gpo_trainer import OnlineGPOTrainer

        actions = ["a", "b", "c"]
        game = torch.tensor([[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]])
        token_ids = build_tokenizer().convert_tokens_to_ids(actions)
        policies, expected = [], []

        def prefer(prompts, groups):
            rows = [torch.tensor([actions.index(text) for text in group]) for group in groups]
            return [game[row][:, row] for row in rows]

        class RecordingTrainer(OnlineGPOTrainer):
            def policy(self):
                return self.model.lm_head.bias[token_ids].detach().softmax(-1)

            def _generate_and_score_completions(self, inputs):
                policies.append(self.policy())
                output = super()._generate_and_score_completions(inputs)
                sampled = [token_ids.index(token) for token in output["completion_ids"][:, 0].tolist()]
                frequencies = torch.bincount(torch.tensor(sampled), minlength=3) / len(sampled)
                weights = self.policy() * (step * (game @ frequencies)).exp()
                expected.append(weights / weights.sum())
                return output

        trainer = make_trainer(
            folder,
            tabular_policy(token_ids, [0.7, 0.2, 0.1]),
            prefer,
            Dataset.from_list([{"prompt": "Play."}]),
            trainer_class=RecordingTrainer,
            num_generations=256,
            per_device_train_batch_size=256,
            num_iterations=inner,
            max_steps=rounds * inner,
            max_completion_length=1,
            gpo_beta=1 / step,
            rescale_loss=False,
            learning_rate=learning_rate,
            logging_steps=1000,
        )
        trainer.train()
        self.policies = torch.stack([*policies, trainer.policy()])
        self.errors = (self.policies[1:] - torch.stack(expected)).abs().max(-1).values


def test_a_round_is_a_step_of_multiplicative_weights(tmp_path):
    game = TabularGame(tmp_path, step=0.2, rounds=3, inner=40, learning_rate=1.5)
    moved = (game.policies[1:] - game.policies[:-1]).abs().max(-1).values
    print(game.errors.tolist(), moved.tolist())
    assert moved.min() > 0.01
    assert game.errors.max() < 1e-3  # half a step more or less would be eight times as much


@pytest.mark.slow
def test_tabular_game(tmp_path):
    """The average of the rounds nears the von Neumann winner (Theorem 5.1), and the last policy keeps going round."""
    game = TabularGame(tmp_path, step=0.2, rounds=110, inner=8, learning_rate=1.5)
    distance = (game.policies - 1 / 3).abs().sum(-1)
    average = (game.policies.mean(0) - 1 / 3).abs().sum().item()
    print(
        f"one update against multiplicative weights: {game.errors.mean():.1e} on average, {game.errors.max():.1e} at "
        f"most; L1 from the von Neumann winner: start {distance[0]:.2f}, average {average:.2f}, "
        f"last {distance[-1]:.2f}"
    )
    # Eight steps do not end the regression: the update is not rounded but unfinished.
    assert game.errors.mean() < 2e-3 and game.errors.max() < 5e-3
    assert average < 0.2 < 0.5 < distance[-30:].min()


# --- the signal ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("embedding_dim", [1, 4])
def test_targets_of_a_model(tmp_path, embedding_dim):
    """The preference model reads text through its own template: another tokenizer than the policy's."""
    gpm, tokenizer = build_gpm(embedding_dim=embedding_dim), build_tokenizer(bos=True, padding_side="left")
    trainer = make_trainer(
        tmp_path,
        preference=gpm,
        preference_processing_class=tokenizer,
        gradient_accumulation_steps=2,
        max_steps=1,
    )
    prompts, texts, targets = recorded_targets(trainer)
    for first in (0, 4):
        scores = gpm.preference_scores(tokenizer, prompts[first], texts[first : first + 4])
        torch.testing.assert_close(targets[first : first + 4], scores.mean(-1), rtol=2e-4, atol=1e-5)
    assert targets.abs().max() > 0.1


def test_empty_completion_is_left_out(tmp_path):
    """It has no target, keeps the denominator, and its group is scored without it; the run goes on."""
    tokenizer = build_tokenizer()
    token_ids = tokenizer.convert_tokens_to_ids(["a", "b", "c", "<eos>"])
    gpm = build_gpm(embedding_dim=4)
    trainer = make_trainer(
        tmp_path,
        tabular_policy(token_ids, [0.2, 0.2, 0.2, 0.4]),
        gpm,
        preference_processing_class=tokenizer,
        max_completion_length=1,
        num_generations=8,
        per_device_train_batch_size=8,
        max_steps=2,
        seed=1,
    )
    prompts, texts, targets = recorded_targets(trainer)
    kept = [index for index, text in enumerate(texts) if text]
    assert 2 <= len(kept) < 8
    expected = gpm.preference_scores(tokenizer, prompts[0], [texts[index] for index in kept]).mean(-1)
    torch.testing.assert_close(targets[kept], expected, rtol=0, atol=1e-5)
    assert targets.isnan().sum() == 8 - len(kept)
    assert logged(trainer, "gpo/unscorable")[0] == pytest.approx(1 - len(kept) / 8)
    # At the first step the log-ratio is 0: the loss is the sum of squared targets over all eight.
    assert logged(trainer, "loss")[0] == pytest.approx(expected.square().sum().item() / 8, abs=1e-4)
    assert all(loss == loss for loss in logged(trainer, "loss"))


def test_reward_functions(tmp_path):
    """Differences of rewards, with weights; None says nothing, and only None from all loses a completion."""

    def length(completions, **columns):
        return [None if index == 1 else float(len(c[0]["content"])) for index, c in enumerate(completions)]

    def position(completions, **columns):
        return [None if index < 2 else float(index) for index in range(len(completions))]

    trainer = make_trainer(
        tmp_path, preference=None, reward_funcs=[length, position], reward_weights=[1.0, 0.5], max_steps=1
    )
    _, texts, targets = recorded_targets(trainer)
    lengths = {0: len(texts[0]), 2: len(texts[2]), 3: len(texts[3])}
    for i in (0, 2, 3):
        scores = [lengths[i] - lengths[j] + (0.5 * (i - j) if i and j else 0.0) for j in (0, 2, 3)]
        assert targets[i].item() == pytest.approx(sum(scores) / 3, abs=1e-4)
    assert targets[1].isnan()


def test_preference_model_and_reward_function(tmp_path):
    def length(completions, **columns):
        return [float(len(c[0]["content"])) for c in completions]

    trainer = make_trainer(tmp_path, reward_funcs=length, reward_weights=[1.0, 0.1], max_steps=1)
    _, texts, targets = recorded_targets(trainer)
    for i in range(4):
        scores = [skew(texts[i], texts[j]) + 0.1 * (len(texts[i]) - len(texts[j])) for j in range(4)]
        assert targets[i].item() == pytest.approx(sum(scores) / 4, abs=1e-4)
    assert {"rewards/preference/mean", "rewards/length/mean"} <= set(trainer.state.log_history[0])


def test_reward_model(tmp_path):
    """A sequence-classification model by its path: differences of its scalars, tau = 1."""
    from transformers import AutoModelForSequenceClassification

    from tests.conftest import backbone_config

    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_config(backbone_config(num_labels=1)).eval()
    model.save_pretrained(tmp_path / "reward")
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(tmp_path / "reward")
    trainer = make_trainer(tmp_path, preference=str(tmp_path / "reward"), max_steps=1)
    prompts, texts, targets = recorded_targets(trainer)
    rewards = []
    for prompt, text in zip(prompts, texts):
        messages = [*prompt, {"role": "assistant", "content": text}]
        ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
        rewards.append(model(**ids).logits[0, 0].item())
    expected = torch.tensor(rewards) - sum(rewards) / 4
    torch.testing.assert_close(targets, expected, rtol=0, atol=1e-4)
    assert expected.abs().max() > 0.1


# --- progress --------------------------------------------------------------------------------------------------------


def test_win_rate_and_divergence(tmp_path):
    """Against stored answers of the initial policy: more than half once the policy plays what is preferred."""
    tokenizer = build_tokenizer()
    token_ids = tokenizer.convert_tokens_to_ids(["a", "b"])

    def prefer_a(prompts, groups):
        return [[[2.0 * ((b == "b") - (a == "b")) for b in group] for a in group] for group in groups]

    trainer = make_trainer(
        tmp_path,
        tabular_policy(token_ids, [0.2, 0.8]),
        prefer_a,
        Dataset.from_list([{"prompt": f"Play {i}."} for i in range(64)]),
        max_completion_length=1,
        num_generations=16,
        per_device_train_batch_size=16,
        num_iterations=4,
        max_steps=40,
        learning_rate=1.0,
        rescale_loss=False,
        win_rate_prompts=64,
        win_rate_steps=8,
    )
    trainer.train()
    win_rates, divergences = logged(trainer, "win_rate"), logged(trainer, "kl_start_policy")
    print([round(value, 3) for value in win_rates], [round(value, 3) for value in divergences])
    assert len(win_rates) == 5  # steps 8, 16, 24, 32 and 40
    answers = trainer.initial_policy.answers
    share = sum(text == "a" for text in answers.completions) / 64
    assert share == pytest.approx(0.2, abs=0.15)
    # Exact values for this policy: it answers "a" with probability p.
    p = trainer.model.lm_head.bias[token_ids].detach().softmax(-1)[0].item()
    assert p > 0.9
    up, ratio = torch.tensor(2.0).sigmoid().item(), (p / 0.2, (1 - p) / 0.8)
    k3 = [one - 1 - math.log(one) for one in ratio]
    assert divergences[-1] == pytest.approx(share * k3[0] + (1 - share) * k3[1], rel=1e-3)
    # KL(start || policy), which this estimates, and not KL(policy || start); of 64 draws of two values, by hand.
    error = abs(k3[0] - k3[1]) * math.sqrt(share * (1 - share) / 63)
    assert logged(trainer, "kl_start_policy_standard_error")[-1] == pytest.approx(error, rel=1e-3)
    exact = 0.2 * math.log(0.2 / p) + 0.8 * math.log(0.8 / (1 - p))
    assert abs(divergences[-1] - exact) < 3 * error
    assert abs(divergences[-1] - (p * math.log(p / 0.2) + (1 - p) * math.log((1 - p) / 0.8))) > 3 * error
    wins = (1 - share) * up + share * 0.5  # if it always answers "a"
    assert win_rates[-1] == pytest.approx(wins, abs=0.05) and win_rates[-1] > 0.7
    first = trainer.initial_policy.measure()
    torch.rand(3)
    assert trainer.initial_policy.measure() == first, "every measurement draws the same random numbers"
    assert set(trainer.state.log_history[0]) >= {
        "entropy",
        "completions/mean_length",
        "gpo/target_abs",
        "gpo/residual_abs",
        "gpo/groups_with_cycle",
    }


def test_measuring_does_not_change_the_run(tmp_path):
    weights = []
    for prompts in (0, 3):
        trainer = make_trainer(tmp_path, max_steps=4, win_rate_prompts=prompts, win_rate_steps=1)
        trainer.train()
        weights.append(torch.cat([value.flatten() for value in trainer.model.parameters()]))
    assert torch.equal(*weights)


def test_table_of_completions(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=2, log_completions=True)
    trainer.train()
    table = pd.read_parquet(tmp_path / "completions" / "completions_00001.parquet")
    assert {"prompt", "completion", "preference", "advantage"} <= set(table.columns)
    for _, group in table.groupby(table.index // 4):
        texts = [completion[0]["content"] for completion in group["completion"]]
        means = [sum(skew(a, b) for b in texts) / 4 for a in texts]
        assert group["advantage"].tolist() == pytest.approx(means, abs=1e-4)


def test_a_smaller_batch_of_an_evaluation_weighs_as_its_completions(tmp_path):
    """Three prompts, four completions of each, in batches of eight and four."""
    trainer = make_trainer(tmp_path, eval_dataset=chat_prompts(3), per_device_eval_batch_size=8, max_steps=1)
    seen: dict[str, list] = {"targets": [], "losses": [], "tokens": [], "rewards": []}
    inner, rewards = trainer._compute_loss, trainer._calculate_rewards

    def compute_loss(model, inputs):
        loss = inner(model, inputs)
        seen["targets"] += inputs["targets"].abs().tolist()
        # The policy is the one that sampled, so its log-ratios are zero.
        seen["losses"] += inputs["targets"].square().tolist()
        seen["tokens"] += inputs["completion_mask"].sum(-1).float().tolist()
        assert loss.item() == pytest.approx(inputs["targets"].square().mean().item(), rel=1e-5)
        return loss

    def calculate_rewards(*arguments):
        found = rewards(*arguments)
        seen["rewards"] += found[:, 0].tolist()
        return found

    trainer._compute_loss, trainer._calculate_rewards = compute_loss, calculate_rewards
    metrics = trainer.evaluate()
    assert len(seen["losses"]) == 12
    means = {name: sum(values) / 12 for name, values in seen.items()}
    assert metrics["eval_loss"] == pytest.approx(means["losses"], rel=1e-5)
    assert metrics["eval_gpo/target_abs"] == pytest.approx(means["targets"], rel=1e-5)
    assert metrics["eval_completions/mean_length"] == pytest.approx(means["tokens"], rel=1e-5)
    assert metrics["eval_reward"] == pytest.approx(means["rewards"], rel=1e-4, abs=1e-6)


def test_data_without_prompts_are_refused(tmp_path):
    """Not by a `KeyError` in the middle of the first step."""
    questions = chat_prompts().rename_column("prompt", "question")
    with pytest.raises(
        ValueError, match=r"The train data set has the columns \['question'\] and no `prompt`.*data convert"
    ):
        make_trainer(tmp_path, prompts=questions)
    with pytest.raises(ValueError, match=r"The held_out data set has the columns \['question'\]"):
        make_trainer(tmp_path, eval_dataset={"held_out": questions})


def test_evaluation(tmp_path):
    trainer = make_trainer(tmp_path, eval_dataset=chat_prompts(2), per_device_eval_batch_size=4, max_steps=1)
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] > 0 and metrics["eval_gpo/residual_abs"] > 0
    several = trainer.evaluate({"a": chat_prompts(2), "b": chat_prompts(3)})
    for name in ("a", "b"):
        assert several[f"eval_{name}_loss"] > 0 and several[f"eval_{name}_gpo/residual_abs"] > 0
    assert not any(key.startswith("eval_gpo") for key in {*several, *trainer.state.log_history[-1]})


def test_mixture_of_experts_keeps_its_balance_loss(tmp_path):
    policy = build_policy(backbone="mixtral", num_local_experts=2, num_experts_per_tok=1, router_aux_loss_coef=0.5)
    trainer = make_trainer(tmp_path, policy, max_steps=1)
    _, _, targets = recorded_targets(trainer)
    aux_loss = logged(trainer, "aux_loss")[0]
    assert aux_loss > 0
    assert logged(trainer, "loss")[0] == pytest.approx(targets.square().mean().item() + 0.5 * aux_loss, rel=1e-4)


def test_vllm_weights_multiply_whole_completions(tmp_path):
    """vLLM's importance weights are one per completion; a masked one (0) drops out, the denominator stays."""
    trainer = make_trainer(tmp_path, max_steps=1)
    inner = trainer._compute_loss
    seen = []

    def weighted(model, inputs):
        weights = torch.tensor([[1.0], [0.0], [2.0], [1.0]])
        loss = inner(model, {**inputs, "importance_sampling_ratio": weights})
        seen.append((loss.item(), (inputs["targets"].square() * weights[:, 0]).mean().item()))
        return loss

    trainer._compute_loss = weighted
    trainer.train()
    assert seen[0][0] == pytest.approx(seen[0][1], rel=1e-4)


def test_weights_make_samples_of_vllm_a_mean_over_the_policy(tmp_path):
    """
    Equation 5.3 is a mean over pi_t. Sampled by another, q, whose share is in the number of rows (1/2, 1/4, 1/4), and
    with weights pi_t / q it is the same number, by hand: sum over y of pi_t(y) (beta log pi/pi_t - target)^2.
    """
    tokens, pi_t = build_tokenizer().convert_tokens_to_ids(["a", "b", "c"]), [0.5, 0.3, 0.2]
    policy, now = tabular_policy(tokens, [0.4, 0.4, 0.2]), [0.4, 0.4, 0.2]
    trainer = make_trainer(tmp_path, policy, max_steps=1)
    drawn, q, targets = [0, 0, 1, 2], [0.5, 0.25, 0.25], [0.7, -0.2, -1.1]
    rows = {
        "prompt_ids": torch.full((4, 2), tokens[0]),
        "prompt_mask": torch.ones(4, 2, dtype=torch.long),
        "completion_ids": torch.tensor([[tokens[one]] for one in drawn]),
        "completion_mask": torch.ones(4, 1, dtype=torch.long),
        "old_per_token_logps": torch.tensor([[math.log(pi_t[one])] for one in drawn]),
        "importance_sampling_ratio": torch.tensor([[pi_t[one] / q[one]] for one in drawn]),
        "targets": torch.tensor([targets[one] for one in drawn]),
    }
    beta = trainer.args.gpo_beta
    by_hand = sum(p * (beta * math.log(new / p) - target) ** 2 for p, new, target in zip(pi_t, now, targets))
    trainer.current_gradient_accumulation_steps = 1
    assert trainer._compute_loss(trainer.model.train(), rows).item() == pytest.approx(by_hand, rel=1e-4)


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_resume_equals_uninterrupted(tmp_path):
    options = {
        "num_iterations": 2,
        "gradient_accumulation_steps": 2,
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 2,
        "optim": "adamw_torch",
        "learning_rate": 1e-2,
        "lr_scheduler_type": "linear",
        "win_rate_prompts": 2,
        "win_rate_steps": 2,
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="save_steps")
        whole = make_trainer(tmp_path / "run", **options)
        whole.train()
        resumed = make_trainer(tmp_path / "run", **options)
        resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert resumed.state.global_step == 6
    moved = 0.0
    for (name, value), other, start in zip(
        whole.model.named_parameters(), resumed.model.parameters(), build_policy().parameters()
    ):
        assert torch.equal(value, other), name
        moved = max(moved, (value - start).abs().max().item())
    assert moved > 1e-3
    assert resumed.initial_policy.answers == whole.initial_policy.answers
    assert logged(resumed, "win_rate")[-1] == logged(whole, "win_rate")[-1]


def test_save_steps_off_the_boundary(tmp_path):
    trainer = make_trainer(tmp_path, num_iterations=2, max_steps=1, save_strategy="steps", save_steps=3)
    with pytest.warns(UserWarning, match="save_steps=3 is not a multiple of the 2/1 optimizer steps"):
        trainer.train()


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_generations": 1}, "num_generations=1 is not possible: a group preference compares at least two"),
        ({"num_generations_eval": 1}, "num_generations_eval=1 is not possible"),
        ({"num_generations": 3}, "generation_batch_size .4. must be divisible by num_generations .3."),
        ({"gpo_beta": 0.0}, "gpo_beta=0.0 is not possible: scores are divided by it"),
        ({"gpo_beta": -1.0}, "gpo_beta=-1.0 is not possible"),
        ({"loss_type": "dapo"}, "loss_type='dapo' is unknown: choose one of"),
        ({"log_z": "one"}, "log_z='one' is unknown"),
        ({"win_rate_steps": 0}, "win_rate_steps=0 is not possible: it must be at least 1"),
        ({"scale_rewards": "group"}, "scale_rewards: GPO's loss is a regression"),
        ({"epsilon": 0.1}, "epsilon: GPO's loss is a regression that has no such term and would ignore this"),
        ({"epsilon_high": 0.3, "delta": 2.0}, "epsilon_high, delta: GPO's"),
        ({"importance_sampling_level": "sequence"}, "importance_sampling_level: GPO's"),
        ({"top_entropy_quantile": 0.2}, "top_entropy_quantile: GPO's"),
        ({"entropy_coef": 0.1}, "entropy_coef: GPO's"),
        ({"off_policy_mask_threshold": 0.5}, "off_policy_mask_threshold: GPO's"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, "multi_objective_aggregation: GPO's"),
        ({"use_vllm": True, "vllm_importance_sampling_mode": "token_mask"}, "'token_mask' weighs tokens"),
        ({"use_vllm": True, "top_p": 0.9}, "top_p beside vllm_importance_sampling_correction: a completion's weight"),
        ({"use_vllm": True, "top_k": 20, "min_p": 0.1}, "top_k, min_p beside vllm_importance_sampling_correction"),
        ({"vllm_engine_kwargs": {"enforce_eager": True}}, "vllm_engine_kwargs are of an engine in the trainer's"),
        ({"use_vllm": True, "vllm_mode": "server", "vllm_engine_kwargs": {"seed": 1}}, "A server has its own options"),
        ({"use_vllm": True, "vllm_engine_kwargs": {"logprobs_mode": "raw_logprobs"}}, "logprobs_mode is TRL's to set"),
    ],
)
def test_refused_options(tmp_path, options, sentence):
    from gpm_hf.training.online_gpo_config import OnlineGPOConfig

    with pytest.raises(ValueError, match=sentence):
        OnlineGPOConfig(str(tmp_path), **{**OPTIONS, **options})


def test_every_option_of_grpo_is_known():
    """A new option of TRL's loss would be ignored without a word: decide about it here and in the configuration."""
    from dataclasses import fields

    from trl import GRPOConfig
    from trl.trainer.base_config import _BaseConfig

    from gpm_hf.training.online_gpo_config import _IGNORED

    known = {option.name for option in fields(GRPOConfig)} - {option.name for option in fields(_BaseConfig)}
    used = {name for name in known if not name.startswith(("vllm_", "log_", "ref_model_", "use_transformers_"))}
    used -= set(_IGNORED)
    assert set(_IGNORED) <= known
    assert used == {
        "beta",
        "cache_implementation",
        "cast_lm_head_to_fp32",
        "chat_template_kwargs",
        "disable_dropout",
        "ds3_gather_for_generation",
        "generation_batch_size",
        "generation_kwargs",
        "loss_type",
        "mask_truncated_completions",
        "max_completion_length",
        "max_tool_calling_iterations",
        "min_p",
        "model_init_kwargs",
        "num_completions_to_print",
        "num_generations",
        "num_generations_eval",
        "num_iterations",
        "pad_to_multiple_of",
        "repetition_penalty",
        "reward_weights",
        "router_aux_loss_coef",
        "scale_rewards",
        "shuffle_dataset",
        "steps_per_generation",
        "sync_ref_model",
        "temperature",
        "top_k",
        "top_p",
        "transformers_continuous_batching_config",
        "trust_remote_code",
        "use_bias_correction_kl",
        "use_vllm",
    }


def test_default_takes_more_than_one_step_per_generation(tmp_path):
    from gpm_hf.training.online_gpo_config import OnlineGPOConfig

    args = OnlineGPOConfig(str(tmp_path), bf16=False)
    assert args.num_iterations * args.steps_per_generation / args.gradient_accumulation_steps > 1
    assert args.disable_dropout


def test_too_few_prompts(tmp_path):
    with pytest.raises(ValueError, match="The training set has 1 prompts, but one generation needs 2"):
        make_trainer(tmp_path, prompts=chat_prompts(1), gradient_accumulation_steps=2)


def test_no_signal(tmp_path):
    with pytest.raises(ValueError, match="nothing to learn from: give a `preference_model`"):
        make_trainer(tmp_path, preference=None)


def test_win_rate_needs_single_answers(tmp_path):
    from gpm_hf.training.online_gpo_config import OnlineGPOConfig
    from gpm_hf.training.online_gpo_trainer import OnlineGPOTrainer

    with pytest.raises(ValueError, match="`win_rate_prompts` compares single answers, which `rollout_func` does not"):
        OnlineGPOTrainer(
            build_policy(),
            prefer_by_text,
            OnlineGPOConfig(str(tmp_path), **{**OPTIONS, "win_rate_prompts": 2}),
            chat_prompts(),
            processing_class=build_tokenizer(),
            rollout_func=lambda prompts, trainer: {},
        )


def test_broken_reward_names_the_prompt(tmp_path):
    def broken(completions, **columns):
        return [float("inf")] * len(completions)

    trainer = make_trainer(tmp_path, preference=None, reward_funcs=broken, max_steps=1)
    with pytest.raises(ValueError, match=r"broken gave inf for a completion of the prompt .*Question"):
        trainer.train()
