"""GPMRewardTrainer: its loss against a hand computation, its data, its metrics, and what it saves."""

import json
import math
import os

import pytest
import torch
from datasets import Dataset

from tests.conftest import build_gpm, build_tokenizer, save_backbone

COLORS = ["red", "green", "blue"]


def ring_rows(questions=8, **labels):
    """Red beats green beats blue beats red."""
    return [
        {
            "prompt": f"Question {number}?",
            "chosen": f"The answer is {COLORS[edge]}.",
            "rejected": f"It may well be {COLORS[(edge + 1) % 3]}, I think.",
            **labels,
        }
        for number in range(questions)
        for edge in range(3)
    ]


def config(folder, **options):
    from gpm_hf import GPMRewardConfig

    defaults = {
        "per_device_train_batch_size": 8,
        "max_steps": 2,
        "learning_rate": 1e-2,
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
    }
    return GPMRewardConfig(str(folder), **{**defaults, **options})


def make_trainer(folder, model=None, rows=None, tokenizer=None, peft_config=None, eval_rows=None, **options):
    from gpm_hf import GPMRewardTrainer

    return GPMRewardTrainer(
        model=build_gpm(embedding_dim=4) if model is None else model,
        args=config(folder, **options),
        train_dataset=Dataset.from_list(ring_rows() if rows is None else rows),
        eval_dataset=None if eval_rows is None else Dataset.from_list(eval_rows),
        processing_class=tokenizer or build_tokenizer(),
        peft_config=peft_config,
    )


def log_odds_by_hand(model, tokenizer, row):
    """One pair, unpadded, straight from the backbone's states."""

    def states(ids):
        return model.model(torch.tensor([ids])).last_hidden_state[0]

    prompt = [{"role": "user", "content": row["prompt"]}]
    prompt_ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"]
    vectors, rewards = [], []
    for key in ("chosen", "rejected"):
        ids = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": row[key]}])["input_ids"]
        vector = model.embedding_head.weight @ states(ids)[-1]
        vectors.append(vector / vector.norm() if model.config.normalize_embeddings else vector)
        if model.config.reward_head:
            rewards.append((model.reward_head.weight @ states(ids)[-1])[0])
    v, w = vectors
    if len(v) == 1:
        return (v - w)[0] / model.config.tau
    scales = torch.softmax(model.gate_head.weight @ states(prompt_ids)[-1], 0)
    raw = sum(scales[b] * (v[2 * b] * w[2 * b + 1] - v[2 * b + 1] * w[2 * b]) for b in range(len(scales)))
    if rewards:
        raw = rewards[0] - rewards[1] + raw
    return raw / model.config.tau


def batch_of(trainer, count):
    return trainer.data_collator([trainer.train_dataset[index] for index in range(count)])


@pytest.mark.parametrize(("dimension", "reward_head"), [(1, False), (4, False), (4, True)])
@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_loss_and_gradient_equal_a_hand_computation(tmp_path, dimension, reward_head, tau):
    rows = ring_rows(2, margin=0.3, preference_probability=0.8)
    trainer = make_trainer(tmp_path, build_gpm(embedding_dim=dimension, reward_head=reward_head, tau=tau), rows)
    model = trainer.model
    loss = trainer.compute_loss(model, batch_of(trainer, len(rows)))
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    losses = []
    for row in rows:
        shifted = log_odds_by_hand(model, trainer.processing_class, row) - 0.3
        shifted = shifted.double()  # -log sigmoid(s) = log(1 + exp(-s))
        losses.append(0.8 * torch.log(1 + torch.exp(-shifted)) + 0.2 * torch.log(1 + torch.exp(shifted)))
    expected = sum(losses) / len(losses)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    heads = [f"{name}.weight" for name in model.heads()]
    assert len(heads) == 1 + (dimension > 1) + reward_head
    for name in [*heads, "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"]:
        by_hand = dict(model.named_parameters())[name].grad
        assert by_hand.abs().max() > 0
        assert torch.allclose(gradients[name], by_hand, rtol=1e-3, atol=1e-4 * float(by_hand.abs().max())), name


def test_regression_loss_equals_a_hand_computation(tmp_path):
    rows = [row | {"target_score": 0.25 * number} for number, row in enumerate(ring_rows(2))]
    trainer = make_trainer(tmp_path, rows=rows, loss_type="regression")
    loss = trainer.compute_loss(trainer.model, batch_of(trainer, len(rows)))
    errors = [
        log_odds_by_hand(trainer.model, trainer.processing_class, row).item() - row["target_score"] for row in rows
    ]
    assert loss.item() == pytest.approx(sum(0.5 * error**2 for error in errors) / len(rows), rel=1e-4)


