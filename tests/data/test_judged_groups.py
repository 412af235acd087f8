"""Who beats whom in a group, by each of its statements, and what is no statement."""

import json
import math

import pytest

from gpm_hf.data.files import file_rows
from gpm_hf.data.judged_groups import read_judged_group
from gpm_hf.data.splits import load_preference_dataset

NAN = math.nan


def pairs_of(responses=3, rating_margin=0.0, **statement):
    row = {"prompt": "p", "responses": [f"answer {number}" for number in range(responses)], **statement}
    return [tuple(pair) for pair in read_judged_group(row, rating_margin).pairs]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ({"ranking": [2, 0, 1]}, [(2, 0), (2, 1), (0, 1)]),
        ({"ranking": [1, [0, 2]]}, [(1, 0), (1, 2)]),
        ({"ratings": [5, 4, 4.0]}, [(0, 1), (0, 2)]),
        ({"ratings": [1, None, 3]}, [(2, 0)]),
        ({"ratings": [1, 1, 1]}, []),
        ({"ratings": [(0.1 + 0.2) / 2, 0.15, 0.1500001]}, [(2, 0), (2, 1)]),  # 0.1 + 0.2 is not 0.3
        ({"ring": True}, [(0, 1), (1, 2), (2, 0)]),
        ({"preferences": [[0, 1], [1.0, 0.0, 1.0]]}, [(0, 1), (1, 0)]),
        ({"preferences": [[2, 1]], "ranking": None, "ring": False}, [(2, 1)]),
    ],
)
def test_hard_judgements(statement, expected):
    assert pairs_of(**statement) == [(i, j, 1.0, None, 0.0) for i, j in expected]


def test_soft_judgements():
    assert pairs_of(preferences=[[0, 1, 0.75], [1, 0, 0.5]]) == [(0, 1, 0.75, None, 0.0), (1, 0, 0.5, None, 0.0)]
    assert pairs_of(pairs=[{"a": 2, "b": 0, "p_a": 0.25}]) == [(2, 0, 0.25, None, 0.0)]
    matrix = [[0.5, 0.75, None], [0.25, 0.5, 0.125], [None, 0.875, NAN]]
    assert pairs_of(preference_matrix=matrix) == [(0, 1, 0.75, None, 0.0), (2, 1, 0.875, None, 0.0)]


def test_log_odds_are_targets_and_labels():
    target = [[0, 2.0, None], [-2.0, 0, 0], [NAN, 0, 0]]
    found = pairs_of(target_scores=target)
    assert found == [(0, 1, pytest.approx(1 / (1 + math.exp(-2))), 2.0, 0.0), (1, 2, 0.5, 0.0, 0.0)]
    # Of what a model or a rated group says, 0 is no judgement.
    assert [pair[:2] for pair in pairs_of(scores=[[0, -2, 0], [2, 0, 0], [0, 0, 0]])] == [(1, 0)]


