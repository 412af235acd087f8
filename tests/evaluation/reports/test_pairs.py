"""Pairs by subset, and groups whose responses are scored once."""

import numpy as np
import pytest

from gpm_hf.evaluation.reports.pairs import pairs_table, score_pairs
from tests.evaluation.scorers import by_reward, table


def pair(prompt, chosen, rejected, subset="s", **more):
    return {"id": prompt, "prompt": prompt, "chosen": chosen, "rejected": rejected, "subset": subset, **more}


# Right, wrong, tie in "s"; right in "t".
ROWS = [pair("1", "aaa", "a"), pair("2", "a", "aa"), pair("3", "ab", "ba"), pair("4", "aaaa", "b", "t")]


def test_a_tie_is_not_right():
    result = score_pairs(ROWS, by_reward(len))
    assert result.log_odds.tolist() == [2, -1, 0, 3]
    counts = result.by("subset")
    assert [(one.pairs, one.right, one.ties) for one in counts.values()] == [(3, 1, 1), (1, 1, 0)]
    assert (result.total.right, result.total.pairs, result.forward_passes) == (2, 4, 8)
    assert result.total.interval is None, "four prompts"
    low, high = score_pairs([*ROWS, pair("5", "aaa", "a")], by_reward(len)).total.interval
    assert low <= 3 / 5 <= high
    np.testing.assert_allclose(result.probabilities, 1 / (1 + np.exp([-2.0, 1, 0, -3])))
    assert result.by(lambda row: len(row["chosen"]) > 2)[True].right == 2


def test_results_for_json_and_the_screen():
    result = score_pairs(ROWS, by_reward(len, name="by length"))
    found = result.to_dict()
    assert (found["accuracy"], found["subsets"]["t"]["accuracy"], found["forward_passes"]) == (0.5, 1.0, 8)
    lines = pairs_table([result]).splitlines()
    assert lines[0] == "| scorer | all pairs | s | t | asymmetry | forward passes |"
    assert "33.3%" in lines[2] and "(1/3)" in lines[2] and lines[2].endswith("| 0 | 8 |")


def test_rows_of_one_group_share_responses():
    """RM-Bench: nine pairs of six responses cost six encodes, not eighteen."""
    better, worse = ["a", "aaa", "aaaaa"], ["b", "bb", "bbbb"]
    rows = [
        pair("p", one, other, group="g", difficulty="normal" if i == j else "hard" if i < j else "easy")
        for i, one in enumerate(better)
        for j, other in enumerate(worse)
    ]
    scorer = by_reward(len)
    result = score_pairs(rows, scorer)
    assert result.forward_passes == 6 and len(scorer.asked) == 1
    counts = {name: (one.right, one.pairs, one.ties) for name, one in result.by("difficulty").items()}
    # 1, 3, 5 against 1, 2, 4: the diagonal ties once, above it all is wrong, below it all is right.
    assert counts == {"normal": (2, 3, 1), "hard": (0, 3, 0), "easy": (3, 3, 0)}
    assert result.to_dict()["difficulty"]["easy"]["accuracy"] == 1
    with pytest.raises(ValueError, match="several prompts"):
        score_pairs([rows[0], {**rows[1], "prompt": "q"}], scorer)


def test_intervals_are_over_prompts():
    """100 copies of one prompt's pair are one cluster, which says nothing of others; five prompts say something."""
    rows = [pair("p", "aa", f"{n:03}"[0]) for n in range(100)]
    result = score_pairs(rows, by_reward(len))
    assert result.total.interval is None and result.to_dict()["interval"] is None
    assert pairs_table([result]).splitlines()[2].startswith("| fake | 100.0% (100/100) |")
    rows += [pair(str(n), "a", "aa") for n in range(4)]
    low, high = score_pairs(rows, by_reward(len)).total.interval
    # The first prompt is drawn three times or more in 5.8% of resamples of five, four times in 0.7%; never in 33%.
    assert (low, high) == (0, pytest.approx(300 / 302))


def test_refused_rows_are_named_by_id():
    with pytest.raises(ValueError, match="hep/3: fake returned"):
        score_pairs([{**ROWS[0], "id": "hep/3"}], table({("aaa", "a"): float("inf")}))
    with pytest.raises(ValueError, match="no pairs"):
        score_pairs([], by_reward(len))
