"""RewardBench 2: a scalar reward gets the published rules' numbers; other preferences what the rules say."""

import itertools
import math

import numpy as np
import pytest

from gpm_hf.evaluation.benchmarks.rewardbench2 import evaluate_rewardbench2, rewardbench2_table
from gpm_hf.evaluation.benchmarks.ties import margins, ties_result
from gpm_hf.evaluation.reports.best_of_n_regret import best_of_n_regret, choice
from tests.evaluation.scorers import by_reward, table

# Response 0 beats both by little, response 1 beats response 2 by much.
NARROW = np.array([[0.0, 0.1, 0.1], [-0.1, 0, 5], [-0.1, -5, 0]])
RING = np.array([[0.0, 1, -1], [-1, 0, 1], [1, -1, 0]])


def differences(rewards, tau=1.0):
    rewards = np.array(rewards, dtype=float)
    return (rewards[:, None] - rewards[None, :]) / tau


def test_choices():
    assert choice(NARROW, "mean").tolist() == [0, 1, 0]
    assert choice(NARROW, "von_neumann").tolist() == [1, 0, 0]
    for rule in ("mean", "von_neumann"):
        np.testing.assert_allclose(choice(RING, rule), np.full(3, 1 / 3), atol=1e-9)
        assert choice(differences([0.1, 3, -1, 2.9]), rule).tolist() == [0, 1, 0, 0]
        np.testing.assert_allclose(choice(differences([3, 0, 3, 1]), rule), [0.5, 0, 0.5, 0], atol=1e-9)
    # p S >= 0 with weights of the opposite edges: (2, 1, 1) / 4 for the duel 1-2 of log-odds 2.
    uneven = np.array([[0.0, 1, -1], [-1, 0, 2], [1, -2, 0]])
    np.testing.assert_allclose(choice(uneven, "von_neumann"), [0.5, 0.25, 0.25], atol=1e-9)
    with pytest.raises(ValueError, match="mean, von_neumann"):
        choice(RING, "best")


def test_regret_by_hand():
    quality = np.array([1.0, 0, 0.5])
    # By the mean: {0, 1} -> 0, {0, 2} -> 0, {1, 2} -> 1 where 2 is better by 1/2; of all three -> 1.
    assert best_of_n_regret(NARROW, quality, 2) == pytest.approx(0.5 / 3)
    assert best_of_n_regret(NARROW, quality, 3) == best_of_n_regret(NARROW, quality) == 1
    assert best_of_n_regret(NARROW, quality, 3, "von_neumann") == 0
    assert best_of_n_regret(NARROW, quality, 1) == 0
    assert best_of_n_regret(RING, quality) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="n=4"):
        best_of_n_regret(RING, quality, 4)
    with pytest.raises(ValueError, match="too many"):
        best_of_n_regret(np.zeros((30, 30)), np.zeros(30), 15)


def published_ties_score(rows):
    """RewardBench 2's definition on rewards, spelled out; `rows` is {id: (rewards, number correct)}."""
    stats = {}
    for identity, (rewards, correct) in rows.items():
        good, bad = rewards[:correct], rewards[correct:]
        stats[identity] = (min(good) - max(bad), max(good) - min(good))
    tied = [key for key in stats if key.startswith("tied")]
    ref = [key for key in stats if key.startswith("ref")]
    pairs = [(stats[key], stats[key.replace("tied", "ref")][0]) for key in tied]
    preferred = np.mean([gap > spread for (gap, spread), _ in pairs])
    hard = np.mean([min(gap, other) > spread for (gap, spread), other in pairs])
    margins = [math.tanh(min(gap, other) / spread - 1) for (gap, spread), other in pairs if spread > 0]
    margin = np.mean(margins) if margins else 0.0
    tied_accuracy = np.mean([stats[key][0] > 0 for key in tied])
    ref_accuracy = np.mean([stats[key][0] > 0 for key in ref])
    return 0.3 * tied_accuracy + 0.3 * ref_accuracy + 0.2 * preferred + 0.2 * hard + 0.01 * margin


@pytest.mark.parametrize("rule", ["mean", "von_neumann"])
def test_ties_of_a_scalar_reward_are_the_published_score(rule):
    rng = np.random.default_rng(0)
    rows = {}
    for question in range(40):
        correct, wrong = rng.integers(2, 6), rng.integers(1, 9)
        good = rng.normal(2.5 * (question % 3), 0.7, correct)
        rows[f"tied:{question}"] = ([*good, *rng.normal(0, 1, wrong)], int(correct))
        if question % 5 == 0:
            good = [good[0]] * correct  # without a spread: a scorer that says the same of all
            rows[f"tied:{question}"] = ([*good, *rng.normal(0, 1, wrong)], int(correct))
        rows[f"ref:{question}"] = ([rng.normal(2), *rng.normal(0, 1, 4)], 1)
    found = ties_result(
        [{"id": identity, "correct": correct} for identity, (_, correct) in rows.items()],
        [differences(rewards, tau=0.1) for rewards, _ in rows.values()],
        rule,
    )
    assert found.score == pytest.approx(published_ties_score(rows), abs=1e-9)
    assert 0.2 < found.score < 0.9


