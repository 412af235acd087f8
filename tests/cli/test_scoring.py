"""`gpm-hf score`, `rank` and `compare`, as a user types them."""

import json

import pytest
import torch

from gpm_hf.cli.scoring import RULES
from tests.cli.conftest import PROMPT, RESPONSES, ask
from tests.conftest import build_gpm, build_tokenizer


@pytest.fixture(scope="module")
def expected():
    return build_gpm(embedding_dim=4).preference_scores(build_tokenizer(), PROMPT, RESPONSES)


def group(*responses):
    return ["--prompt", PROMPT, *(part for response in responses for part in ("--response", response))]


def test_score_prints_the_models_log_odds(capsys, folder, expected):
    code, out, _ = ask(capsys, "score", folder, *group(*RESPONSES), "--format", "json")
    assert code == 0
    assert torch.allclose(torch.tensor(json.loads(out)["scores"]), expected, atol=1e-5)
    _, out, _ = ask(capsys, "score", folder, *group(*RESPONSES))
    assert f"{expected[0, 1]:+.2f}" in out and "Buy it." in out


def test_compare_prints_a_probability(capsys, folder, expected):
    arguments = ["compare", folder, "--prompt", PROMPT, "--a", RESPONSES[0], "--b", RESPONSES[1]]
    _, out, _ = ask(capsys, *arguments, "--format", "json")
    answer = json.loads(out)
    assert answer["probability"] == pytest.approx(torch.sigmoid(expected[0, 1]).item(), abs=1e-5)
    _, out, _ = ask(capsys, *arguments)
    assert f"{answer['probability']:.1%}" in out


def test_rank_orders_by_mean_score(capsys, folder, expected):
    _, out, _ = ask(capsys, "rank", folder, *group(*RESPONSES), "--format", "json")
    best_first = sorted(range(3), key=lambda index: -float(expected[index].mean()))
    assert json.loads(out)["ranking"] == best_first
    _, out, _ = ask(capsys, "rank", folder, *group(*RESPONSES))
    assert RESPONSES[best_first[0]] in out.splitlines()[1]


@pytest.mark.parametrize("rule", RULES)
def test_rank_by_a_rule(capsys, folder, expected, rule):
    _, out, _ = ask(capsys, "rank", folder, *group(*RESPONSES), "--rule", rule, "--format", "json")
    found, scores = json.loads(out), expected.tolist()
    net = [sum((value > 0) - (value < 0) for value in row) for row in scores]
    # Three responses without ties: either one wins all its duels, or they beat each other in a ring.
    smith = [net.index(2)] if 2 in net else [0, 1, 2]
    ring = [abs(scores[1][2]), abs(scores[2][0]), abs(scores[0][1])]
    mixture = [float(index in smith) for index in range(3)] if 2 in net else [edge / sum(ring) for edge in ring]
    values = {"mean": [0] * 3, "copeland": net, "smith": [i in smith for i in range(3)], "von_neumann": mixture}[rule]
    assert found["rule"] == rule
    assert found["ranking"] == sorted(range(3), key=lambda index: (-values[index], -sum(scores[index])))
    assert found.get("copeland") == (net if rule == "copeland" else None)
    assert found.get("smith_set") == (smith if rule == "smith" else None)
    if rule == "von_neumann":
        assert found["von_neumann_winner"] == pytest.approx(mixture, abs=1e-5)
    _, out, _ = ask(capsys, "rank", folder, *group(*RESPONSES), "--rule", rule)
    column = {"mean": "log-odds  response", "von_neumann": "probability", "copeland": "won - lost", "smith": "Smith"}
    assert column[rule] in out.splitlines()[0] and RESPONSES[found["ranking"][0]] in out.splitlines()[1]


def test_the_rules_are_those_of_the_preference_room():
    from gpm_hf.preference.selection import RULES as known

    assert known == RULES


def test_several_responses_at_once(capsys, folder, expected):
    arguments = ["--prompt", PROMPT, "--response", RESPONSES[0], "--responses", *RESPONSES[1:], "--format", "json"]
    _, out, _ = ask(capsys, "score", folder, *arguments)
    assert torch.allclose(torch.tensor(json.loads(out)["scores"]), expected, atol=1e-5)


