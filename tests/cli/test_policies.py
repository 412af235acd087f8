"""`gpm-hf iterate`, `best-of-n` and `answer` on tiny models."""

import json

import pytest

from tests.cli.conftest import PROMPT, ask

ON_CPU = ["--device", "cpu", "--max-new-tokens", 6]


def prompts_file(folder, rows):
    path = folder / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_best_of_n_is_chosen_by_the_rule(capsys, folder, backbone_folder, tmp_path):
    from gpm_hf import load_preference_model, load_tokenizer, select

    data = prompts_file(tmp_path, [{"prompt": f"Question {number}?"} for number in range(5)])
    options = ["best-of-n", backbone_folder, "--scorer", f"gpm:{folder}", "--n", 4, "--shard-size", 2, *ON_CPU]
    written = {}
    for rule in ("mean", "von_neumann", "copeland", "smith"):
        output = tmp_path / f"{rule}.jsonl"
        code, out, _ = ask(capsys, *options, "--input", data, "--rule", rule, "--output", output)
        assert code == 0 and "5 rows written" in out
        written[rule] = lines(output)
    model, tokenizer = load_preference_model(folder), load_tokenizer(folder)
    for rule, rows in written.items():
        assert [row["prompt"] for row in rows] == [f"Question {number}?" for number in range(5)]
        for row in rows:
            scores = model.preference_scores(tokenizer, row["prompt"], row["responses"])
            assert row["mean_scores"] == pytest.approx(scores.mean(-1).tolist(), abs=3e-5)
            assert row["index"] == int(select(scores, rule)) and row["best"] == row["responses"][row["index"]]
    # The same answers, whatever is then chosen.
    assert all(
        [row["responses"] for row in rows] == [row["responses"] for row in written["mean"]]
        for rows in written.values()
    )
    assert len({row["index"] for row in written["mean"]}) > 1


def test_the_best_of_n_for_one_prompt_is_shown(capsys, folder, backbone_folder):
    options = ["best-of-n", backbone_folder, "--scorer", f"gpm:{folder}", "--n", 3, "--prompt", PROMPT, *ON_CPU]
    code, out, _ = ask(capsys, *options, "--format", "json")
    row = json.loads(out)
    assert code == 0 and row["mean_scores"][row["index"]] == max(row["mean_scores"])
    code, out, _ = ask(capsys, *options)
    assert code == 0 and out.startswith(f"[{row['index']}] ") and out.count("[") == len(row["responses"]) + 1


def test_answers_are_written_as_alpaca_eval_reads_them(capsys, backbone_folder, tmp_path):
    data = prompts_file(tmp_path, [{"instruction": f"Question {number}?"} for number in range(5)])
    options = ["answer", backbone_folder, "--prompts", data, "--name", "tiny", "--shard-size", 2, *ON_CPU]
    for name in ("one.json", "two.json"):
        code, out, _ = ask(capsys, *options, "--output", tmp_path / name)
        assert code == 0 and "5 answers written" in out
    rows = json.loads((tmp_path / "one.json").read_text())
    assert [set(row) for row in rows] == [{"instruction", "output", "generator"}] * 5
    assert [row["instruction"] for row in rows] == [f"Question {number}?" for number in range(5)]
    assert len({row["output"] for row in rows}) > 1 and {row["generator"] for row in rows} == {"tiny"}
    assert (tmp_path / "two.json").read_bytes() == (tmp_path / "one.json").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"prompts.jsonl", "one.json", "two.json"}


def test_a_prompt_that_cannot_be_answered_is_named_by_its_row(capsys, folder, backbone_folder, tmp_path):
    rows = [{"prompt": "One?"}, {"prompt": [{"role": "tool", "content": "2"}]}]
    data = prompts_file(tmp_path, rows)
    output = tmp_path / "out.jsonl"
    command = ["best-of-n", backbone_folder, "--scorer", f"gpm:{folder}", "--input", data, "--output", output]
    code, _, err = ask(capsys, *command, *ON_CPU)
    assert (
        code == 1 and "prompts.jsonl, row 2: The chat template cannot render messages with the roles ['tool']" in err
    )
    data = prompts_file(tmp_path, [{"prompt": "One?"}, {"prompt": "Two? " * 200}])
    for arguments in (command, ["answer", backbone_folder, "--prompts", data, "--output", tmp_path / "out.json"]):
        code, _, err = ask(capsys, *arguments, *ON_CPU)
        assert code == 1 and "prompts.jsonl, row 2 has 1012 tokens" in err and "context of 256" in err
    assert {path.name for path in tmp_path.iterdir()} == {"prompts.jsonl"}


