"""Benchmarks of pairs from files, and what becomes of rows that cannot be evaluated."""

import json

import pytest
from datasets import Dataset, DatasetDict

from gpm_hf.data.pair_files import follow_labels, read_pairs, token_counter
from tests.conftest import build_tokenizer

GOOD = {"id": 7, "prompt": "p", "chosen": "good", "rejected": "bad", "subset": "hep-go"}


def write(path, *rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return str(path)


@pytest.mark.parametrize("ending", ["jsonl", "json", "list.json", "parquet"])
def test_rewardbench_rows(tmp_path, ending):
    name = tmp_path / f"rows.{ending}"
    if ending == "parquet":
        Dataset.from_list([GOOD, {**GOOD, "id": 8}]).to_parquet(str(name))
    elif ending == "list.json":
        name.write_text(json.dumps([GOOD, {**GOOD, "id": 8}], indent=1))
    else:
        write(name, GOOD, {**GOOD, "id": 8})
    rows, report = read_pairs(str(name))
    assert rows == [{**GOOD, "id": "7"}, {**GOOD, "id": "8"}]
    assert (report.rows, report.kept, report.skipped) == (2, 2, {})


def test_chat_messages_and_rows_without_id_or_subset(tmp_path):
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    answer = [{"role": "assistant", "content": "a"}]
    rows, _ = read_pairs(write(tmp_path / "x.jsonl", {"prompt": prompt, "chosen": answer, "rejected": "b"}))
    assert rows == [{"id": "row 1", "prompt": prompt, "chosen": answer, "rejected": "b", "subset": "pairs"}]


def test_rm_bench_rows_become_nine_pairs(tmp_path):
    row = {"id": "q", "prompt": "p", "chosen": ["a", "b", "c"], "rejected": ["x", "y", "z"], "domain": "math"}
    rows, report = read_pairs(write(tmp_path / "x.jsonl", row))
    found = [(one["chosen"] + one["rejected"], one["difficulty"]) for one in rows]
    assert found == [
        ("ax", "normal"),
        ("ay", "hard"),
        ("az", "hard"),
        ("bx", "easy"),
        ("by", "normal"),
        ("bz", "hard"),
        ("cx", "easy"),
        ("cy", "easy"),
        ("cz", "normal"),
    ]
    assert {(one["subset"], one["group"]) for one in rows} == {("math", "row 1 (id q)")}
    assert rows[1]["id"] == "q/0-1"
    assert (report.rows, report.kept) == (1, 1)


def test_judge_bench_rows(tmp_path):
    row = {"pair_id": "j", "source": "mmlu", "question": "q", "response_A": "a", "response_B": "b"}
    name = write(tmp_path / "x.jsonl", {**row, "label": "A>B"}, {**row, "label": "B>A"}, {**row, "label": "A=B"})
    rows, report = read_pairs(name)
    assert rows == [
        {"id": "j", "prompt": "q", "chosen": "a", "rejected": "b", "subset": "mmlu"},
        {"id": "j", "prompt": "q", "chosen": "b", "rejected": "a", "subset": "mmlu"},
    ]
    assert report.skipped == {"the label 'A=B' is neither 'A>B' nor 'B>A'": ["row 3 (id j)"]}


BAD = [
    ({key: value for key, value in GOOD.items() if key != "prompt"}, "no `prompt`"),
    ({key: value for key, value in GOOD.items() if key != "rejected"}, "no `rejected`"),
    ({**GOOD, "rejected": "good"}, "identical responses"),
    ({**GOOD, "chosen": " \n"}, "empty `chosen`"),
    ({**GOOD, "prompt": ""}, "empty `prompt`"),
    ({**GOOD, "chosen": 3}, "`chosen` is neither a string nor chat messages"),
    ({**GOOD, "chosen": ["a", "b"], "rejected": ["c", "d"]}, "not 3 styles each in `chosen` and `rejected`"),
    ({**GOOD, "chosen": ["a", "b", "c"], "rejected": ["d", "e", ""]}, "empty `rejected`"),
    ({**GOOD, "chosen": ["a", "b", "c"], "rejected": ["c", "d", "e"]}, "identical responses"),
    ({**GOOD, "chosen": ["a"], "rejected": ["b", "c", "d"], "num_correct": 1}, "a best-of-n row: evaluate it as"),
    ("{not json", "not JSON"),
    ("[1, 2]", "not a JSON object"),
    ({"question": "q", "response_A": "a", "label": "A>B"}, "no `response_B`"),
]


@pytest.mark.parametrize(("row", "reason"), BAD)
def test_a_row_that_cannot_be_evaluated_is_counted_and_named(tmp_path, row, reason):
    name = write(tmp_path / "x.jsonl", GOOD, row)
    rows, report = read_pairs(name)
    assert len(rows) == 1 and (report.rows, report.kept) == (2, 1)
    ((found, names),) = report.skipped.items()
    assert found.startswith(reason) and names[0].startswith("row 2")
    assert "1 of 2 rows" in str(report) and f"({found}): row 2" in str(report)


def test_nothing_left_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"Nothing is left.*0 of 2 rows[\s\S]*identical responses"):
        read_pairs(write(tmp_path / "x.jsonl", {**GOOD, "chosen": "bad"}, {**GOOD, "chosen": ""}))
    with pytest.raises(ValueError, match="Nothing is left"):
        read_pairs(write(tmp_path / "empty.jsonl"))
    with pytest.raises(FileNotFoundError, match="no data file"):
        read_pairs(str(tmp_path / "missing.jsonl"))