@pytest.mark.parametrize("heads_only", [False, True])
def test_a_ring_is_learnt_and_scores_as_trained(tmp_path, heads_only):
    """The accuracy that the trainer logs is the accuracy of the saved model's ordinary scoring."""
    from gpm_hf import load_preference_model, load_tokenizer

    rows = ring_rows(6)
    trainer = make_trainer(
        tmp_path,
        save_backbone(tmp_path / "backbone"),
        rows,
        eval_rows=rows,
        embedding_dim=6,
        max_steps=120 if heads_only else 60,
        learning_rate=3e-2 if heads_only else 5e-3,
        train_heads_only=heads_only,
        per_device_eval_batch_size=7,
    )
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    metrics = trainer.evaluate()
    assert metrics["eval_accuracy"] > 0.95
    assert metrics["eval_skew_error"] == 0
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert {"embedding_head.weight", "gate_head.weight"} <= moved
    assert any(name.startswith("model.") for name in moved) != heads_only

    trainer.save_model()
    model, tokenizer = load_preference_model(str(tmp_path)), load_tokenizer(str(tmp_path))
    scores = [model.preference_scores(tokenizer, r["prompt"], [r["chosen"], r["rejected"]])[0, 1] for r in rows]
    log_odds = torch.stack(scores)
    assert (log_odds > 0).float().mean().item() == pytest.approx(metrics["eval_accuracy"])
    assert log_odds.mean().item() == pytest.approx(metrics["eval_mean_log_odds"], rel=1e-4)
    assert log_odds.sigmoid().mean().item() == pytest.approx(metrics["eval_mean_probability"], rel=1e-4)


def test_metrics_are_exact_whatever_the_batch_size(tmp_path):
    """24 rows in batches of 7 leave a last batch of 3; a mean of batch means would differ."""
    trainer = make_trainer(tmp_path, rows=ring_rows(1), eval_rows=ring_rows(8), per_device_eval_batch_size=7)
    ragged = trainer.evaluate()
    whole = make_trainer(tmp_path, rows=ring_rows(1), eval_rows=ring_rows(8), per_device_eval_batch_size=24).evaluate()
    for name in ("eval_accuracy", "eval_mean_probability", "eval_mean_log_odds"):
        assert ragged[name] == pytest.approx(whole[name], rel=1e-5)


def test_compute_metrics_receives_one_log_odds_per_pair(tmp_path):
    trainer = make_trainer(tmp_path, rows=ring_rows(1), eval_rows=ring_rows(3), per_device_eval_batch_size=4)
    predictions = trainer.predict(trainer.eval_dataset).predictions
    by_hand = [log_odds_by_hand(trainer.model, trainer.processing_class, row).item() for row in ring_rows(3)]
    assert predictions.tolist() == pytest.approx(by_hand, rel=1e-3, abs=1e-4)


FORMATS = {
    "explicit prompt, strings": {"prompt": "Hi?", "chosen": "Hello there.", "rejected": "Go."},
    "explicit prompt, messages": {
        "prompt": [{"role": "user", "content": "Hi?"}],
        "chosen": [{"role": "assistant", "content": "Hello there."}],
        "rejected": [{"role": "assistant", "content": "Go."}],
    },
    "implicit prompt, conversations": {
        "chosen": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello there."}],
        "rejected": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Go."}],
    },
}
FORMATS["whole conversations beside the prompt"] = {"prompt": "Hi?", **FORMATS["implicit prompt, conversations"]}


@pytest.mark.parametrize("row", FORMATS.values(), ids=FORMATS.keys())
def test_every_chat_format_becomes_the_same_tokens(tmp_path, row):
    """They are the tokens that TRL's own tokenisation of the conversation gives."""
    tokenizer = build_tokenizer()
    prepared = make_trainer(tmp_path, rows=[row], tokenizer=tokenizer).train_dataset[0]
    conversation = FORMATS["implicit prompt, conversations"]
    for key in ("chosen", "rejected"):
        assert prepared[f"{key}_ids"] == tokenizer.apply_chat_template(conversation[key])["input_ids"]
    prompt = tokenizer.apply_chat_template(conversation["chosen"][:1], add_generation_prompt=True)["input_ids"]
    assert prepared["prompt_ids"] == prompt


