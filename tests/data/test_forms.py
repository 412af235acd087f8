"""Every known form of preference data: what its rows become, and what is left out and why."""

import json

import pytest

from gpm_hf.data.conversion import convert, parse_columns
from gpm_hf.data.forms import FORMS, FormOptions, form_of_rows
from gpm_hf.data.splits import column_names, load_preference_dataset, load_splits


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def pair(chosen, rejected, probability=None, prompt="q"):
    found = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    return found if probability is None else found | {"preference_probability": probability}


def rated(text, rating):
    return {"response": text, "annotations": {"help": {"Rating": rating}}}


HH = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Name a tree.\n\nAssistant: "
TALK = [user("Hi"), assistant("Hello."), user("Name a tree.")]
ARENA = {"model_a": "m", "model_b": "n", "conversation_a": [user("q"), assistant("a")]}
ARENA["conversation_b"] = [user("q"), assistant("b")]
SAFE = {"prompt": "q", "response_0": "a", "response_1": "b", "better_response_id": 1, "safer_response_id": 0}
ALPACA = {"instruction": "q", "output_1": "a", "output_2": "b", "generator_1": "m", "generator_2": "n"}
STEER2 = {"prompt": "q", "response_1": "a", "response_2": "b"}
STEER3 = {"context": [user("q")], "response1": "a", "response2": "b"}
TABLE = {"prompt": "q", "response_a": "a", "response_b": "b"}
GROUP = {"prompt": "q", "responses": ["a", "b", "c"]}
COMPETITION = {"prompt": '["q", "r"]', "response_a": '["a", "c"]', "response_b": '["b", "d"]'}

