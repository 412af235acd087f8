"""Scoring in chunks, stored and resumed: the same numbers however it is cut."""

import json
import math

import numpy as np
import pytest
import torch

from gpm_hf.evaluation.reports.scored_groups import ResponseGroup, score_groups
from gpm_hf.scoring import CallableScorer, GPMScorer
from tests.conftest import build_gpm
from tests.evaluation.scorers import FunctionScorer, by_reward, table

# Of different lengths and sizes.
GROUPS = [
    ResponseGroup(f"row {number}", "p" * number, ["x" * (number * 7 % 5 + 1), "y", "z" * 3][: 2 + number % 2])
    for number in range(11)
]


@pytest.mark.parametrize("chunk_size", [1, 3, 8, 100])
def test_results_do_not_depend_on_the_chunks(chunk_size):
    scorer = by_reward(len)
    found = score_groups(GROUPS, scorer, chunk_size)
    for group, scores in zip(GROUPS, found.scores):
        expected = [[float(len(a) - len(b)) for b in group.responses] for a in group.responses]
        assert scores.tolist() == expected
    assert found.forward_passes == scorer.forward_passes == sum(len(group.responses) for group in GROUPS)
    assert max(map(len, scorer.asked)) <= chunk_size


def test_a_killed_run_goes_on(tmp_path):
    class Dies(FunctionScorer):
        def __call__(self, prompts, groups):
            if len(self.asked) == 2:
                raise KeyboardInterrupt
            return super().__call__(prompts, groups)

    store, whole = tmp_path / "scores.jsonl", by_reward(len)
    with pytest.raises(KeyboardInterrupt):
        score_groups(GROUPS, Dies(whole.function), 4, store)
    assert len(store.read_text().splitlines()) == 8
    resumed = score_groups(GROUPS, whole, 4, store)
    assert resumed.reused == 8 and sum(map(len, whole.asked)) == 3
    again = by_reward(len)
    stored = score_groups(GROUPS, again, 5, store)
    assert again.asked == [] and stored.reused == 11
    for one, other in zip(stored.scores, score_groups(GROUPS, by_reward(len)).scores):
        np.testing.assert_array_equal(one, other)
    assert not list(tmp_path.glob(".*"))


def test_forward_passes_of_resumed_runs_are_counted(tmp_path):
    store = tmp_path / "scores.jsonl"
    pairs = [ResponseGroup(f"row {n}", str(n), ["a", "bb"]) for n in range(6)]
    score_groups(pairs[:4], by_reward(len), 3, store)
    found = score_groups(pairs, by_reward(len), 3, store)
    assert (found.forward_passes, found.reused) == (12, 4)


def test_scores_of_another_scorer_or_text_are_not_taken(tmp_path):
    store = tmp_path / "scores.jsonl"
    score_groups(GROUPS[:1], by_reward(len, name="one"), store=store)
    other = score_groups(GROUPS[:1], by_reward(lambda text: -len(text), name="two"), store=store)
    assert other.reused == 0 and other.scores[0][0, 1] == 1 - len(GROUPS[0].responses[0])
    changed = ResponseGroup("row 0", "another prompt", GROUPS[0].responses)
    assert score_groups([changed], by_reward(len, name="one"), store=store).reused == 0
    assert len(store.read_text().splitlines()) == 3


def test_equal_groups_are_scored_once_in_whatever_order():
    scorer = by_reward(len)
    turned = ResponseGroup("b", "p", ["bb", "a"])
    found = score_groups([ResponseGroup("a", "p", ["a", "bb"]), turned], scorer)
    assert scorer.forward_passes == 2
    assert (found.scores[0][0, 1], found.scores[1][0, 1]) == (-1, 1)


def test_the_place_of_a_response_says_nothing():
    """A model that prefers what it reads first is right half of the time, and ties where both orders are read."""

    class First(FunctionScorer):
        def _matrix(self, prompt, group):
            return torch.tensor([[0.0, 1.0], [-1.0, 0.0]])

    groups = [ResponseGroup(str(n), str(n), ["chosen", "rejected"]) for n in range(400)]
    right = sum(scores[0, 1] > 0 for scores in score_groups(groups, First(None)).scores)
    assert 150 < right < 250
    both_orders = FunctionScorer(lambda prompt, a, b: 2.0)
    assert all(scores[0, 1] == 0 for scores in score_groups(groups, both_orders).scores)


def test_two_orders_are_averaged():
    scorer = FunctionScorer(lambda prompt, a, b: {"ab": 3.0, "ba": -1.0}[a + b])
    scorer.asymmetry = 0.25
    found = score_groups([ResponseGroup("r", "p", ["a", "b"])], scorer)
    assert found.scores[0].tolist() == [[0, 2], [-2, 0]]
    assert found.asymmetry == 0.25
    scorer.asymmetry = None
    assert score_groups([ResponseGroup("r", "p", ["a", "b"])], scorer).asymmetry is None


def test_what_two_orders_disagree_by(tmp_path):
    orders = {"ab": 3.0, "ba": -1.0, "ac": 2.0, "ca": -2.0, "bc": 0.5, "cb": 1.5}
    groups = [ResponseGroup("r", "p", ["a", "b", "c"]), ResponseGroup("s", "p", ["c", "a", "b"])]
    scorer, store = FunctionScorer(lambda prompt, a, b: orders[a + b]), tmp_path / "scores.jsonl"
    for reused in (0, 2):
        found = score_groups(groups, scorer, store=store)
        assert found.reused == reused
        assert found.disagreements[0].tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
        assert found.disagreements[1].tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]
    # One that averages itself and states an asymmetry does not say where; one that reads one order does not know.
    for asymmetry in (0.3, None):
        averaged = by_reward(ord, name=f"states {asymmetry}")
        averaged.asymmetry = asymmetry
        assert score_groups(groups, averaged, store=store).disagreements is None
    rewarded = score_groups(groups, by_reward(ord, name="reward"), store=store)
    assert not any(matrix.any() for matrix in rewarded.disagreements)
    assert [json.loads(line)["disagreement"] for line in store.read_text().splitlines()][1:] == [None, None, 0.0]


