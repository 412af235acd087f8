"""Counting what is right on preference rings."""

from itertools import permutations

import pytest
import torch

from gpm_hf.evaluation.cyclic import evaluate_rings, result_table, ring_edges, scalar_ceiling

RING = torch.tensor([[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]])


def rows(*groups, prompt="p"):
    return [{"prompt": prompt, "responses": list(group)} for group in groups]


def test_a_ring_held_and_a_ring_broken():
    broken = RING.clone()
    broken[2, 0], broken[0, 2] = -1.0, 1.0
    data = rows("abc", prompt="one") + rows("abc", prompt="two")
    result = evaluate_rings(data, lambda prompts, groups: [RING, broken])
    assert (result.pairs, result.pairs_right, result.cycles, result.cycles_right, result.ceiling) == (6, 5, 2, 1, 4)
    assert result.pair_accuracy == pytest.approx(5 / 6)
    assert "83.3% (5/6) | 50.0% (1/2)" in result_table({"model": result})
    assert "ceiling of any scalar reward | 66.7%" in result_table({"model": result})


def test_ties_are_wrong():
    result = evaluate_rings(rows("abc"), lambda prompts, groups: [torch.zeros(3, 3)])
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

    result = evaluate_rings(rows("abc", "abd"), score)
    assert asked == [[["a", "b", "c", "d"]]]
    assert (result.pairs, result.pairs_right, result.cycles_right) == (6, 6, 2)
    assert result.ceiling == 4  # two of three pairs in each ring


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
    with pytest.raises(ValueError, match="no preference rings"):
        evaluate_rings([], lambda prompts, groups: [])
