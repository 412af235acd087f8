"""Opponents other than the policy itself: whose responses they are, and the targets they lead to."""

import math

import pytest
import torch
from datasets import Dataset, IterableDataset

from gpm_hf.modeling.cache_gpm import cache_argument
from tests.conftest import build_gpm, build_tokenizer, save_backbone
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
    text_of,
)

STORED = ["A good answer is short.", "Bake it in a hot oven."]


def prompts_with(*responses, count=6):
    return Dataset.from_list([{**row, "opponent_responses": list(responses)} for row in chat_prompts(count)])


def against_stored(folder, responses=STORED, **options):
    """K = 3 responses of the policy against the stored ones."""
    options = {"num_generations": 3, "per_device_train_batch_size": 3, "max_steps": 1, **options}
    return make_trainer(folder, prompts=prompts_with(*responses), opponent="reference", **options)


# --- targets ---------------------------------------------------------------------------------------------------------


def test_targets_of_a_function(tmp_path):
    trainer = against_stored(tmp_path)
    _, texts, targets = recorded_targets(trainer)
    scores = [[skew(text, other) for other in STORED] for text in texts]
    expected = [sum(row) / 2 for row in scores]
    assert targets.tolist() == pytest.approx(expected, abs=1e-5)
    assert abs(sum(expected)) > 0.1, "against another policy the mean score need not average to 0"
    wins = [1 / (1 + math.exp(-score)) for row in scores for score in row]
    assert logged(trainer, "gpo/win_rate_opponent") == [pytest.approx(sum(wins) / 6, abs=1e-5)]
    assert logged(trainer, "rewards/preference/mean") == [pytest.approx(sum(expected) / 3, abs=1e-5)]
    # At the first step the log-ratio is 0.
    assert logged(trainer, "loss")[0] == pytest.approx(sum(target**2 for target in expected) / 3, rel=1e-4)


def test_targets_of_sppo_with_normaliser(tmp_path):
    trainer = against_stored(tmp_path, loss_type="sppo", log_z="group", gpo_beta=0.2)
    _, texts, targets = recorded_targets(trainer)
    wins = [sum(1 / (1 + math.exp(-skew(text, other))) for other in STORED) / 2 - 0.5 for text in texts]
    log_z = math.log(sum(math.exp(win / 0.2) for win in wins) / 3)
    assert targets.tolist() == pytest.approx([win - 0.2 * log_z for win in wins], abs=1e-5)


@pytest.mark.parametrize("embedding_dim", [1, 4])
def test_targets_of_a_model(tmp_path, embedding_dim):
    """The gate's scales are the prompt's, for the opponent's responses as for the policy's."""
    gpm, tokenizer = build_gpm(embedding_dim=embedding_dim), build_tokenizer()
    trainer = against_stored(
        tmp_path, preference=gpm, preference_processing_class=tokenizer, gradient_accumulation_steps=2
    )
    prompts, texts, targets = recorded_targets(trainer)
    for first in (0, 3):
        ours, scales = gpm.embed(tokenizer, prompts[first], texts[first : first + 3])
        theirs, _ = gpm.embed(tokenizer, prompts[first], STORED)
        for i in range(3):
            total = 0.0
            for j in range(2):
                v, w = ours[i].tolist(), theirs[j].tolist()
                if embedding_dim == 1:
                    total += (v[0] - w[0]) / gpm.config.tau
                else:
                    terms = [scales[k].item() * (v[2 * k] * w[2 * k + 1] - v[2 * k + 1] * w[2 * k]) for k in range(2)]
                    total += sum(terms) / gpm.config.tau
            assert targets[first + i].item() == pytest.approx(total / 2, rel=2e-4, abs=1e-4)
    assert targets.abs().max() > 0.1


def test_targets_of_reward_functions(tmp_path):
    """Differences to the opponent's rewards; what is logged is the policy's alone."""
    seen = []

    def length(prompts, completions, completion_ids, log_extra, log_metric, **columns):
        texts = [text_of(completion) for completion in completions]
        assert len(prompts) == len(completions) == len(completion_ids) == len(columns["opponent_responses"])
        log_extra("text", texts)
        log_metric("longest", max(len(text) for text in texts))
        seen.extend(texts)
        return [None if text == STORED[1] else float(len(text)) for text in texts]

    trainer = against_stored(
        tmp_path,
        responses=[*STORED, "Rock."],
        preference=None,
        reward_funcs=length,
        reward_weights=[0.5],
        log_completions=True,
    )
    _, texts, targets = recorded_targets(trainer)
    # The second response gets no reward: it is left out.
    expected = [0.5 * (len(text) - (len(STORED[0]) + len("Rock.")) / 2) for text in texts]
    assert targets.tolist() == pytest.approx(expected, abs=1e-4)
    assert sorted(seen) == sorted([*texts, *STORED, "Rock."])
    assert logged(trainer, "longest") == [max(len(text) for text in texts)]
    assert logged(trainer, "rewards/length/mean") == [pytest.approx(sum(len(text) for text in texts) / 3)]