def test_the_best_of_n_keeps_what_was_sampled(capsys, folder, backbone_folder, tmp_path):
    """Its rows are scored rows: the policy can be trained on them as they are."""
    from transformers import AutoModelForCausalLM

    from gpm_hf.data.policy_data import all_responses
    from tests.generation.log_probs import token_log_probs

    data = prompts_file(tmp_path, [{"prompt": "One?"}, {"prompt": "Two?"}])
    command = ["best-of-n", backbone_folder, "--scorer", f"gpm:{folder}", "--n", 3, *ON_CPU, "--input", data]
    assert ask(capsys, *command, "--output", tmp_path / "best.jsonl")[0] == 0
    rows = lines(tmp_path / "best.jsonl")
    policy = AutoModelForCausalLM.from_pretrained(backbone_folder)
    found = token_log_probs(policy, [row["prompt_ids"] for row in rows], [row["response_ids"] for row in rows])
    for row, values in zip(rows, found):
        assert values == pytest.approx(row["policy_log_probs"], abs=1e-4)
    samples = all_responses(rows, with_policy_log_probs=True)
    assert samples["completion_ids"] == [ids for row in rows for ids in row["response_ids"]]


def test_a_prompt_without_any_answer_does_not_stop_the_best_of_n(
    capsys, folder, backbone_folder, tmp_path, monkeypatch
):
    from dataclasses import replace

    from gpm_hf.generation import PolicySampler

    inner = PolicySampler.sample

    def silent(self, prompts, seed):
        groups = inner(self, prompts, seed)
        return [replace(one, responses=[" "] * 3) if "1" in name else one for name, one in zip(prompts, groups)]

    monkeypatch.setattr(PolicySampler, "sample", silent)
    data = prompts_file(tmp_path, [{"prompt": f"Question {number}?"} for number in range(3)])
    command = ["best-of-n", backbone_folder, "--scorer", f"gpm:{folder}", "--n", 3, *ON_CPU]
    code, out, _ = ask(capsys, *command, "--input", data, "--output", tmp_path / "best.jsonl")
    assert code == 0 and "3 rows written" in out and "To 1 of the prompts no answer has text" in out
    rows = lines(tmp_path / "best.jsonl")
    assert [row["index"] is None for row in rows] == [False, True, False]
    assert (rows[1]["best"], rows[1]["responses"], rows[1]["scores"], rows[1]["response_ids"]) == ("", [], [], [])
    code, out, _ = ask(capsys, *command, "--prompt", "Question 1?")
    assert code == 0 and "No answer has text" in out


def test_mistakes_are_explained(capsys, folder, backbone_folder, tmp_path):
    best = ["best-of-n", backbone_folder, "--scorer", f"gpm:{folder}"]
    assert ask(capsys, *best)[2].endswith("Give either --prompt, or --input FILE.jsonl.\n")
    assert "belong together" in ask(capsys, *best, "--input", "prompts.jsonl")[2]
    assert "at least two" in ask(capsys, *best, "--prompt", PROMPT, "--n", 1)[2]
    data = prompts_file(tmp_path, [{"prompt": [{"role": "user", "content": "One?"}]}])
    answer = ["answer", backbone_folder, "--prompts", data, "--output"]
    assert "is a .json file" in ask(capsys, *answer, tmp_path / "out.txt")[2]
    assert "row 1: AlpacaEval's format has one string" in ask(capsys, *answer, tmp_path / "out.json")[2]
    assert not (tmp_path / "out.json").exists()


def test_iterate_takes_options_of_the_job_and_of_the_trainer(capsys, folder, backbone_folder, tmp_path):
    data = prompts_file(tmp_path, [{"prompt": f"Question {number}?"} for number in range(4)])
    (tmp_path / "recipe.yaml").write_text("gpo_beta: 0.5\nlearning_rate: 1.0e-3\nnum_generations: 7\n")
    command = ["iterate", backbone_folder, "--scorer", f"gpm:{folder}", "--prompts", data, "--iterations", 1]
    command += ["--config", tmp_path / "recipe.yaml", "--num-generations", 3, "--max-new-tokens", 6, "--output"]
    command += [tmp_path / "out", "--method", "sppo", "--use_cpu", "--bf16", "false", "--report_to", "none"]
    code, out, err = ask(capsys, *command, "--max_steps", 1, "--disable_tqdm", "true")
    assert code == 0, err
    assert out.endswith(f"The last policy is in {tmp_path / 'out' / 'iteration-1' / 'policy'}.\n")
    assert "Iteration 1/1: training by sppo, selection mean." in out
    settings = json.loads((tmp_path / "out" / "iterate.json").read_text())
    assert (settings["num_generations"], settings["method"]) == (3, "sppo")
    assert (settings["training.gpo_beta"], settings["training.learning_rate"]) == (0.5, 1e-3)
    code, _, err = ask(capsys, *command, "--max_steps", 2, "--disable_tqdm", "true")
    assert code == 1 and "training.max_steps was 1, is 2" in err
