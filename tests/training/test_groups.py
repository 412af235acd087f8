"""Groups have the losses, gradients and measurements of their pairs one by one."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gpm_hf.data.columns import dataset_of_rows
from gpm_hf.data.judged_groups import read_judged_group
from tests.conftest import build_gpm, build_tokenizer, save_backbone
from tests.training.test_reward_trainer import config

WORDS = ["red", "green", "blue", "red and blue", "green and red", "blue and green", "a city", "of gold"]
NAN = math.nan
MATRIX = [[0.5, 0.9, None, 0.4], [0.1, 0.5, 0.7, 0.5], [None, 0.3, 0.5, 0.2], [0.6, 0.5, 0.8, 0.5]]


def group(size, number=0, **statement):
    """A prompt and answers of different lengths, every answer of a group its own."""
    responses = [f"It is {WORDS[place]}" + ", I think" * (place % 3) + f" {number}." for place in range(size)]
    return {
        "prompt": f"Question {number}?" + " And why is that so?" * (number % 3),
        "responses": responses,
        **statement,
    }


RAGGED = [
    group(2, 0, preferences=[[1, 0]]),
    group(3, 1, ring=True),
    group(4, 2, ranking=[3, [0, 1], 2]),
    group(7, 3, ratings=[5, 3, 3, 1, 4, 2, None]),
]
CASES = {
    "ragged": RAGGED,
    "two": [group(2, 0, preferences=[[1, 0]]), group(2, 1, preferences=[[0, 1]])],
    "soft": [group(4, 0, preference_matrix=MATRIX), group(3, 1, preferences=[[0, 1, 0.7], [2, 0, 0.2]])],
    "contradicting": [
        group(3, 0, preferences=[[0, 1], [1, 0], [0, 1], [2, 1]]),
        group(2, 1, preferences=[[0, 1, 0.5]]),
    ],
}


def make_trainer(folder, model=None, rows=None, peft_config=None, eval_rows=None, **options):
    from gpm_hf import GPMRewardTrainer

    return GPMRewardTrainer(
        model=build_gpm(embedding_dim=4) if model is None else model,
        args=config(folder, **options),
        train_dataset=dataset_of_rows(RAGGED if rows is None else rows),
        eval_dataset=None if eval_rows is None else dataset_of_rows(eval_rows),
        processing_class=build_tokenizer(),
        peft_config=peft_config,
    )


def pairs_of(groups, rating_margin=0.0):
    """The same judgements as preference pairs."""
    rows = []
    for row in groups:
        for pair in read_judged_group(row, rating_margin).pairs:
            first, second = row["responses"][pair.first], row["responses"][pair.second]
            rows.append(
                {
                    "prompt": row["prompt"],
                    "chosen": first,
                    "rejected": second,
                    "preference_probability": pair.probability,
                    "margin": pair.margin,
                }
            )
            if pair.target_score is not None:
                rows[-1]["target_score"] = pair.target_score
    return rows


def as_given(rows):
    """The option by which groups stay groups and pairs stay pairs."""
    return {} if "responses" in rows[0] else {"group_pairs": False}


def loss_and_gradients(trainer):
    trainer.model.eval()  # no dropout, and no metrics of a training
    trainer.model.zero_grad()
    batch = trainer.data_collator([trainer.train_dataset[place] for place in range(len(trainer.train_dataset))])
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
    return loss.item(), gradients, batch


def assert_same(grouped, single, tolerance=2e-6):
    """But for the heads, which compute in float32."""
    assert grouped[0] == pytest.approx(single[0], rel=tolerance) and single[0] > 0
    assert grouped[1].keys() == single[1].keys() and len(single[1]) > 5
    for name, gradient in single[1].items():
        assert gradient.norm() > 0, name
        assert (grouped[1][name] - gradient).norm() <= tolerance * gradient.norm(), name


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("backbone", "packing"),
    [("llama", True), ("llama", False), ("gpt2", None)],
    ids=["packed", "separate", "gpt2"],
)
def test_a_batch_of_groups_has_the_gradient_of_its_pairs(tmp_path, double, case, backbone, packing):
    results = []
    for rows in (CASES[case], pairs_of(CASES[case])):
        model = build_gpm(backbone, embedding_dim=4)
        trainer = make_trainer(tmp_path, model, rows, packing=packing, **as_given(rows))
        results.append(loss_and_gradients(trainer))
    grouped, single, batch = results[0], results[1], results[0][2]
    assert_same(grouped, single)
    assert len(batch["pair_rows"]) == len(pairs_of(CASES[case]))
    sequences = sum(len(row["responses"]) for row in CASES[case])
    if packing:
        assert int((batch["response_lengths"] > 0).sum()) <= sequences and len(batch["input_ids"]) == len(CASES[case])
    else:
        assert len(batch["input_ids"]) <= sequences


def test_with_attention_that_cannot_share_prompts(tmp_path):
    """Gemma 2 attends eagerly, in float32 whatever its weights are."""
    results = []
    for rows in (RAGGED, pairs_of(RAGGED)):
        trainer = make_trainer(tmp_path, build_gpm("gemma2", embedding_dim=4), rows, **as_given(rows))
        results.append(loss_and_gradients(trainer))
    assert "response_lengths" not in results[0][2]
    assert_same(*results, tolerance=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"embedding_dim": 4, "scale_gate": False}, {"embedding_dim": 4, "reward_head": True}, {"embedding_dim": 1}],
    ids=["no gate", "reward head", "bt"],
)
@pytest.mark.parametrize("packing", [True, False])
def test_of_every_kind_of_heads(tmp_path, double, options, packing):
    results = []
    for rows in (RAGGED, pairs_of(RAGGED)):
        trainer = make_trainer(tmp_path, build_gpm(**options), rows, packing=packing, **as_given(rows))
        results.append(loss_and_gradients(trainer))
    assert_same(*results)


@pytest.mark.parametrize(
    "options",
    [
        {"embedding_dim": 4},
        {"embedding_dim": 4, "scale_gate": False},
        {"embedding_dim": 4, "reward_head": True},
        {"embedding_dim": 1},
    ],
    ids=["gate", "no gate", "reward head", "bt"],
)
def test_stored_states_of_every_kind_of_heads(tmp_path, double, options):
    """The prompts' states are kept for all of them, and read by those with a gate."""
    results = []
    for rows in (RAGGED, pairs_of(RAGGED)):
        trainer = make_trainer(
            tmp_path, build_gpm(**options), rows, train_heads_only=True, head_initialization="random"
        )
        results.append(loss_and_gradients(trainer)[:2])
    (loss, gradients), (expected, singles) = results
    assert loss == pytest.approx(expected, rel=2e-6) and loss > 0
    assert gradients.keys() == singles.keys() and len(singles) == len(build_gpm(**options).heads())
    for name, gradient in singles.items():
        assert gradient.norm() > 0
        assert (gradients[name] - gradient).norm() <= 2e-6 * gradient.norm(), name


