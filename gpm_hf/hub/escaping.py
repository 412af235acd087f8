"""Names in a card: shown as they are, whatever characters they have, and read as nothing else."""

import json
import re
import shlex
from urllib.parse import quote

# An underscore inside a word is one.
_MARKDOWN = re.compile(r"([\\`*\[\]~]|^#|(?<!\w)_|_(?!\w))")
_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")


def plain(text: str) -> str:
    """A name in running text, on one line: neither Markdown nor HTML."""
    line = " ".join(str(text).split())
    return _MARKDOWN.sub(r"\\\1", line).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code(text: str) -> str:
    """A name as Markdown code, on one line; longer runs of backticks hold shorter ones."""
    line = " ".join(str(text).split())
    longest = max(map(len, re.findall("`+", line)), default=0)
    fence, space = "`" * (longest + 1), " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"


def with_code(text: str) -> str:
    """Running text that may have names in it as Markdown code, which stay; all else is [`plain`]."""
    found, end = [], 0
    line = " ".join(str(text).split())
    for span in _CODE.finditer(line):
        found += [plain_part(line[end : span.start()]), span[0]]
        end = span.end()
    return "".join([*found, plain_part(line[end:])])


def plain_part(text: str) -> str:
    """A part of a line, with the spaces at its ends."""
    before, after = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    return f"{before}{plain(text)}{after}" if text.strip() else text


def literal(text: str) -> str:
    """A name as a string of Python's."""
    return json.dumps(str(text), ensure_ascii=False)


def shell_word(text: str) -> str:
    """A name as one word of a shell's command, on one line."""
    return shlex.quote(" ".join(str(text).split()))


def address(path: str) -> str:
    """A file's place, as a link in Markdown has it."""
    return quote(str(path))