# Form, row, what it becomes (a string: the reason why it is left out).
ROWS = [
    ("hh", {"chosen": HH + "An oak.", "rejected": HH + "A stone."},
     pair([assistant("An oak.")], [assistant("A stone.")], prompt=TALK)),
    ("hh", {"chosen": HH + "An oak.", "rejected": HH + "An oak."}, "identical responses"),
    ("hh", {"chosen": HH + "An oak.", "rejected": HH}, "the two conversations do not part at an answer"),
    ("hh", {"chosen": HH + "An oak.", "rejected": "\n\nHuman: Ho\n\nAssistant: He"},
     "the two conversations begin with different questions"),
    ("ultrafeedback", {"instruction": "q", "completions": [rated("a", "5"), rated("b", "2"), rated("c", "N/A")]},
     {"prompt": "q", "responses": ["a", "b", "c"], "ratings": [5.0, 2.0, None]}),
    ("ultrafeedback", {"instruction": "q", "completions": [rated("a", "5"), rated("b", "5")]},
     "no two responses are rated differently"),
    ("ultrafeedback-binarized",
     {"prompt": "q", "chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")],
      "score_chosen": 8.5, "score_rejected": 6, "messages": [], "prompt_id": "x"},
     pair([assistant("a")], [assistant("b")], 1.0, prompt=[user("q")])),
    ("ultrafeedback-binarized",
     {"chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")], "score_chosen": 7,
      "score_rejected": 7}, pair([assistant("a")], [assistant("b")], 0.5, prompt=[user("q")])),
    ("helpsteer2", STEER2 | {"preference_strength": -3}, pair("a", "b", 1.0)),
    ("helpsteer2", STEER2 | {"preference_strength": 2}, pair("b", "a", 0.5 + 2 / 6)),
    ("helpsteer2", STEER2 | {"preference_strength": 0}, pair("a", "b", 0.5)),
    ("helpsteer2", STEER2 | {"preference_strength": 1, "prompt": "q\n<extra_id_1>Assistant\na\n<extra_id_1>User\nr"},
     pair("b", "a", 0.5 + 1 / 6, prompt=[user("q"), assistant("a"), user("r")])),
    ("helpsteer2", STEER2 | {"preference_strength": -100}, "`preference_strength` is not from -3 to 3"),
    ("helpsteer3", STEER3 | {"overall_preference": -1}, pair("a", "b", 0.5 + 1 / 6, prompt=[user("q")])),
    ("helpsteer3", STEER3 | {"overall_preference": 3}, pair("b", "a", 1.0, prompt=[user("q")])),
    ("nectar", {"prompt": "\n\nHuman: q\n\nAssistant: ",
                "answers": [{"answer": t, "model": "m", "rank": r} for t, r in (("a", 2.0), ("b", 1.0), ("c", 2.0))]},
     {"prompt": [user("q")], "responses": ["a", "b", "c"], "ranking": [[1], [0, 2]]}),
    ("safe-rlhf", SAFE, pair("b", "a")),
    ("safe-rlhf", SAFE | {"better_response_id": None}, "`better_response_id` is neither 0 nor 1"),
    ("arena", ARENA | {"winner": "model_b"}, pair([assistant("b")], [assistant("a")], 1.0, prompt=[user("q")])),
    ("arena", ARENA | {"winner": "tie (bothbad)"},
     pair([assistant("a")], [assistant("b")], 0.5, prompt=[user("q")])),
    ("arena", ARENA | {"winner": "?"}, "the winner '?' is neither model_a, model_b nor a tie"),
    ("table", TABLE | {"winner": "B"}, pair("b", "a", 1.0)),
    ("table", TABLE | {"winner": "tie"}, pair("a", "b", 0.5)),
    ("table", COMPETITION | {"winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0},
     pair([assistant("a"), user("r"), assistant("c")], [assistant("b"), user("r"), assistant("d")], 1.0,
          prompt=[user("q")])),
    ("alpaca-eval", ALPACA | {"preference": 2}, pair("b", "a", 1.0)),
    ("alpaca-eval", ALPACA | {"preference": 1.25}, pair("a", "b", 0.75)),
    ("alpaca-eval", ALPACA | {"preference": None}, "`preference` is null"),
    ("chosen-reject", {"instruction": "q", "chosen": "a", "reject": "b"}, pair("a", "b")),
    ("pairs", pair("a", "b") | {"source": "x"}, pair("a", "b")),
    ("pairs", {"chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")], "source": "magpie"},
     pair([assistant("a")], [assistant("b")], prompt=[user("q")])),
    ("pairs", pair(" ", "b"), "empty `chosen`"),
    ("groups", GROUP | {"ranking": [2, 0, 1]}, GROUP | {"ranking": [2, 0, 1]}),
    ("groups", GROUP | {"ratings": [1, 1, 1]}, "no response is preferred to another"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "expected"), ROWS, ids=[f"{row[0]}-{n}" for n, row in enumerate(ROWS)])
def test_a_row_of_each_form(tmp_path, name, row, expected):
    assert form_of_rows(row.keys(), row).name == name
    spare = next(row for form, row, found in ROWS if form == name and not isinstance(found, str))
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(one) for one in (row, spare)))
    rows = load_splits(str(tmp_path / "rows.jsonl"))["train"]
    found, report = convert(rows, "rows", column_names(rows))
    assert report.form.name == name and report.rows == 2 and report.kept == len(found)
    if isinstance(expected, str):
        assert report.left_out == {expected: [1]} and f"Left out: 1 ({expected}): row 1" in str(report)
    else:
        assert {name: value for name, value in found[0].items() if value is not None} == expected
        if row is spare and name not in ("pairs", "groups"):  # which training reads strictly
            loaded = load_preference_dataset(str(tmp_path / "rows.jsonl"))["train"]
            assert loaded.to_list() == found.to_list()
            streamed = load_preference_dataset(str(tmp_path / "rows.jsonl"), streaming=True)["train"]
            assert list(streamed) == found.to_list()


def test_all_forms_are_tried():
    assert {row[0] for row in ROWS} == {form.name for form in FORMS}