@pytest.mark.parametrize("options", [{}, {"loss_type": "regression"}], ids=["cross entropy", "regression"])
def test_groups_start_in_the_planes_of_their_pairs(tmp_path, double, options):
    """Soft and contradicting labels, ties and margins of groups are weights of the same pairs one by one."""
    scores = [[0, 1.5, -2], [-1.5, 0, 0.5], [2, -0.5, 0]]
    rows = [*CASES["soft"], *CASES["contradicting"], RAGGED[3]]
    if options:
        rows = [group(3, 0, target_scores=scores), group(2, 1, target_scores=[[0, None], [-0.25, 0]])]
    heads = []
    for data in (rows, pairs_of(rows)):
        model = build_gpm(embedding_dim=4)
        before = model.embedding_head.weight.detach().clone()
        make_trainer(tmp_path, model, data, train_heads_only=True, head_initialization="spectral", **options)
        heads.append(model.embedding_head.weight.detach())
        assert (heads[-1] - before).norm() > 0.1 * before.norm()
    assert_same_planes(*heads)


def assert_same_planes(one, other):
    """A plane's two rows may be turned within it: what counts is the form u v^T - v u^T of each block."""
    for first, second in zip(one.double().split(2), other.double().split(2), strict=True):
        forms = [torch.outer(u, v) - torch.outer(v, u) for u, v in (first, second)]
        assert (forms[0] - forms[1]).norm() <= 1e-5 * forms[1].norm() and forms[1].norm() > 0


