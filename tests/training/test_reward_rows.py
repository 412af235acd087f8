"""Rows of GPMRewardTrainer: what is wrong with one is said with its number before the first step."""

from decimal import Decimal

import pytest
from datasets import Dataset, IterableDataset

from tests.conftest import build_gpm, build_tokenizer
from tests.training.test_reward_trainer import batch_of, config, make_trainer, ring_rows


def spoiled(number=17, **values):
    """Forty rows, of which one has other values than the rest."""
    rows = ring_rows(14)[:40]
    rows = [dict.fromkeys(values, 0.5) | row for row in rows]
    rows[number] = rows[number] | values
    return rows


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("preference_probability", None, "`preference_probability` is None: a label must be a finite number"),
        ("preference_probability", 1.5, "`preference_probability` is 1.5: a probability lies between 0 and 1"),
        ("preference_probability", -0.01, "between 0 and 1"),
        ("margin", float("nan"), "`margin` is nan: a label must be a finite number"),
        ("margin", float("inf"), "`margin` is inf"),
        ("margin", 1e39, "`margin` is 1e\\+39"),  # infinite in float32
        ("chosen", " ", "empty"),
    ],
)
def test_a_bad_row_is_named_before_the_training(tmp_path, name, value, sentence, streaming):
    from gpm_hf import GPMRewardTrainer

    data = Dataset.from_list(spoiled(**{name: value}))
    with pytest.raises(ValueError, match=rf"Row 17\b.*{sentence}") as caught:
        trainer = GPMRewardTrainer(
            build_gpm(embedding_dim=4),
            config(tmp_path, max_steps=5),
            train_dataset=data.to_iterable_dataset() if streaming else data,
            processing_class=build_tokenizer(),
        )
        assert streaming  # whose rows are read when they are trained on
        trainer.train()
    assert "\n" not in str(caught.value)


def test_labels_of_other_types(tmp_path):
    """Numbers as text, as CSV files and spreadsheets give them, and exact decimals."""
    plain = make_trainer(tmp_path, rows=[row | {"margin": 0.25 * n} for n, row in enumerate(ring_rows(1))])
    for convert in (str, Decimal, lambda value: f" {value}\n"):
        rows = [row | {"margin": convert(0.25 * n)} for n, row in enumerate(ring_rows(1))]
        trainer = make_trainer(tmp_path, plain.model, rows)
        assert trainer.train_dataset["margin"][:] == [0.0, 0.25, 0.5]
        assert trainer.compute_loss(plain.model, batch_of(trainer, 3)) == plain.compute_loss(
            plain.model, batch_of(plain, 3)
        )
    for value, shown in (("high", "'high'"), ("", "''"), ([0.5], r"\[0.5\]"), (True, "True")):
        rows = [row | {"margin": value} for row in ring_rows(1)]
        with pytest.raises(ValueError, match=f"Row 0: `margin` is {shown}: a label must be a finite number"):
            make_trainer(tmp_path, rows=rows)


def tokenised(rows=4, **other):
    return [
        {"prompt_ids": [5, 6], "chosen_ids": [5, 6, 7 + n], "rejected_ids": [5, 6, 9 + n, 8], **other}
        for n in range(rows)
    ]


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        ([5, 6, 400], "`rejected_ids` holds the token id 400, and the model has embeddings for 0 to 399"),
        ([5, -1], "the token id -1"),
        ([], "it must be a list of token ids"),
        (None, "it must be a list of token ids"),
    ],
)
def test_token_ids_are_checked(tmp_path, ids, sentence):
    rows = tokenised()
    rows[2] = rows[2] | {"rejected_ids": ids}
    with pytest.raises(ValueError, match=f"Row 2: .*{sentence}"):
        make_trainer(tmp_path, rows=rows)


def test_ids_that_are_no_integers(tmp_path):
    with pytest.raises(ValueError, match=r"Row 0: `chosen_ids` is \[5.5, 6.0\]: it must be a list of token ids"):
        make_trainer(tmp_path, rows=tokenised(chosen_ids=[5.5, 6.0]))


def test_trls_earlier_columns_are_read(tmp_path):
    rows = tokenised()
    renamed = [{name.replace("_ids", "_input_ids"): ids for name, ids in row.items()} for row in rows]
    expected, trainer = make_trainer(tmp_path, rows=rows), make_trainer(tmp_path, rows=renamed)
    assert trainer.train_dataset[:] == expected.train_dataset[:]
    assert trainer.train_dataset[1]["chosen_ids"] == [5, 6, 8]
    with pytest.raises(ValueError, match="no `prompt_ids`"):
        make_trainer(tmp_path, rows=[{name: row[name] for name in list(row)[1:]} for row in renamed])


@pytest.mark.parametrize("strategy", ["group_by_length", "batch_rebalance"])
@pytest.mark.parametrize("heads_only", [False, True])
def test_rows_are_grouped_by_length(tmp_path, strategy, heads_only):
    rows = [row | {"chosen": "word " * (1 + 7 * n % 24)} for n, row in enumerate(ring_rows())]
    trainer = make_trainer(
        tmp_path,
        rows=rows,
        eval_rows=rows,
        per_device_train_batch_size=4,
        num_train_epochs=1,
        max_steps=-1,
        train_sampling_strategy=strategy,
        train_heads_only=heads_only,
        packing=None if heads_only else False,
    )
    widths = []
    inner = trainer.compute_loss

    def compute_loss(model, inputs, *rest, **options):
        if not heads_only and model.training:
            widths.append(inputs["attention_mask"].sum(-1).view(-1, 2).max(1).values.tolist())
        return inner(model, inputs, *rest, **options)

    trainer.compute_loss = compute_loss
    trainer.train()
    assert trainer.evaluate()["eval_accuracy"] >= 0
    if strategy == "group_by_length" and not heads_only:
        assert sorted(map(len, widths)) == [4] * 6
        # The sampler sorts each batch by falling length; it puts the longest pair of all first.
        assert widths[0][0] == max(max(batch) for batch in widths)
        assert all(batch[1:] == sorted(batch[1:], reverse=True) for batch in widths)


def test_an_empty_data_set_is_named(tmp_path):
    from gpm_hf import GPMRewardTrainer

    empty = Dataset.from_dict({"prompt": [], "chosen": [], "rejected": []})
    arguments = {"args": config(tmp_path), "processing_class": build_tokenizer()}
    for data in (empty, Dataset.from_list([]), IterableDataset.from_generator(lambda: iter([]))):
        with pytest.raises(ValueError, match="The train data set is empty"):
            GPMRewardTrainer(build_gpm(embedding_dim=4), train_dataset=data, **arguments)


@pytest.mark.parametrize("form", ["torch", "numpy"])
def test_data_sets_that_give_tensors(tmp_path, form):
    from gpm_hf import GPMRewardTrainer

    for rows in (tokenised(margin=0.5), ring_rows(2, margin=0.5)):
        expected = make_trainer(tmp_path, rows=rows)
        trainer = GPMRewardTrainer(
            expected.model,
            config(tmp_path),
            train_dataset=Dataset.from_list(rows).with_format(form),
            processing_class=build_tokenizer(),
        )
        assert trainer.train_dataset[:] == expected.train_dataset[:]