def test_a_refused_row_is_named_and_the_rest_is_stored(tmp_path):
    def refuse(prompt, a, b):
        if prompt == "too long":
            raise ValueError("Prompt 1: 100000 tokens, but the context holds 512")
        return 1.0 if a < b else -1.0

    groups = [ResponseGroup(f"row {n}", prompt, ["a", "b"]) for n, prompt in enumerate(["p" * 99, "too long", "q"])]
    with pytest.raises(ValueError, match=r"row 1 cannot be scored.*100000 tokens"):
        score_groups(groups, FunctionScorer(refuse), 3)
    store = tmp_path / "scores.jsonl"
    with pytest.raises(ValueError, match="row 1"):
        score_groups(groups, FunctionScorer(refuse), 1, store)
    assert len(store.read_text().splitlines()) == 1


def test_wrong_matrices_and_stores_are_errors(tmp_path):
    group = ResponseGroup("row 9", "p", ["a", "b"])
    with pytest.raises(ValueError, match=r"row 9.*not finite"):
        score_groups([group], table({("a", "b"): float("nan")}))
    with pytest.raises(ValueError, match="0 matrices for 1 prompts"):
        score_groups([group], type("None_", (FunctionScorer,), {"__call__": lambda *args: []})(None))
    with pytest.raises(ValueError, match="0 rows at once"):
        score_groups([group], by_reward(len), 0)
    with pytest.raises(ValueError, match="nothing to score"):
        score_groups([], by_reward(len))
    store = tmp_path / "x.jsonl"
    store.write_text(json.dumps({"prompt": "p"}) + "\n")
    with pytest.raises(ValueError, match="line 1, is no stored score"):
        score_groups([group], by_reward(len), store=store)


def _by_first_text(prompts, groups):
    """Matrices of two responses whose |P(i > j) + P(j > i) - 1| is the number that the prompt says."""
    found = []
    for prompt in prompts:
        first = 0.5 + float(prompt)  # P(0 > 1), beside P(1 > 0) = 1/2
        found.append([[0.0, math.log(first / (1 - first))], [0.0, 0.0]])
    return found


@pytest.mark.parametrize("order", [("0.1", "0.3"), ("0.3", "0.1")])
@pytest.mark.parametrize("chunk_size", [1, 64])
def test_asymmetry_and_passes_belong_to_the_data_set(tmp_path, order, chunk_size):
    """One scorer and one store for two data sets, in either order: each keeps its own figures, also when resumed."""
    store, scorer = tmp_path / "scores.jsonl", CallableScorer(_by_first_text, passes=lambda size: size * (size - 1))
    sets = {name: [ResponseGroup(f"row {n}", name, ["a", "b" * n]) for n in range(1, 4)] for name in order}
    for _ in range(2):
        for name in order:
            found = score_groups(sets[name], scorer, chunk_size, store)
            assert found.asymmetry == pytest.approx(float(name), abs=1e-6)
            assert found.forward_passes == 3 * 2
    both = score_groups([*sets["0.1"], *sets["0.3"]], scorer, chunk_size, store)
    assert (both.asymmetry, both.forward_passes, both.reused) == (pytest.approx(0.3, abs=1e-6), 12, 6)


def test_costs_are_each_groups_own(gpm, tokenizer):
    scorer = GPMScorer(gpm, tokenizer)
    prompts, groups = ["Why?", "Who?"], [["a", "b", "c"], ["a", "b"]]
    scored = scorer.score(prompts, groups)
    assert [(found.forward_passes, found.asymmetry) for found in scored] == [(3, 0.0), (2, 0.0)]
    assert scorer.forward_passes == 5
    for found, matrix in zip(scored, scorer(prompts, groups)):
        assert torch.equal(found.scores, matrix)


def test_an_older_store_is_refused_in_words(tmp_path):
    """Its asymmetry was that of all that the scorer had read, so a right figure cannot be had from it."""
    store = tmp_path / "scores.jsonl"
    old = {"key": "k", "scorer": "fake", "scores": [[0.0]], "forward_passes": 1.5, "asymmetry": 0.629}
    store.write_text(json.dumps(old) + "\n")
    with pytest.raises(ValueError, match=r"written by an earlier version.*remove this one to score everything again"):
        score_groups(GROUPS, by_reward(len), store=store)


def test_scores_under_another_date_are_not_taken(tmp_path, tokenizer):
    store, group = tmp_path / "scores.jsonl", [ResponseGroup("row", "Why?", ["a", "b"])]
    for template_date, reused in (("2024-07-26", 0), ("2026-11-29", 0), ("2024-07-26", 1)):
        scorer = GPMScorer(build_gpm(embedding_dim=4, template_date=template_date), tokenizer, name="one name")
        assert score_groups(group, scorer, store=store).reused == reused
    dates = [json.loads(line)["template_date"] for line in store.read_text().splitlines()]
    assert dates == ["2024-07-26", "2026-11-29"]
