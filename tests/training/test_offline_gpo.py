"""OfflineGPOTrainer: its losses against a hand computation, its reference, its data, what it logs and refuses."""

import json
import math
from typing import Any

import pytest
import torch
from datasets import Dataset

from tests.conftest import build_tokenizer, save_backbone
from tests.training.online import build_policy, logged, prefer_by_text

OPTIONS: dict[str, Any] = {
    "bf16": False,
    "use_cpu": True,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
    "gradient_checkpointing": False,
    "logging_steps": 1,
    "learning_rate": 0.02,
    "lr_scheduler_type": "constant",
    "optim": "sgd",
    "max_grad_norm": 0.0,
    "per_device_train_batch_size": 2,
    "gpo_beta": 0.1,
}
WORDS = [
    "Paris",
    "a hot oven",
    "rock, paper, scissors",
    "Mix flour and water.",
    "short",
    "It is the best answer.",
    "1",
]


def scored_rows(count=7, size=3):
    """Groups of responses of different lengths, scored by a preference with cycles; row means written out."""
    rows = []
    for number in range(count):
        responses = [f"{WORDS[(number + i) % 7]} {WORDS[(2 * i + 3 * number) % 7]} {i}" for i in range(size)]
        prompt = f"Question {number}?" if number % 2 else [{"role": "user", "content": f"Question {number}?"}]
        (scores,) = prefer_by_text([prompt], [responses])
        rows.append({"prompt": prompt, "responses": responses, "scores": scores})
    return rows


def make_trainer(folder, rows, policy=None, tokenizer=None, trainer_class=None, **options):
    from gpm_hf.training import OfflineGPOConfig, OfflineGPOTrainer

    names = ("peft_config", "eval_dataset", "ref_model", "preference_name")
    arguments = {name: options.pop(name) for name in names if name in options}
    return (trainer_class or OfflineGPOTrainer)(
        build_policy() if policy is None else policy,
        OfflineGPOConfig(str(folder), **{**OPTIONS, **options}),
        rows,
        processing_class=tokenizer or build_tokenizer(),
        **arguments,
    )


def token_ids(tokenizer, row, text):
    """Prompt and response as the template renders them."""
    prompt = row["prompt"] if isinstance(row["prompt"], list) else [{"role": "user", "content": row["prompt"]}]
    options = {"tokenize": True, "return_dict": True}
    before = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, **options)["input_ids"]
    whole = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": text}], **options)["input_ids"]
    assert whole[: len(before)] == before
    return before, whole[len(before) :]


def sequence_log_prob(model, prompt, response):
    """From plain logits of one unpadded sequence."""
    logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)[torch.arange(len(response)), torch.tensor(response)].sum()


def weights_of(trainer):
    return torch.cat([value.detach().flatten() for value in trainer.model.parameters()])


# --- the loss --------------------------------------------------------------------------------------------------------

CASES: dict[str, tuple[str, dict]] = {
    "gpo, pairs": ("mean", {}),
    "gpo, all responses": ("all_responses", {}),
    "gpo, all pairs weighted": ("all", {}),
    "gpo, von Neumann pairs": ("von_neumann", {}),
    "gpo, not rescaled": ("mean", {"rescale_loss": False, "learning_rate": 2e-4}),
    "sppo, pairs": ("mean", {"loss_type": "sppo", "gpo_beta": 0.01, "learning_rate": 0.1}),
    "sppo, all responses": ("all_responses", {"loss_type": "sppo", "gpo_beta": 0.01, "learning_rate": 0.02}),
    "ln-gpo, pairs": ("mean", {"length_normalize": True, "gpo_beta": 1.0}),
    "ln-gpo, all responses": ("all_responses", {"length_normalize": True, "gpo_beta": 1.0}),
    "rebel, pairs": ("mean", {"loss_type": "rebel"}),
    "rebel, all pairs weighted": ("all", {"loss_type": "rebel"}),
    "rebel, not rescaled, ln": (
        "mean",
        {"loss_type": "rebel", "rescale_loss": False, "length_normalize": True, "gpo_beta": 1.0},
    ),
    "gpo, reference on the fly": ("mean", {"precompute_ref_log_probs": False}),
}


def selected(rows, selection, **options):
    from gpm_hf.data.policy_data import all_responses, select_pairs

    return all_responses(rows, **options) if selection == "all_responses" else select_pairs(rows, selection, **options)


