"""What `gpm-hf score`, `rank`, `inspect` and `eval cyclic` read: names, rows, columns."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset

from gpm_hf.files import json_text
from gpm_hf.shards import map_in_shards
from tests.cli.conftest import PROMPT, RESPONSES, ask
from tests.conftest import build_gpm, build_tokenizer

NAMES = ["model-c", "model-a", "model-b"]
NAMED = {"prompt": PROMPT, "responses": dict(zip(NAMES, RESPONSES))}


@pytest.fixture(scope="module")
def expected():
    return build_gpm(embedding_dim=4).preference_scores(build_tokenizer(), PROMPT, RESPONSES)


def write(path, *rows):
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def test_responses_by_name_are_scored_and_keep_their_names(capsys, folder, expected, tmp_path):
    rows, table = write(tmp_path / "in.jsonl", NAMED), tmp_path / "in.parquet"
    # A table has the names of all rows in each.
    Dataset.from_list([{**NAMED, "responses": NAMED["responses"] | {"model-d": None}}]).to_parquet(str(table))
    for command in ("score", "rank", "inspect"):
        for given in (rows, table):
            output = tmp_path / f"{command}-{given.name}.jsonl"
            arguments = ["--input", given, "--output", output, *(["--chunk-size", 7] if command != "inspect" else [])]
            assert ask(capsys, command, folder, *arguments)[0] == 0
            (written,) = [json.loads(line) for line in output.read_text().split("\n") if line]
            assert (written["names"], written["responses"]) == (NAMES, RESPONSES)
            if command != "rank":
                assert torch.allclose(torch.tensor(written["scores"]), expected, atol=1e-5)
            else:
                assert torch.allclose(torch.tensor(written["mean_scores"]), expected.mean(-1), atol=1e-5)
        _, out, _ = ask(capsys, command, folder, "--input", rows)
        assert all(f"{name}: {text}" in out for name, text in NAMED["responses"].items())
        _, out, _ = ask(capsys, command, folder, "--input", rows, "--format", "json")
        assert json.loads(out)["names"] == NAMES


def test_a_ring_by_name_is_evaluated_by_its_texts(capsys, folder, tmp_path):
    found = []
    for number, responses in enumerate((RESPONSES, NAMED["responses"])):
        path = write(tmp_path / f"{number}.jsonl", {"prompt": PROMPT, "responses": responses, "ring": True})
        _, out, _ = ask(capsys, "eval", "cyclic", folder, "--dataset", path, "--format", "json")
        found.append(json.loads(out))
    assert found[0] == found[1] and found[0]["pairs"] == 3


def test_judgements_of_responses_by_name(capsys, tmp_path):
    ring = [{"a": NAMES[i], "b": NAMES[(i + 1) % 3], "ab": 1, "ba": 1} for i in range(3)]
    source = write(tmp_path / "in.jsonl", NAMED | {"judgments": {"ann": ring}})
    assert ask(capsys, "build-cyclic", source, tmp_path / "out.jsonl", "--judge", "ann")[0] == 0
    (row,) = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().split("\n") if line]
    texts = NAMED["responses"]
    assert sorted(row["models"]) == sorted(NAMES) and row["responses"] == [texts[name] for name in row["models"]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "responses": "text"}, "line 2: `responses` is one string"),
        ({"prompt": "p", "responses": None}, "line 2: `responses` is missing"),
        ({"prompt": "p", "responses": ["a", None]}, "line 2: response 1 is missing"),
        ({"prompt": "p", "responses": {"a": "x", "b": None}}, "line 2: response 'b' is missing"),
        ({"prompt": "p", "responses": ["a", 7]}, "line 2: response 1 is the number 7"),
        ({"prompt": 7, "responses": ["a", "b"]}, "line 2: `prompt` is the number 7"),
        ({"prompt": "p", "chosen": "a", "rejected": None}, "line 2: `rejected` is missing"),
        ({"prompt": "p", "responses": ["a", "b"], "scores": 1, "ranking": 2}, "line 2 has ['"),
        ({"prompt": "p", "responses": {"a": "x", "b": "y"}, "names": 3}, "line 2 has ['names'] already"),
        ({"prompt": "p", "responses": ["a", " "]}, "Row 2 cannot be scored: Response 1 is empty"),
    ],
)
@pytest.mark.parametrize("command", ["score", "rank", "inspect"])
def test_a_row_that_cannot_be_scored_is_named(capsys, folder, tmp_path, command, row, message):
    rows = write(tmp_path / "in.jsonl", {"prompt": "p", "responses": ["a", "b"]}, row)
    code, _, err = ask(capsys, command, folder, "--input", rows, "--output", tmp_path / "out.jsonl")
    assert code == 1 and message in err
    assert not (tmp_path / "out.jsonl").exists()


def test_a_mixed_file_of_many_kinds_of_text(capsys, folder, tmp_path):
    path = tmp_path / "in.csv"
    path.write_text("prompt,chosen,rejected,scores_of,note\nWho?,007,None,3.10,\n")
    assert ask(capsys, "score", folder, "--input", path, "--output", tmp_path / "out.jsonl")[0] == 0
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert row["responses"] == ["007", "None"] and (row["scores_of"], row["note"]) == ("3.10", "")


def test_what_a_table_holds_besides_is_written_as_json(capsys, folder, tmp_path):
    row = {"prompt": "p", "responses": ["a", "b"], "price": float("nan")}
    table = pa.Table.from_pylist([row]).append_column("day", pa.array([0], pa.date32()))
    pq.write_table(table, tmp_path / "in.parquet")
    arguments = ["score", folder, "--input", tmp_path / "in.parquet", "--output", tmp_path / "out.jsonl"]
    assert ask(capsys, *arguments)[0] == 0
    written = json.loads((tmp_path / "out.jsonl").read_text(), parse_constant=pytest.fail)
    assert (written["price"], written["day"]) == (None, "1970-01-01")
    pq.write_table(pa.Table.from_pylist([{**row, "price": float("inf")}]), tmp_path / "in.parquet")
    code, _, err = ask(capsys, *arguments, "--overwrite")
    assert code == 1 and "JSON has neither NaN nor infinity" in err


def test_json_that_others_can_read():
    assert json_text({"a": "é\u2028"}) == '{"a": "é\u2028"}'
    for value in (float("nan"), float("inf"), b"bytes"):
        with pytest.raises(ValueError, match="leave"):
            json_text({"a": value})


def test_a_text_with_the_line_ends_of_other_alphabets_is_one_row(tmp_path):
    from gpm_hf.shards import written_rows

    text = "a\u0085b\u2028c\u2029d\x1ee"
    map_in_shards([{"a": text}] * 2, lambda _, rows: rows, tmp_path / "out.jsonl", {}, 1)
    assert list(written_rows(tmp_path / "out.jsonl")) == [{"a": text}] * 2


def conversation(*texts):
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, texts)]


WHOLE = {"chosen": conversation("Who?", "Ann."), "rejected": conversation("Who?", "Nobody.")}
PLAIN = {"chosen": "Q: Who? A: Ann.", "rejected": "Q: Who? A: Nobody."}
APART = {"chosen": conversation("Who?", "Ann."), "rejected": conversation("Why?", "Nobody.")}


@pytest.fixture(scope="module")
def gateless(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bt")
    build_gpm(embedding_dim=1).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("row", [WHOLE, PLAIN, APART], ids=["whole", "plain", "apart"])
def test_what_trains_can_be_scored(capsys, folder, gateless, tmp_path, row, gate):
    """By `score`, `rank` and `eval pairs` the sequences that training reads, or one sentence where it has one."""
    from gpm_hf.data.preference import encode_preference

    model, name = (build_gpm(embedding_dim=4), folder) if gate else (build_gpm(embedding_dim=1), gateless)
    rows = write(tmp_path / "in.jsonl", row, row)
    asked = [["score", name, "--input", rows], ["rank", name, "--input", rows]]
    asked.append(["eval", "pairs", f"gpm:{name}", "--dataset", rows])
    try:
        ids = encode_preference(row, build_tokenizer(), needs_prompt=gate)
    except ValueError:
        for arguments in asked:
            code, _, err = ask(capsys, *arguments, "--format", "json")
            assert code == 1 and (
                "Row 1 cannot be scored: The scale gate reads the prompt" in err or "no `prompt`: " in err
            ), err
        return
    assert gate is False or row is WHOLE
    sequences = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(ids["chosen_ids"]), torch.tensor(ids["rejected_ids"])], batch_first=True
    )
    lengths = [len(ids["chosen_ids"]), len(ids["rejected_ids"])]
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    options = {"prompt_lengths": torch.tensor([len(ids["prompt_ids"])] * 2)} if gate else {}
    with torch.no_grad():
        outputs = model(input_ids=sequences, attention_mask=mask.long(), **options)
    a, b = outputs.embeddings
    if gate:
        scales = outputs.scales[0]
        value = sum(scales[k] * (a[2 * k] * b[2 * k + 1] - a[2 * k + 1] * b[2 * k]) for k in range(2)) / 0.1
    else:
        value = (a[0] - b[0]) / 0.1
    _, out, _ = ask(capsys, *asked[0], "--format", "json")
    assert json.loads(out.split("\n")[0])["scores"][0][1] == pytest.approx(float(value), abs=1e-4)
    _, out, _ = ask(capsys, *asked[1], "--format", "json")
    assert json.loads(out.split("\n")[0])["mean_scores"][0] == pytest.approx(float(value) / 2, abs=1e-4)
    _, out, _ = ask(capsys, *asked[2], "--format", "json")
    found = json.loads(out)["results"][0]
    assert (found["pairs"], found["right"]) == (2, 2 * int(value > 0))


def test_cycles_of_conversations_without_a_prompt(capsys, folder, tmp_path):
    texts = ["Mix.", "Wait.", "Buy."]
    pairs = [
        {"chosen": conversation("How?", a), "rejected": conversation("How?", b), "cycle_id": "c", "edge": edge}
        for edge, (a, b) in enumerate(zip(texts, [*texts[1:], texts[0]]))
    ]
    rings = [{"responses": [conversation("How?", text) for text in texts], "ring": True}]
    with_prompt = [{"prompt": "How?", "responses": texts, "ring": True}]
    found = []
    for rows in (with_prompt, rings, pairs):
        path = write(tmp_path / "in.jsonl", *rows)
        _, out, _ = ask(capsys, "eval", "cyclic", folder, "--dataset", path, "--format", "json")
        found.append(json.loads(out))
    assert found[0] == found[1] == found[2] and found[0]["cycles"] == 1
