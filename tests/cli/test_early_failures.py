"""Mistakes that commands find before their work, in one sentence, and what is kept when they are corrected."""

import json
import re

import pytest

from tests.cli.conftest import PROMPT, ask


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


GROUPS = [{"prompt": f"Question {n}?", "responses": ["Yes.", "No."]} for n in range(7)]


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "gpu", "meta"])
def test_a_device_that_is_not_there_is_one_sentence(capsys, folder, tmp_path, device):
    import torch

    if torch.accelerator.is_available():
        pytest.skip("there is a device")
    pairs = write(tmp_path / "pairs.jsonl", [{"prompt": PROMPT, "chosen": "a", "rejected": "b"}])
    for command in (
        ["score", folder, "--prompt", PROMPT, "--response", "a"],
        ["compare", folder, "--prompt", PROMPT, "--a", "a", "--b", "b"],
        ["eval", "pairs", f"gpm:{folder}", "--dataset", pairs],
        ["eval", "lm-eval", folder, "--tasks", "gsm8k"],
    ):
        code, out, err = ask(capsys, *command, "--device", device)
        assert code == 2 and not out
        assert err == (
            f"gpm-hf {command[0]}: --device {device}: torch finds cpu here. Name one of these, or leave it out.\n"
        )


def test_a_type_that_is_none_and_counts_below_one(capsys, folder, backbone_folder, tmp_path):
    data = write(tmp_path / "groups.jsonl", GROUPS)
    score = ["score", folder, "--input", data, "--output", tmp_path / "out.jsonl"]
    answer = ["answer", backbone_folder, "--prompts", data, "--output", tmp_path / "out.json"]
    for command, option, value, message in (
        (score, "--dtype", "float33", "--dtype float33 is no type of weights"),
        (answer, "--dtype", "int8", "--dtype int8 is no type of weights"),
        (score, "--chunk-size", 0, "--chunk-size 0: at least 1 is needed"),
        (score, "--batch-tokens", -5, "--batch-tokens -5: at least 1"),
        (answer, "--shard-size", 0, "--shard-size 0: at least 1"),
        (answer, "--max-new-tokens", 0, "--max-new-tokens 0: at least 1"),
    ):
        code, out, err = ask(capsys, *command, option, value)
        assert code == 2 and not out and message in err and err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"groups.jsonl"}


@pytest.mark.parametrize("command", ["score", "rank"])
def test_every_row_is_read_before_the_model_is_loaded(capsys, folder, tmp_path, monkeypatch, command):
    clean = tmp_path / "clean.jsonl"
    data = write(tmp_path / "groups.jsonl", GROUPS)
    code, _, err = ask(capsys, command, folder, "--input", data, "--output", clean, "--chunk-size", 2)
    assert code == 0, err
    output = tmp_path / "out.jsonl"
    arguments = [command, folder, "--input", data, "--output", output, "--chunk-size", 2]

    def loaded(options):
        raise AssertionError("loaded")

    with monkeypatch.context() as patch:
        patch.setattr("gpm_hf.cli.scoring.load_model", loaded)
        for wrong in ({"prompt": "Question 6?"}, {"prompt": "Question 6?", "responses": 3}, 7, []):
            write(data, [*GROUPS[:6], wrong])
            code, _, err = ask(capsys, *arguments)
            assert code == 1 and re.search("groups.jsonl, (row|line) 7", err)
            code, _, err = ask(capsys, *arguments[:4])
            assert code == 1 and re.search("groups.jsonl, (row|line) 7", err)
        write(data, [])
        code, _, err = ask(capsys, *arguments[:4])
        assert code == 1 and "is empty" in err
    write(data, GROUPS)
    assert ask(capsys, *arguments)[0] == 0
    assert output.read_bytes() == clean.read_bytes()
    code, _, err = ask(capsys, command, folder, "--input", data, "--output", tmp_path)
    assert code == 1 and "folder" in err