def test_preference_model_and_reward_function(tmp_path):
    def length(completions, **columns):
        return [float(len(text_of(completion))) for completion in completions]

    trainer = against_stored(tmp_path, reward_funcs=length, reward_weights=[1.0, 0.1])
    _, texts, targets = recorded_targets(trainer)
    for i in range(3):
        scores = [skew(texts[i], other) + 0.1 * (len(texts[i]) - len(other)) for other in STORED]
        assert targets[i].item() == pytest.approx(sum(scores) / 2, abs=1e-4)


def test_empty_responses_are_left_out(tmp_path):
    """An opponent's response without text is no opponent; where it has none at all there is no target."""
    for responses, expected in ((["", "Rock."], ["Rock."]), (["", ""], [])):
        gpm, tokenizer = build_gpm(embedding_dim=4), build_tokenizer()
        trainer = against_stored(tmp_path, responses=responses, preference=gpm, preference_processing_class=tokenizer)
        prompts, texts, targets = recorded_targets(trainer)
        if expected:
            scores = gpm.preference_scores(tokenizer, prompts[0], [*texts, *expected])
            torch.testing.assert_close(targets, scores[:3, 3], rtol=2e-4, atol=1e-4)
        else:
            assert targets.isnan().all() and logged(trainer, "loss")[0] == 0.0


def test_stored_messages_and_plain_prompts(tmp_path):
    """Strings and messages are the same responses; a plain prompt has strings. Streamed data sets have them, too."""
    messages = [[{"role": "assistant", "content": text}] for text in STORED]
    targets = [recorded_targets(against_stored(tmp_path, responses=form))[2] for form in (STORED, messages)]
    assert torch.equal(*targets)
    rows = [{"prompt": f"Question {i}?", "opponent_responses": STORED} for i in range(6)]

    def stream():
        yield from rows

    found = []
    for prompts in (Dataset.from_list(rows), IterableDataset.from_generator(stream)):
        trainer = make_trainer(
            tmp_path,
            prompts=prompts,
            opponent="reference",
            max_steps=1,
            shuffle_dataset=False,
            remove_unused_columns=True,
        )
        _, texts, values = recorded_targets(trainer)
        assert values.tolist() == pytest.approx(
            [sum(skew(text, other) for other in STORED) / 2 for text in texts], abs=1e-5
        )
        found.append(values)
    assert torch.equal(*found)


