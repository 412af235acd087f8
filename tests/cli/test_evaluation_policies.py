"""`gpm-hf eval win-rates`, `alpaca`, `mt-bench` and `lm-eval`, on numbers worked out by hand and on tiny models."""

import hashlib
import json
import math
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import ask
from tests.evaluation.scorers import FunctionScorer, by_reward

PROMPTS = ["One?", "Two?", "Three?", "Four?"]
ANSWERS = {"base": ["Red.", "Red.", "Red.", "Red."], "gpo": ["Redder.", "Red.", "Reddest.", "Rd."]}


@pytest.fixture
def files(tmp_path):
    found = []
    for name, answers in ANSWERS.items():
        rows = [{"instruction": p, "output": a, "generator": name} for p, a in zip(PROMPTS, answers)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
        found.append(f"{name}={tmp_path / name}.json")
    return found


@pytest.fixture
def use(monkeypatch):
    def put(scorer):
        monkeypatch.setattr("gpm_hf.scoring.load_scorer", lambda spec, **options: scorer)

    return put


def by_length():
    """Log-odds of a character more: ln 3 / 3."""
    return by_reward(lambda text: len(text) * math.log(3) / 3, name="long")


def test_win_rates_by_hand(capsys, use, files, tmp_path):
    use(by_length())
    arguments = ["eval", "win-rates", "--scorer", "gpm:x", *files, "--baseline", "base"]
    code, out, _ = ask(capsys, *arguments, "--format", "json", "--output", tmp_path / "out.json")
    assert code == 0
    found = json.loads(out)
    # 3, 0, 4 and -1 characters more.
    chances = [1 / (1 + 3 ** (-more / 3)) for more in (3, 0, 4, -1)]
    assert found["policies"]["gpo"]["win_rates"]["base"] == pytest.approx(sum(chances) / 4, abs=1e-6)
    assert found["policies"]["gpo"]["mean_characters"] == (7 + 4 + 8 + 3) / 4
    # All of it is length, though not by the regression's tanh.
    assert sum(chances) / 4 > 0.6 and found["policies"]["gpo"]["length_controlled_win_rate"] < 0.53
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["evaluation"] == "win-rates" and written["policies"] == found["policies"]
    code, out, _ = ask(capsys, *arguments)
    assert code == 0 and f"| gpo | 6 | {sum(chances) / 4:.1%} | " in out and "No cycle of three" in out
    assert "No intervals: at least 5 prompts are needed." in out


def test_policies_are_rated(capsys, use, tmp_path):
    use(by_length())
    lengths = {"long": 9, "middle": 6, "short": 3}
    for name, length in lengths.items():
        rows = [{"prompt": f"{n}?", "response": "x" * (length + n % 2)} for n in range(12)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [f"{name}={tmp_path / name}.jsonl" for name in lengths]
    arguments = ["eval", "win-rates", "--scorer", "gpm:x", *files, "--picture", tmp_path / "ratings.png"]
    code, out, _ = ask(capsys, *arguments)
    assert code == 0 and "| policy | characters | rating (log-odds) | 95% interval |" in out
    table = out[out.index("rating (log-odds)") :]
    assert table.index("| long |") < table.index("| middle |") < table.index("| short |")
    assert "Held-out prompts speak for" in out and (tmp_path / "ratings.png").stat().st_size > 1000


def test_an_empty_answer_does_not_stop_the_win_rates(capsys, use, files):
    use(by_length())
    path = Path(files[1].partition("=")[2])
    rows = json.loads(path.read_text())
    rows[2]["output"] = ""
    path.write_text(json.dumps(rows))
    arguments = ["eval", "win-rates", "--scorer", "gpm:x", *files, "--baseline", "base"]
    code, out, _ = ask(capsys, *arguments)
    assert code == 0 and "Answers without text, which lose to every text and tie among themselves: 1 of gpo." in out
    found = json.loads(ask(capsys, *arguments, "--format", "json")[1])
    chances = [1 / (1 + 3 ** (-more / 3)) for more in (3, 0, -1)]
    assert found["policies"]["gpo"]["win_rates"]["base"] == pytest.approx(sum(chances) / 4, abs=1e-6)
    assert found["policies"]["gpo"]["empty_answers"] == 1 and found["policies"]["base"]["empty_answers"] == 0


def test_a_general_preference_model_judges_with_a_store(capsys, folder, files, tmp_path):
    arguments = ["eval", "win-rates", *files, "--scorer", f"gpm:{folder}", "--tokenizer", folder]
    arguments += ["--store", tmp_path / "store", "--format", "json"]
    code, out, err = ask(capsys, *arguments)
    assert code == 0, err
    found = json.loads(out)
    assert found["policies"]["base"]["mean_tokens"] > 0 and found["asymmetry"] == 0
    # Three prompts with two different answers, one with one.
    assert found["forward_passes"] == 7
    again = json.loads(ask(capsys, *arguments)[1])
    assert again == found and len(list((tmp_path / "store").iterdir())) == 1

    from gpm_hf import load_preference_model, load_tokenizer

    model, tokenizer = load_preference_model(folder), load_tokenizer(folder)
    chances = [model.compare(tokenizer, p, a, b) if a != b else 0.5 for p, a, b in zip(PROMPTS, *ANSWERS.values())]
    assert found["policies"]["base"]["win_rates"]["gpo"] == pytest.approx(sum(chances) / 4, abs=1e-5)


def test_the_card_of_a_policy(capsys, use, files, folder, tmp_path):
    from gpm_hf.hub.results import load_results

    use(by_length())
    own = shutil.copytree(folder, tmp_path / "own")
    arguments = ["eval", "win-rates", *files, "--scorer", f"gpm:{folder}"]
    code, _, _ = ask(capsys, *arguments, "--baseline", "base", "--card", f"gpo={own}")
    assert code == 0
    (found,) = load_results(own)
    judge = f"gpm:{folder.rsplit('/')[-1]}"
    assert found["data"] == f"answers to 4 prompts, against base, judged by {judge}"
    assert found["result"]["win_rate"] == pytest.approx(0.6, abs=0.1) and found["result"]["prompts"] == 4
    assert "win_rate_interval" not in found["result"], "four prompts have no interval"
    for options, message in (
        (["--card", f"gpo={own}"], "name it by --baseline"),
        (["--baseline", "base", "--card", f"base={own}"], "none of the policies that are compared"),
        (["--baseline", "base", "--card", "gpo"], "give NAME=FOLDER"),
        (["--baseline", "base", "--card", f"gpo={tmp_path}"], "holds no saved model"),
        (["--baseline", "sft"], "none of the policies base, gpo"),
        (["--batch-size", "0"], "at least 1"),
    ):
        code, _, err = ask(capsys, *arguments, *options)
        assert code == (2 if options[0] == "--batch-size" else 1) and message in err


def test_unequal_prompts_are_said_before_a_scorer_is_loaded(capsys, files, tmp_path):
    rows = json.loads((tmp_path / "gpo.json").read_text())
    (tmp_path / "gpo.json").write_text(json.dumps(rows[:3]))
    code, _, err = ask(capsys, "eval", "win-rates", *files, "--scorer", "gpm:/not/there")
    assert code == 1 and "gpo lacks 1, such as 'Four?' (base.json, row 4)" in err


def test_alpaca_of_other_prompts_is_refused_before_the_judging(capsys, files):
    code, _, err = ask(capsys, "eval", "alpaca", *files, "--scorer", "gpm:/not/there", "--baseline", "base")
    assert code == 1 and "not AlpacaEval's 805" in err and "eval win-rates --baseline" in err


def test_alpaca_eval(capsys, use, monkeypatch, tmp_path):
    """Forty prompts on which the judge always prefers the policy by ln 3, whatever the lengths."""
    pytest.importorskip("alpaca_eval")
    prompts = [f"Instruction {n}?" for n in range(40)]
    lengths = {"base": [4 + 7 * n % 11 for n in range(40)], "gpo": [3 + 5 * n % 13 for n in range(40)]}
    for name, own in lengths.items():
        rows = [{"instruction": p, "output": name[0] * n, "generator": name} for p, n in zip(prompts, own)]
        # The policy's file in another order than the benchmark's.
        (tmp_path / f"{name}.json").write_text(json.dumps(rows if name == "base" else rows[::-1]))
    digest = hashlib.sha256(json.dumps(prompts).encode()).hexdigest()
    monkeypatch.setattr("gpm_hf.evaluation.benchmarks.alpaca_eval_judge.INSTRUCTIONS_SHA256", digest)
    header = "model,preference,index,std_delta_len,instruction_difficulty,not_gamed_baseline\n"
    lines = [f"gamed,0.5,{n},{(n % 5) - 2},{(n % 3) - 1},False\n" for n in range(40)]
    (tmp_path / "df_gamed.csv").write_text(header + "".join(lines))
    for module in ("alpaca_eval.metrics.glm_winrate", "gpm_hf.evaluation.benchmarks.alpaca_eval_judge"):
        monkeypatch.setattr(f"{module}.hf_hub_download", lambda *_, **__: str(tmp_path / "df_gamed.csv"))
    use(FunctionScorer(lambda _, first, second: math.log(3) if first[0] == "g" else -math.log(3), name="judge"))
    arguments = ["eval", "alpaca", tmp_path / "gpo.json", tmp_path / "base.json", "--scorer", "gpm:x"]
    arguments += ["--baseline", "base", "--annotations", tmp_path / "kept", "--format", "json"]
    code, out, err = ask(capsys, *arguments)
    assert code == 0, err
    found = json.loads(out)["policies"]["gpo"]
    assert found["win_rate"] == pytest.approx(75, abs=1e-4)
    assert found["length_controlled_winrate"] == pytest.approx(75, abs=1.5)
    kept = json.loads((tmp_path / "kept" / "gpo.json").read_text())
    assert [row["instruction"] for row in kept] == prompts and kept[0]["preference"] == pytest.approx(1.75)

    # A submission with an empty answer and two rows fewer goes on, counted.
    rows = json.loads((tmp_path / "gpo.json").read_text())[2:]
    rows[0]["output"] = ""
    (tmp_path / "gpo.json").write_text(json.dumps(rows))
    code, out, err = ask(capsys, *arguments[:-2])
    assert code == 0, err
    assert "gpo: 1 answers without text, which lose; 2 instructions without an answer, left out." in out
    code, out, err = ask(capsys, *arguments)
    found = json.loads(out)["policies"]["gpo"]
    assert (found["n_total"], found["n_empty"]) == (38, 1)
    assert found["win_rate"] == pytest.approx(75 * 37 / 38, abs=1e-4)


def test_mt_bench_turn_after_turn(capsys, tmp_path):
    questions = [{"question_id": 81, "category": "writing", "turns": ["A poem.", "Shorter."]}]
    (tmp_path / "question.jsonl").write_text("\n".join(map(json.dumps, questions)))
    arguments = ["eval", "mt-bench", "--questions", tmp_path / "question.jsonl", "--model-id", "my-gpo"]
    arguments += ["--output", tmp_path / "data"]
    code, out, _ = ask(capsys, *arguments)
    assert code == 0 and "1 of 1 questions have turns left" in out
    asked = tmp_path / "data" / "my-gpo.prompts.jsonl"
    answers = []
    for answer in ("Roses", "Rose"):
        (row,) = map(json.loads, asked.read_text().splitlines())
        answers.append(tmp_path / f"{answer}.jsonl")
        answers[-1].write_text(json.dumps({"prompt": row["prompt"], "response": answer}))
        code, out, _ = ask(capsys, *arguments, *answers)
        assert code == 0
    (row,) = map(json.loads, (tmp_path / "data" / "model_answer" / "my-gpo.jsonl").read_text().splitlines())
    assert row["choices"] == [{"index": 0, "turns": ["Roses", "Rose"]}] and "gen_judgment.py" in out
    code, _, err = ask(capsys, *arguments, answers[1])
    assert code == 1 and "no row answers turn 1" in err


def test_win_rates_of_fastchats_answers(capsys, use, tmp_path):
    questions = [{"question_id": 81, "category": "writing", "turns": ["A poem.", "Shorter."]}]
    (tmp_path / "question.jsonl").write_text("\n".join(map(json.dumps, questions)))
    for name, turns in (("long", ["Roses", "Rose"]), ("short", ["R", "r"])):
        row = {"question_id": 81, "model_id": name, "choices": [{"index": 0, "turns": turns}]}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
    use(by_reward(lambda messages: sum(len(m["content"]) for m in messages), name="long"))
    arguments = ["eval", "win-rates", tmp_path / "long.jsonl", tmp_path / "short.jsonl", "--scorer", "gpm:x"]
    code, out, err = ask(capsys, *arguments, "--questions", tmp_path / "question.jsonl", "--format", "json")
    assert code == 0, err
    # 5 + 4 characters against 1 + 1, and a line break between the turns.
    found = json.loads(out)["policies"]["long"]
    assert found["win_rates"]["short"] == pytest.approx(1 / (1 + math.exp(-7)), abs=1e-6)
    assert found["mean_characters"] == 10


def test_lm_eval_goes_to_the_card(capsys, monkeypatch, folder, tmp_path):
    from gpm_hf.evaluation.benchmarks.lm_eval_tasks import TaskScore
    from gpm_hf.hub.results import load_results

    asked = {}

    def run(model, tasks, include_path, dtype, **options):
        asked.update(options, tasks=tasks)
        return [TaskScore("gsm8k exact_match (strict-match)", 0.25, 0.1), TaskScore("mmlu acc", 0.5, None)]

    monkeypatch.setattr("gpm_hf.evaluation.benchmarks.lm_eval_tasks.run_lm_eval", run)
    own = shutil.copytree(folder, tmp_path / "own")
    arguments = ["eval", "lm-eval", own, "--tasks", "gsm8k, mmlu", "--limit", "8"]
    code, out, _ = ask(capsys, *arguments, "--output", own / "results" / "lm_eval.json")
    assert code == 0 and "| gsm8k exact_match (strict-match) | 0.2500 | 0.1000 |" in out
    assert asked == {"tasks": ["gsm8k", "mmlu"], "limit": 8, "batch_size": "1", "apply_chat_template": False}
    (found,) = load_results(own)
    assert found["data"] == "gsm8k, mmlu, first 8 of each" and found["result"]["mmlu acc"] == 0.5


def test_lm_eval_without_the_harness_or_of_a_preference_model(capsys, monkeypatch, folder):
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    code, _, err = ask(capsys, "eval", "lm-eval", "my-name/my-gpo", "--tasks", "gsm8k")
    assert code == 1 and "pip install 'gpm-hf[judge]'" in err
    code, _, err = ask(capsys, "eval", "lm-eval", folder, "--tasks", "gsm8k")
    assert code == 1 and "writes no text" in err
