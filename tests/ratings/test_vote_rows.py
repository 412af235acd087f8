"""Rows of public forms as votes."""

import pytest

from gpm_hf.ratings.vote_rows import read_votes


def votes_of(rows, judge=None):
    votes = read_votes(((f"votes.jsonl, line {number}", row) for number, row in enumerate(rows, 1)), judge)
    return votes, {
        (votes.items[a], votes.items[b]): (w, t, loss)
        for a, b, w, t, loss in zip(votes.a, votes.b, votes.wins, votes.ties, votes.losses)
    }


def test_chatbot_arena():
    rows = [
        {"model_a": "X", "model_b": "Y", "winner": winner} for winner in ("model_a", "model_b", "tie (bothbad)", "X")
    ]
    flags = {"winner_model_a": "0", "winner_model_b": "1", "winner_tie": "0"}
    votes, found = votes_of([*rows, {"model_a": "X", "model_b": "Y", **flags}])
    assert found == {("X", "Y"): (2, 1, 2)} and votes.ordered.all() and votes.prompts == 0
    votes, _ = votes_of([{"question_id": 1, **rows[0]}, {"question_id": 2, **rows[1]}])
    assert votes.prompts == 2


def test_alpaca_eval():
    rows = [
        {"instruction": f"{number}", "generator_1": "base", "generator_2": "mine", "preference": preference}
        for number, preference in enumerate([1, 2.0, 1.5, 0, 1.25, None])
    ]
    votes, _ = votes_of(rows)
    pairs = votes.by_pair()
    assert (pairs.wins[0], pairs.ties[0], pairs.losses[0]) == (1.75, 2, 1.25) and votes.prompts == 5
    assert not votes.ordered.any()


def test_tables():
    rows = [
        {"winner": "X", "loser": "Y", "count": "3"},
        {"winner": "X", "loser": "Y", "tie": "true"},
        {"a": "X", "b": "Y", "p_a": "0.75", "count": 4},
        {"a": "X", "b": "Y", "wins": 5, "losses": "2"},
    ]
    assert votes_of(rows)[1] == {("X", "Y"): (3 + 3 + 5, 1, 1 + 2)}


def test_judgements_know_who_came_first():
    judgment = {"a": "X", "b": "Y", "p_a": 0.5, "ab": [1.0], "ba": [0.0, 0.5]}
    row = {"prompt": "p", "responses": [], "judgments": {"me": [judgment], "you": []}}
    votes, found = votes_of([row], "me")
    # Twice y was first: once it won, once they tied.
    assert found == {("X", "Y"): (1, 0, 0), ("Y", "X"): (1, 1, 0)} and votes.ordered.all()
    unordered = {"prompt": "p", "judgments": [{"a": "X", "b": "Y", "p_a": 1.0}]}
    assert votes_of([unordered])[1] == {("X", "Y"): (1, 0, 0)}
    with pytest.raises(ValueError, match=r"line 1: there are several judges, \['me', 'you'\]"):
        votes_of([row])
    with pytest.raises(ValueError, match=r"no votes by 'him'; there are judgements by \['me', 'you'\]"):
        votes_of([row], "him")


def test_responses_of_pairs_compete_within_their_prompt():
    rows = [
        {"prompt": "p", "chosen": "one", "rejected": "two"},
        {"prompt": "q", "chosen": [{"role": "assistant", "content": "one"}], "rejected": "two"},
    ]
    votes, _ = votes_of(rows)
    assert len(votes.items) == 4 and votes.group.max() == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"x": 1}, r"line 1: the columns \['x'\] are of no known form.*model_a"),
        ({"model_a": "X", "model_b": "Y", "winner": "Z"}, "line 1: the winner 'Z'"),
        ({"model_a": "X", "model_b": "Y"}, "`winner_model_a` is missing"),
        ({"a": "X", "b": "Y", "p_a": "high"}, "`p_a` is 'high', which is no number"),
        ({"generator_1": "X", "generator_2": "Y", "preference": 3}, "1 .the first. to 2"),
        ({"a": "X", "b": "Y", "wins": 5}, "`losses` is missing"),
    ],
)
def test_rows_that_are_no_votes_are_named(row, message):
    with pytest.raises(ValueError, match=message):
        votes_of([row])


def test_prompts_are_named_by_all_votes_or_none():
    rows = [{"winner": "X", "loser": "Y", "prompt": "p"}, {"winner": "X", "loser": "Y"}]
    with pytest.raises(ValueError, match="vote 2 does not"):
        votes_of(rows)