def test_rows_over_the_models_context_are_left_out(tmp_path):
    tokenizer = build_tokenizer()
    count = token_counter(tokenizer)
    messages = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "good"}]
    assert count("p", "good") == len(tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"])
    name = write(tmp_path / "x.jsonl", GOOD, {**GOOD, "id": "long", "prompt": "word " * 100_000})
    rows, report = read_pairs(name, count_tokens=count, max_tokens=256)
    assert [row["id"] for row in rows] == ["7"]
    assert report.skipped == {"more than 256 tokens": ["row 2 (id long)"]}
    with pytest.raises(ValueError, match="given together"):
        read_pairs(name, max_tokens=256)


def test_the_split_that_is_the_benchmark(monkeypatch):
    def load(name, config):
        return DatasetDict({"raw": Dataset.from_list([GOOD, GOOD]), "filtered": Dataset.from_list([GOOD])})

    monkeypatch.setattr("gpm_hf.data.raw_rows.load_splits", load)
    assert read_pairs("allenai/reward-bench")[1].rows == 1
    assert read_pairs("allenai/reward-bench", split="raw")[1].rows == 2
    with pytest.raises(ValueError, match=r"x/y has the splits \['raw', 'filtered'\]: name one"):
        read_pairs("x/y")


def test_the_benchmarks_own_rows(shared):
    rows, report = read_pairs(str(shared / "data" / "rb_llmbar.jsonl"))
    assert (len(rows), report.kept, report.skipped) == (419, 419, {})
    rows, _ = read_pairs(str(shared / "data" / "rb_hep.jsonl"))
    assert len(rows) == 984


def test_groups_are_their_pairs_and_pairs_follow_their_labels(tmp_path):
    ranked = {"prompt": "p", "responses": ["best", "last", "second", "third"], "ranking": [0, 2, [3], 1], "id": "r"}
    soft = {"prompt": "q", "responses": ["x", "y", "x"], "preferences": [[0, 1, 0.25], [0, 2], [1, 2, 0.5]]}
    rated = {
        "instruction": "u",
        "completions": [
            {"response": text, "annotations": {"honesty": {"Rating": rating}}}
            for text, rating in (("low", "2"), ("high", "5"), ("unrated", "N/A"))
        ],
    }
    says_nothing = {"prompt": "p", "responses": ["a", "b"]}
    rows, report = read_pairs(write(tmp_path / "groups.jsonl", ranked, soft, rated, says_nothing))
    assert (report.rows, report.kept) == (4, 3) and "nothing that says who beats whom" in str(report)
    order = ["best", "second", "third", "last"]
    by_hand = {(better, worse) for place, better in enumerate(order) for worse in order[place + 1 :]}
    first = [row for row in rows if row["prompt"] == "p"]
    assert {(row["chosen"], row["rejected"]) for row in first} == by_hand and len(first) == 6
    assert len({row["group"] for row in first}) == 1 and len({row["id"] for row in first}) == 6
    # "x" is there twice, and no judgement of it against itself is one.
    assert [(row["chosen"], row["rejected"]) for row in rows if row["prompt"] == "q"] == [("x", "y"), ("y", "x")]
    assert [(row["chosen"], row["rejected"]) for row in rows if row["prompt"] == "u"] == [("high", "low")]
    sided, ties = follow_labels(rows)
    assert ties == 1 and len(sided) == 8
    assert [(row["chosen"], row["preference_probability"]) for row in sided if row["prompt"] == "q"] == [("y", 0.75)]