def test_tokenised_rows_train_as_their_texts_do(tmp_path):
    texts = make_trainer(tmp_path, rows=ring_rows(2))
    ids = [{key: row[key] for key in ("chosen_ids", "rejected_ids", "prompt_ids")} for row in texts.train_dataset]
    tokens = make_trainer(tmp_path, texts.model, rows=ids)
    losses = [trainer.compute_loss(texts.model, batch_of(trainer, 6)).item() for trainer in (texts, tokens)]
    assert losses[0] == losses[1]


def test_plain_text_without_a_prompt_trains_where_there_is_no_gate(tmp_path):
    rows = [{"chosen": "Q: why? A: because.", "rejected": "Q: why? A: no."}]
    tokenizer = build_tokenizer(chat=False)
    trainer = make_trainer(tmp_path, build_gpm(embedding_dim=4, scale_gate=False), rows, tokenizer)
    expected = tokenizer("Q: why? A: because.")["input_ids"] + [tokenizer.eos_token_id]
    assert trainer.train_dataset[0]["chosen_ids"] == expected
    assert math.isfinite(trainer.train().training_loss)
    with pytest.raises(ValueError, match="does not say where it ends"):
        make_trainer(tmp_path, build_gpm(embedding_dim=4), rows, tokenizer)


def test_a_stream_trains_and_says_that_long_rows_are_not_counted(tmp_path, caplog):
    from gpm_hf import GPMRewardTrainer

    long = {"prompt": "Q?", "chosen": "word " * 200, "rejected": "no"}
    trainer = GPMRewardTrainer(
        model=build_gpm(embedding_dim=4),
        args=config(tmp_path, max_length=100),
        train_dataset=Dataset.from_list([long, *ring_rows(), long]).to_iterable_dataset(),
        processing_class=build_tokenizer(),
    )
    trainer.train()
    assert trainer.state.global_step == 2
    assert "rows_over_max_length" not in trainer.state.log_history[0]
    assert "Streamed train rows over max_length=100 tokens are left out uncounted" in caplog.text
    assert all(len(row["chosen_ids"]) <= 100 for row in trainer.train_dataset)


def test_rows_over_max_length_are_counted_and_said(tmp_path, caplog):
    long = {"prompt": "Q?", "chosen": "word " * 60, "rejected": "no"}
    trainer = make_trainer(tmp_path, rows=[*ring_rows(4), long, long], max_length=50)
    assert len(trainer.train_dataset) == 12
    assert "2 of 14 train rows" in caplog.text
    trainer.train()
    assert trainer.state.log_history[0]["rows_over_max_length"] == 2
    with pytest.raises(ValueError, match="all 2 are longer than max_length=50"):
        make_trainer(tmp_path, rows=[long, long], max_length=50)


def test_a_merged_border_reads_the_gate_from_the_prompt_alone(tmp_path):
    """Plain text whose prompt ends in a space: the response swallows it, yet the scales depend on the prompt only."""
    tokenizer = build_tokenizer(chat=False)
    rows = [{"prompt": "The capital of France is ", "chosen": "Paris, a city", "rejected": "bread"}]
    trainer = make_trainer(tmp_path, rows=rows, tokenizer=tokenizer)
    prompt_ids = trainer.train_dataset[0]["prompt_ids"]
    assert trainer.train_dataset[0]["chosen_ids"][: len(prompt_ids)] != prompt_ids
    batch = batch_of(trainer, 1)
    assert batch["input_ids"].shape[0] == 3  # chosen, rejected, and the prompt
    loss = trainer.compute_loss(trainer.model, batch).item()
    scores = trainer.model.preference_scores(tokenizer, rows[0]["prompt"], [rows[0]["chosen"], rows[0]["rejected"]])
    assert loss == pytest.approx(-math.log(torch.sigmoid(scores[0, 1]).item()), rel=1e-4)


