"""What stands in a file is what is trained and scored: every form of file, on every road, or one sentence."""

import csv
import datetime
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from gpm_hf.data.columns import check_text_columns
from gpm_hf.data.groups import as_group
from gpm_hf.data.pair_files import read_pairs
from gpm_hf.data.preference import encode_preference
from gpm_hf.data.raw_rows import read_sure_rows
from gpm_hf.data.splits import load_preference_dataset
from gpm_hf.modeling import encode_group
from tests.conftest import build_tokenizer

PAIRS = {
    "dates": [("1969-07-20", "1969-07-16"), ("1989-11-09", "1989-11-09 00:00:00")],
    "leading zeros": [("007", "7"), ("0", "00")],
    "decimals": [("3.10", "3.1"), ("1e3", "1000.0")],
    "booleans": [("True", "true"), ("no", "No")],
    "missing values": [("None", "N/A"), ("nan", "null"), ("NA", "NULL")],
    "line ends": [("a\u2028b", "a\u2029b"), ("a\u0085b", "a\x0bb")],
    "quotation marks": [('"Yes," she said.', "Yes, she said."), ("a\nb", "a\tb")],
    "brackets": [("[1]", '{"a": 1}'), ("[", '"x"')],
}
JSON_FORMS = ("jsonl", "blocks.jsonl", "list.json", "lines.json", "jsonl.gz", "bom.jsonl")
TABLE_FORMS = ("csv", "tsv", "csv.gz", "tsv.gz", "bom.csv")
FORMS = (*JSON_FORMS, *TABLE_FORMS, "parquet")
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def as_rows(pairs, chat=False):
    rows = [{"prompt": f"Question {number}?", "chosen": a, "rejected": b} for number, (a, b) in enumerate(pairs)]
    if not chat:
        return rows
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return [{name: [{"role": roles[name], "content": text}] for name, text in row.items()} for row in rows]


def write(path, rows):
    """The rows in the form that the file's name says; `datasets` reads JSON Lines in blocks of ten mebibytes."""
    name = path.name
    opened = gzip.open if name.endswith(".gz") else open
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif ".csv" in name or ".tsv" in name:
        with opened(path, "wt", encoding="utf-8-sig" if "bom" in name else "utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if ".tsv" in name else ",")
            writer.writeheader()
            writer.writerows(rows)
    elif "list" in name:
        path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    else:
        if "blocks" in name:
            rows = [row | {"filler": "x" * (11 * MEBIBYTE)} for row in rows]
        with opened(path, "wt", encoding="utf-8-sig" if "bom" in name else "utf-8", newline="") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return str(path)


def train(name, tokenizer):
    for row in load_preference_dataset(name)["train"]:
        encoded = encode_preference(row, tokenizer)
        yield [encoded["chosen_ids"], encoded["rejected_ids"]]


def stream(name, tokenizer):
    for row in load_preference_dataset(name, streaming=True)["train"]:
        encoded = encode_preference(row, tokenizer)
        yield [encoded["chosen_ids"], encoded["rejected_ids"]]


def score(name, tokenizer):
    for place, row in read_sure_rows(name, "train"):
        group = as_group(row, place)
        yield encode_group(tokenizer, group["prompt"], group["responses"]).sequences


def evaluate(name, tokenizer):
    for row in read_pairs(name)[0]:
        yield encode_group(tokenizer, row["prompt"], [row["chosen"], row["rejected"]]).sequences


ROADS = (train, stream, score, evaluate)


# Each content has a file of its own: what a column is guessed to be depends on all that stands in it.
CASES = [(content, form, False) for content in PAIRS for form in FORMS if form != "blocks.jsonl"]
CASES += [(content, "jsonl", True) for content in PAIRS]
CASES += [("dates", "blocks.jsonl", False), ("dates", "parquet", True)]


@pytest.mark.parametrize(("content", "form", "chat"), CASES)
def test_the_characters_of_the_file_on_every_road(tmp_path, tokenizer, content, form, chat):
    # A text among dates in the third block made texts of them all, with another form of the date in each block.
    pairs = [*PAIRS[content], ("Nobody knows.", "1969-07-20")] if form == "blocks.jsonl" else PAIRS[content]
    rows = as_rows(pairs, chat)
    expected = [encode_group(tokenizer, row["prompt"], [row["chosen"], row["rejected"]]).sequences for row in rows]
    name = write(tmp_path / f"rows.{form}", rows)
    for road in ROADS:
        assert list(road(name, tokenizer)) == expected, road.__name__


NO_TEXT = {
    "numbers": (7, "row 1.*number 7|line 1.*number 7|neither a string"),
    "truth values": (True, "row 1.*truth|line 1.*truth|neither a string"),
    "nothing": (None, "missing|NoneType|no `chosen`"),
    "an empty answer": ("", "is empty|empty `chosen`"),
}


@pytest.mark.parametrize("form", [form for form in FORMS if "blocks" not in form])
@pytest.mark.parametrize("content", NO_TEXT)
def test_what_is_no_text_is_one_sentence_on_every_road(tmp_path, tokenizer, content, form):
    value, message = NO_TEXT[content]
    if form in TABLE_FORMS and value not in ("", None):
        value = {7: "007", True: "True"}[value]  # a cell has no type: it is text
        message = None
    row = {"prompt": "Question?", "chosen": value, "rejected": "No."}
    name = write(tmp_path / f"rows.{form}", [row])
    for road in ROADS:
        if message is None:
            expected = encode_group(tokenizer, "Question?", [value, "No."]).sequences
            assert list(road(name, tokenizer)) == [expected], road.__name__
        else:
            if form in TABLE_FORMS:
                message = NO_TEXT["an empty answer"][1]
            with pytest.raises(ValueError, match=message):
                list(road(name, tokenizer))


@pytest.mark.parametrize("value", [datetime.date(1969, 7, 20), datetime.datetime(1969, 7, 20), 1969, 0.5, True])
@pytest.mark.parametrize("chat", [False, True], ids=["text", "chat"])
def test_a_typed_column_that_is_no_text_is_refused_with_its_row(tmp_path, tokenizer, value, chat):
    wrap = (lambda found: [{"role": "assistant", "content": found}]) if chat else (lambda found: found)
    rows = [{"prompt": "Q?", "chosen": wrap(None), "rejected": wrap("No.")} for _ in range(2)]
    rows[1]["chosen"] = wrap(value)
    name = write(tmp_path / "rows.parquet", rows)
    for road in (train, stream, score):
        with pytest.raises(ValueError, match=r"rows\.parquet, row 2: `chosen` .*where text belongs"):
            list(road(name, tokenizer))
    for typed in (Dataset.from_list(rows), Dataset.from_list(rows).to_iterable_dataset()):
        with pytest.raises(ValueError, match=r"the train data set, row 2: `chosen` .*where text belongs"):
            check_text_columns(typed, "the train data set")
