"""Names in cards are shown as they are and read as nothing else."""

import html
import re
import shlex

import pytest

from gpm_hf.hub.cards import write_card
from gpm_hf.hub.escaping import address, code, literal, plain, shell_word, with_code
from gpm_hf.hub.record import RunRecord

NAMES = [
    "plain-name_1",
    "<script>alert(1)</script>",
    "a`b``c",
    "`whole`",
    "[link](javascript:x)",
    "**bold** _it_ ~~s~~ # !",
    "quote\"'\\",
    "two\nlines\n\n# Title",
    "a | b",
    "&lt;",
    "{{ base }} {% raw %}",
]


@pytest.mark.parametrize("name", NAMES)
def test_plain_text_is_neither_markdown_nor_html(name):
    shown = plain(name)
    assert "\n" not in shown and not re.search(r"[<>]|(?<!\\)([`*\[\]~]|(?<!\w)_|_(?!\w))|^#", shown)
    assert html.unescape(re.sub(r"\\([^a-zA-Z0-9\s])", r"\1", shown)) == " ".join(name.split())


@pytest.mark.parametrize("name", NAMES)
def test_code_holds_any_name(name):
    """As CommonMark reads it: the first run of as many backticks ends it, and one space on each side goes."""
    shown = code(name)
    fence = re.match("`+", shown)[0]
    (inside,) = re.findall(rf"(?<!`){fence}(?!`)(.+?)(?<!`){fence}(?!`)", shown)
    assert shown == f"{fence}{inside}{fence}"
    assert (inside[1:-1] if inside[0] == inside[-1] == " " else inside) == " ".join(name.split())
    assert with_code(f"by {shown}, <i>") == f"by {shown}, &lt;i&gt;"


@pytest.mark.parametrize("name", NAMES)
def test_a_literal_is_the_name_in_python(name):
    assert eval(literal(name)) == name and "\n" not in literal(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_word_of_a_shell_is_one_word_on_one_line(name):
    assert shlex.split(shell_word(name)) == [" ".join(name.split())] and "\n" not in shell_word(name)


def test_an_address_ends_no_link():
    assert address("results/a b).png") == "results/a%20b%29.png"


def test_a_card_shows_hostile_names(tmp_path):
    import yaml

    bad = "x`](y)<img src=q>\n---\nlicense: mit\n# T"
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    RunRecord(
        kind="policy",
        base_model=bad,
        datasets=[{"name": bad, "revision": ""}],
        settings={"preference": bad, "method": "online"},
        hyperparameters={bad: bad},
        metrics={bad: 1.0, "lost": None},
        tags=[bad],
    ).save(tmp_path)
    text = write_card(tmp_path, repo=f"user/{bad}", license=bad).read_text()
    _, head, body = re.split(r"^---$", text, maxsplit=2, flags=re.MULTILINE)
    assert yaml.safe_load(head)["license"] == bad and yaml.safe_load(head)["tags"] == [bad]
    # Within code HTML is text; outside there is none, and no line of the name has become a line of the card.
    outside = re.sub(r"(?s)```.*?```|(?<![`\\])(`+)(?!`).+?(?<!`)\1(?!`)", "", body)
    assert "<img" not in outside and not re.search(r"(?<!\\)\]\(y\)", outside)
    assert "\n# T" not in body and "\nlicense: mit" not in body and "\n---" not in body
    assert "| lost | not finite |" in body
