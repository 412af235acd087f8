"""`gpm-hf eval rewardbench2`, on numbers worked out by hand and on a tiny model."""

import json
import math
import shutil

import pytest

from gpm_hf.cli.evaluation_best_of import RULES
from tests.cli.conftest import ask
from tests.evaluation.scorers import by_reward

ROWS = [
    # By length: right; wrong; three share the largest reward, one of them correct.
    {"id": "1", "subset": "Math", "chosen": ["four"], "rejected": ["a", "bb", "ccc"]},
    {"id": "2", "subset": "Math", "chosen": ["a"], "rejected": ["bb", "ccc", "dddd"]},
    {"id": "3", "subset": "Focus", "chosen": ["aaa"], "rejected": ["bbb", "ccc", "d"]},
    # Gaps 6 - 1 and 5 - 1, spread 1.
    {"id": "ref:1", "subset": "Ties", "chosen": ["aaaaaa"], "rejected": ["b", "c"]},
    {"id": "tied:1", "subset": "Ties", "chosen": ["aaaaaa", "bbbbb"], "rejected": ["c"]},
]


@pytest.fixture
def bench(tmp_path):
    rows = [{"prompt": f"Question {row['id']}?", "num_correct": len(row["chosen"]), **row} for row in ROWS]
    path = tmp_path / "bench2.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def long(monkeypatch):
    scorer = by_reward(len, name="long")
    monkeypatch.setattr("gpm_hf.scoring.load_scorer", lambda spec, **options: scorer)
    return scorer


def test_by_hand(capsys, long, bench):
    code, out, _ = ask(capsys, "eval", "rewardbench2", "long", "--dataset", bench, "--format", "json")
    assert code == 0
    (result,) = json.loads(out)["results"]
    assert set(result["rules"]) == set(RULES)
    for found in result["rules"].values():
        assert found["subsets"]["Math"]["accuracy"] == 0.5 and found["subsets"]["Math"]["rows"] == 2
        assert found["subsets"]["Focus"]["accuracy"] == pytest.approx(1 / 3)
        assert found["ties"]["score"] == pytest.approx(1 + 0.01 * math.tanh(3))
        assert found["average"] is None  # five rows are not the benchmark
        assert found["forward_passes"] == 4 + 4 + 4 + 3 + 3
    assert json.loads(out)["read"][0]["used"] == 5
    assert len(long.asked) == 1
    _, out, _ = ask(capsys, "eval", "rewardbench2", "long", "--dataset", bench, "--rule", "mean")
    assert "| long | mean | 50.0%" in out and "von_neumann" not in out


def test_stored_scores_are_used_again(capsys, long, bench, tmp_path):
    arguments = ["eval", "rewardbench2", "random", "--dataset", bench, "--store", tmp_path / "scores"]
    ask(capsys, *arguments)
    _, out, _ = ask(capsys, *arguments)
    assert len(long.asked) == 1 and "the scores of 5 rows were stored already" in out


def test_limits(capsys, long, bench):
    arguments = ["eval", "rewardbench2", "long", "--dataset", bench, "--format", "json"]
    _, out, _ = ask(capsys, *arguments, "--limit", "2")
    assert json.loads(out)["results"][0]["rules"]["mean"]["rows"] == 2
    code, _, err = ask(capsys, *arguments, "--limit", "0")
    assert code and "--limit 0: at least 1 is needed" in err
    code, _, err = ask(capsys, *arguments, "--max-tokens", "10")
    assert code and "--max-tokens counts as a model" in err


def test_the_card_states_a_models_numbers(capsys, folder, bench, tmp_path):
    from gpm_hf.hub.results import load_results
    from gpm_hf.scoring import load_scorer

    own = shutil.copytree(folder, tmp_path / "own")
    output = own / "results" / "rewardbench2.json"
    arguments = ["eval", "rewardbench2", f"gpm:{own}", "--dataset", bench, "--output", output]
    code, _, err = ask(capsys, *arguments, "--max-tokens", "200")
    assert code == 0, err
    (stored,) = load_results(own)
    assert stored["evaluation"] == "rewardbench2" and stored["result"]["rule"] == "mean"
    scorer, right = load_scorer(f"gpm:{own}", device="cpu"), 0
    for row in ROWS[:2]:
        (scores,) = scorer([f"Question {row['id']}?"], [row["chosen"] + row["rejected"]])
        right += int(scores.mean(-1).argmax()) == 0
    assert stored["result"]["math_accuracy"] == right / 2


def test_the_rules_are_those_of_the_evaluation():
    from gpm_hf.evaluation.reports.best_of_n_regret import RULES as known

    assert known == RULES