def test_same_prompt_twice(tmp_path):
    """Two rows with one prompt and other responses: each group meets its own."""
    rows = [{"prompt": "Play.", "opponent_responses": [text]} for text in STORED]
    trainer = make_trainer(
        tmp_path,
        prompts=Dataset.from_list(rows),
        opponent="reference",
        num_generations=3,
        per_device_train_batch_size=6,
        shuffle_dataset=False,
        max_steps=1,
    )
    _, texts, targets = recorded_targets(trainer)
    expected = [skew(text, STORED[index // 3]) for index, text in enumerate(texts)]
    assert targets.tolist() == pytest.approx(expected, abs=1e-5)


def test_rows_of_both():
    """Two processes of three rows, groups of two (the second one on both), three opponents each: 9 answers, 5 + 5."""
    from gpm_hf.training.opponents import rows_of_both

    order = [("policy", 0), ("policy", 1), ("policy", 2)] + [("opponent", i) for i in range(5)]
    order += [("policy", 3), ("policy", 4), ("policy", 5)] + [("opponent", i) for i in (5, 6, 7, 8, 0)]
    found = rows_of_both(torch.tensor([[0, 1], [2, 3], [4, 5]]), 3, 5, 3).tolist()
    for group in range(3):
        assert [order[row] for row in found[group]] == [
            ("policy", 2 * group),
            ("policy", 2 * group + 1),
            *[("opponent", 3 * group + number) for number in range(3)],
        ]


def test_evaluation(tmp_path):
    """Evaluation has its own K, and the opponent the same responses."""
    trainer = against_stored(
        tmp_path, eval_dataset=prompts_with(*STORED, count=2), per_device_eval_batch_size=4, num_generations_eval=4
    )
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] > 0 and 0 < metrics["eval_gpo/win_rate_opponent"] < 1
    trainer = against_stored(tmp_path, eval_dataset=chat_prompts(2), per_device_eval_batch_size=3)
    with pytest.raises(ValueError, match="`opponent_responses` and the evaluation set has not"):
        trainer.evaluate()


# --- who responds ----------------------------------------------------------------------------------------------------


def padded_inputs():
    rows = [[5, 17, 80, 33, 9], [60, 7]]
    ids = torch.tensor([rows[0], [0, 0, 0, *rows[1]]])
    return rows, ids, torch.tensor([[1] * 5, [0, 0, 0, 1, 1]])


@pytest.mark.parametrize("backbone", ["llama", "gpt2", "mistral"])
def test_mixture_distribution(backbone):
    """
    Each token of a padded batch is drawn from softmax((1 - alpha) log pi + alpha log pi_ref), at a temperature, both
    computed without padding or cache. Absolute positions and windows of 16 tokens included.
    """
    from gpm_hf.training.geometric_mixture import geometric_mixture

    policy, reference = build_policy(0, backbone).eval(), build_policy(1, backbone).eval()
    rows, ids, mask = padded_inputs()
    alpha, temperature = 0.3, 0.7
    torch.manual_seed(0)
    options = {"max_new_tokens": 20, "do_sample": True, "top_k": 0, "eos_token_id": None, "pad_token_id": 0}
    options |= {"output_scores": True, "return_dict_in_generate": True}
    with geometric_mixture(policy, reference, alpha):
        out = policy.generate(input_ids=ids, attention_mask=mask, temperature=temperature, **options)
    assert not policy._forward_hooks
    worst, apart = 0.0, 0.0
    for row, prompt in enumerate(rows):
        tokens = out.sequences[row, ids.shape[1] :].tolist()
        for step in range(20):
            text = torch.tensor([prompt + tokens[:step]])
            with torch.no_grad():
                log_probs, other = (
                    (model(text).logits[0, -1] / temperature).log_softmax(-1) for model in (policy, reference)
                )
            expected = ((1 - alpha) * log_probs + alpha * other).softmax(-1)
            worst = max(worst, (out.scores[step][row].softmax(-1) - expected).abs().max().item())
            apart = max(apart, (log_probs.exp() - expected).abs().max().item())
    print(f"{backbone}: largest error of a probability {worst:.1e}, distance from the policy {apart:.2f}")
    assert worst < 1e-5 and apart > 0.05


def test_limits_of_the_mixture():
    """alpha near 0 is the policy, near 1 the reference."""
    from transformers import DynamicCache

    from gpm_hf.training.geometric_mixture import geometric_mixture

    policy, reference = build_policy(0).eval(), build_policy(1).eval()
    ids = torch.tensor([[5, 17, 80, 33, 9]])
    with torch.no_grad():
        ends = [model(ids).logits.softmax(-1) for model in (policy, reference)]
        for alpha, near, far in ((1e-7, 0, 1), (1 - 1e-7, 1, 0)):
            with geometric_mixture(policy, reference, alpha):
                mixed = policy(ids, **{cache_argument(policy): DynamicCache(config=policy.config)}).logits.softmax(-1)
            torch.testing.assert_close(mixed, ends[near], rtol=1e-4, atol=1e-6)
            assert (mixed - ends[far]).abs().max() > 0.05
        with geometric_mixture(policy, reference, 0.5), pytest.raises(ValueError, match="DynamicCache"):
            policy(ids, use_cache=False)


def frequencies(opponent, token_ids, count=4000):
    rows = [{"prompt": "Play."}] * count
    torch.manual_seed(0)
    completions, sampled = opponent.completions(rows, ["Play."] * count, list(range(count)))
    assert {len(ids) for ids in sampled} == {1} and set(completions) <= {"a", "b", "c"}
    tokens = torch.tensor([token_ids.index(ids[0]) for ids in sampled])
    return torch.bincount(tokens, minlength=3) / count


@pytest.mark.parametrize("opponent", ["reference", "mixture"])
def test_sampled_frequencies(tmp_path, opponent):
    """The reference stays what the policy was, while the policy moves; the mixture moves with it."""
    start, now, alpha, temperature = [0.7, 0.2, 0.1], [0.1, 0.3, 0.6], 0.4, 0.8
    token_ids = build_tokenizer().convert_tokens_to_ids(["a", "b", "c"])
    trainer = make_trainer(
        tmp_path,
        tabular_policy(token_ids, start),
        prompts=Dataset.from_list([{"prompt": "Play."}]),
        opponent=opponent,
        temperature=temperature,
        max_completion_length=1,
        **({"mixture_coef": alpha} if opponent == "mixture" else {}),
    )
    with torch.no_grad():
        trainer.model.lm_head.bias[token_ids] = torch.tensor(now).log()
    weights = {"reference": start, "mixture": [p ** (1 - alpha) * q**alpha for p, q in zip(now, start)]}[opponent]
    weights = torch.tensor([weight ** (1 / temperature) for weight in weights])
    expected = weights / weights.sum()
    found = frequencies(trainer.opponent, token_ids)
    print(opponent, found.tolist(), expected.tolist())
    # Four standard deviations; the policy itself is ten times as far.
    assert (found - expected).abs().max() < 4 * math.sqrt(0.25 / 4000)
    policy = torch.tensor(now) ** (1 / temperature)
    assert (policy / policy.sum() - expected).abs().max() > 0.25


def test_targets_against_samples(tmp_path):
    """What was sampled is what the policy is scored against: M = 2 responses to each prompt, up to their EOS."""
    policy = build_policy()
    policy.generation_config.eos_token_id = list(range(1, 60))
    trainer = make_trainer(
        tmp_path,
        policy,
        opponent="mixture",
        num_generations=3,
        per_device_train_batch_size=3,
        gradient_accumulation_steps=2,
        num_opponent_generations=2,
        max_steps=1,
    )
    answers, inner = [], trainer.opponent.respond
    trainer.opponent.respond = lambda *given: answers.append(inner(*given)) or answers[-1]
    prompts, texts, targets = recorded_targets(trainer)
    (answers,) = answers
    assert len(answers) == 4 and [text_of(completion) for completion in answers.completions] != texts[:4]
    for index, target in enumerate(targets.tolist()):
        group = slice(2 * (index // 3), 2 * (index // 3) + 2)
        assert answers.prompts[group] == [prompts[index]] * 2
        scores = [skew(texts[index], text_of(other)) for other in answers.completions[group]]
        assert target == pytest.approx(sum(scores) / 2, abs=1e-5)
    ends = trainer.eos_token_ids
    assert all(token not in ends for ids in answers.token_ids for token in ids[:-1])
    assert any(ids[-1] in ends and len(ids) < 6 for ids in answers.token_ids)
    assert max(len(ids) for ids in answers.token_ids) == 6


def logits_of(model, **inputs):
    from transformers import DynamicCache

    from gpm_hf.generation.sampling_check import causal_lm

    with torch.no_grad():
        ids = torch.tensor([[5, 17, 80, 33, 9]])
        inputs[cache_argument(causal_lm(model))] = DynamicCache(config=model.config)
        return model(ids, **inputs).logits.log_softmax(-1)


@pytest.mark.parametrize("opponent", ["reference", "mixture"])
def test_lora(tmp_path, opponent):
    """With a new adapter the reference is the policy without it, and the adapter is on again afterwards."""
    from peft import LoraConfig

    trainer = make_trainer(
        tmp_path,
        opponent=opponent,
        max_steps=2,
        learning_rate=1.0,
        peft_config=LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"]),
    )
    assert trainer.opponent.reference is None
    trainer.train()
    base, policy = logits_of(build_policy()), logits_of(trainer.model)
    assert (policy - base).abs().max() > 0.05
    expected = base if opponent == "reference" else (0.5 * base + 0.5 * policy).log_softmax(-1)
    with trainer.opponent.player() as model:
        torch.testing.assert_close(logits_of(model), expected, rtol=0, atol=1e-4)
    assert torch.equal(logits_of(trainer.model), policy)
    trained = [name for name, value in trainer.model.named_parameters() if value.requires_grad]
    assert trained and all("lora" in name for name in trained)


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_trained_adapter_is_the_reference(tmp_path, beta):
    """A policy that comes with an adapter started with it: the reference keeps it."""
    from peft import LoraConfig, get_peft_model

    policy = get_peft_model(build_policy(), LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False))
    start = logits_of(policy)
    assert (start - logits_of(build_policy())).abs().max() > 0.05
    trainer = make_trainer(tmp_path, policy, opponent="reference", max_steps=2, learning_rate=1.0, beta=beta)
    trainer.train()
    assert (logits_of(trainer.model) - start).abs().max() > 0.05
    with trainer.opponent.player() as model:
        torch.testing.assert_close(logits_of(model), start, rtol=0, atol=1e-4)


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_reference_of_a_policy_given_by_its_path(tmp_path, beta):
    """TRL's own reference where there is one; it is not kept twice."""
    path = str(save_backbone(tmp_path / "policy"))
    trainer = make_trainer(tmp_path, path, opponent="mixture", max_steps=2, beta=beta)
    assert (trainer.opponent.reference is trainer.ref_model) == (beta != 0)
    start = logits_of(trainer.model)
    trainer.train()
    assert (logits_of(trainer.model) - start).abs().max() > 0.05
    assert torch.equal(logits_of(trainer.opponent.reference), start)


# --- the game --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [False, True])
def test_best_reply_to_a_fixed_opponent(tmp_path, stored):
    """
    Rock, paper, scissors against one who mostly plays rock: the policy goes to paper and stays, where self-play goes
    round. Each round is one step of multiplicative weights against the opponent.
    """
    actions, start, step, rounds = ["a", "b", "c"], [0.7, 0.2, 0.1], 1.0, 12
    game = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])  # b beats a, c beats b, a beats c
    token_ids = build_tokenizer().convert_tokens_to_ids(actions)

    def prefer(prompts, groups):
        rows = [torch.tensor([actions.index(text) for text in group]) for group in groups]
        return [game[row][:, row] for row in rows]

    row = {"prompt": "Play."} | ({"opponent_responses": ["a"] * 7 + ["b"] * 2 + ["c"]} if stored else {})
    trainer = make_trainer(
        tmp_path,
        tabular_policy(token_ids, start),
        prefer,
        Dataset.from_list([row]),
        opponent="reference",
        log_z="group",
        num_generations=256,
        per_device_train_batch_size=256,
        num_iterations=8,
        max_steps=8 * rounds,
        max_completion_length=1,
        gpo_beta=1 / step,
        rescale_loss=False,
        learning_rate=1.0,
    )
    trainer.train()
    policy = trainer.model.lm_head.bias[token_ids].detach().softmax(-1)
    scores = game @ torch.tensor(start)
    exact = (torch.tensor(start).log() + step * rounds * scores).softmax(-1)
    win_rates = logged(trainer, "gpo/win_rate_opponent")
    print(policy.tolist(), exact.tolist(), win_rates[0], win_rates[-1])
    assert policy.argmax() == scores.argmax() == 1
    assert policy[1] > 0.98 and exact[1] > 0.99
    # Against 0.7, 0.2, 0.1 paper wins with sigmoid(1) * 0.7 + 0.5 * 0.2 + sigmoid(-1) * 0.1.
    win = 1 / (1 + math.exp(-1))
    assert win_rates[0] == pytest.approx(0.5, abs=0.03)
    assert win_rates[-1] == pytest.approx(0.7 * win + 0.1 + 0.1 * (1 - win), abs=0.03)


def test_resume_equals_uninterrupted(tmp_path):
    """The opponent draws on the training's random stream, and its reference is not the checkpoint's policy."""
    options = {"opponent": "mixture", "max_steps": 6, "save_strategy": "steps", "save_steps": 2}
    options |= {"num_opponent_generations": 3, "optim": "adamw_torch", "learning_rate": 1e-2}
    whole = make_trainer(tmp_path / "run", **options)
    whole.train()
    resumed = make_trainer(tmp_path / "run", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    start = build_policy()
    for value, other in zip(whole.model.parameters(), resumed.model.parameters()):
        assert torch.equal(value, other)
    for value, other in zip(start.parameters(), resumed.opponent.reference.parameters()):
        assert torch.equal(value, other)
    assert any(not torch.equal(*pair) for pair in zip(start.parameters(), whole.model.parameters()))


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"opponent": "friend"}, "opponent='friend' is unknown: choose one of"),
        ({"num_opponent_generations": 2}, "num_opponent_generations: with opponent='self' the group is the opponent"),
        ({"opponent": "mixture", "num_opponent_generations": 0}, "num_opponent_generations=0 is not possible"),
        ({"mixture_coef": 0.2}, "mixture_coef: opponent='self' mixes nothing"),
        ({"opponent": "reference", "mixture_coef": 0.2}, "mixture_coef: opponent='reference' mixes nothing"),
        ({"opponent": "mixture", "mixture_coef": 0.0}, "mixture_coef=0.0 is not possible: it lies strictly between"),
        ({"opponent": "mixture", "mixture_coef": 1.0}, "mixture_coef=1.0 is not possible"),
        (
            {"opponent": "reference", "include_self": False},
            "include_self=False leaves a response out of its own group",
        ),
        ({"opponent": "mixture", "use_vllm": True}, "opponent='mixture' mixes the logits of two models"),
    ],
)
def test_refused_options(tmp_path, options, sentence):
    from gpm_hf.training.online_gpo_config import OnlineGPOConfig

    if "use_vllm" in options:
        options = {**options, "vllm_importance_sampling_mode": "sequence_mask"}
    with pytest.raises(ValueError, match=sentence):
        OnlineGPOConfig(str(tmp_path), **{**OPTIONS, **options})