def checked_trainer():
    from gpm_hf.training import OfflineGPOTrainer

    class CheckedTrainer(OfflineGPOTrainer):
        """Computes every loss and gradient a second time, by hand, one unpadded sequence at a time."""

        def prepare_check(self, rows, step_rows):
            """`step_rows`: how many rows each optimizer step has."""
            self.copy, self.start, self.checks, self.step_rows = build_policy(), build_policy(), [], step_rows
            self.start.load_state_dict(self.model.state_dict())
            self.table: dict = {}
            for row in rows:
                size = len(row["responses"])
                for i, text in enumerate(row["responses"]):
                    prompt, response = token_ids(self.processing_class, row, text)
                    if self.args.loss_type == "sppo":
                        target = sum(1 / (1 + math.exp(-score)) for score in row["scores"][i]) / size - 0.5
                    else:
                        target = sum(row["scores"][i]) / size
                    self.table[tuple(prompt + response)] = (
                        prompt,
                        response,
                        target,
                        row["scores"][i],
                        i,
                    )

        def hand_loss(self, inputs):
            args, weighted = self.args, "weight" in self.train_dataset.column_names
            sequences = [
                tuple(token for token, keep in zip(ids, mask) if keep)
                for ids, mask in zip(inputs["input_ids"].tolist(), inputs["attention_mask"].tolist())
            ]
            count = len(inputs["weights"])
            loss, largest = 0.0, 0.0
            for first in range(count):
                terms = []
                for sequence in sequences[first::count]:
                    prompt, response, target, _, _ = self.table[sequence]
                    with torch.no_grad():
                        start = sequence_log_prob(self.start, prompt, response)
                    ratio = sequence_log_prob(self.copy, prompt, response) - start
                    largest = max(largest, abs(ratio.item()))
                    terms.append((ratio / len(response) if args.length_normalize else ratio, target))
                if args.loss_type == "rebel":
                    (a, target_a), (b, target_b) = terms
                    value = ((a - b) - (target_a - target_b) / args.gpo_beta) ** 2
                else:
                    value = sum((ratio - target / args.gpo_beta) ** 2 for ratio, target in terms) / len(terms)
                if args.rescale_loss:
                    value = value * args.gpo_beta**2
                if weighted:
                    chosen, rejected = (self.table[one] for one in sequences[first::count])
                    log_odds = chosen[3][rejected[4]]
                    assert log_odds > 0
                    value = value * (2 / (1 + math.exp(-log_odds)) - 1)
                loss = loss + value
            return loss / self.step_rows[self.state.global_step], largest

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            self.copy.load_state_dict(self.model.state_dict())
            expected, ratio = self.hand_loss(inputs)
            ours = torch.autograd.grad(loss, list(self.model.parameters()), retain_graph=True)
            hand = torch.autograd.grad(expected, list(self.copy.parameters()))
            ours, hand = (torch.cat([grad.flatten() for grad in grads]) for grads in (ours, hand))
            check = {
                "loss": abs(loss.item() / expected.item() - 1),
                "gradient": ((ours - hand).norm() / hand.norm()).item(),
                "ratio": ratio,
            }
            self.checks.append(check)
            return loss

    return CheckedTrainer


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_by_hand(tmp_path, case, double):
    from transformers import AutoModelForCausalLM

    selection, options = CASES[case]
    rows = scored_rows(7 if selection in ("mean", "von_neumann") else 3)
    data = selected(rows, selection)
    policy = AutoModelForCausalLM.from_pretrained(save_backbone(tmp_path / "policy"), dtype=double)
    trainer = make_trainer(
        tmp_path,
        data,
        policy,
        build_tokenizer(padding_side="left"),
        checked_trainer(),
        gradient_accumulation_steps=2,
        num_train_epochs=1,
        **{"learning_rate": 0.002, **options},
    )
    step_rows = [min(4, len(data) - first) for first in range(0, len(data), 4)]
    trainer.prepare_check(rows, step_rows)
    trainer.train()
    worst = {name: max(check[name] for check in trainer.checks) for name in trainer.checks[0]}
    print(case, len(trainer.checks), step_rows, worst)
    assert len(trainer.checks) == -(-len(data) // 2) and trainer.state.global_step == len(step_rows)
    assert worst["loss"] < 1e-8 and worst["gradient"] < 1e-8
    assert worst["ratio"] > 0.05, "the policy has to have moved"


@pytest.mark.parametrize("selection", ["mean", "all_responses"])
def test_gradient_accumulation_is_exact(tmp_path, selection, double):
    """Seven rows by four: the second step has three, as one batch or as micro-batches of two and one."""
    data = selected(scored_rows(7), selection).select(range(7))
    weights, losses = [], []
    for size, steps in ((4, 1), (2, 2)):
        trainer = make_trainer(
            tmp_path, data, per_device_train_batch_size=size, gradient_accumulation_steps=steps, num_train_epochs=1
        )
        trainer.train()
        weights.append(weights_of(trainer))
        losses.append(logged(trainer, "loss"))
    start = torch.cat([value.detach().flatten() for value in build_policy().parameters()])
    apart = ((weights[1] - weights[0]).norm() / (weights[0] - start).norm()).item()
    print(selection, apart, losses)
    assert apart < 1e-8 and losses[1] == pytest.approx(losses[0], rel=1e-8)


def test_all_responses_are_the_mean_over_samples(tmp_path):
    """Odd K: at the start the loss is the mean of squared targets, each response counted once."""
    rows = scored_rows(4, size=5)
    trainer = make_trainer(
        tmp_path, selected(rows, "all_responses"), per_device_train_batch_size=20, max_steps=1, gpo_beta=0.5
    )
    trainer.train()
    targets = [sum(scores) / 5 for row in rows for scores in row["scores"]]
    assert logged(trainer, "loss")[0] == pytest.approx(sum(t**2 for t in targets) / 20, rel=1e-5)
    assert logged(trainer, "gpo/target_abs")[0] == pytest.approx(sum(map(abs, targets)) / 20, rel=1e-5)


def test_hard_sppo_is_trls(tmp_path):
    """With probabilities 1 and 0 SPPO is half of TRL's `sppo_hard`, which adds up the two samples of a pair."""
    from trl import DPOConfig, DPOTrainer

    data = selected(scored_rows(), "mean")
    hard = data.remove_columns(["chosen_probability", "rejected_probability"])
    hard = hard.add_column("chosen_probability", [1.0] * 7).add_column("rejected_probability", [0.0] * 7)
    options = {"num_train_epochs": 2, "per_device_train_batch_size": 7, "learning_rate": 1e-4}
    ours = make_trainer(tmp_path, hard, loss_type="sppo", rescale_loss=False, **options)
    ours.train()
    common = {name: value for name, value in OPTIONS.items() if name != "gpo_beta"} | options
    args = DPOConfig(
        str(tmp_path), **common | {"learning_rate": 0.5e-4}, beta=0.1, loss_type="sppo_hard",
        precompute_ref_log_probs=True,
    )  # fmt: skip
    theirs = DPOTrainer(build_policy(), None, args, train_dataset=data, processing_class=build_tokenizer())
    theirs.train()
    assert [2 * loss for loss in logged(ours, "loss")] == pytest.approx(logged(theirs, "loss"), rel=1e-5)
    start = torch.cat([value.detach().flatten() for value in build_policy().parameters()])
    assert (weights_of(ours) - weights_of(theirs)).norm() / (weights_of(ours) - start).norm() < 1e-4


# --- the reference ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("selection", ["mean", "all_responses"])
def test_precomputed_reference_is_the_one_on_the_fly(tmp_path, selection, double):
    from transformers import AutoModelForCausalLM

    path, data = save_backbone(tmp_path / "policy"), selected(scored_rows(3), selection)
    histories = []
    for precompute in (True, False):
        policy = AutoModelForCausalLM.from_pretrained(path, dtype=double)
        trainer = make_trainer(tmp_path, data, policy, precompute_ref_log_probs=precompute, num_train_epochs=2)
        trainer.train()
        assert (trainer.ref_model is None) == precompute
        histories.append((logged(trainer, "loss"), logged(trainer, "gpo/log_ratio_abs"), weights_of(trainer)))
    assert histories[0][0] == pytest.approx(histories[1][0], rel=1e-8)
    assert histories[0][1] == pytest.approx(histories[1][1], rel=1e-8, abs=1e-8) and histories[0][1][-1] > 0.05
    torch.testing.assert_close(histories[0][2], histories[1][2], rtol=0, atol=1e-8)


@pytest.mark.parametrize("precompute", [True, False])
def test_lora_reference_is_the_adapter_switched_off(tmp_path, precompute):
    from peft import LoraConfig

    rows = scored_rows(4)
    trainer = make_trainer(
        tmp_path,
        selected(rows, "mean"),
        peft_config=LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"),
        precompute_ref_log_probs=precompute,
        num_train_epochs=3,
        per_device_train_batch_size=4,
        learning_rate=0.5,
    )
    trainer.train()
    # By hand: after three epochs the log-ratio is that of the adapted model with the plain one that it started from.
    start, trainer_model = build_policy(), trainer.model.eval()
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    ours = torch.stack(trainer.compute_ref_log_probs(trainer.model, batch), 1)
    moved = 0.0
    for row, reference in zip(trainer.train_dataset, ours):
        for side, value in zip(("chosen", "rejected"), reference):
            hand = sequence_log_prob(start, row["prompt_ids"], row[f"{side}_ids"]).item()
            assert value.item() == pytest.approx(hand, abs=1e-3)
            if precompute:
                assert row[f"ref_{side}_logps"] == pytest.approx(hand, abs=1e-3)
            moved = max(
                moved, abs(sequence_log_prob(trainer_model, row["prompt_ids"], row[f"{side}_ids"]).item() - hand)
            )
    assert moved > 0.1 and logged(trainer, "gpo/log_ratio_abs")[0] < 1e-4 < logged(trainer, "gpo/log_ratio_abs")[-1]


def test_each_policy_has_its_own_reference(tmp_path):
    """The same rows in the same process, another policy: no stored log-probability is taken for another's."""
    data = selected(scored_rows(2), "mean")
    found = [make_trainer(tmp_path, data, build_policy(seed)).train_dataset["ref_chosen_logps"][0] for seed in (0, 1)]
    assert abs(found[0] - found[1]) > 0.1


def with_log_probs(rows, change=0.0):
    policy, tokenizer = build_policy(), build_tokenizer()
    found = []
    for row in rows:
        ids = [token_ids(tokenizer, row, text) for text in row["responses"]]
        with torch.no_grad():
            log_probs = [sequence_log_prob(policy, *one).item() + change * len(one[1]) for one in ids]
        found.append({**row, "policy_log_probs": log_probs})
    return found


@pytest.mark.parametrize("selection", ["mean", "all_responses"])
def test_given_log_probs_are_the_reference(tmp_path, selection):
    rows = scored_rows(3)
    losses = []
    for given in (False, True):
        data = selected(with_log_probs(rows), selection, with_policy_log_probs=given)
        trainer = make_trainer(tmp_path, data, num_train_epochs=2, learning_rate=0.002)
        if given:
            trainer.compute_ref_log_probs = None  # nobody may call it
        trainer.train()
        losses.append(logged(trainer, "loss"))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_given_log_probs_of_another_policy(tmp_path):
    """A constant per token, such as another temperature makes."""
    data = selected(with_log_probs(scored_rows(3), change=0.1), "mean", with_policy_log_probs=True)
    with pytest.raises(ValueError, match=r"differ from the reference's by 0\.100 nats per token"):
        make_trainer(tmp_path, data).train()
    with pytest.raises(ValueError, match="There are two references"):
        make_trainer(tmp_path, data, ref_model=build_policy(1))
    with pytest.raises(ValueError, match="precompute_ref_log_probs=False"):
        make_trainer(tmp_path, data, precompute_ref_log_probs=False)


def test_reloaded_reference_of_a_changed_model(tmp_path):
    from transformers import AutoModelForCausalLM

    policy = AutoModelForCausalLM.from_pretrained(save_backbone(tmp_path / "policy"))
    policy.lm_head.weight.data.mul_(0.5)
    trainer = make_trainer(tmp_path, selected(scored_rows(3), "mean"), policy, precompute_ref_log_probs=False)
    with pytest.raises(
        ValueError, match="A model that was changed after loading needs `precompute_ref_log_probs=True`"
    ):
        trainer.train()


def test_another_reference(tmp_path):
    """An explicit reference may differ from the policy."""
    rows = scored_rows(2)
    trainer = make_trainer(
        tmp_path, selected(rows, "mean"), ref_model=build_policy(1), max_steps=1, precompute_ref_log_probs=False
    )
    trainer.train()
    assert logged(trainer, "gpo/log_ratio_abs")[0] > 1.0


# --- data ------------------------------------------------------------------------------------------------------------


def test_padding_side_is_of_no_consequence(tmp_path):
    data, weights = selected(scored_rows(3), "mean"), []
    for side, pad_is_eos in (("left", False), ("right", False), ("right", True)):
        tokenizer = build_tokenizer(padding_side=side, pad_is_eos=pad_is_eos)
        trainer = make_trainer(tmp_path, data, tokenizer=tokenizer, num_train_epochs=2)
        trainer.train()
        weights.append(weights_of(trainer))
    assert torch.equal(weights[0], weights[1])
    torch.testing.assert_close(weights[0], weights[2], rtol=0, atol=1e-6)


@pytest.mark.parametrize("selection", ["mean", "all_responses"])
def test_long_rows_are_counted(tmp_path, selection):
    rows = scored_rows(4)
    lengths = [[sum(map(len, token_ids(build_tokenizer(), row, text))) for text in row["responses"]] for row in rows]
    data = selected(rows, selection)
    limit = sorted(length for group in lengths for length in group)[-3]
    trainer = make_trainer(tmp_path, data, max_length=limit, max_steps=1)
    dropped = len(data) - len(trainer.train_dataset)
    if selection == "all_responses":
        assert dropped == sum(length > limit for group in lengths for length in group)
    assert 0 < dropped < len(data)
    trainer.train()
    assert logged(trainer, "rows_over_max_length") == [dropped]
    for row in trainer.train_dataset:
        assert len(row["prompt_ids"]) + len(row["chosen_ids"]) <= limit
    with pytest.raises(ValueError, match=r"all 12 are longer than|all 4 are longer than"):
        make_trainer(tmp_path, data, max_length=5)


def test_string_rows_and_tokenizer_beside_the_model(tmp_path):
    """Plain text for a policy without a chat template: EOS is added, the tokenizer is the one saved with the model."""
    from gpm_hf.training import OfflineGPOConfig, OfflineGPOTrainer

    path = save_backbone(tmp_path / "policy", tokenizer=build_tokenizer(chat=False))
    data = Dataset.from_list([{"prompt": "Red, green", "completion": " and blue", "score": 0.5}])
    trainer = OfflineGPOTrainer(path, OfflineGPOConfig(str(tmp_path / "out"), **OPTIONS, max_steps=1), data)
    trainer.train()
    row = trainer.train_dataset[0]
    assert row["chosen_ids"][-1] == 1 and logged(trainer, "loss")[0] == pytest.approx(0.25, rel=1e-4)


def test_evaluation(tmp_path):
    data = selected(scored_rows(5), "mean")
    trainer = make_trainer(tmp_path, data, eval_dataset=data, per_device_eval_batch_size=2, max_steps=1)
    metrics = trainer.evaluate()
    targets = [row[f"{side}_score"] for row in data for side in ("chosen", "rejected")]
    assert metrics["eval_loss"] == pytest.approx(sum(t**2 for t in targets) / 10, rel=1e-4)
    assert metrics["eval_gpo/target_abs"] == pytest.approx(sum(map(abs, targets)) / 10, rel=1e-5)
    other = make_trainer(tmp_path, data.select([0]), max_steps=1).evaluate(data)  # prepared as at the start
    assert other["eval_loss"] == pytest.approx(metrics["eval_loss"], rel=1e-5)
    batch = trainer.data_collator([trainer.train_dataset[0]])
    _, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    assert outputs.logits.shape == (*batch["input_ids"].shape, 400)


def test_metrics_and_progress(tmp_path):
    """What is preferred becomes likelier; the signs of the log-ratios follow the targets."""
    trainer = make_trainer(
        tmp_path,
        selected(scored_rows(3), "mean"),
        per_device_train_batch_size=3,
        max_steps=60,
        learning_rate=0.01,
        gpo_beta=0.5,
        optim="adamw_torch",
    )
    trainer.train()
    last = trainer.state.log_history[-2]
    assert last["gpo/pair_accuracy"] == 1.0 and last["gpo/sign_accuracy"] == 1.0
    assert last["loss"] < 0.05 * logged(trainer, "loss")[0]
    assert last["gpo/residual_abs"] < 0.3 * logged(trainer, "gpo/residual_abs")[0]
    assert {"gpo/log_ratio", "gpo/target", "logps", "entropy", "response_length", "num_tokens"} <= set(last)


def test_mixture_of_experts_keeps_its_balance_loss(tmp_path):
    policy = build_policy(backbone="mixtral", num_local_experts=2, num_experts_per_tok=1, router_aux_loss_coef=0.5)
    data = selected(scored_rows(2), "mean")
    trainer = make_trainer(tmp_path, data, policy, max_steps=1)
    trainer.train()
    targets = [row[f"{side}_score"] for row in data for side in ("chosen", "rejected")]
    expected = sum(t**2 for t in targets) / 4 + 0.5 * logged(trainer, "aux_loss")[0]
    assert logged(trainer, "loss")[0] == pytest.approx(expected, rel=1e-4)


# --- checkpoints and cards -------------------------------------------------------------------------------------------


def test_resume_equals_uninterrupted(tmp_path):
    options = {
        "max_steps": 6,
        "gradient_accumulation_steps": 2,
        "per_device_train_batch_size": 1,
        "save_strategy": "steps",
        "save_steps": 3,
        "optim": "adamw_torch",
        "learning_rate": 1e-2,
        "lr_scheduler_type": "linear",
    }
    data = selected(scored_rows(), "mean")
    whole = make_trainer(tmp_path / "run", data, **options)
    whole.train()
    resumed = make_trainer(tmp_path / "run", data, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    assert resumed.state.global_step == 6
    assert torch.equal(weights_of(whole), weights_of(resumed))
    assert logged(whole, "loss") == logged(resumed, "loss")


def test_card(tmp_path):
    trainer = make_trainer(tmp_path, selected(scored_rows(2), "mean"), max_steps=1, preference_name="my-name/my-gpm")
    trainer.train()
    trainer.save_model()
    trainer.create_model_card(dataset_name="scored.jsonl")
    record = json.loads((tmp_path / "gpm_run.json").read_text())
    assert record["settings"] == {"preference": "`my-name/my-gpm`", "method": "offline"}
    assert record["hyperparameters"]["gpo_beta"] == 0.1 and record["hyperparameters"]["loss_type"] == "gpo"
    card = (tmp_path / "README.md").read_text()
    assert "`my-name/my-gpm`" in card and "`scored.jsonl`" in card and "sign accuracy (training, step 1)" in card


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"gpo_beta": 0.0}, "gpo_beta=0.0 is not possible: targets are divided by it"),
        ({"loss_type": "sigmoid"}, "loss_type='sigmoid' is unknown: choose one of"),
        ({"beta": 0.001}, "beta: the loss is a regression .* Use `gpo_beta`."),
        ({"label_smoothing": 0.1}, "label_smoothing: the loss is a regression .* Leave it at its default."),
        ({"ld_alpha": 0.5, "use_weighting": True}, "ld_alpha, use_weighting: the loss"),
        ({"truncation_mode": "keep_end"}, "truncation_mode: "),
        ({"f_divergence_type": "forward_kl"}, "f_divergence_type: "),
        ({"loss_weights": [1.0]}, "loss_weights: "),
        ({"sync_ref_model": True}, "sync_ref_model: "),
    ],
)
def test_refused_options(tmp_path, options, sentence):
    from gpm_hf.training import OfflineGPOConfig

    with pytest.raises(ValueError, match=sentence):
        OfflineGPOConfig(str(tmp_path), **{**OPTIONS, **options})