def test_margins_and_regression(tmp_path, double):
    rated = [group(4, 0, ratings=[1, 2, 4, 2.5]), group(3, 1, ratings=[3, 2, 1])]
    scores = [[0, 1.5, -2], [-1.5, 0, 0.5], [2, -0.5, 0]]
    targets = [group(3, 0, target_scores=scores), group(2, 1, target_scores=[[0, None], [0.25, 0]])]
    kinds = ((rated, 0.5, "cross_entropy"), (targets, 0.0, "regression"), (targets, 0.0, "cross_entropy"))
    for rows, margin, loss_type in kinds:
        results = []
        for data in (rows, pairs_of(rows, margin)):
            trainer = make_trainer(
                tmp_path,
                build_gpm(embedding_dim=4),
                data,
                loss_type=loss_type,
                rating_margin=margin,
                **as_given(data),
            )
            results.append(loss_and_gradients(trainer))
        assert_same(*results)


@pytest.mark.parametrize("how", ["lora", "gradient checkpointing", "plain", "heads"])
def test_weights_after_three_steps(tmp_path, double, how):
    from peft import LoraConfig

    results = []
    for rows in (RAGGED, pairs_of(RAGGED)):
        adapter = LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.0) if how == "lora" else None
        trainer = make_trainer(
            tmp_path,
            build_gpm(embedding_dim=4),
            rows,
            peft_config=adapter,
            **as_given(rows),
            packing=None if how == "heads" else True,
            max_steps=3,
            per_device_train_batch_size=len(rows),
            gradient_checkpointing=how == "gradient checkpointing",
            train_heads_only=how == "heads",
            optim="sgd",
            learning_rate=0.05,
            max_grad_norm=0.0,
        )
        before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
        trainer.train()
        results.append({name: p.detach() for name, p in trainer.model.named_parameters() if p.requires_grad})
        assert any((results[-1][name] - value).abs().max() > 1e-4 for name, value in before.items())
    assert results[0].keys() == results[1].keys()
    for name, value in results[1].items():
        assert (results[0][name] - value).norm() <= 2e-6 * value.norm(), name


def test_accumulated_groups_of_unequal_size_weigh_by_their_pairs(tmp_path, double):
    """Groups of 1, 3, 5 and 14 pairs, one in each micro-batch: the mean over all pairs, or of the prompts' means."""
    losses = {}
    for options in (
        {"per_device_train_batch_size": 4},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4},
        {"per_device_train_batch_size": 4, "pair_weight": "prompt"},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "pair_weight": "prompt"},
    ):
        trainer = make_trainer(
            tmp_path, build_gpm(embedding_dim=4), RAGGED, max_steps=1, optim="sgd", max_grad_norm=0.0, **options
        )
        start = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
        trainer.train()
        change = torch.cat([(p.detach() - start[name]).flatten() for name, p in trainer.model.named_parameters()])
        losses.setdefault(options.get("pair_weight", "pair"), []).append(
            (trainer.state.log_history[0]["loss"], change)
        )
    (one, gradient), (other, same) = losses["pair"]
    assert other == pytest.approx(one, rel=1e-6) and (same - gradient).norm() < 2e-6 * gradient.norm()
    (by_prompt, gradient), (other, same) = losses["prompt"]
    assert other == pytest.approx(by_prompt, rel=1e-6) and (same - gradient).norm() < 2e-6 * gradient.norm()
    means = []
    for row in RAGGED:
        model = build_gpm(embedding_dim=4)
        trainer = make_trainer(tmp_path, model, pairs_of([row]), group_pairs=False)
        means.append(loss_and_gradients(trainer)[0])
    counts = [len(pairs_of([row])) for row in RAGGED]
    assert counts == [1, 3, 5, 14]
    assert one == pytest.approx(sum(mean * count for mean, count in zip(means, counts)) / 23, rel=1e-5)
    assert by_prompt == pytest.approx(sum(means) / 4, rel=1e-5)
    assert abs(one - by_prompt) > 1e-3