def test_resume_ends_where_the_uninterrupted_run_ends(tmp_path):
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 4}
    whole = make_trainer(tmp_path / "whole", **options)
    whole.train()
    resumed = make_trainer(tmp_path / "resumed", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert resumed.state.global_step == 4
    for (name, a), (_, b) in zip(whole.model.named_parameters(), resumed.model.named_parameters()):
        assert torch.equal(a, b), name


def test_checkpoints_carry_the_code_and_a_card(tmp_path):
    trainer = make_trainer(tmp_path, save_strategy="steps", save_steps=2)
    trainer.train()
    files = set(os.listdir(tmp_path / "checkpoint-2"))
    assert {"config.json", "model.safetensors", "modeling_gpm.py", "encoding_gpm.py", "tokenizer.json"} <= files
    card = (tmp_path / "README.md").read_text()
    assert "general preference model" in card and "embedding dimension | 4" in card
    logged = trainer.state.log_history[1]
    assert f"accuracy (training, step 2) | {logged['accuracy']:.4g}" in card
    assert "evaluation" not in card  # nothing was evaluated
    config = json.loads((tmp_path / "checkpoint-2" / "config.json").read_text())
    assert config["auto_map"]["AutoModel"] == "modeling_gpm.GPMForPreference"


@pytest.mark.parametrize("start", ["language model", "saved preference model"])
@pytest.mark.parametrize(
    ("targets", "reward_head"),
    [(None, False), ("all-linear", False), (["q_proj", "v_proj"], False), ("all-linear", True)],
)
def test_lora_trains_and_saves_adapter_and_heads(tmp_path, start, targets, reward_head):
    from peft import LoraConfig

    from gpm_hf import load_preference_model, load_tokenizer

    base = save_backbone(tmp_path / "base")
    if start == "saved preference model":
        model = build_gpm(embedding_dim=4, reward_head=reward_head)
        model.save_pretrained(tmp_path / "gpm")
        build_tokenizer().save_pretrained(tmp_path / "gpm")
        base = str(tmp_path / "gpm")
    trainer = make_trainer(
        tmp_path / "out",
        base,
        embedding_dim=4,
        reward_head=reward_head,
        peft_config=LoraConfig(r=4, target_modules=targets),
        max_steps=3,
    )
    heads = {name: head.weight.detach().clone() for name, head in trainer.gpm.heads().items()}
    trainer.train()
    trained = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert {n.split(".")[2] for n in trained if "modules_to_save" in n} == set(heads)
    assert set(heads) == {"embedding_head", "gate_head", *(["reward_head"] if reward_head else [])}
    assert not any("head" in name and "lora" in name for name in trained)
    for name, head in trainer.gpm.heads().items():
        assert not torch.equal(head.weight, heads[name]), name
    trainer.save_model()

    from safetensors import safe_open

    with safe_open(tmp_path / "out" / "adapter_model.safetensors", "pt") as file:
        keys = list(file.keys())
    assert all("lora_" in key or "_head" in key for key in keys)
    assert sum("_head" in key for key in keys) == len(heads)
    model, tokenizer = load_preference_model(str(tmp_path / "out")), load_tokenizer(str(tmp_path / "out"))
    question = ("Question 1?", ["The answer is red.", "It may be green.", "I do not know."])
    expected = trainer.gpm.preference_scores(tokenizer, *question)
    assert torch.allclose(model.preference_scores(tokenizer, *question), expected, atol=1e-5)
    merged = model.merge_and_unload()
    assert torch.allclose(merged.preference_scores(tokenizer, *question), expected, atol=3e-4)


def test_gradient_checkpointing_changes_nothing(tmp_path):
    losses = []
    for checkpointing in (False, True):
        trainer = make_trainer(tmp_path, gradient_checkpointing=checkpointing, max_steps=3)
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_under_bf16_autocast_the_heads_compute_in_float32(tmp_path):
    trainer = make_trainer(tmp_path, bf16=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = trainer.model(**{k: v for k, v in batch_of(trainer, 2).items() if k != "gate_rows"})
    vectors = output.response_states.float() @ trainer.model.embedding_head.weight.T
    expected = vectors / vectors.norm(dim=-1, keepdim=True)
    assert output.embeddings.dtype == torch.float32
    assert torch.allclose(output.embeddings, expected, atol=1e-6)
    assert math.isfinite(trainer.train().training_loss)


def test_errors_name_the_cause(tmp_path):
    from transformers import AutoModelForCausalLM

    with pytest.raises(ValueError, match=r"columns \['text'\].*needs `chosen`"):
        make_trainer(tmp_path, rows=[{"text": "x"}])
    with pytest.raises(ValueError, match="no `prompt_ids`"):
        make_trainer(tmp_path, rows=[{"chosen_ids": [5, 6], "rejected_ids": [7]}])
    with pytest.raises(ValueError, match="`target_score`"):
        make_trainer(tmp_path, loss_type="regression")
    with pytest.raises(ValueError, match="embedding_dim=3"):
        make_trainer(tmp_path, save_backbone(tmp_path / "backbone"), embedding_dim=3)
    with pytest.raises(ValueError, match=r"'embedding_dim': 4.*'embedding_dim': 2"):
        make_trainer(tmp_path, embedding_dim=2)
    with pytest.raises(TypeError, match="not a preference model"):
        make_trainer(tmp_path, AutoModelForCausalLM.from_pretrained(tmp_path / "backbone"))
    with pytest.raises(ValueError, match="center_rewards_coefficient"):
        config(tmp_path, center_rewards_coefficient=0.1)
    with pytest.raises(ValueError, match="loss_type"):
        config(tmp_path, loss_type="hinge")
    with pytest.raises(ValueError, match="Response 1 is empty"):
        make_trainer(tmp_path, rows=[{"prompt": "Q?", "chosen": "a", "rejected": " "}])
    assert not (tmp_path / "config.json").exists()


def test_a_lora_run_resumes_with_its_heads(tmp_path):
    from peft import LoraConfig

    def trainer(folder):
        options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 4}
        lora = LoraConfig(r=2, target_modules=["q_proj"])
        return make_trainer(tmp_path / folder, peft_config=lora, **options)

    whole = trainer("whole")
    whole.train()
    resumed = trainer("resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    trained = {name: p for name, p in whole.model.named_parameters() if p.requires_grad}
    assert any("embedding_head" in name for name in trained) and any("lora_B" in name for name in trained)
    for name, parameter in resumed.model.named_parameters():
        if name in trained:
            assert torch.allclose(parameter, trained[name], atol=1e-6), name


def test_a_prompt_beside_other_conversations_is_refused(tmp_path):
    """Encoded before them it would train well, and score something else."""
    row = FORMATS["implicit prompt, conversations"]
    with pytest.raises(ValueError, match=r"Row 0\b.*cannot be used"):
        make_trainer(tmp_path, rows=[{"prompt": "Who?", **row}])


def test_a_peft_model_with_frozen_heads_is_refused(tmp_path):
    from peft import LoraConfig, get_peft_model

    frozen = get_peft_model(build_gpm(embedding_dim=4), LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="heads of this PEFT model are frozen"):
        make_trainer(tmp_path, frozen)


def test_no_row_is_trained_that_could_not_be_scored(tmp_path, caplog):
    """Over the backbone's context of 256 tokens scoring refuses, whatever max_length says."""
    long = {"prompt": "Q?", "chosen": "word " * 300, "rejected": "no"}
    trainer = make_trainer(tmp_path, rows=[*ring_rows(1), long], max_length=None)
    assert "lowered to 256" in caplog.text and len(trainer.train_dataset) == 3


def test_a_pattern_of_excluded_modules_stays_a_pattern(tmp_path):
    from peft import LoraConfig

    lora = LoraConfig(target_modules="all-linear", exclude_modules=r".*layers\.0\..*")
    trainer = make_trainer(tmp_path, peft_config=lora)
    adapted = [name for name, _ in trainer.model.named_parameters() if "lora_A" in name]
    assert adapted and all("layers.1." in name for name in adapted)


def test_predict_takes_what_evaluate_takes(tmp_path):
    trainer = make_trainer(tmp_path)
    assert trainer.predict(Dataset.from_list(ring_rows(1))).predictions.shape == (3,)


def dominant_rows(questions=12):
    """Red beats green beats blue beats red, and gold beats them all."""
    wins = [("red", "green"), ("green", "blue"), ("blue", "red"), *(("gold", color) for color in COLORS)]
    return [
        {"prompt": f"Question {number}?", "chosen": f"The answer is {better}.", "rejected": f"The answer is {worse}."}
        for number in range(questions)
        for better, worse in wins
    ]


class TestRewardHead:
    """A dominant response together with a cycle: too much for one block, not for one block and a reward."""

    def test_one_block_fails_and_one_block_with_a_reward_learns(self, tmp_path):
        from gpm_hf import condorcet_winner, has_cycle, load_preference_model, load_tokenizer

        backbone = save_backbone(tmp_path / "backbone", seed=1)
        rows = dominant_rows()
        accuracy = {}
        for reward_head in (False, True):
            trainer = make_trainer(
                tmp_path / str(reward_head),
                backbone,
                rows,
                eval_rows=rows,
                embedding_dim=2,
                reward_head=reward_head,
                train_heads_only=True,
                max_steps=100,
                learning_rate=3e-2,
                per_device_train_batch_size=len(rows),
            )
            trainer.train()
            metrics = trainer.evaluate()
            assert metrics["eval_skew_error"] == 0
            accuracy[reward_head] = metrics["eval_accuracy"]
        # A block that has the whole cycle right lets a member of it win against gold: five of six pairs.
        assert accuracy[False] <= 5 / 6
        assert accuracy[True] > 0.97

        trainer.save_model()
        model, tokenizer = (load(str(tmp_path / "True")) for load in (load_preference_model, load_tokenizer))
        responses = [f"The answer is {color}." for color in (*COLORS, "gold")]
        scores = model.preference_scores(tokenizer, "Question 3?", responses)
        assert torch.equal(scores, trainer.gpm.preference_scores(tokenizer, "Question 3?", responses))
        assert condorcet_winner(scores) == 3 and has_cycle(scores) and scores[0, 1] > 0

    def test_it_is_an_option_of_the_configuration(self, tmp_path):
        backbone = save_backbone(tmp_path / "backbone")
        assert make_trainer(tmp_path, backbone).gpm.reward_head is None
        trainer = make_trainer(tmp_path, backbone, reward_head=True)
        assert trainer.gpm.config.reward_head and trainer.gpm.reward_head.weight.requires_grad
        with pytest.raises(ValueError, match=r"'reward_head': False.*'reward_head': True"):
            make_trainer(tmp_path, build_gpm(embedding_dim=4), reward_head=True)
        with pytest.raises(ValueError, match=r"embedding_dim=1 .*reward_head"):
            make_trainer(tmp_path, backbone, embedding_dim=1, reward_head=True)


class TestHeadInitialization:
    """The spectral start is for new heads on stored states, and never touches what was trained."""

    def head(self, folder, backbone, **options):
        options = {"embedding_dim": 2, "train_heads_only": True, **options}
        return make_trainer(folder, backbone, **options).gpm.embedding_head.weight.detach().clone()

    def test_a_new_head_starts_in_the_planes_of_the_data(self, tmp_path):
        backbone = save_backbone(tmp_path / "backbone")
        random = self.head(tmp_path, backbone, head_initialization="random")
        chosen = self.head(tmp_path, backbone)
        assert torch.equal(chosen, self.head(tmp_path, backbone, head_initialization="spectral"))
        assert not torch.allclose(chosen, random)
        swapped = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in ring_rows()]
        turned = self.head(tmp_path, backbone, rows=swapped)
        labels = self.head(tmp_path, backbone, rows=ring_rows(preference_probability=0.1))
        targets = self.head(tmp_path, backbone, rows=ring_rows(target_score=-2.0), loss_type="regression")

        def orientation(first, second):  # of the plane: +1 the same, -1 turned round
            return torch.sign(torch.linalg.det(first @ second.T)).item()

        assert orientation(chosen, turned) == orientation(chosen, labels) == orientation(chosen, targets) == -1

    def test_two_dimensions_learn_a_ring_that_a_random_start_does_not(self, tmp_path):
        backbone = save_backbone(tmp_path / "backbone")
        rows = ring_rows(12)
        accuracy = {}
        for start in ("spectral", "random"):
            options = {"embedding_dim": 2, "train_heads_only": True, "head_initialization": start}
            trainer = make_trainer(tmp_path, backbone, rows, eval_rows=rows, max_steps=1, **options)
            accuracy[start] = trainer.evaluate()["eval_accuracy"]
        assert accuracy["spectral"] > 0.95 > 0.75 > accuracy["random"]

    def test_trained_heads_stay(self, tmp_path):
        saved = build_gpm(embedding_dim=4)
        saved.save_pretrained(tmp_path / "saved")
        build_tokenizer().save_pretrained(tmp_path / "saved")
        for model in (str(tmp_path / "saved"), saved):
            head = self.head(tmp_path, model, embedding_dim=None)
            assert torch.equal(head, saved.embedding_head.weight)

    def test_errors(self, tmp_path):
        with pytest.raises(ValueError, match="needs train_heads_only"):
            config(tmp_path, head_initialization="spectral")
        with pytest.raises(ValueError, match='"random"'):
            config(tmp_path, head_initialization="zeros")
        with pytest.raises(ValueError, match="Bradley-Terry head has none"):
            self.head(tmp_path, build_gpm(embedding_dim=1), embedding_dim=1, head_initialization="spectral")