def test_a_file_in_and_a_file_out(capsys, folder, expected, tmp_path):
    rows = [{"prompt": PROMPT, "responses": RESPONSES, "id": 7}, {"prompt": "Hi", "responses": ["a", "b"]}]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    arguments = ["score", folder, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl"]
    assert ask(capsys, *arguments)[0] == 0
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert written[0]["id"] == 7 and len(written[1]["scores"]) == 2
    assert torch.allclose(torch.tensor(written[0]["scores"]), expected, atol=1e-4)


@pytest.mark.parametrize("batch", [["--batch-size", 1], ["--batch-tokens", 30], []])
def test_how_much_is_encoded_at_once_changes_nothing(capsys, folder, expected, batch):
    _, out, _ = ask(capsys, "score", folder, *group(*RESPONSES), "--format", "json", *batch)
    assert torch.allclose(torch.tensor(json.loads(out)["scores"]), expected, rtol=0, atol=1e-5)


def test_errors_say_what_to_do_and_write_nothing(capsys, folder, tmp_path):
    cases = [
        (["rank", folder, *group("one")], "at least 2 responses"),
        (["score", folder, *group("fine", " ")], "Response 1 is empty"),
        (["score", folder], "Give either --prompt"),
        (["score", folder, *group("a", "b"), "--batch-size", 2, "--batch-tokens", 9], "not both"),
        (["score", folder, *group("long " * 300, "x")], "context holds 256"),
        (["score", tmp_path / "nowhere", *group(*RESPONSES)], "neither a folder that exists nor a Hub id"),
    ]
    for arguments, message in cases:
        code, _, err = ask(capsys, *arguments)
        assert code == 1 and message in err, (arguments, err)
    (tmp_path / "empty.jsonl").write_text("\n")
    code, _, err = ask(capsys, "score", folder, "--input", tmp_path / "empty.jsonl")
    assert code == 1 and "empty.jsonl is empty" in err
    code, _, err = ask(capsys, "score", folder, "--input", tmp_path / "empty.jsonl", "--response", "x")
    assert code == 1 and "--response belongs to --prompt" in err
    (tmp_path / "bad.jsonl").write_text('{"prompt": "p", "responses": ["a", "b"]}\n{"prompt": "p"}\n')
    output = tmp_path / "out.jsonl"
    code, _, err = ask(capsys, "score", folder, "--input", tmp_path / "bad.jsonl", "--output", output)
    assert code == 1 and "line 2 has no `prompt` and `responses`" in err
    assert not output.exists()


@pytest.fixture(scope="module")
def half_folder(tmp_path_factory):
    """The model of `folder` in bfloat16."""
    import torch

    path = tmp_path_factory.mktemp("half")
    model = build_gpm(embedding_dim=4)
    model.model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.save_pretrained(path)
    build_tokenizer().save_pretrained(path)
    return str(path)


def test_bfloat16_is_said_and_precise_is_float32(capsys, half_folder, folder, tmp_path):
    import torch

    from gpm_hf.modeling import GPMForPreference

    _, out, err = ask(capsys, "score", half_folder, *group(*RESPONSES), "--format", "json")
    assert "Computed in bfloat16: log-odds move by up to 1.5" in err and "--precise" in err
    rounded = torch.tensor(json.loads(out)["scores"])
    _, out, err = ask(capsys, "score", half_folder, *group(*RESPONSES), "--format", "json", "--precise")
    assert "bfloat16" not in err
    scores = torch.tensor(json.loads(out)["scores"])
    model = GPMForPreference.from_pretrained(half_folder, dtype="float32").eval()
    expected = model.preference_scores(build_tokenizer(), PROMPT, RESPONSES)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-4)
    assert (scores - rounded).abs().max() > 1e-3
    code, _, err = ask(capsys, "score", folder, *group(*RESPONSES), "--precise", "--dtype", "bfloat16")
    assert code and "--precise is float32" in err


def test_rank_names_what_is_closer_than_rounding(capsys, half_folder, folder):
    close = ("Red and green", "Red, green", "Blue is best", "A river")
    _, out, _ = ask(capsys, "rank", half_folder, *group(*close), "--format", "json")
    found = json.loads(out)
    means = [found["mean_scores"][index] for index in found["ranking"]]
    expected = [
        list(pair)
        for pair, better, worse in zip(zip(found["ranking"], found["ranking"][1:]), means, means[1:])
        if 0 < better - worse <= 1.5
    ]
    assert expected and found["within_rounding"] == expected
    _, out, _ = ask(capsys, "rank", half_folder, *group(*close))
    first, second = expected[0]
    assert f"[{first}] and [{second}] are closer than rounding can tell" in out
    _, out, _ = ask(capsys, "rank", folder, *group(*close), "--format", "json")
    assert json.loads(out)["within_rounding"] == []


def test_a_resumed_file_is_of_one_date_and_type(capsys, folder, tmp_path, monkeypatch):
    from gpm_hf.scoring import streaming

    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": PROMPT, "responses": list(RESPONSES)}) + "\n" for _ in range(3)))
    settings = []
    monkeypatch.setattr(
        streaming, "map_in_shards", lambda rows, score, output, found, *rest: settings.append(found) or 3
    )
    ask(capsys, "score", folder, "--input", str(rows), "--output", str(tmp_path / "out.jsonl"))
    assert settings[0]["template_date"] == "2024-07-26" and settings[0]["computed_in"] == "torch.float32"
