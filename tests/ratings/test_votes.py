"""Votes summed by pair."""

import numpy as np
import pytest

from gpm_hf.ratings import count_votes


def test_votes_are_summed_by_ordered_pair_and_by_pair():
    votes = count_votes(
        ["A", "B", "A", "A", "C"],
        ["B", "A", "B", "B", "A"],
        [1, 1, 0.5, 0.25, 0],
        count=[2, 1, 1, 4, 3],
        ordered=[True, True, True, False, True],
    )
    cells = {
        (votes.items[a], votes.items[b], bool(known)): (w, t, loss)
        for a, b, known, w, t, loss in zip(votes.a, votes.b, votes.ordered, votes.wins, votes.ties, votes.losses)
    }
    assert cells == {
        ("A", "B", True): (2, 1, 0),
        ("B", "A", True): (1, 0, 0),
        ("A", "B", False): (1, 0, 3),
        ("C", "A", True): (0, 0, 3),
    }
    pairs = votes.by_pair()
    assert [(votes.items[a], votes.items[b]) for a, b in zip(pairs.a, pairs.b)] == [("A", "B"), ("A", "C")]
    np.testing.assert_array_equal(pairs.wins, [3, 3])
    np.testing.assert_array_equal(pairs.ties, [1, 0])
    np.testing.assert_array_equal(pairs.losses, [4, 0])
    assert votes.total == 11 and votes.are_whole and not count_votes(["A"], ["B"], [0.3]).are_whole


def test_many_items_are_summed_as_few_are(monkeypatch):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 30, 500)
    b = (a + rng.integers(1, 30, 500)) % 30
    outcome = rng.choice([0, 0.5, 1], 500)
    few = count_votes(a.tolist(), b.tolist(), outcome).by_pair()
    monkeypatch.setattr("gpm_hf.ratings.votes._MOST_KEYS", 1)
    many = count_votes(a.tolist(), b.tolist(), outcome).by_pair()
    for name in ("a", "b", "wins", "ties", "losses"):
        np.testing.assert_array_equal(getattr(few, name), getattr(many, name))


def test_answers_compete_within_their_prompt():
    votes = count_votes(["A", "A", "C"], ["B", "B", "A"], [1, 0, 1], prompt=["p", "q", "q"]).within_prompts()
    assert sorted(votes.items) == [f"{item} on prompt {number}" for item, number in ("A1", "A2", "B1", "B2", "C2")]
    assert [int(name[-1]) - 1 for name in votes.items] == votes.group.tolist()
    assert (votes.group[votes.a] == votes.group[votes.b]).all()
    with pytest.raises(ValueError, match="name no prompt"):
        count_votes(["A"], ["B"], [1]).within_prompts()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [], []), "at least one"),
        ((["A"], ["B", "C"], [1]), "give as many"),
        ((["A"], ["A"], [1]), "'A' is compared with itself"),
        ((["A"], ["B"], [2]), "An outcome is"),
        ((["A"], ["B"], [float("nan")]), "An outcome is"),
        ((["A"], ["B"], [1], [0]), "positive number of times"),
    ],
)
def test_what_is_no_vote_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        count_votes(*arguments)