@pytest.mark.parametrize("opponent", ["reference", "mixture"])
def test_refused_with_rollouts(tmp_path, opponent):
    from gpm_hf.training.online_gpo_config import OnlineGPOConfig
    from gpm_hf.training.online_gpo_trainer import OnlineGPOTrainer

    with pytest.raises(ValueError, match="gives single answers, and the policy has `rollout_func`"):
        OnlineGPOTrainer(
            build_policy(),
            prefer_by_text,
            OnlineGPOConfig(str(tmp_path), **{**OPTIONS, "opponent": opponent}),
            chat_prompts(),
            processing_class=build_tokenizer(),
            rollout_func=lambda prompts, trainer: {},
        )


def test_refused_responses(tmp_path):
    with pytest.raises(ValueError, match="num_opponent_generations=3, but the data set's `opponent_responses` has 2"):
        against_stored(tmp_path, num_opponent_generations=3)
    with pytest.raises(ValueError, match="`opponent_responses` is empty"):
        against_stored(tmp_path, responses=[])
    rows = [{"prompt": f"Question {i}?", "opponent_responses": STORED[: 2 - i % 2]} for i in range(6)]
    trainer = make_trainer(
        tmp_path, prompts=Dataset.from_list(rows), opponent="reference", per_device_train_batch_size=24
    )
    with pytest.raises(ValueError, match=r"`opponent_responses` has 1 responses to the prompt 'Question .*', but 2"):
        trainer.train()
    rows = [{"prompt": "Question?", "opponent_responses": [[{"role": "assistant", "content": "Rock."}]]}]
    trainer = make_trainer(tmp_path, prompts=Dataset.from_list(rows), opponent="reference")
    with pytest.raises(ValueError, match=r"holds messages for the prompt 'Question\?', which is a string"):
        trainer.train()


