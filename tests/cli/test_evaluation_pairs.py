"""`gpm-hf eval rewardbench` and `gpm-hf eval pairs`, on numbers worked out by hand and on tiny models."""

import json
import math
import shutil

import pytest

from tests.cli.conftest import ask
from tests.conftest import build_gpm, build_tokenizer
from tests.evaluation.scorers import FunctionScorer, by_reward

# A scorer that takes the longer response has two of three, then one of two.
BENCH = [
    ("alpacaeval-easy", "Long enough.", "No."),
    ("alpacaeval-easy", "Short.", "Much longer."),
    ("alpacaeval-easy", "Red and blue.", "Red."),
    ("mt-bench-med", "Green, blue, red.", "Blue."),
    ("mt-bench-med", "Tie.", "Eit."),
]


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def bench(tmp_path):
    rows = [
        {"prompt": f"Question {n}?", "chosen": good, "rejected": bad, "subset": subset, "id": n}
        for n, (subset, good, bad) in enumerate(BENCH)
    ]
    return write(tmp_path / "bench.jsonl", rows)


@pytest.fixture
def own_folder(tmp_path, folder):
    """A model's folder that a test may change."""
    return shutil.copytree(folder, tmp_path / "own")


@pytest.fixture
def use(monkeypatch):
    """Scorers of the test's own, in the place of those that are loaded."""

    def put(*scorers):
        by_name = {scorer.name: scorer for scorer in scorers}
        monkeypatch.setattr("gpm_hf.scoring.load_scorer", lambda spec, **options: by_name[spec])

    return put


def by_length(name="long"):
    return by_reward(len, name=name)


def test_rewardbench_by_hand(capsys, use, bench):
    use(by_length())
    arguments = ["eval", "rewardbench", "long", "--dataset", bench]
    code, out, err = ask(capsys, *arguments, "--format", "json")
    assert code == 0
    answer = json.loads(out)
    (result,) = answer["results"]
    assert (result["pairs"], result["right"], result["ties"], result["forward_passes"]) == (5, 3, 1, 10)
    # 100 examples of the one subset, 40 of the other.
    assert result["sections"]["Chat"]["accuracy"] == pytest.approx((100 * 2 / 3 + 40 * 1 / 2) / 140)
    assert result["average"] is None and list(result["sections"]) == ["Chat"]
    assert answer["read"][0]["kept"] == 5 and "5 of 5 rows are evaluated" in err
    code, out, _ = ask(capsys, *arguments)
    assert "61.90%" in out and "(partial)" in out and "alpacaeval-length: 0 of 95" in out


def test_a_tie_counts_nothing_and_several_scorers_go_to_one_file(capsys, bench, tmp_path):
    arguments = ["eval", "rewardbench", "constant", "random:3", "--dataset", bench, "--output", tmp_path / "all.json"]
    code, out, _ = ask(capsys, *arguments, "--format", "json")
    assert code == 0
    results = json.loads(out)["results"]
    assert [result["scorer"] for result in results] == ["constant", "random (seed 3)"]
    assert (results[0]["right"], results[0]["ties"]) == (0, 5)
    written = json.loads((tmp_path / "all.json").read_text())
    assert written["evaluation"] == "rewardbench" and written["data"] == "bench.jsonl"
    assert written["results"] == results


def test_the_result_of_a_folder_reaches_its_card(capsys, own_folder, bench):
    from gpm_hf.hub.results import load_results
    from gpm_hf.identity import model_digest

    output = own_folder / "results" / "rewardbench.json"
    code, out, _ = ask(
        capsys, "eval", "rewardbench", own_folder, "--dataset", bench, "--output", output, "--format", "json"
    )
    assert code == 0
    (found,) = load_results(own_folder)
    assert found["model_sha256"] == model_digest(own_folder) and found["data"] == "bench.jsonl"
    (result,) = json.loads(out)["results"]
    assert found["result"]["accuracy"] == result["accuracy"] and found["result"]["forward_passes"] == 10
    assert found["result"]["accuracy_interval"] == result["interval"]
    # A part of a section is no number of the benchmark.
    assert "chat_accuracy" not in found["result"]


