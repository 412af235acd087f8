"""Commands write over nothing unless they are told to, each in the same words and before any work."""

import argparse
import json

import pytest

from gpm_hf.cli import main
from tests.cli.conftest import ask
from tests.conftest import build_gpm, build_tokenizer
from tests.data.test_cyclic import many_rows

# What each command that writes is given, its output {out}; all that it reads is missing, so that any work would fail.
COMMANDS = [
    "generate-cyclic {out}",
    "build-cyclic gone.jsonl {out}",
    "build-cyclic gone.jsonl {out} --judged",
    "build-cyclic gone.jsonl {out} --judge someone",
    "score gone --input gone.jsonl --output {out}",
    "rank gone --input gone.jsonl --output {out}",
    "inspect gone --input gone.jsonl --output {out}",
    "inspect gone --input gone.jsonl --picture {out}",
    "best-of-n gone --scorer random --input gone.jsonl --output {out}",
    "answer gone --prompts gone.jsonl --output {out}",
    "self-play --picture {out}",
    "convert gone {out}",
    "eval cyclic gone --dataset gone.jsonl --output {out}",
    "eval cyclic gone --dataset gone.jsonl --picture {out}",
    "eval rewardbench gone --dataset gone.jsonl --output {out}",
    "eval pairs gone --dataset gone.jsonl --output {out}",
    "eval win-rates --scorer random a=gone.json b=gone.json --output {out}",
    "eval alpaca --scorer random a=gone.json b=gone.json --baseline a --output {out}",
    "eval lm-eval gone --tasks gsm8k --output {out}",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_there_stays(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out.json").write_text("of an earlier run")
    assert main(command.format(out="out.json").split()) == 1
    assert "out.json exists already: name another, or replace it by --overwrite." in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    assert (tmp_path / "out.json").read_text() == "of an earlier run"


@pytest.mark.parametrize("command", ["build-cyclic gone.jsonl {out}", "convert gone {out}"])
def test_folders_too(command, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").touch()
    assert main(command.format(out=tmp_path / "out").split()) == 1
    assert "exists already: name another" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "there"),
    [
        ("demo --output {out}", "results.json"),
        ("eval pairs gone --dataset gone.jsonl --pictures {out}", "reliability.png"),
        ("eval win-rates --scorer random a=x b=y --baseline a --card b={out}", "results/win_rates.json"),
    ],
)
def test_files_in_folders(command, there, tmp_path, capsys):
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).touch()
    assert main(command.format(out=tmp_path).split()) == 1
    assert f"{there} exists already: name another" in capsys.readouterr().err


def test_numbers_of_the_same_evaluation_are_measured_again(tmp_path, capsys):
    """What refuses first is then the model that is not there."""
    command = "eval cyclic gone --dataset gone.jsonl --output {out}".format(out=tmp_path / "found.json").split()
    for kind, expected in (("pairs", "exists already"), ("cyclic", "gone.jsonl")):
        (tmp_path / "found.json").write_text(json.dumps({"evaluation": kind, "result": {}}))
        assert main(command) == 1
        assert expected in capsys.readouterr().err


def test_the_file_for_fastchats_judge(tmp_path, capsys):
    (tmp_path / "question.jsonl").write_text(json.dumps({"question_id": 1, "category": "a", "turns": ["A poem."]}))
    (tmp_path / "answers.jsonl").write_text(json.dumps({"prompt": "A poem.", "response": "Roses"}))
    command = ["eval", "mt-bench", tmp_path / "answers.jsonl", "--questions", tmp_path / "question.jsonl"]
    command += ["--model-id", "me", "--output", tmp_path]
    for more, expected in (([], 0), ([], 1), (["--overwrite"], 0)):
        code, _, err = ask(capsys, *command, *more)
        assert code == expected, err
    assert (tmp_path / "model_answer" / "me.jsonl").is_file()