def test_refused_generation(tmp_path):
    with pytest.raises(ValueError, match="samples token by token: `generation_kwargs` must not ask for beam_sample"):
        make_trainer(tmp_path, opponent="mixture", generation_kwargs={"num_beams": 2})
    trainer = make_trainer(tmp_path, opponent="mixture", cache_implementation="static", max_steps=1)
    with pytest.raises(ValueError, match="leave `cache_implementation` and `use_cache` at their defaults"):
        trainer.train()


def test_refused_copy(tmp_path):
    """TRL replaces a policy's `forward`; a copy made after that would be the policy, not its start."""
    policy = build_policy()
    make_trainer(tmp_path, policy)
    with pytest.raises(ValueError, match=r"`forward` was replaced \(by an earlier trainer"):
        make_trainer(tmp_path, policy, opponent="reference")


def test_sampling_options_beside_vllm():
    """transformers samples the opponent as vLLM samples the policy; options in vLLM's own form are refused."""
    from types import SimpleNamespace

    from gpm_hf.training.opponents import ReferenceOpponent

    options = {"temperature": 0.7, "top_p": 0.9, "top_k": -1, "min_p": None, "repetition_penalty": 1.1}
    trainer = SimpleNamespace(
        use_vllm=True,
        args=SimpleNamespace(generation_kwargs=None),
        max_completion_length=7,
        eos_token_ids=[1, 4],
        processing_class=build_tokenizer(),
        **options,
    )
    found = ReferenceOpponent(trainer, 2).generation_config
    assert found.do_sample and found.max_new_tokens == 7 and found.eos_token_id == [1, 4] and found.pad_token_id == 0
    assert {name: getattr(found, name) for name in options} == {**options, "top_k": 0}
    trainer.args.generation_kwargs = {"seed": 3}
    with pytest.raises(ValueError, match="`generation_kwargs` are vLLM's here and mean nothing to transformers"):
        ReferenceOpponent(trainer, 2)