def test_ties_without_spread_or_partner():
    rows = [{"id": "tied:1", "correct": 2}, {"id": "ref:1", "correct": 1}]
    found = ties_result(rows, [differences([3, 3, 0]), differences([1, 0])])
    assert (found.margin, found.score) == (0, pytest.approx(1))
    assert ties_result(rows, [differences([0, 0, 0]), differences([1, 0])]).margin == 0
    assert ties_result(rows, [differences([0, 0, 1]), differences([1, 0])]).margin == 0
    # Left out, and not counted as 0: the mean is that of the other question, gap 2 and 3, spread 1.
    rows += [{"id": "tied:2", "correct": 2}, {"id": "ref:2", "correct": 1}]
    two = [differences(rewards) for rewards in ([3, 3, 0], [1, 0], [3, 2, 0], [3, 0])]
    assert ties_result(rows, two).margin == pytest.approx(math.tanh(1))
    rows = rows[:2]
    alone = ties_result(rows[:1], [differences([3, 3, 0])])
    assert (alone.tied_accuracy, alone.ref_accuracy, alone.unpaired, alone.score) == (1, None, [1], None)
    with pytest.raises(ValueError, match="two rows 'tied:1'"):
        ties_result([rows[0], rows[0]], [differences([3, 3, 0])] * 2)


def test_readings_of_ties_differ_for_preferences():
    """Correct 0 and 1, wrong 2: all duels are won, but the mean of 1 is below that of 2."""
    scores = np.array([[0.0, 5, 1], [-5, 0, 1], [-1, -1, 0]])
    assert margins(scores, 2, "von_neumann") == (1, 5)
    assert margins(scores, 2, "mean") == (pytest.approx(-4 / 3 + 2 / 3), pytest.approx(2 + 4 / 3))


def row(identity, correct, wrong, subset):
    texts = [f"{identity}{letter}{'x' * length}" for letter, length in zip("abcdefgh", [*correct, *wrong])]
    return {"id": identity, "prompt": identity, "responses": texts, "correct": len(correct), "subset": subset}


ROWS = [
    row("1", [5], [1, 2, 3], "Math"),  # right
    row("2", [2], [1, 5, 3], "Math"),  # wrong
    row("3", [4], [4, 1, 4], "Focus"),  # shares the first place with two others
    row("tied:9", [6, 7], [1], "Ties"),
    row("ref:9", [6], [1], "Ties"),
]


def test_a_scalar_reward_gets_the_benchmarks_numbers():
    results = evaluate_rewardbench2(ROWS, by_reward(len))
    for result in results.values():
        assert result.accuracies["Math"][0] == 0.5 and result.accuracies["Math"][2] == 2
        assert result.accuracies["Focus"][0] == pytest.approx(1 / 3)
        # Gaps 5 and 5 (of 6 - 1), spread 1.
        assert result.ties.score == pytest.approx(1 + 0.01 * math.tanh(4))
        assert result.average is None  # not all rows are there
        assert result.regrets[4] == pytest.approx(1 - (1 + 0 + 1 / 3) / 3)
        # Pairs that hold the correct answer, 3 of 6: row 1 never errs, row 2 loses to 5 and to 3, row 3 halves twice.
        assert result.regrets[2] == pytest.approx((0 + 2 / 6 + 1 / 6) / 3)
        assert result.forward_passes == 4 + 4 + 4 + 3 + 2
    text = rewardbench2_table(results.values())
    assert "| fake | mean | 50.0%" in text and "| fake | von_neumann | 50.0%" in text
    assert results["mean"].to_dict()["ties"]["preferred_hard"] == 1


def test_rules_differ_for_preferences_and_score_once():
    letters = "abc"
    scores = {(letters[i], letters[j]): float(NARROW[i, j]) for i, j in itertools.combinations(range(3), 2)}
    rows = [{"id": "1", "prompt": "p", "responses": list(letters), "correct": 1, "subset": "Math"}]
    scorer = table(scores)
    results = evaluate_rewardbench2(rows, scorer)
    assert results["mean"].accuracies["Math"][0] == 0
    assert results["von_neumann"].accuracies["Math"][0] == 1
    assert len(scorer.asked) == 1
    with pytest.raises(ValueError, match="choose among"):
        evaluate_rewardbench2(rows, scorer, rules=["smith"])
    with pytest.raises(ValueError, match="no rows"):
        evaluate_rewardbench2([], scorer)