def write(path, *rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_options_of_forms(tmp_path):
    name = write(tmp_path / "safe.jsonl", SAFE)
    found = load_preference_dataset(name, options=FormOptions(label="safer"))["train"].to_list()
    assert found == [pair("a", "b")]
    name = write(tmp_path / "votes.jsonl", TABLE | {"winner": "tie"}, TABLE | {"winner": "a"})
    told = []
    found = load_preference_dataset(name, options=FormOptions(ties="drop"), report=told.append)["train"].to_list()
    assert found == [pair("a", "b", 1.0)] and "Left out: 1 (a tie): row 1" in told[0]
    for wrong in ({"label": "best"}, {"ties": "half"}):
        with pytest.raises(ValueError, match="choose"):
            FormOptions(**wrong)


def test_columns_of_other_names(tmp_path):
    name = write(tmp_path / "own.jsonl", {"instruction": "q", "good": "a", "bad": "b", "tools": "x"})
    mapping = parse_columns("prompt=instruction, chosen=good,rejected=bad")
    assert load_preference_dataset(name, columns=mapping)["train"].to_list() == [pair("a", "b")]
    assert list(load_preference_dataset(name, columns=mapping, streaming=True)["train"]) == [pair("a", "b")]
    votes = write(tmp_path / "votes.csv")
    (tmp_path / "votes.csv").write_text("ask,left,right,best\nq,a,b,tie\nq,a,b,B\n")
    mapping = parse_columns("prompt=ask,response_a=left,response_b=right,winner=best")
    assert load_preference_dataset(votes, columns=mapping)["train"].to_list() == [
        pair("a", "b", 0.5), pair("b", "a", 1.0)
    ]  # fmt: skip
    for text in ("prompt", "prompt=a,prompt=b", "promptt=a", "prompt="):
        with pytest.raises(ValueError, match="--columns"):
            parse_columns(text)
    with pytest.raises(ValueError, match="has no column goood: its columns are instruction, good, bad, tools"):
        load_preference_dataset(name, columns={"prompt": "instruction", "chosen": "goood", "rejected": "bad"})
    with pytest.raises(ValueError, match="twice"):
        load_preference_dataset(name, columns={"prompt": "good", "chosen": "good", "rejected": "bad"})


def test_what_no_form_tells_is_a_sentence(tmp_path):
    name = write(tmp_path / "own.jsonl", {"question": "q", "good": "a", "bad": "b"})
    rows = load_splits(name)["train"]
    with pytest.raises(ValueError, match=r"of no known form. Name them by --columns"):
        convert(rows, name, column_names(rows))
    with pytest.raises(ValueError, match=r"there is no form 'hhh'; known are hh, ultrafeedback"):
        convert(rows, name, column_names(rows), form="hhh")
    # Training says what it lacks, as ever.
    assert load_preference_dataset(name)["train"].column_names == ["question", "good", "bad"]
    empty = write(tmp_path / "none.jsonl", {"chosen": HH + "a", "rejected": HH + "a"})
    with pytest.raises(ValueError, match=r"No row is left.*1 rows read as `hh`"):
        load_preference_dataset(empty)


def test_transcripts_and_votes_are_scored_and_evaluated_as_they_are_trained_on(tmp_path):
    from gpm_hf.data.groups import as_group
    from gpm_hf.data.pair_files import read_pairs

    row = {"chosen": HH + "An oak.", "rejected": HH + "A stone."}
    group = as_group(row, "row 1")
    assert group["prompt"] == TALK and group["responses"] == [[assistant("An oak.")], [assistant("A stone.")]]
    (found,), _ = read_pairs(write(tmp_path / "hh.jsonl", row))
    assert (found["prompt"], found["chosen"]) == (TALK, [assistant("An oak.")])
    votes = [TABLE | {"winner": winner} for winner in ("b", "tie", "?")]
    found, report = read_pairs(write(tmp_path / "votes.jsonl", *votes))
    assert [(one["chosen"], one["preference_probability"]) for one in found] == [("b", 1.0), ("a", 0.5)]
    assert report.skipped == {"the winner '?' is neither model_a, model_b nor a tie": ["row 3"]}
    with pytest.raises(ValueError, match="begin with different questions"):
        as_group({"chosen": HH + "a", "rejected": "\n\nHuman: Ho\n\nAssistant: He"}, "row 1")
