"""UltraFeedback's form as groups, and real rankings and ratings in their own form."""

import json

import pytest

from gpm_hf.data.forms import FormOptions
from gpm_hf.data.judged_groups import read_judged_group
from gpm_hf.data.splits import load_preference_dataset


def answer(text, **ratings):
    return {
        "model": "m",
        "response": text,
        "annotations": {name: {"Rating": value} for name, value in ratings.items()},
    }


def load(path, *rows, **options):
    path.write_text("\n".join(map(json.dumps, rows)))
    return load_preference_dataset(str(path), **options)["train"]


def test_ratings_are_means_of_the_aspects_that_count(tmp_path):
    answers = [
        answer("a", honesty="5", help="2"),
        answer("b", honesty="N/A", help="4"),
        answer("c", honesty="1", help="1"),
    ]
    row = {"instruction": "p", "completions": answers}
    for streaming in (False, True):
        (found,) = load(tmp_path / "uf.jsonl", row, streaming=streaming)
        assert found == {"prompt": "p", "responses": ["a", "b", "c"], "ratings": [3.5, 4.0, 1.0]}
        (found,) = load(tmp_path / "uf.jsonl", row, streaming=streaming, options=FormOptions(aspects=("honesty",)))
        assert found["ratings"] == [5.0, None, 1.0]
    assert [pair[:2] for pair in read_judged_group(found).pairs] == [(0, 2)]
    with pytest.raises(
        ValueError, match=r"Row 0: no answer is rated on \['taste'\]; there are the aspects \['help', 'ho"
    ):
        load(tmp_path / "uf.jsonl", row, options=FormOptions(aspects=("taste",)))
    with pytest.raises(ValueError, match="no `instruction` and `completions`"):
        load(
            tmp_path / "pairs.jsonl",
            {"prompt": "p", "chosen": "a", "rejected": "b"},
            options=FormOptions(aspects=("taste",)),
        )


@pytest.mark.parametrize(
    ("name", "aspects", "size", "groups"),
    [("qa_feedback_4way", None, 4, 242), ("uf_schema_summeval", ["coherence"], 16, 53)],
)
def test_real_rankings_and_ratings_in_their_own_form(shared, name, aspects, size, groups):
    path = shared / "data" / f"{name}.jsonl"
    rows = load_preference_dataset(str(path), options=FormOptions(aspects=tuple(aspects) if aspects else None))[
        "train"
    ]
    raw = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    assert len(rows) == len(raw) == groups
    for row, given in zip(rows, raw, strict=True):
        group = read_judged_group(row)
        assert len(group.responses) == size
        found = {(pair.first, pair.second): pair.probability for pair in group.pairs}
        if aspects:
            ratings = [one["annotations"]["coherence"]["Rating"] for one in given["completions"]]
            assert found == {(i, j): 1.0 for i in range(size) for j in range(size) if ratings[i] > ratings[j]}
        else:
            assert found == {(pair["a"], pair["b"]): pair["p_a"] for pair in given["pairs"]}
