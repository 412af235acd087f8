"""
The code blocks of the documents, and how each is to be tested.

A block runs in `make test` unless a comment on the line above its fence says otherwise:

    <!-- test: slow -->      it runs in `make test-slow`
    <!-- test: options -->   it takes devices, models of the Hub or hours: its options are read by their parsers

A comment `<!-- test: page slow -->` says it of all blocks below.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
HOW = ("run", "slow", "options")
# What is shown, and not typed.
SHOWN = ("text", "bibtex", "{toctree}", "{eval-rst}", "{figure}")
RUN = ("bash", "python", "json", "jsonl", "yaml")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, how it is tested ("run", "slow", "options"), and its text."""

    place: str
    language: str
    how: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page, in order, without those that are only shown."""
    found: list[Block] = []
    how = everywhere = "run"
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block":
            asked = re.findall(r"<!-- test: (page )?(.*?) -->", token.content)
            for page_wide, kind in asked:
                if kind not in HOW:
                    raise ValueError(f"{page.name}: a block can be tested as one of {HOW}, not as {kind!r}.")
                how = kind
                everywhere = kind if page_wide else everywhere
            continue
        if token.type == "fence":
            language = token.info.strip().split(" ")[0]
            place = f"{page.name}:{token.map[0] + 1}"
            if language in RUN:
                found.append(Block(place, language, how, token.content))
            elif language not in SHOWN:
                raise ValueError(f"{place}: a block needs a language, one of {(*RUN, *SHOWN)}, not {language!r}.")
        how = everywhere
    return found
