"""Counting what is right on preference rings."""

from itertools import permutations

import pytest
import torch

from gpm_hf.data.generator import ring_pairs
from gpm_hf.data.rings import ring_edges
from gpm_hf.evaluation.benchmarks.ring_accuracy import (
    comparison_table,
    evaluate_cyclic,
    evaluate_pairs,
    result_table,
    scalar_ceiling,
)

RING = torch.tensor([[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]])


def rows(*groups, prompt="p"):
    return [{"prompt": prompt, "responses": list(group), "ring": True} for group in groups]


def test_a_ring_held_and_a_ring_broken():
    broken = RING.clone()
    broken[2, 0], broken[0, 2] = -1.0, 1.0
    data = rows("abc", prompt="one") + rows("abc", prompt="two")
    result = evaluate_cyclic(data, lambda prompts, groups: [RING, broken])
    assert (result.pairs, result.pairs_right, result.cycles, result.cycles_right, result.ceiling) == (6, 5, 2, 1, 4)
    assert result.pair_accuracy == pytest.approx(5 / 6)
    assert "83.3% (5/6) | 50.0% (1/2)" in result_table({"model": result})
    assert "ceiling of any scalar reward | 66.7%" in result_table({"model": result})


def test_ties_are_wrong():
    result = evaluate_cyclic(rows("abc"), lambda prompts, groups: [torch.zeros(3, 3)])
    assert (result.pairs_right, result.cycles_right) == (0, 0)


def test_rings_of_one_prompt_share_responses_and_pairs():
    """a > b > c > a and a > b > d > a: four responses, encoded once; a > b counts in both rings."""
    asked = []

    def score(prompts, groups):
        asked.append(groups)
        scores = torch.zeros(4, 4)
        for i, j in [(0, 1), (1, 2), (2, 0), (1, 3), (3, 0)]:
            scores[i, j], scores[j, i] = 1.0, -1.0
        return [scores]

    result = evaluate_cyclic(rows("abc", "abd"), score)
    assert asked == [[["a", "b", "c", "d"]]]
    assert (result.pairs, result.pairs_right, result.cycles_right) == (6, 6, 2)
    assert result.ceiling == 4  # two of three pairs in each ring


def test_pairs_of_a_dominant_response_are_in_no_cycle():
    """It beats all of a ring: six pairs, one cycle, and a reward that puts it first loses one pair only."""
    row = {"prompt": "p", "responses": list("dabc"), "topic": "t", "transitive": False, "dominant": True}
    data = ring_pairs([row])
    result = evaluate_pairs(data, [1.0, 1.0, 1.0, 1.0, -1.0, 1.0])
    assert (result.pairs, result.pairs_right, result.cycles, result.cycles_right, result.ceiling) == (6, 5, 1, 1, 5)
    assert evaluate_pairs(data, [1.0, 1.0, -1.0, 1.0, 1.0, 1.0]).cycles_right == 0


@pytest.mark.parametrize("seed", range(10))
def test_the_ceiling_is_the_best_of_all_rankings(seed):
    generator = torch.Generator().manual_seed(seed)
    edges = [
        (i, j) if torch.rand((), generator=generator) < 0.5 else (j, i)
        for i in range(6)
        for j in range(i)
        if torch.rand((), generator=generator) < 0.7
    ]
    best = max(sum(order.index(i) < order.index(j) for i, j in edges) for order in permutations(range(6)))
    assert scalar_ceiling(edges) == best


@pytest.mark.parametrize("size", [3, 4, 5])
def test_one_edge_of_a_ring_is_out_of_reach(size):
    assert scalar_ceiling(ring_edges(range(size))) == size - 1


def test_no_rings_is_an_error():
    with pytest.raises(ValueError, match="no cyclic preferences"):
        evaluate_cyclic([], lambda prompts, groups: [])


def pairs(*edges, prompt="p", cycle_id="0"):
    return [
        {"prompt": prompt, "chosen": better, "rejected": worse, "cycle_id": cycle_id, "edge": number}
        for number, (better, worse) in enumerate(edges)
    ]


def test_pairs_of_one_cycle_are_a_whole_cycle_only_when_they_close():
    whole, open_chain = pairs("ab", "bc", "ca"), pairs("ab", "bd", cycle_id="1")
    scores = torch.zeros(4, 4)
    for i, j in [(0, 1), (1, 2), (2, 0), (1, 3)]:
        scores[i, j], scores[j, i] = 1.0, -1.0
    result = evaluate_cyclic(whole + open_chain, lambda prompts, groups: [scores])
    assert (result.pairs, result.pairs_right, result.cycles, result.cycles_right) == (5, 5, 1, 1)
    # The edges of a cycle may come in any order.
    assert evaluate_cyclic(whole[::-1], lambda prompts, groups: [RING.T]).cycles == 1


def test_without_whole_cycles_there_is_no_cycle_accuracy():
    result = evaluate_cyclic(pairs("ab"), lambda prompts, groups: [RING[:2, :2]])
    assert result.cycle_accuracy is None
    assert result.to_dict()["cycle_accuracy_interval"] is None
    assert "| - |" in result_table({"model": result})


def test_skew_error_is_what_the_scores_violate():
    lopsided = RING.clone()
    lopsided[0, 1] += 0.25
    result = evaluate_cyclic(rows("abc") + rows("abc", prompt="q"), lambda prompts, groups: [RING, lopsided])
    assert result.skew_error == 0.25


def test_the_ceiling_of_sixteen_responses_takes_no_time_and_is_exact():
    """Five rings of three over 15 responses, joined by pairs that any ranking may have right, and one more."""
    rings = [ring_edges(range(3 * ring, 3 * ring + 3)) for ring in range(5)]
    joints = [(3 * ring, 3 * ring + 3) for ring in range(4)] + [(15, 0)]
    assert scalar_ceiling([edge for ring in rings for edge in ring] + joints) == 10 + 5
    circle = ring_edges(range(16))
    assert scalar_ceiling(circle + circle) == 30
    with pytest.raises(ValueError, match="19 responses"):
        scalar_ceiling(ring_edges(range(19)))


def test_tables_have_a_row_per_model_and_a_column_per_data_set():
    five = [row for prompt in "12345" for row in rows("abc", prompt=prompt)]
    held = evaluate_cyclic(five, lambda prompts, groups: [RING] * 5)
    lost = evaluate_cyclic(rows("abc"), lambda prompts, groups: [-RING])
    table = comparison_table({"GPM": {"one": held, "two": lost}, "BT": {"one": lost}}).splitlines()
    assert table[0] == "| model | one | two |"
    # Wilson's for five prompts: 5 / (5 + 1.96^2).
    assert table[2] == "| GPM | 100.0% [56.6%, 100.0%]; cycles 100.0% | 0.0%; cycles 0.0% |"
    assert table[3].endswith("| - |")
    assert table[4] == "| ceiling of any scalar reward | 66.7%; cycles 0.0% | 66.7%; cycles 0.0% |"
