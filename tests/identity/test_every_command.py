"""
Whatever a command stored or had half done: after a change of anything that it depends on it computes anew or refuses.

Command by command and change by change: the command is killed in the middle (one with a store runs to its end),
something changes, and the same command runs again. What it says is then what a run from nothing says, or one sentence.
"""

import json
import math

import pytest

from gpm_hf.identity import software
from tests.identity.commands import Killed, Refused, Runner, World

CHANGES = {
    "weights": lambda world: world.change(_weights(world), "e", "E"),
    "base": lambda world: world.change(world.base / "model.safetensors", "weights", "WEIGHTS"),
    "tokenizer file": lambda world: world.change(world.base / "merges.txt", "a b", "b a"),
    "template": lambda world: world.write(world.base / "additional_chat_templates" / "default.jinja", "{{ other }}"),
    "data content": lambda world: _change_data(world),
    "folder": lambda world: _change_data(world),
    "dtype": lambda world: _change_dtype(world),
    "prompt format": lambda world: world.change(world.base / "config.json", '"clean"', '"other"'),
    "max length": lambda world: world.change(world.base / "config.json", "64", "32"),
    "package version": lambda world: None,
}
MODEL = ("weights", "base", "tokenizer file", "template", "prompt format", "max length")
ALL = tuple(CHANGES)
# What each command depends on: a card's result says itself on which data it is.
COMMANDS = {
    "score": ALL,
    "rank": ALL,
    "answer": ALL,
    "best_of_n": ALL,
    "best_of_n_scorer": (*MODEL, "data content", "folder", "package version"),
    "eval_pairs": ALL,
    "eval_rewardbench": ALL,
    "eval_rewardbench2": ALL,
    "eval_win_rates": (*MODEL, "data content", "dtype", "package version"),
    "table1": ALL,
    "ablation": (*MODEL, "dtype", "package version"),
    "iterate": ALL,
    "card": (*MODEL, "dtype"),
}
FAST = ("base", "tokenizer file", "folder", "package version")
CELLS = [(command, change) for command, changes in COMMANDS.items() for change in changes]
# Whose first run ends well: what it left is what another run would find.
FINISHES = {"eval_pairs", "eval_rewardbench", "eval_rewardbench2", "eval_win_rates", "iterate", "card"}


def _weights(world):
    return world.model / ("model.safetensors" if world.model == world.base else "adapter_model.safetensors")


def _change_data(world):
    """Of what was done already."""
    for name in ("groups", "rings", "pairs", "several", "x", "y", "prompts"):
        world.change(world.root / "data" / name / "train.jsonl", "Question 1", "Question 7")


def _change_dtype(world):
    """As an option where there is one, and as it is saved."""
    world.dtype = "float16"
    world.change(world.base / "config.json", '"float32"', '"float16"')


def test_the_table_is_large_enough():
    assert len(CELLS) == len(set(CELLS)) >= 80 and len(COMMANDS) == 13 and len(CHANGES) == 10


def first_run(runner, command, output):
    if command in FINISHES:
        return getattr(runner, command)(output)
    with pytest.raises(Killed), runner.killed_after(2):
        getattr(runner, command)(output)
    return None


def counted(runner, command, output):
    """What the command says, and how many pieces of work it took."""
    with runner.killed_after(math.inf):
        return getattr(runner, command)(output), runner.done


def outcome(command, change, root, monkeypatch, capsys):
    """Runs a command, changes something, runs it again: "refused" or "recomputed", or an assertion that fails."""
    world = World(root, adapter=change in ("base", "tokenizer file"), data_in_folder=change == "folder")
    runner = Runner(world, monkeypatch, capsys)
    first_run(runner, command, root / "out")
    CHANGES[change](world)
    if change == "package version":
        monkeypatch.setattr(software, "version", lambda name, number=software.version: f"{number(name)}.post9")
    try:
        found, work = counted(runner, command, root / "out")
    except (ValueError, Refused) as refusal:
        assert any(words in str(refusal) for words in ("with other", "was not measured on the model")), refusal
        return "refused"
    fresh, whole = counted(runner, command, root / "fresh")
    assert found == fresh
    # Where one row changed the others' work is not done again.
    assert 1 <= work <= whole if change in ("data content", "folder") else work == whole
    return "recomputed"


@pytest.mark.parametrize(
    ("command", "change"), [cell for cell in CELLS if cell[0] in ("score", "eval_pairs") and cell[1] in FAST]
)
def test_after_a_change_nothing_earlier_is_taken(command, change, tmp_path, monkeypatch, capsys):
    """Some of the table below, so that it is seen at once where something is lost."""
    outcome(command, change, tmp_path, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_the_whole_table(command, tmp_path, monkeypatch, capsys):
    found = {}
    for change in COMMANDS[command]:
        with monkeypatch.context() as patch:
            found[change] = outcome(command, change, tmp_path / change, patch, capsys)
    with capsys.disabled():
        print(f"\n{command}: {len(found)} cells, {json.dumps(found)}")


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_unchanged_it_goes_on(command, tmp_path, monkeypatch, capsys):
    """Else the table would say nothing: what was done is not done again."""
    runner = Runner(World(tmp_path, adapter=False, data_in_folder=False), monkeypatch, capsys)
    before = first_run(runner, command, tmp_path / "out")
    found, work = counted(runner, command, tmp_path / "out")
    fresh, whole = counted(runner, command, tmp_path / "fresh")
    assert found == fresh and (before is None or found == before)
    assert work <= whole - 2 or command in ("iterate", "card")