def test_a_whole_section_is_a_number_of_the_card(capsys, own_folder, tmp_path):
    from gpm_hf.evaluation.benchmarks.rewardbench_sections import SUBSETS

    counts = {name: subset.rows for name, subset in SUBSETS.items() if subset.section == "Chat"}
    rows = [
        {"prompt": f"{name} {n}?", "chosen": "Yes, Paris.", "rejected": "No.", "subset": name}
        for name, count in counts.items()
        for n in range(count)
    ]
    output = own_folder / "results" / "chat.json"
    bench = write(tmp_path / "chat.jsonl", rows)
    code, out, _ = ask(
        capsys, "eval", "rewardbench", own_folder, "--dataset", bench, "--output", output, "--format", "json"
    )
    assert code == 0
    section = json.loads(out)["results"][0]["sections"]["Chat"]
    written = json.loads(output.read_text())["result"]
    assert section["is_whole"] and written["chat_accuracy"] == section["accuracy"]
    assert written["chat_accuracy_interval"] == section["interval"] and "average_accuracy" not in written


def test_stored_scores_are_of_the_weights(capsys, own_folder, bench, tmp_path):
    arguments = ["eval", "rewardbench", own_folder, "--dataset", bench, "--store", tmp_path / "store"]
    first = ask(capsys, *arguments)
    assert first[0] == 0 and "stored already" not in first[1]
    again = ask(capsys, *arguments)
    assert "the scores of 5 prompts were stored already" in again[1] and again[1].startswith(first[1].rstrip())
    # Trained again, in the same place.
    build_gpm(embedding_dim=4, seed=1).save_pretrained(own_folder)
    retrained = ask(capsys, *arguments)
    assert retrained[0] == 0 and "stored already" not in retrained[1]
    assert len(list((tmp_path / "store").iterdir())) == 2


def test_an_interrupted_run_asks_for_the_rest(capsys, use, bench, tmp_path):
    class Interrupted(FunctionScorer):
        def __call__(self, prompts, groups):
            if len(self.asked) == 2:
                raise KeyboardInterrupt
            return super().__call__(prompts, groups)

    arguments = ["eval", "rewardbench", "random", "--dataset", bench, "--store", tmp_path, "--chunk-size", "2"]
    use(Interrupted(lambda prompt, a, b: len(a) - len(b), name="random"))
    code, _, err = ask(capsys, *arguments)
    assert code == 130 and "stopped" in err
    rest = by_length("random")
    use(rest)
    code, out, _ = ask(capsys, *arguments, "--format", "json")
    assert code == 0 and sum(map(len, rest.asked)) == 1
    (result,) = json.loads(out)["results"]
    assert (result["right"], result["forward_passes"]) == (3, 10)


def test_long_rows_are_left_out_and_counted(capsys, folder, tmp_path):
    rows = [
        {"prompt": "Bread?", "chosen": "Flour.", "rejected": "No.", "subset": "hep-go"},
        {"prompt": "Bread?", "chosen": "Flour. " * 500, "rejected": "No.", "subset": "hep-go"},
        {"prompt": "Bread?", "chosen": "Same.", "rejected": "Same.", "subset": "hep-go"},
        {"prompt": "Bread?", "rejected": "Same.", "subset": "hep-go"},
    ]
    data = write(tmp_path / "rows.jsonl", rows)
    code, out, err = ask(
        capsys, "eval", "rewardbench", folder, "--dataset", data, "--max-tokens", "100", "--format", "json"
    )
    assert code == 0 and json.loads(out)["results"][0]["pairs"] == 1
    assert json.loads(out)["read"][0]["skipped"] == {
        "more than 100 tokens": ["row 2"],
        "identical responses": ["row 3"],
        "no `chosen`": ["row 4"],
    }
    assert "Left out: 1 (more than 100 tokens): row 2" in err
    # Without the limit the model refuses the row, by name.
    code, _, err = ask(capsys, "eval", "rewardbench", folder, "--dataset", data)
    assert code == 1 and "row 2" in err and "256" in err