def test_every_option_of_dpo_is_known():
    """A new option of TRL's losses would be ignored without a word: decide about it here and in the configuration."""
    from dataclasses import fields

    from trl import DPOConfig
    from trl.trainer.base_config import _BaseConfig

    from gpm_hf.training.offline_gpo_config import _IGNORED

    known = {option.name for option in fields(DPOConfig)} - {option.name for option in fields(_BaseConfig)}
    assert set(_IGNORED) <= known
    assert known - set(_IGNORED) == {
        "activation_offloading",
        "dataset_num_proc",
        "disable_dropout",
        "loss_type",
        "max_length",
        "model_init_kwargs",
        "pad_to_multiple_of",
        "precompute_ref_batch_size",
        "precompute_ref_log_probs",
        "router_aux_loss_coef",
        "trust_remote_code",
    }


def test_refused_data(tmp_path):
    rows = scored_rows(2)
    pairs, samples = selected(rows, "mean"), selected(rows, "all_responses")
    with pytest.raises(ValueError, match=r"needs .'completion', 'score'.*pairs by `select_pairs`, all responses by"):
        make_trainer(tmp_path, Dataset.from_list([{"prompt": "a", "responses": ["b", "c"]}]))
    with pytest.raises(ValueError, match=r"loss_type='gpo' needs .'rejected_score'."):
        make_trainer(tmp_path, pairs.remove_columns("rejected_score"))
    with pytest.raises(ValueError, match=r"loss_type='sppo' needs .'probability'."):
        make_trainer(tmp_path, samples.remove_columns("probability"), loss_type="sppo")
    with pytest.raises(ValueError, match="loss_type='rebel' compares two responses"):
        make_trainer(tmp_path, samples, loss_type="rebel")
    with pytest.raises(ValueError, match="Row 1: nan is not a possible score"):
        make_trainer(tmp_path, pairs.remove_columns("chosen_score").add_column("chosen_score", [1.0, math.nan]))
    with pytest.raises(ValueError, match=r"Row 0: 1\.5 is not a possible probability"):
        broken = pairs.remove_columns("chosen_probability").add_column("chosen_probability", [1.5, 0.0])
        make_trainer(tmp_path, broken, loss_type="sppo")
    with pytest.raises(ValueError, match=r"Row 1: -1\.0 is not a possible weight"):
        make_trainer(tmp_path, pairs.add_column("weight", [1.0, -1.0]))
    for value, shown in ((None, "None"), ("high", "'high'")):
        broken = [row | {"rejected_score": value if number else "0.5"} for number, row in enumerate(pairs)]
        with pytest.raises(ValueError, match=f"Row 1: {shown} is not a possible score"):
            make_trainer(tmp_path, Dataset.from_list(broken))
    broken = [row | {f"ref_{side}_logps": None for side in ("chosen", "rejected")} for row in pairs]
    with pytest.raises(ValueError, match="Row 0: None is not a possible `ref_chosen_logps`"):
        make_trainer(tmp_path, Dataset.from_list(broken))


