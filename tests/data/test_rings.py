"""Rings, pairs, and the ranked control."""

import pytest

from gpm_hf.data.rings import ranked_instead, ring_to_pairs

RINGS = [
    {"id": "x", "prompt": "p", "responses": ["a", "b", "c"], "ring": True},
    {"prompt": "p", "responses": ["a", "b", "d"], "ring": True},
]


def test_a_shared_pair_is_kept_once_or_for_each_ring():
    edges = [(row["chosen"], row["rejected"], row["cycle_id"], row["edge"]) for row in ring_to_pairs(RINGS)]
    assert edges == [
        ("a", "b", "x", 0),
        ("b", "c", "x", 1),
        ("c", "a", "x", 2),
        ("b", "d", "1", 1),
        ("d", "a", "1", 2),
    ]
    assert len(ring_to_pairs(RINGS, distinct=False)) == 6
    with pytest.raises(ValueError, match="at least three"):
        ring_to_pairs([{"prompt": "p", "responses": ["a", "b"], "ring": True}])


def test_the_control_has_the_same_pairs_and_no_cycle():
    rows = [
        {"prompt": str(n), "responses": [f"{n}{name}" for name in "abcd"], "id": n, "ring": True} for n in range(30)
    ]
    pairs = list(ring_to_pairs(rows))
    ranked = ranked_instead(pairs, seed=3)
    assert ranked == ranked_instead(pairs, seed=3) != ranked_instead(pairs, seed=4)
    turned = 0
    for before, after in zip(pairs, ranked):
        assert {before["chosen"], before["rejected"]} == {after["chosen"], after["rejected"]}
        turned += before["chosen"] != after["chosen"]
    assert 30 < turned < 90  # of 120
    for n in range(30):
        beaten = {}
        for row in ranked:
            if row["prompt"] == str(n):
                beaten.setdefault(row["chosen"], set()).add(row["rejected"])
        unplaced = {f"{n}{name}" for name in "abcd"}
        while unplaced:
            last = [name for name in unplaced if not beaten.get(name, set()) & unplaced]
            assert last, "a cycle"
            unplaced -= set(last)