def all_parsers(monkeypatch):
    """The parsers of all commands, by name."""
    found = {}

    def keep(self, *arguments, **options):
        todo = [("", self)]
        while todo:
            name, parser = todo.pop()
            below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
            todo += [(f"{name} {one}".strip(), child) for action in below for one, child in action.choices.items()]
            if not below:
                found[name] = parser
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", keep)
        with pytest.raises(SystemExit):
            main([])
    return found


def test_every_command_that_writes_is_told_so_or_goes_on(monkeypatch):
    names = {"--output", "--picture", "--pictures", "output"}
    resumed = {"table1", "eval ablation", "iterate"}
    parsers = all_parsers(monkeypatch)
    assert len(parsers) > 15
    for name, parser in parsers.items():
        options = {option for action in parser._actions for option in (*action.option_strings, action.dest)}
        if options & names and name not in resumed:
            assert "--overwrite" in options, name


def test_overwrite_replaces(tmp_path, capsys):
    out = tmp_path / "pairs.jsonl"
    for prompts, more in ((2, []), (3, ["--overwrite"])):
        code, _, err = ask(capsys, "generate-cyclic", out, "--prompts", prompts, *more)
        assert code == 0, err
    assert len({json.loads(line)["prompt"] for line in out.read_text().splitlines()}) == 3


def test_overwriting_a_folder(tmp_path, capsys):
    rated = tmp_path / "rated.jsonl"
    rated.write_text("\n".join(map(json.dumps, many_rows(40))))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.parquet").touch()
    (tmp_path / "broken.jsonl").write_text(rated.read_text().splitlines()[0] + "\n{oops\n")
    code, _, _ = ask(capsys, "build-cyclic", tmp_path / "broken.jsonl", tmp_path / "out", "--overwrite")
    assert code == 1 and (tmp_path / "out" / "old.parquet").exists(), "nothing is removed for nothing"
    code, _, err = ask(capsys, "build-cyclic", rated, tmp_path / "out", "--overwrite")
    assert code == 0, err
    assert not (tmp_path / "out" / "old.parquet").exists() and (tmp_path / "out" / "README.md").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.jsonl", "out", "rated.jsonl"]


def test_a_finished_file_of_scores_is_replaced_and_an_unfinished_run_goes_on(tmp_path, capsys):
    build_gpm(embedding_dim=4).save_pretrained(tmp_path / "gpm")
    build_tokenizer().save_pretrained(tmp_path / "gpm")
    rows = [{"prompt": f"Question {number}?", "responses": ["Yes.", "No."]} for number in range(3)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    arguments = ["score", tmp_path / "gpm", "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl"]
    arguments += ["--chunk-size", "1", "--device", "cpu"]
    assert ask(capsys, *arguments)[0] == 0
    first = (tmp_path / "out.jsonl").read_bytes()
    code, _, err = ask(capsys, *arguments)
    assert code == 1 and "replace it by --overwrite" in err
    (tmp_path / "out.jsonl").write_text("else")
    assert ask(capsys, *arguments, "--overwrite")[0] == 0
    assert (tmp_path / "out.jsonl").read_bytes() == first


def test_an_edited_card_is_kept(tmp_path, capsys):
    from gpm_hf.hub.record import RunRecord

    build_gpm(embedding_dim=4).save_pretrained(tmp_path)
    RunRecord(kind="preference_model").save(tmp_path)
    assert ask(capsys, "card", tmp_path)[0] == 0
    assert ask(capsys, "card", tmp_path, "--repo", "me/model")[0] == 0
    with open(tmp_path / "README.md", "a") as file:
        file.write("By hand.\n")
    code, _, err = ask(capsys, "card", tmp_path)
    assert code == 1 and "was edited by hand" in err
    assert (tmp_path / "README.md").read_text().endswith("By hand.\n")
    assert ask(capsys, "card", tmp_path, "--overwrite")[0] == 0
    assert "By hand" not in (tmp_path / "README.md").read_text()
