"""Runs the commands of a bash block in this process, or has their options read by the parsers that would read them."""

import contextlib
import importlib
import re
import runpy
import shlex
import sys
import tomllib
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import get_args, get_type_hints

from tests.documents.blocks import ROOT

SCRIPTS = {"reward": "reward", "gpo": "gpo", "offline-gpo": "offline_gpo", "iterate": "iterate"}
# Programs of others: that they are named is all that is checked here.
FOREIGN = ("cat", "cd", "source", "hf", "vllm", "curl", "tensorboard", "tail", "git")
HERE_DOCUMENT = r"(?ms)^cat > (\S+) <<'(\w+)'\n(.*?)^\2\n"
# A training of the documents is of hours on a GPU; here it is of two steps on a tiny model.
SHORT = {
    "--use_cpu": "true",
    "--bf16": "false",
    "--max_steps": "2",
    "--per_device_train_batch_size": "8",
    "--report_to": "none",
    "--save_strategy": "no",
    "--gradient_checkpointing": "false",
}
SHORT_ONLINE = {"--max_completion_length": "8", "--win_rate_prompts": "0"}


@dataclass
class Command:
    """The words of one command, and the place of its block."""

    words: list[str]
    place: str

    def run(self) -> None:
        """Runs it here; a code other than 0 is an error."""
        program, *words = self.words
        if program == "gpm-hf" and words[0] != "train":
            from gpm_hf.cli import main

            code = main(words)
            assert code == 0, f"{self.place}: {shlex.join(self.words)} ended with {code}"
        elif program == "python" and words[0].startswith("examples/"):
            with command_line(words):
                runpy.run_path(words[0], run_name="__main__")
        elif program == "cat":
            Path(words[0]).write_text(words[1], encoding="utf-8")
        elif kind := self.script():
            self.check()
            module = importlib.import_module(f"gpm_hf.scripts.{SCRIPTS[kind[0]]}")
            with command_line([kind[0], *shortened(kind[1], kind[0])]):
                module.run()
        else:
            self.check()

    def script(self) -> tuple[str, list[str]] | None:
        """The launch script that a command starts, and its options."""
        from gpm_hf.cli.training import split_options

        program, *words = self.words
        if program == "gpm-hf" and words[0] == "train":
            return words[1], split_options(words[2:])[1]
        if program in ("accelerate", "python") and (place := script_at(words)) is not None:
            kind = Path(words[place]).stem.replace("_", "-")
            assert kind in SCRIPTS, f"{self.place}: {words[place]} is no launch script"
            return kind, words[place + 1 :]
        return None

    def check(self) -> None:
        """Has the options read by the parsers that would read them."""
        program, *words = self.words
        if kind := self.script():
            read_script(*kind)
        if program == "gpm-hf" and words[0] == "train":
            from gpm_hf.cli.training import split_options

            read_launcher([*split_options(words[2:])[0], "script"])
        elif program == "accelerate":
            assert words[0] == "launch", self.place
            place = script_at(words)
            if place is None:  # accelerate launch -m gpm_hf.cli ...
                place = words.index("gpm_hf.cli")
                read_command(words[place + 1 :])
            read_launcher(words[1 : place + 1])
        elif program == "gpm-hf":
            read_command(words)
        elif program == "make":
            for target in words:
                assert re.search(rf"(?m)^([\w -]+ )?{target}( [\w -]+)?:", (ROOT / "Makefile").read_text()), self.place
        elif program == "pip":
            check_installation(words, self.place)
        elif program == "python":
            assert kind or (ROOT / words[0]).is_file(), f"{self.place}: there is no {words[0]}"
        else:
            assert program in FOREIGN, f"{self.place}: what is {program}?"


def commands_of(text: str, place: str) -> list[Command]:
    """The commands of a block: lines joined where they end in a backslash, without comments and settings in front."""
    found = []
    # `cat > FILE <<'END'` is the one thing of the shell's own: it writes a file.
    for name, _, lines in re.findall(HERE_DOCUMENT, text):
        found.append(Command(["cat", name, lines], place))
    for line in re.sub(r"\\\n\s*", " ", re.sub(HERE_DOCUMENT, "", text)).splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        if words:
            found.append(Command(words, place))
    return found


def script_at(words: list[str]) -> int | None:
    return next((place for place, word in enumerate(words) if re.fullmatch(r"trainers/\w+\.py", word)), None)


@contextlib.contextmanager
def command_line(words: list[str]):
    before, sys.argv = sys.argv, words
    try:
        yield
    finally:
        sys.argv = before


def shortened(options: list[str], kind: str) -> list[str]:
    """The options with those of a short run in place of their own."""
    if kind == "iterate":
        return options
    ours = SHORT | (SHORT_ONLINE if kind == "gpo" else {})
    kept: list[str] = []
    skipping = False
    for word in options:
        if word.startswith("--"):
            skipping = word in ours
        if not skipping:
            kept.append(word)
    return kept + [word for pair in ours.items() for word in pair]


def read_command(words: list[str]) -> None:
    from gpm_hf.cli import command_parser

    command_parser().parse_args(words)


def read_launcher(words: list[str]) -> None:
    from accelerate.commands.launch import launch_command_parser

    launch_command_parser().parse_args(words)


def read_script(kind: str, options: list[str]) -> None:
    """Every option is one of the script's; the values are of their types. Nothing is built from them."""
    with command_line([kind, *options]):
        parser = script_parser(kind)
        left = parser.parse_known_args()[1]
    unknown = [word for word in left if word.startswith("--") and word != "--config"]
    assert not unknown, f"{kind} has no {unknown}"


def script_parser(kind: str):
    """The parser of a launch script, out of the dataclasses that its `main` takes."""
    from trl import TrlParser

    main = importlib.import_module(f"gpm_hf.scripts.{SCRIPTS[kind]}").main
    hints = get_type_hints(main)
    # `X | None` for one that may be left out.
    kinds = [next(iter(get_args(hints[name])), hints[name]) for name in signature(main).parameters]
    return TrlParser(tuple(kinds))


def check_installation(words: list[str], place: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in words:
        if extras := re.search(r"\[([\w,-]+)\]", word):
            for extra in extras.group(1).split(","):
                assert extra in project["optional-dependencies"], f"{place}: there is no extra {extra}"
        if word.endswith(".txt"):
            assert (ROOT / word).is_file(), f"{place}: there is no {word}"