def test_a_row_that_the_model_refuses_costs_its_own_chunk(capsys, folder, tmp_path):
    """And neither another name for the input nor its time is another input."""
    data = write(tmp_path / "groups.jsonl", [*GROUPS[:5], {"prompt": "Long?", "responses": ["a " * 400, "b"]}])
    output = tmp_path / "out.jsonl"
    options = ["--output", output, "--chunk-size", 2]
    code, _, err = ask(capsys, "score", folder, "--input", data, *options)
    assert code == 1 and "Row 6" in err
    parts = tmp_path / ".out.jsonl.parts"
    assert parts.read_bytes().count(b'{"shard"') == 2
    moved = write(tmp_path / "corrected.jsonl", GROUPS)
    parts.write_bytes(parts.read_bytes().replace(b"Yes.", b"Yes!"))  # known again: not made again
    assert ask(capsys, "score", folder, "--input", moved, *options)[0] == 0
    assert ask(capsys, "score", folder, "--input", moved, "--output", tmp_path / "clean.jsonl")[0] == 0
    assert output.read_bytes().replace(b"Yes!", b"Yes.") == (tmp_path / "clean.jsonl").read_bytes()
    assert output.read_bytes().count(b"Yes!") == 4


def test_answers_do_not_depend_on_who_chooses(capsys, folder, backbone_folder, tmp_path, monkeypatch):
    from gpm_hf.generation import PolicySampler
    from gpm_hf.scoring import GPMScorer

    data = write(tmp_path / "prompts.jsonl", [{"prompt": f"Question {n}?"} for n in range(6)])
    common = ["best-of-n", backbone_folder, "--input", data, "--n", 2, "--shard-size", 2, "--device", "cpu"]
    common += ["--max-new-tokens", 4]
    right = [*common, "--scorer", f"gpm:{folder}"]
    clean, output = tmp_path / "clean.jsonl", tmp_path / "out.jsonl"
    assert ask(capsys, *right, "--output", clean)[0] == 0

    sampled, original = [], PolicySampler.sample

    def counted(self, prompts, seed):
        sampled.append(prompts)
        return original(self, prompts, seed)

    monkeypatch.setattr(PolicySampler, "sample", counted)
    for mistake in (["--scorer", f"gpm:{backbone_folder}"], ["--scorer", "what:else"], ["--scorer", "gpm:"]):
        code, _, err = ask(capsys, *common, *mistake, "--output", output)
        assert code == 1 and err and not sampled
    code, _, err = ask(capsys, *right, "--output", output, "--max-new-tokens", 4000)
    assert code == 1 and "prompts.jsonl, row 1" in err and not sampled

    def fragile(self, prompts, groups):
        raise ValueError("out of luck")

    with monkeypatch.context() as patch:
        patch.setattr(GPMScorer, "_score", fragile)
        code, _, err = ask(capsys, *right, "--output", output, "--rule", "copeland")
        assert code == 1 and "out of luck" in err and len(sampled) == 1
    assert ask(capsys, *right, "--output", output)[0] == 0
    assert [len(prompts) for prompts in sampled] == [2, 2, 2], "the first two were sampled already"
    assert output.read_bytes() == clean.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"prompts.jsonl", "clean.jsonl", "out.jsonl"}


def test_answers_find_their_mistakes_first(capsys, backbone_folder, tmp_path, monkeypatch):
    from gpm_hf.generation import PolicySampler

    rows = [{"instruction": f"Question {n}?"} for n in range(5)]
    data = write(tmp_path / "prompts.jsonl", rows)
    output, clean = tmp_path / "out.json", tmp_path / "clean.json"
    options = ["--max-new-tokens", 4, "--shard-size", 2, "--device", "cpu", "--name", "tiny"]
    assert ask(capsys, "answer", backbone_folder, "--prompts", data, "--output", clean, *options)[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(PolicySampler, "sample", None)
        for wrong in ({"instruction": "How? " * 400}, {"question": "?"}, {"instruction": [{"content": "?"}]}):
            write(data, [*rows[:4], wrong])
            code, _, err = ask(capsys, "answer", backbone_folder, "--prompts", data, "--output", output, *options)
            assert code == 1 and "prompts.jsonl, row 5" in err
    write(data, rows)
    assert ask(capsys, "answer", backbone_folder, "--prompts", data, "--output", output, *options)[0] == 0
    assert output.read_bytes() == clean.read_bytes()
