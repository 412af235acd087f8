"""AlpacaEval with a scorer for a judge: the annotations, and the package's own regression on them."""

import hashlib
import json

import numpy as np
import pytest

from gpm_hf.evaluation.benchmarks import alpaca_eval_judge
from gpm_hf.evaluation.benchmarks.alpaca_eval_judge import (
    alpaca_eval_annotations,
    alpaca_eval_metrics,
    prepare_alpaca_eval,
)
from gpm_hf.evaluation.reports.policy_answers import PolicyAnswers, on_prompts_of
from gpm_hf.evaluation.reports.win_rates import measure_win_rates
from tests.evaluation.scorers import FunctionScorer

PROMPTS = [f"Instruction {n}?" for n in range(60)]


def measure(odds, lengths=None, baseline_lengths=None):
    """One policy against a baseline, log-odds by prompt."""
    lengths, baseline_lengths = lengths or [3] * len(odds), baseline_lengths or [4] * len(odds)
    by_prompt = dict(zip(PROMPTS, odds))
    scorer = FunctionScorer(lambda prompt, first, _: by_prompt[prompt] * (1 if first[0] == "g" else -1), name="gpm")
    prompts, rows = PROMPTS[: len(odds)], ["row"] * len(odds)
    return measure_win_rates(
        [
            PolicyAnswers("base", prompts, ["b" * length for length in baseline_lengths], rows),
            PolicyAnswers("gpo", prompts, ["g" * length for length in lengths], rows),
        ],
        scorer,
    )


@pytest.fixture
def own_instructions(monkeypatch):
    """Instructions of the tests' own in the place of AlpacaEval's 805."""
    digest = hashlib.sha256(json.dumps(PROMPTS).encode()).hexdigest()
    monkeypatch.setattr(alpaca_eval_judge, "INSTRUCTIONS_SHA256", digest)


def test_annotations_by_hand():
    rows = alpaca_eval_annotations(measure([np.log(3), 0.0]), "gpo", "base")
    assert rows[0] == {
        "instruction": "Instruction 0?",
        "output_1": "bbbb",
        "generator_1": "base",
        "output_2": "ggg",
        "generator_2": "gpo",
        "annotator": "gpm",
        "preference": pytest.approx(1.75),
    }
    assert rows[1]["preference"] == 1.5


def test_other_instructions_are_refused():
    with pytest.raises(ValueError, match=r"These 2 instructions are not AlpacaEval's 805.*eval win-rates"):
        alpaca_eval_metrics(alpaca_eval_annotations(measure([1.0, 0.0]), "gpo", "base"))


def test_without_the_package(own_instructions, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "alpaca_eval", None)
    with pytest.raises(ImportError, match=r"pip install 'gpm-hf\[judge\]'"):
        prepare_alpaca_eval(PROMPTS)


def test_what_stands_in_the_packages_way_is_said(own_instructions, monkeypatch, tmp_path):
    """Installed, but it imports `pkg_resources`, which setuptools has no more: to install it again would not help."""
    import sys

    (tmp_path / "alpaca_eval").mkdir()
    (tmp_path / "alpaca_eval" / "__init__.py").write_text("import pkg_resources\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "alpaca_eval"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pkg_resources", None)
    with pytest.raises(ImportError, match=r"cannot be imported \(.*pkg_resources.*\): .*pip install 'setuptools<81'"):
        prepare_alpaca_eval(PROMPTS)


def test_without_its_data(own_instructions, monkeypatch, tmp_path):
    pytest.importorskip("alpaca_eval")
    monkeypatch.setattr("alpaca_eval.constants.DEFAULT_CACHE_DIR", str(tmp_path))
    with pytest.raises(OSError, match=r"df_gamed\.csv.*hf download"):
        prepare_alpaca_eval(PROMPTS)


