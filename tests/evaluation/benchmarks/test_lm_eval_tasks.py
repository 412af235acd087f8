"""Tasks of the LM evaluation harness: what the harness is asked, and a task that it really runs."""

import json
import sys
from types import ModuleType

import pytest

from gpm_hf.evaluation.benchmarks.lm_eval_tasks import TaskScore, model_arguments, run_lm_eval
from gpm_hf.evaluation.statistics.bootstrap import wilson_interval


@pytest.fixture
def harness(monkeypatch):
    """A harness that knows two tasks, remembers what it was asked, and answers as the real one does."""
    asked = {}

    class TaskManager:
        def __init__(self, include_path=None):
            asked["include_path"] = include_path
            self.all_tasks = ["gsm8k", "mmlu"]

    def simple_evaluate(**options):
        asked.update(options)
        return {
            "results": {
                "gsm8k": {
                    "alias": "gsm8k",
                    "exact_match,strict-match": 0.25,
                    "exact_match_stderr,strict-match": 0.1,
                },
                "mmlu": {"acc,none": 0.5, "acc_stderr,none": "N/A"},
            }
        }

    package, tasks = ModuleType("lm_eval"), ModuleType("lm_eval.tasks")
    package.simple_evaluate, tasks.TaskManager = simple_evaluate, TaskManager
    monkeypatch.setitem(sys.modules, "lm_eval", package)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", tasks)
    return asked


def test_what_the_harness_is_asked(harness):
    scores = run_lm_eval("my-name/my-gpo", ["gsm8k", "mmlu"], dtype="float32", limit=4)
    assert scores == [
        TaskScore("gsm8k exact_match (strict-match)", 0.25, 0.1),
        TaskScore("mmlu acc", 0.5, None),
    ]
    assert scores[0].interval == pytest.approx([0.25 - 0.196, 0.25 + 0.196]) and scores[1].interval is None
    assert harness["model"] == "hf" and harness["tasks"] == ["gsm8k", "mmlu"] and harness["limit"] == 4
    assert harness["model_args"] == {"pretrained": "my-name/my-gpo", "dtype": "float32"}


def test_intervals_of_shares_stay_inside_0_and_1(harness):
    # 0 of 20 and 20 of 20: the roots of (p - x)^2 = z^2 x (1 - x) / n are 0 and z^2 / (n + z^2), by hand 0.1611.
    assert TaskScore("gsm8k acc", 0.0, 0.0, 20).interval == pytest.approx([0, 3.8416 / 23.8416], abs=1e-9)
    assert TaskScore("gsm8k acc", 1.0, 0.0, 20).interval == pytest.approx([20 / 23.8416, 1], abs=1e-9)
    assert TaskScore("gsm8k acc", 0.0, 0.0).interval is None, "of how many?"
    # 1 of 20, with the harness's standard error, the sample's deviation over the square root of n.
    one = TaskScore("gsm8k exact_match (strict-match)", 0.05, (0.05 * 0.95 / 19) ** 0.5, 20)
    for end in one.interval:
        assert (0.05 - end) ** 2 == pytest.approx(1.96**2 * end * (1 - end) / 20, rel=1e-9)
    assert 0 < one.interval[0] < 0.05 < one.interval[1] < 0.25
    assert wilson_interval(0.5, 1e9) == pytest.approx([0.5, 0.5], abs=1e-4)
    # What is no share keeps the normal interval, and none without a width.
    assert TaskScore("wiki word_perplexity", 0.9, 0.2, 50).interval == pytest.approx([0.508, 1.292])
    assert TaskScore("wmt bleu", 0.0, 0.0, 50).interval is None
    assert TaskScore("gsm8k acc", 0.5, 0.25, 4).interval is None, "four examples"


def test_an_unknown_task_is_named(harness):
    with pytest.raises(ValueError, match="no task gms8k"):
        run_lm_eval("my-name/my-gpo", ["gms8k", "mmlu"])
    assert "model" not in harness


def test_an_adapter_and_a_preference_model(tmp_path):
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "my-name/base"}))
    lora = str(tmp_path / "lora")
    assert model_arguments(lora) == {"pretrained": "my-name/base", "peft": lora, "tokenizer": lora}
    (tmp_path / "gpm").mkdir()
    (tmp_path / "gpm" / "config.json").write_text(json.dumps({"model_type": "gpm"}))
    with pytest.raises(ValueError, match="a preference model, which writes no text"):
        model_arguments(str(tmp_path / "gpm"))


def test_without_the_harness(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ImportError, match=r"pip install 'gpm-hf\[judge\]'"):
        run_lm_eval("my-name/my-gpo", ["gsm8k"])


def test_a_task_really_runs(tmp_path, backbone_folder):
    """Of two choices the policy likes the same each time: right in one of four, or in three."""
    pytest.importorskip("lm_eval")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(backbone_folder)
    model = AutoModelForCausalLM.from_pretrained(backbone_folder).eval()
    with torch.no_grad():
        logits = model(**tokenizer("Which?", return_tensors="pt")).logits[0, -1]
    letters = [" a", " b"]
    (first,), (second,) = (tokenizer(letter, add_special_tokens=False)["input_ids"] for letter in letters)
    rows = [{"question": "Which?", "choices": letters, "label": label} for label in (0, 1, 1, 1)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "letters.yaml").write_text(
        "task: letters\n"
        "dataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'data.jsonl'}}}}}\n"
        "test_split: test\noutput_type: multiple_choice\n"
        'doc_to_text: "{{question}}"\ndoc_to_choice: "{{choices}}"\ndoc_to_target: label\ntarget_delimiter: ""\n'
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    (score,) = run_lm_eval(backbone_folder, ["letters"], str(tmp_path), "float32", device="cpu", bootstrap_iters=0)
    assert score.name == "letters acc"
    assert score.samples == 4 and score.interval is None
    assert score.value == pytest.approx(0.75 if logits[second] > logits[first] else 0.25)
