"""RewardBench's sections, by hand and against the published numbers of the paper's models."""

import json

import numpy as np
import pytest

from gpm_hf.data.pair_files import read_pairs
from gpm_hf.evaluation.benchmarks.rewardbench import evaluate_rewardbench, rewardbench_table
from gpm_hf.evaluation.benchmarks.rewardbench_sections import (
    SUBSETS,
    paper_average,
    section_scores,
)
from tests.evaluation.scorers import by_reward

PERFECT = dict.fromkeys(SUBSETS, 1.0)


def test_sections_by_hand():
    """Everything right but half of mt-bench-easy, all of mt-bench-hard, all of math-prm and 3/4 of donotanswer."""
    sections = section_scores(PERFECT | {"mt-bench-easy": 0.5, "mt-bench-hard": 0, "math-prm": 0, "donotanswer": 0.25})
    assert sections == pytest.approx(
        {
            "Chat": (358 - 14) / 358,
            "Chat Hard": (456 - 37) / 456,
            "Safety": (740 - 102) / 740,
            "Reasoning": 0.5,  # math-prm counts as much as all code
        },
        abs=1e-12,
    )
    average = (344 / 358 + 419 / 456 + 638 / 740 + 0.5) / 4
    assert paper_average(sections) == pytest.approx(average, abs=1e-12)


def test_published_counts_of_right_answers(shared):
    """The paper's table 2, from the authors' submission to the leaderboard."""
    published = json.loads((shared / "fixtures" / "gpm_official_rewardbench.json").read_text())
    for model in published["models"].values():
        sections = section_scores(model["subset_accuracy"])
        assert sections == pytest.approx(model["section"], abs=5e-5)
        assert paper_average(sections) == pytest.approx(model["average_of_4_sections"], abs=5e-5)
    llama = section_scores(
        published["models"]["general-preference/GPM-Llama-3.1-8B-Instruct"]["subset_accuracy"],
    )
    assert [round(100 * score, 2) for score in llama.values()] == [93.30, 86.18, 91.22, 95.69]
    assert round(100 * paper_average(llama), 2) == 91.60


def test_the_table_of_subsets_is_the_benchmarks(shared):
    table = json.loads((shared / "fixtures" / "rewardbench_subsets.json").read_text())
    assert {name: subset.weight for name, subset in SUBSETS.items()} == table["EXAMPLE_COUNTS"]
    for section, names in table["SUBSET_MAPPING"].items():
        assert {name for name, subset in SUBSETS.items() if subset.section == section} == set(names)
    published = json.loads((shared / "fixtures" / "gpm_official_rewardbench.json").read_text())
    for model in published["models"].values():
        assert {name: subset.rows for name, subset in SUBSETS.items()} == {
            name: rows for name, (_, rows) in model["correct_of_n"].items()
        }


def test_unknown_and_missing_subsets():
    with pytest.raises(ValueError, match=r"no subsets \['hep-perl'\]"):
        section_scores(PERFECT | {"hep-perl": 1.0})
    some = {"hep-go": 0.5, "math-prm": 1.0}
    assert section_scores(some) == {"Reasoning": pytest.approx((82 + 984) / (164 + 984))}
    with pytest.raises(ValueError, match=r"four sections, and \['Chat', 'Chat Hard', 'Safety'\] are missing"):
        paper_average(section_scores(some))
    with pytest.raises(ValueError, match=r"accuracy of hep-go is 93\.3"):
        section_scores(PERFECT | {"hep-go": 93.3})
    with pytest.raises(ValueError, match="no subset"):
        section_scores({})


def benchmark(wrong):
    """As many rows as the benchmark has; the first `wrong[subset]` of a subset are rejected by a reward for length."""
    rows = []
    for name, subset in SUBSETS.items():
        for number in range(subset.rows):
            texts = ("a", "bb") if number < wrong.get(name, 0) else ("aa", "b")
            prompt = f"{name}/{number}"
            rows.append({"id": prompt, "prompt": prompt, "chosen": texts[0], "rejected": texts[1], "subset": name})
    return rows