def test_pairs_of_a_prompt_become_a_group(tmp_path, double, caplog):
    caplog.set_level("INFO", "gpm_hf")
    rows = pairs_of([RAGGED[3], RAGGED[1], RAGGED[3] | {"ratings": [1, 2, 3, 4, 5, 6, 7]}])
    trainer = make_trainer(tmp_path, build_gpm(embedding_dim=4), rows, per_device_train_batch_size=2)
    assert "38 train pairs become 2 groups with 10 distinct responses" in caplog.text
    assert trainer.group_counts == {"training groups": 2, "training pairs": 38, "distinct responses": 10}
    assert trainer.run_record().hyperparameters["training pairs"] == 38
    assert len(trainer.train_dataset) == 2 and len(trainer.train_dataset[0]["pairs"]) == 35
    assert [row["is_cyclic"] for row in trainer.train_dataset] == [False, True]
    single = make_trainer(tmp_path, build_gpm(embedding_dim=4), rows, group_pairs=False)
    assert_same(loss_and_gradients(trainer), loss_and_gradients(single))
    # Nothing to put together, or nothing gained.
    alone = [row | {"prompt": f"{number}?"} for number, row in enumerate(rows)]
    assert len(make_trainer(tmp_path, rows=alone).train_dataset) == len(alone)


@pytest.mark.parametrize("loss_type", ["cross_entropy", "regression"])
def test_groups_are_taken_apart_when_asked(tmp_path, caplog, loss_type):
    """Rows are those of the same pairs given one by one; a response over `max_length` takes its pairs with it."""
    caplog.set_level("INFO", "gpm_hf")
    rows = [*RAGGED, CASES["soft"][0]]
    unused = ["target_score"]
    if loss_type == "regression":
        scores = [[0, 1.5, -2], [-1.5, 0, 0.5], [2, -0.5, 0]]
        rows = [group(3, 0, target_scores=scores), group(2, 1, target_scores=[[0, None], [0.25, 0]])]
        unused = ["preference_probability", "margin"]
    rows[0] = rows[0] | {"responses": ["word " * 200, *rows[0]["responses"][1:]]}
    pairs = [pair for pair in pairs_of(rows) if "word word" not in pair["chosen"] + pair["rejected"]]
    options = {"loss_type": loss_type, "max_length": 120, "train_sampling_strategy": "group_by_length"}
    trainer = make_trainer(tmp_path, rows=rows, eval_rows=rows[1:], group_pairs=False, **options)
    assert f"groups become {len(pairs)} pairs" in caplog.text
    assert trainer._train_counts["rows_over_max_length"] == len(pairs_of(rows)) - len(pairs) > 0
    expected = make_trainer(tmp_path, rows=pairs, group_pairs=False, **options).train_dataset
    expected = expected.remove_columns([name for name in unused if name in expected.column_names])
    assert list(trainer.train_dataset) == list(expected) and len(expected) == len(pairs)
    assert trainer.group_counts == {} and "pairs" in trainer.eval_dataset.column_names