def test_the_first_pairs_of_several_files(capsys, bench, tmp_path):
    other = write(
        tmp_path / "other.jsonl", [{"prompt": "P", "chosen": "good", "rejected": "bad", "subset": "hep-go"}] * 2
    )
    arguments = ["eval", "rewardbench", "random", "--dataset", bench, other, "--limit", "1", "--format", "json"]
    code, out, _ = ask(capsys, *arguments)
    assert code == 0
    answer = json.loads(out)
    assert answer["results"][0]["pairs"] == 2 and list(answer["results"][0]["sections"]) == ["Chat", "Reasoning"]
    assert [report["pairs"] for report in answer["read"]] == [1, 1]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["random", "random"], "random is given twice"),
        (["random", "--limit", "0"], "--limit 0: at least 1"),
        (["random", "--max-tokens", "9"], "no scorer is one"),
        (["random", "constant", "--revision", "main"], "--revision belongs to one model"),
        (["guess:me"], "describes no scorer"),
        (["random", "--output", "."], "--output . is a folder"),
        (["random", "--store", "{bench}"], "is a file: name a folder"),
    ],
)
def test_what_cannot_be_is_said(capsys, bench, extra, message):
    extra = [part.format(bench=bench) for part in extra]
    code, out, err = ask(capsys, "eval", "rewardbench", *extra, "--dataset", bench)
    # How the command is used is 2, what it is given 1.
    assert code == (2 if message.startswith("--limit 0") else 1) and out == "" and message in err


def test_data_of_another_benchmark(capsys, tmp_path):
    data = write(tmp_path / "pairs.jsonl", [{"prompt": "P", "chosen": "a", "rejected": "b", "subset": "physics"}])
    code, _, err = ask(capsys, "eval", "rewardbench", "random", "--dataset", data)
    assert code == 1 and "RewardBench has no subsets ['physics']" in err
    code, _, err = ask(capsys, "eval", "pairs", "random", "--dataset", tmp_path / "absent.jsonl")
    assert code == 1 and "There is no data file" in err


def test_a_store_needs_weights_to_tie_scores_to(capsys, own_folder, bench, tmp_path):
    (own_folder / "model.safetensors").rename(own_folder / "model.bin")
    code, _, err = ask(capsys, "eval", "pairs", own_folder, "--dataset", bench, "--store", tmp_path / "store")
    assert code == 1 and "has none: save the model as safetensors, or leave --store out" in err


CYCLE = {("aa", "b"): 2.0, ("b", "cccc"): 1.0, ("cccc", "aa"): 0.5}


@pytest.fixture
def ring(tmp_path):
    """A cycle of three responses to one prompt, and a pair of another's."""
    rows = [{"prompt": "ring", "chosen": good, "rejected": bad, "subset": "ring"} for good, bad in CYCLE]
    rows.append({"prompt": "single", "chosen": "x", "rejected": "yyy", "subset": "single", "id": "last"})
    return write(tmp_path / "ring.jsonl", rows)


def holds_the_cycle(name="cycle"):
    both = {**CYCLE, **{(b, a): -value for (a, b), value in CYCLE.items()}, ("x", "yyy"): -3.0, ("yyy", "x"): 3.0}
    return FunctionScorer(lambda prompt, a, b: both[a, b], name=name)