def test_empty_and_missing_answers_are_counted_and_gone_on_without():
    """An answer without text loses to a text and ties with another without; one that is not there is left out."""
    prompts = PROMPTS[:4]
    policies = [
        PolicyAnswers("base", prompts, ["b", "b", "", "b"], ["row"] * 4),
        on_prompts_of(
            PolicyAnswers("base", prompts, [""] * 4, ["row"] * 4),
            PolicyAnswers("gpo", [prompts[2], prompts[1], prompts[0], "Another?"], ["", " ", "gg", "g"], ["r"] * 4),
        ),
    ]
    scorer = FunctionScorer(lambda _, first, second: np.log(3) * (1 if first[0] == "g" else -1))
    rows = alpaca_eval_annotations(measure_win_rates(policies, scorer), "gpo", "base")
    assert [row["instruction"] for row in rows] == prompts[:3], "the fourth is not answered"
    assert [row["preference"] for row in rows] == pytest.approx([1.75, 1.0, 1.5])
    assert {text for asked in scorer.asked for group in asked for text in group} == {"b", "gg"}
    with pytest.raises(ValueError, match="answers none of the prompts of base"):
        on_prompts_of(policies[0], PolicyAnswers("other", ["Another?"], ["a"], ["row"]))


def test_metrics_of_fewer_rows_than_the_benchmark(own_instructions, gamed):
    """As the package has them: the difficulty is that of the place among the rows that are there."""
    result = measure([1.0] * 60, [3 + n % 7 for n in range(60)], [2 + n % 5 for n in range(60)])
    rows = alpaca_eval_annotations(result, "gpo", "base")
    del rows[7]
    found = alpaca_eval_metrics(rows, PROMPTS)
    assert found["n_total"] == 59 and found["n_empty"] == 0
    assert found["win_rate"] == pytest.approx(100 / (1 + np.exp(-1)), abs=1e-4)
    with pytest.raises(ValueError, match="another order"):
        alpaca_eval_metrics(rows[::-1], PROMPTS)


@pytest.fixture
def gamed(monkeypatch, tmp_path):
    """The package's data, made up."""
    pytest.importorskip("alpaca_eval")
    header = "model,preference,index,std_delta_len,instruction_difficulty,not_gamed_baseline\n"
    lines = [f"gamed,0.5,{n},{(n % 5) - 2},{(n % 3) - 1},False\n" for n in range(60)]
    (tmp_path / "df_gamed.csv").write_text(header + "".join(lines))
    for module in ("alpaca_eval.metrics.glm_winrate", "gpm_hf.evaluation.benchmarks.alpaca_eval_judge"):
        monkeypatch.setattr(f"{module}.hf_hub_download", lambda *_, **__: str(tmp_path / "df_gamed.csv"))


def test_the_package_finds_what_length_does_not_explain(own_instructions, monkeypatch, tmp_path):
    """Preferences made by the regression itself, theta = 0.5, phi = -1.5: the package must find sigmoid(0.5)."""
    pytest.importorskip("alpaca_eval")
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    lengths, baseline = rng.integers(50, 900, 60).tolist(), rng.integers(50, 900, 60).tolist()
    difference = np.array(baseline) - np.array(lengths)
    feature = np.tanh(difference / difference.std(ddof=1))
    gamed = pandas.DataFrame(
        {
            "model": "gamed",
            "index": range(60),
            "preference": 1 / (1 + np.exp(1.5 * feature)),
            "std_delta_len": difference / difference.std(ddof=1),
            "instruction_difficulty": rng.normal(size=60),
            "not_gamed_baseline": False,
        }
    )
    gamed.to_csv(tmp_path / "df_gamed.csv", index=False)
    for module in ("alpaca_eval.metrics.glm_winrate", "gpm_hf.evaluation.benchmarks.alpaca_eval_judge"):
        monkeypatch.setattr(f"{module}.hf_hub_download", lambda *_, **__: str(tmp_path / "df_gamed.csv"))
    result = measure((0.5 - 1.5 * feature).tolist(), lengths, baseline)
    found = alpaca_eval_metrics(alpaca_eval_annotations(result, "gpo", "base"))
    assert found["length_controlled_winrate"] == pytest.approx(100 / (1 + np.exp(-0.5)), abs=0.5)
    assert found["win_rate"] == pytest.approx(100 * result.matrix[1, 0], abs=1e-6)
    assert found["n_total"] == 60 and found["avg_length"] == pytest.approx(np.mean(lengths))
    assert result.length_controlled("gpo", "base") == pytest.approx(1 / (1 + np.exp(-0.5)), abs=1e-4)