def test_a_prompt_of_many_pairs_is_several_groups_of_one_weight(tmp_path):
    rows = [{"prompt": "Name one.", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(20)]
    trainer = make_trainer(tmp_path, rows=rows, pair_weight="prompt")
    sizes = [len(row["sequence_ids"]) for row in trainer.train_dataset]
    assert sizes == [16, 16, 8] and {row["pair_weight"] for row in trainer.train_dataset} == {1 / 20}


def test_evaluation_counts_pairs_groups_and_cycles(tmp_path):
    rows = [*RAGGED, group(3, 5, ratings=[1, 1, 2]), group(3, 6, preferences=[[0, 1, 0.5]])]
    trainer = make_trainer(
        tmp_path, build_gpm(embedding_dim=4, seed=3), rows, eval_rows=rows, per_device_eval_batch_size=4
    )
    metrics = trainer.evaluate()
    singles = pairs_of(rows)
    found = trainer.predict(dataset_of_rows(rows)).predictions
    expected = trainer.predict(dataset_of_rows(singles)).predictions
    assert found.shape == (len(singles),) and found == pytest.approx(expected, abs=1e-4)
    right, place, whole, cycles = [], 0, [], []
    for row in rows:
        pairs = read_judged_group(row).pairs
        own = [found[place + n] > 0 for n, pair in enumerate(pairs) if pair.probability != 0.5]
        place += len(pairs)
        right += own
        if own:
            whole.append(all(own))
            if row.get("ring"):
                cycles.append(all(own))
    assert metrics["eval_accuracy"] == pytest.approx(sum(right) / len(right))
    assert metrics["eval_groups_right"] == pytest.approx(sum(whole) / len(whole)) and len(whole) == 5
    assert metrics["eval_cycles_right"] == pytest.approx(sum(cycles) / len(cycles)) and len(cycles) == 1
    labels = torch.tensor([row["preference_probability"] for row in singles])
    log_odds = torch.tensor(found)
    by_hand = -(labels * log_odds.sigmoid().log() + (1 - labels) * (-log_odds).sigmoid().log())
    assert metrics["eval_loss"] == pytest.approx(by_hand.mean().item(), rel=1e-4)
    assert metrics["eval_undecided_labels"] == 1 and metrics["eval_skew_error"] == 0


def test_long_responses_are_left_out_with_their_pairs(tmp_path, caplog):
    long = group(3, 0, ranking=[0, 1, 2])
    long["responses"][1] += " I think" * 200
    trainer = make_trainer(tmp_path, rows=[long, group(2, 1, ratings=[1, 1]), RAGGED[1]], max_length=128)
    assert "2 pairs of the train data have a response of more than max_length=128" in caplog.text
    assert "1 of 3 train groups have no pair" in caplog.text
    assert [row["pairs"] for row in trainer.train_dataset] == [[[0, 1]], [[0, 1], [1, 2], [2, 0]]]


@pytest.mark.parametrize("packing", [True, False])
def test_batches_and_parts_of_at_most_so_many_tokens(tmp_path, double, packing):
    groups = [group(7, number, ranking=list(range(7))) for number in range(4)] + RAGGED
    options = {"packing": packing, "per_device_train_batch_size": 3}
    whole = make_trainer(tmp_path, build_gpm(embedding_dim=4), groups, **options)
    bound = max(whole.data_collator.tokens_of([whole.data_collator.shape_of(row)]) for row in whole.train_dataset) // 2
    trainer = make_trainer(tmp_path, build_gpm(embedding_dim=4), groups, max_tokens_per_batch=bound, **options)
    assert len(trainer.train_dataset) > len(groups)
    batches = list(trainer.get_train_dataloader())
    assert sum(len(batch["pair_rows"]) for batch in batches) == 4 * 21 + 23
    for batch in batches:
        tokens = batch["attention_mask"].sum() if packing else batch["attention_mask"].numel()
        pairs_alone = len(batch["pair_counts"]) == 1 and len(batch["pair_rows"]) == 1
        assert (tokens <= bound or pairs_alone) and len(batch["pair_counts"]) <= 3
    assert_same(loss_and_gradients(trainer), loss_and_gradients(whole))
    assert trainer.train().global_step == 2


@pytest.mark.parametrize("most_tokens", [None, 120])
def test_a_resumed_training_ends_as_one_in_one_go(tmp_path, double, most_tokens):
    """Killed in the middle of the second epoch."""
    options = {
        "per_device_train_batch_size": 1,
        "max_tokens_per_batch": most_tokens,
        "max_steps": 9,
        "save_strategy": "steps",
        "save_steps": 7,
    }
    whole = make_trainer(tmp_path / "a", build_gpm(embedding_dim=4), **options)
    whole.train()
    assert 1 < len(whole.get_train_dataloader()) < 7
    again = make_trainer(tmp_path / "b", build_gpm(embedding_dim=4, seed=5), **options)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-7"))
    for (name, one), (_, other) in zip(whole.model.named_parameters(), again.model.named_parameters(), strict=True):
        assert torch.equal(one, other), name
    losses = [[entry["loss"] for entry in t.state.log_history if "loss" in entry] for t in (whole, again)]
    assert losses[0] == losses[1]


def test_groups_in_a_stream(tmp_path):
    from gpm_hf import GPMRewardTrainer

    stream = dataset_of_rows(RAGGED).to_iterable_dataset()
    trainer = GPMRewardTrainer(
        build_gpm(embedding_dim=4), config(tmp_path), train_dataset=stream, processing_class=build_tokenizer()
    )
    trainer.train()
    assert trainer.state.log_history[-1]["step"] == 2
    single = GPMRewardTrainer(
        build_gpm(embedding_dim=4),
        config(tmp_path, group_pairs=False),
        train_dataset=stream,
        processing_class=build_tokenizer(),
    )
    expected = make_trainer(tmp_path, rows=pairs_of(RAGGED), group_pairs=False)
    assert [row["chosen_ids"] for row in single.train_dataset] == expected.train_dataset["chosen_ids"][:]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([RAGGED[0], group(3, 1)], {}, r"Row 1, with the prompt 'Question 1\?.*nothing that says who beats whom"),
        ([group(3, 0, ranking=[0, 1, 5])], {}, "Row 0.*`ranking` names response 5"),
        ([group(3, 0, ranking=[0, 1, 2])], {"loss_type": "regression"}, "needs `target_scores`"),
        ([group(2, 0, ratings=[1, 1])], {}, "No group of the train data set has a pair"),
        ([RAGGED[0] | {"margin": 1.0}], {}, r"groups of `responses` and the columns \['margin'\]"),
        ([RAGGED[0] | {"responses": ["", "x"]}], {}, "Row 0"),
    ],
)
def test_bad_groups_are_refused_with_their_number(tmp_path, rows, options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, rows=rows, **options)