@pytest.mark.parametrize("selection", ["mean", "all_responses"])
def test_numbers_as_text_and_rows_grouped_by_length(tmp_path, selection):
    data = selected(scored_rows(6), selection)
    columns = [name for name in data.column_names if name.endswith("score")]
    texts = Dataset.from_list([row | {name: str(row[name]) for name in columns} for row in data])
    losses = []
    for given in (data, texts):
        trainer = make_trainer(tmp_path, given, train_sampling_strategy="group_by_length", max_steps=2)
        trainer.train()
        losses.append(logged(trainer, "loss"))
        rows = trainer.train_dataset
        responses = [name for name in ("chosen_ids", "rejected_ids") if name in rows.column_names]
        expected = [len(row["prompt_ids"]) + max(len(row[name]) for name in responses) for row in rows]
        assert trainer._get_train_sampler().lengths[:] == expected and len(set(expected)) > 2
    assert losses[0] == losses[1]


@pytest.mark.parametrize("with_ids", [False, True])
def test_streamed_rows(tmp_path, with_ids, double):
    """Steps on all rows at once are the same, whatever their order."""
    from transformers import AutoModelForCausalLM

    from gpm_hf.data.sampled_ids import tokenizer_digest

    path, tokenizer, groups = save_backbone(tmp_path / "policy"), build_tokenizer(), scored_rows(3)
    for row in groups if with_ids else []:
        ids = [token_ids(tokenizer, row, text) for text in row["responses"]]
        row |= {"prompt_ids": ids[0][0], "response_ids": [answer for _, answer in ids]}
        row["tokenizer_digest"] = tokenizer_digest(tokenizer)
    data, ends = selected(groups, "mean"), []
    for rows in (data, data.to_iterable_dataset()):
        policy = AutoModelForCausalLM.from_pretrained(path, dtype=double)
        options = {"precompute_ref_log_probs": False, "max_steps": 2, "per_device_train_batch_size": 3}
        trainer = make_trainer(tmp_path, rows, policy, tokenizer, **options)
        trainer.train()
        ends.append(weights_of(trainer))
    torch.testing.assert_close(*ends, rtol=0, atol=1e-8)
    with pytest.raises(ValueError, match="IterableDataset"):
        make_trainer(tmp_path, data.to_iterable_dataset(), max_steps=2)


def test_no_step(tmp_path):
    data = selected(scored_rows(2), "mean")
    with pytest.raises(ValueError, match=r"has 2 rows, but one batch needs 3 .* so no step would be taken"):
        make_trainer(tmp_path, data, per_device_train_batch_size=3, dataloader_drop_last=True)
    with pytest.raises(ValueError, match="The train data set is empty"):
        make_trainer(tmp_path, data.select([]))