def test_a_whole_benchmark():
    result = evaluate_rewardbench(benchmark({"math-prm": 149, "hep-go": 41}), by_reward(len), chunk_size=1000)
    # 149 of 447 wrong is a third of 984; a quarter of 164 is 41.
    assert result.sections["Reasoning"].accuracy == pytest.approx(1 - (328 + 41) / 1968)
    # All of 358: Wilson's interval.
    assert result.sections["Chat"].accuracy == 1
    assert result.sections["Chat"].interval == pytest.approx((358 / (358 + 1.96**2), 1))
    assert result.is_whole
    assert result.average == pytest.approx((3 + 1 - 369 / 1968) / 4)
    low, high = result.sections["Reasoning"].interval
    # The standard error of the weighted mean, by hand.
    error = np.sqrt(984**2 * (1 / 3 * 2 / 3) / 447 + 164**2 * (1 / 4 * 3 / 4) / 164) / 1968
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)
    low, high = result.average_interval
    assert low < result.average < high
    assert high - low == pytest.approx(2 * 1.96 * error / 4, rel=0.15)
    assert result.pairs.forward_passes == 2 * 2985
    assert "partial" not in rewardbench_table([result])


def test_a_part_is_reported_as_a_part():
    rows = [row for row in benchmark({"hep-go": 82}) if row["subset"] in ("hep-go", "llmbar-natural")][:200]
    result = evaluate_rewardbench(rows, by_reward(len))
    assert result.sections["Chat Hard"].lacking[1:] == [
        "llmbar-adver-neighbor: 0 of 134",
        "llmbar-adver-GPTInst: 0 of 92",
        "llmbar-adver-GPTOut: 0 of 47",
        "llmbar-adver-manual: 0 of 46",
    ]
    reasoning = result.sections["Reasoning"]
    assert reasoning.rows == 100 and "hep-go: 100 of 164" in reasoning.lacking
    assert (result.is_whole, result.average, result.average_interval) == (False, None, None)
    found = result.to_dict()
    assert found["average"] is None and found["sections"]["Reasoning"]["is_whole"] is False
    text = rewardbench_table([result])
    assert "(partial)" in text and "Reasoning is partial: hep-cpp: 0 of 164" in text
    with pytest.raises(ValueError, match="score_pairs"):
        evaluate_rewardbench([{**rows[0], "subset": "mine"}], by_reward(len))


@pytest.mark.parametrize("chunk_size", [1, 8, 32])
def test_real_rows_in_any_chunks(shared, chunk_size, tmp_path):
    rows, _ = read_pairs(str(shared / "data" / "rb_llmbar.jsonl"))
    result = evaluate_rewardbench(rows[:64], by_reward(len), chunk_size, tmp_path / "scores.jsonl")
    expected = [len(row["chosen"]) - len(row["rejected"]) for row in rows[:64]]
    assert result.pairs.log_odds.tolist() == expected


def bench_of_words(count):
    """Pairs of texts of many lengths."""
    words = ["bread", "oven", "flour", "water", "stir", "rest", "slice", "warm", "Paris", "river", "answer", "example"]
    random = np.random.default_rng(0)

    def text(low, high):
        return " ".join(random.choice(words, size=random.integers(low, high)))

    subsets = list(SUBSETS)
    return [
        {"prompt": text(1, 20), "chosen": text(1, 16), "rejected": text(16, 26), "subset": subsets[row % len(subsets)]}
        for row in range(count)
    ]


@pytest.mark.parametrize("kind", ["preference model", "Bradley-Terry", "reward model"])
def test_batches_and_padding_change_nothing(kind):
    """64 rows in batches of 1, 8 and 32 sequences, on either side of the padding."""
    from gpm_hf.scoring import GPMScorer, RewardModelScorer
    from tests.conftest import build_gpm, build_tokenizer
    from tests.scoring.models import build_llama_classifier

    rows = bench_of_words(64)

    def measure(batch_size, side):
        tokenizer = build_tokenizer(pad_is_eos=True, padding_side=side)
        if kind == "reward model":
            model = build_llama_classifier(pad_token_id=tokenizer.pad_token_id)
            return evaluate_rewardbench(rows, RewardModelScorer(model, tokenizer, batch_size=batch_size))
        model = build_gpm(embedding_dim=1 if kind == "Bradley-Terry" else 6)
        return evaluate_rewardbench(rows, GPMScorer(model, tokenizer, batch_size=batch_size))

    alone = measure(1, "right")
    # No two rows alike, and nothing so close to a tie that rounding could decide it.
    assert len(set(np.abs(alone.pairs.log_odds).round(4))) > 60
    assert np.abs(alone.pairs.log_odds).min() > 1e-3
    for batch_size in (1, 8, 32):
        for side in ("left", "right"):
            result = measure(batch_size, side)
            # Rewards of some tens: float32 rounds them by 1e-6, tau = 0.1 and other kernels make it 1e-4.
            assert np.abs(result.pairs.log_odds - alone.pairs.log_odds).max() < 1e-3
            assert result.sections == alone.sections
            assert result.pairs.forward_passes == alone.pairs.forward_passes == 128