def test_reports_of_pairs_by_hand(capsys, use, ring):
    use(holds_the_cycle(), by_length())
    arguments = ["eval", "pairs", "cycle", "long", "--dataset", ring]
    code, out, _ = ask(capsys, *arguments, "--format", "json")
    assert code == 0
    answer = json.loads(out)
    cycle, long = answer["results"]
    assert (cycle["right"], cycle["pairs"], cycle["forward_passes"]) == (3, 4, 8)
    assert cycle["subsets"]["ring"]["accuracy"] == 1 and cycle["subsets"]["single"]["accuracy"] == 0
    loss = sum(math.log1p(math.exp(-value)) for value in (2.0, 1.0, 0.5, -3.0)) / 4
    assert cycle["calibration"]["log_loss"] == pytest.approx(loss)
    # Longer: aa over b, cccc over aa, and yyy, not b over cccc.
    assert cycle["length"]["prefers_longer"] == 0.75 and cycle["length"]["longer_is_chosen"] == 0.5
    assert long["length"]["prefers_longer"] == 1.0
    assert (cycle["intransitivity"]["triples"], cycle["intransitivity"]["cycles"]) == (1, 1)
    assert long["intransitivity"]["cycles"] == 0
    assert long["intransitivity"]["cyclic_share"] == pytest.approx(0, abs=1e-6)
    # P(chosen): b over cccc 0.731 against sigmoid(-3), the largest difference.
    first = answer["disagreements"][0]
    assert (first["chosen"], first["rejected"]) == ("b", "cccc")
    assert first["difference"] == pytest.approx(1 / (1 + math.exp(-1)) - 1 / (1 + math.exp(3)))
    code, out, _ = ask(capsys, *arguments, "--disagreements", "1")
    assert code == 0 and "By difficulty" not in out
    for part in ("| 75.0% (3/4) |", "log-loss", "prefers the longer", "triples in a cycle", "| 100.0% |"):
        assert part in out
    assert out.count("P(chosen), cycle") == 1 and out.count("| b | cccc |") == 1


def test_disagreements_are_between_two(capsys, use, ring):
    for names in (["cycle"], ["cycle", "long", "third"]):
        use()
        code, out, err = ask(capsys, "eval", "pairs", *names, "--dataset", ring, "--disagreements", "3")
        assert code == 1 and not out and f"compares two scorers, and {len(names)} " in err
    code, _, err = ask(capsys, "eval", "pairs", "a", "b", "--dataset", ring, "--disagreements", "0")
    assert code == 1 and "at least 1 is needed" in err


def test_cycles_of_the_data_are_held_against_noise(capsys, use, ring, tmp_path):
    use(by_length())
    # The ring was judged once; judged ten times alike it is none of a ranking's.
    code, out, _ = ask(capsys, "eval", "pairs", "long", "--dataset", ring)
    assert code == 0 and "more than noise was not tested. Each pair was judged once." in out
    rows = [json.loads(line) for line in ring.read_text().splitlines()][:3] * 10
    code, out, _ = ask(
        capsys, "eval", "pairs", "long", "--dataset", write(tmp_path / "ten.jsonl", rows), "--format", "json"
    )
    test = json.loads(out)["cycles_of_the_data"]["test"]
    # 2^-10 is the chance of each pair; of the other way around its square.
    assert code == 0 and test["p_value"] == test["exact"] == pytest.approx(2**-10 + 2**-20)
    assert (test["triples"], test["votes"]) == (1, 30)


def test_cycles_of_a_scorer_are_held_against_its_own_noise(capsys, use, tmp_path):
    ring = {"ab": 9, "bc": 8, "ca": 7}
    rows = [
        {"prompt": f"ring {number}", "chosen": good, "rejected": bad, "subset": "s"}
        for number in range(10)
        for good, bad in ring
    ]
    data = write(tmp_path / "rings.jsonl", rows)

    def both_orders(prompt, a, b):
        """Nine rings of 9, 8, 7 and one turned round; what is read first gets 1 or 2, by the prompt."""
        strength = ring.get(a + b) or -ring[b + a]
        return (-strength if prompt.endswith("9") else strength) + 1 + int(prompt.split()[1]) % 2

    use(FunctionScorer(both_orders, name="both"), by_length())
    arguments = ["eval", "pairs", "both", "long", "--dataset", data]
    code, out, _ = ask(capsys, *arguments, "--format", "json")
    both, long = (one["intransitivity"]["cycle_or_noise"] for one in json.loads(out)["results"])
    assert code == 0 and (both["test"]["share"]["observed"], both["test"]["pairs"]) == (1.0, 30)
    # Advantages of 1 and of 2, fifteen pairs each: a mean of 1.5 and squares of 1/4.
    assert both["test"]["first"] == pytest.approx(1.5)
    assert both["test"]["noise"] == pytest.approx(math.sqrt(30 * 0.25 / 29))
    # The weakest pairs have 49 / (2 variance) nats, 94.7: counted as 64, each ring.
    assert both["test"]["evidence"]["observed"] == 640 and both["test"]["p_value"] < 0.01
    assert long["test"] is None and "no noise" in long["no_test"]
    code, out, _ = ask(capsys, *arguments)
    assert "both: 100.0% of 10 triples are cyclic; a ranking with the noise of these scores (a standard" in out
    assert "long: Whether the cycles are more than noise was not tested. Both orders of a pair say the same" in out
    assert len(out.strip().splitlines()) < 30


