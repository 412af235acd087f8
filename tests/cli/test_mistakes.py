"""Mistakes that are easily made: what is said, in three lines at most, the exit code, and that nothing is left."""

import json
import re
from pathlib import Path

import pytest

from gpm_hf.cli import main

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
TABLE = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.split("## Mistakes and what is said")[1].split("\n## ")[0].splitlines()
    if line.startswith("| `")
]


@pytest.fixture
def here(tmp_path, monkeypatch, backbone_folder, folder):
    """A folder with data of a newcomer, good and bad."""
    monkeypatch.chdir(tmp_path)
    pair = {"prompt": "q", "chosen": "a", "rejected": "b"}
    files = {
        "pairs.jsonl": [pair, {**pair, "prompt": "r"}],
        "numbers.jsonl": [{**pair, "chosen": 7}],
        "own.jsonl": [{"question": "q", "good": "a", "bad": "b"}],
        "same.jsonl": [{**pair, "rejected": "a"}],
        "system.jsonl": [{**pair, "system": "s"}],
        "label.jsonl": [{**pair, "preference_probability": 2}],
        "saying_nothing.jsonl": [{"prompt": "q", "responses": ["a", "b"]}],
    }
    for name, rows in files.items():
        Path(name).write_text("\n".join(map(json.dumps, rows)))
    Path("broken.jsonl").write_text(json.dumps(pair) + "\n{oops\n")
    Path("empty.jsonl").write_text("")
    Path("ragged.csv").write_text("prompt,chosen,rejected\nq,a\n")
    Path("quote.csv").write_text('prompt,chosen,rejected\nq,"a,b\n')
    Path("rows.xlsx").write_bytes(b"PK")
    Path("broken.yaml").write_text("embedding_dim: [6\n")
    Path("recipe.yaml").write_text("embeding_dim: 6\n")
    Path("there.jsonl").write_text("{}")
    Path("base").symlink_to(backbone_folder)
    Path("gpm").symlink_to(folder)
    return tmp_path


def run(typed, monkeypatch):
    """The exit code of a command line; `gpm-hf train reward` without its launcher."""
    arguments = [part.strip("'") for part in re.findall(r"'[^']*'|\S+", typed)][1:]
    if arguments[:2] != ["train", "reward"] or "--config_file" in arguments:
        try:
            return main(arguments)
        except SystemExit as end:
            return end.code
    from gpm_hf.scripts import reward

    monkeypatch.setattr("sys.argv", ["reward.py", *arguments[2:], "--output_dir", "out", "--report_to", "none"])
    try:
        reward.run()
    except SystemExit as end:
        return end.code
    return 0


def test_there_are_forty_mistakes():
    assert len(TABLE) >= 40 and len({typed for typed, _, _ in TABLE}) == len(TABLE)


@pytest.mark.parametrize(("typed", "said", "code"), TABLE, ids=[row[0].strip("`") for row in TABLE])
def test_a_mistake_is_a_sentence(here, capfd, monkeypatch, typed, said, code):
    import torch

    if ("cuda" in typed or "without GPU" in said) and torch.accelerator.is_available():
        pytest.skip("there is a device")
    before = {path.name: path.lstat().st_mtime_ns for path in here.iterdir()}
    assert run(typed.strip("`"), monkeypatch) == int(code)
    err = capfd.readouterr().err
    message = err[re.search(r"^gpm-hf", err, re.M).start() :]
    assert said.strip("`").replace("\\|", "|") in " ".join(message.split()), err
    assert len(message.strip().splitlines()) <= 3 and "Traceback" not in err, err
    assert {path.name: path.lstat().st_mtime_ns for path in here.iterdir()} == before


def test_an_error_of_a_subcommand_is_the_subcommands(capsys):
    with pytest.raises(SystemExit):
        main(["eval", "pairs", "gpm:x", "--dataset", "d", "--picturs", "p"])
    assert capsys.readouterr().err == (
        "gpm-hf eval pairs: there is no option --picturs. Did you mean --pictures?\n"
        "`gpm-hf eval pairs --help` lists the options.\n"
    )


def test_version_and_defaults_in_help(capsys):
    from gpm_hf import __version__

    for arguments, text in ((["--version"], f"gpm-hf {__version__}"), (["compare", "--help"], "(default: 16)")):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 0 and text in " ".join(capsys.readouterr().out.split())