def test_margins_are_differences_of_ratings():
    assert [(i, j, margin) for i, j, _, _, margin in pairs_of(rating_margin=0.5, ratings=[1, 4, 2])] == [
        (1, 0, 1.5),
        (1, 2, 1.0),
        (2, 0, 0.5),
    ]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ({"preferences": [[0, 3]]}, r"`preferences` names response 3, and the 3 `responses` are 0 to 2"),
        ({"preferences": [[-1, 0]]}, "`preferences` names response -1"),
        ({"preferences": [[1, 1]]}, "response 1 cannot be preferred to itself"),
        ({"preferences": [[0]]}, r"a judgement is \[i, j\] or \[i, j, probability\]"),
        ({"preferences": [[0, 1, 1.5]]}, "probability 1.5: it must lie between 0 and 1"),
        ({"preferences": [["a", 1]]}, "named by their numbers"),
        ({"preferences": [[True, 0]]}, "named by their numbers"),
        ({"preferences": [[0, 0.5]]}, "named by their numbers"),
        ({"preferences": 3}, "`preferences` is 3: it must be a list"),
        ({"preference_matrix": [[0.5, 1], [0, 0.5]]}, r"`preference_matrix` is no 3 x 3 matrix"),
        ({"preference_matrix": [[None, 0.9, 0.5], [0.9, None, 0.5], [0.5, 0.5, None]]}, r"0.9 for \(0, 1\) and 0.9"),
        ({"preference_matrix": [[0, 1, 1], [0, 0, 1], [0, 0, 0]]}, r"0 for \(0, 0\).* must add up to 1"),
        ({"target_scores": [[0, 1, 1], [1, 0, 1], [-1, -1, 0]]}, r"1 for \(0, 1\) and 1 for .* must add up to 0"),
        ({"target_scores": [[0, math.inf, 1], [1, 0, 1], [-1, -1, 0]]}, "finite numbers"),
        ({"ranking": [0, 1, 1]}, r"names the responses \[1\] more than once"),
        ({"ranking": [0, 1]}, r"leaves out the responses \[2\]"),
        ({"ranking": [1, 2, 3]}, "`ranking` names response 3"),
        ({"ratings": [1, 2]}, "3 `responses` and 2 `ratings`"),
        ({"ratings": [1, 2, "3"]}, "`ratings` holds '3'"),
        ({"ratings": [1, 2, True]}, "`ratings` holds True"),
        ({"ring": "yes"}, "`ring` is 'yes': it is true or false"),
        ({"ring": True, "responses": 2}, r"2 of `responses` and `ring: true`; a ring has at least three"),
        ({"ranking": [0], "responses": 1}, "it has 1 of `responses`"),
        ({"ranking": [0, 1, 2], "ratings": [3, 2, 1]}, r"\['ranking', 'ratings'\] each say who beats whom"),
        ({}, r"nothing that says who beats whom, in the columns \['prompt', 'responses'\].*`ring: true` where"),
        ({"ring": False}, "nothing that says who beats whom"),
    ],
)
def test_what_is_no_statement(statement, message):
    with pytest.raises(ValueError, match=message):
        pairs_of(**statement)


def test_a_file_of_groups_is_checked_row_by_row(tmp_path):
    good = {"prompt": "p", "responses": ["a", "b", "c"], "ranking": [0, [1, 2]]}
    bad = {"prompt": "p", "responses": ["a", "b", "c"], "ranking": None}
    path = tmp_path / "groups.jsonl"
    path.write_text("\n".join(map(json.dumps, [good, bad])))
    with pytest.raises(ValueError, match=r"groups\.jsonl, row 1: it has `responses` and nothing that says"):
        load_preference_dataset(str(path))
    path.write_text("\n".join(map(json.dumps, [good, bad | {"ratings": [1, None, 2.5]}])))
    rows = load_preference_dataset(str(path))["train"]
    assert [read_judged_group(row).pairs for row in rows] == [
        read_judged_group(row).pairs for row in (good, bad | {"ratings": [1, None, 2.5]})
    ]
    (tmp_path / "x.csv").write_text('prompt,responses,ring,ranking\np,"[""a"",""b"",""c""]",TRUE,\n')
    (row,) = [found.value for found in file_rows(tmp_path / "x.csv")]
    assert row["ring"] is True and row["ranking"] is None
    (tmp_path / "x.csv").write_text('prompt,responses,ring\np,"[]",maybe\n')
    with pytest.raises(ValueError, match="`ring` holds true, false or nothing"):
        [found.checked("x.csv") for found in file_rows(tmp_path / "x.csv")]


def test_the_handed_cases(shared):
    path = shared / "cases" / "ranked.jsonl"
    if not path.is_file():
        pytest.skip("no ranked.jsonl among the shared cases")
    seen = set()
    for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        expected = row["expect"]
        if expected.startswith("refused"):
            with pytest.raises(ValueError, match="nothing that says who beats whom"):
                read_judged_group(row)
        else:
            found = {f"{pair.first}>{pair.second}" for pair in read_judged_group(row).pairs}
            said = expected.split(";")[0].replace(",", " ").split()
            assert found == {word for word in said if ">" in word}
        seen.add(expected)
    assert len(seen) >= 4