def test_options_that_contradict(tmp_path):
    for options, message in (
        ({"pair_weight": "token"}, "pair_weight='token' is unknown"),
        ({"pair_weight": "prompt", "group_pairs": False}, "weighs groups"),
        ({"max_tokens_per_batch": 0}, "at least 1"),
        ({"max_tokens_per_batch": 100, "train_heads_only": True}, "no tokens are passed"),
        ({"max_tokens_per_batch": 100, "train_sampling_strategy": "group_by_length"}, "keep one of them"),
    ):
        with pytest.raises(ValueError, match=message):
            config(tmp_path, **options)


@pytest.mark.slow
def test_the_benchmark_on_groups_of_a_file(tmp_path):
    """Every prompt is held out once for each seed; the control's numbers by hand."""
    rows = [group(3, number, ranking=[0, 1, 2]) for number in range(6)]
    rows += [group(3, number, preferences=[[0, 1, 0.2], [0, 2, 0.5]]) for number in range(6, 8)]
    data, report = tmp_path / "groups.jsonl", tmp_path / "report.json"
    data.write_text("\n".join(map(json.dumps, rows)))
    root = Path(__file__).parents[2]
    command = [sys.executable, "benchmarks/group_data.py", str(data), "--model", save_backbone(tmp_path / "backbone")]
    command += ["--seeds", "0", "1", "--epochs", "1", "--output", str(report)]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "8 prompts, 20 pairs with a side; seeds [0, 1]." in finished.stdout
    # Each response is longer than the one before: the longer loses all 18 pairs of the rankings, and wins both votes.
    lines = json.loads(report.read_text())["rows"]
    assert lines[0][3].startswith("10.0% (")
    assert [line[:2] for line in lines[1:]] == [
        [model, way] for model in ("general preference model", "Bradley-Terry") for way in ("groups", "pairs")
    ]
    for line in lines[1:]:  # of 40 pairs in all
        right = float(line[3].split("%")[0]) * 0.4
        assert 0 <= right <= 40 and right == pytest.approx(round(right), abs=0.02)