def test_one_scorer_has_no_disagreements_and_pairs_alone_no_cycles(capsys, use, bench):
    use(by_length())
    code, out, _ = ask(capsys, "eval", "pairs", "long", "--dataset", bench)
    assert code == 0 and "disagree" not in out and "No prompt has three different responses" in out


def test_votes_are_read_as_they_are_and_ties_are_left_out(capsys, use, tmp_path):
    votes = tmp_path / "votes.csv"
    votes.write_text(
        "prompt,response_a,response_b,winner\nq,longer,no,a\nr,longer,no,b\ns,longer,no,tie\nt,no,longer,b\n"
    )
    use(by_length(), by_reward(lambda text: -len(text), name="short"))
    code, out, err = ask(capsys, "eval", "pairs", "long", "short", "--dataset", votes)
    assert code == 0 and "Left out: 1 ties" in err
    assert "| 66.7% (2/3) |" in out and "| 33.3% (1/3) |" in out
    assert len(out.strip().splitlines()) < 30
    votes.write_text("prompt,response_a,response_b,winner\ns,longer,no,tie\n")
    code, out, err = ask(capsys, "eval", "pairs", "long", "--dataset", votes)
    assert code == 1 and not out and "All pairs are ties" in err


def test_groups_of_two_files_do_not_mix(capsys, use, tmp_path):
    files = [
        write(
            tmp_path / f"{name}.jsonl",
            [{"prompt": name, "chosen": ["aa", "aaaa", "aaaaaa"], "rejected": ["b", "bbb", "bbbbb"], "domain": "d"}],
        )
        for name in ("one", "two")
    ]
    use(by_length())
    code, out, _ = ask(capsys, "eval", "pairs", "long", "--dataset", *files, "--format", "json")
    assert code == 0
    (result,) = json.loads(out)["results"]
    # Six responses each, nine pairs; the plain wins against what is not longer: 1 + 2 + 3.
    assert (result["pairs"], result["right"], result["forward_passes"]) == (18, 12, 12)
    assert result["difficulty"]["hard"]["accuracy"] == 0 and result["difficulty"]["easy"]["accuracy"] == 1
    code, out, _ = ask(capsys, "eval", "pairs", "long", "--dataset", *files)
    assert "Pairs right by difficulty:" in out


def test_pictures_and_the_card_of_a_folder(capsys, own_folder, ring):
    results = own_folder / "results"
    arguments = ["eval", "pairs", f"gpm:{own_folder}", "--dataset", ring, "--output", results / "pairs.json"]
    code, _, _ = ask(capsys, *arguments, "--pictures", results)
    assert code == 0
    for name in ("reliability.png", "length.png"):
        assert (results / name).read_bytes().startswith(b"\x89PNG")
    found = json.loads((results / "pairs.json").read_text())
    assert found["picture"] == "reliability.png" and found["evaluation"] == "pairs"
    scores = build_gpm(embedding_dim=4).preference_scores(
        build_tokenizer(), ["ring", "single"], [["aa", "b", "cccc"], ["x", "yyy"]]
    )
    log_odds = [scores[0][0, 1], scores[0][1, 2], scores[0][2, 0], scores[1][0, 1]]
    assert found["result"]["right"] == sum(float(value) > 0 for value in log_odds)
    loss = sum(math.log1p(math.exp(-float(value))) for value in log_odds) / 4
    assert found["result"]["log_loss"] == pytest.approx(loss, abs=1e-4)
    assert found["result"]["asymmetry"] == 0
