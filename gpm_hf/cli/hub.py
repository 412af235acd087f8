"""`gpm-hf push` and `gpm-hf card`."""

import argparse
from typing import Any

from gpm_hf.cli.common import arguments_of


def add_commands(commands: Any) -> None:
    """Adds the commands to the parser's."""
    push = commands.add_parser(
        "push",
        help="upload a saved model or adapter to the Hub",
        description="Uploads weights, configuration, code, tokenizer and card in one commit.",
    )
    push.add_argument("folder", help="what a trainer or `save_pretrained` wrote")
    push.add_argument("repo", help="the Hub id, user/name")
    push.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    push.add_argument("--revision", help="a branch, made where it is missing")
    push.add_argument("--create-pr", action="store_true", help="open a pull request instead of committing")
    push.add_argument("--merge", action="store_true", help="merge an adapter into its base model and upload the whole")
    push.add_argument("--base-model", help="the Hub id of what the training started from, where that was a local copy")
    push.add_argument("--license", help="the base model's licence, for the card")
    push.add_argument("--message", default="Upload model", help="of the commit")
    push.add_argument("--dry-run", action="store_true", help="say what would go, and upload nothing")
    push.set_defaults(run=_push)

    card = commands.add_parser(
        "card",
        help="write a model's card anew",
        description="Writes FOLDER/README.md from the configuration, the record of the run and the results of "
        "evaluations in FOLDER/results.",
    )
    card.add_argument("folder", help="a saved model")
    card.add_argument("--repo", help="the Hub id to load it by in the card's example")
    card.add_argument("--license", help="the base model's licence")
    card.add_argument("--overwrite", action="store_true", help="also where the card was edited by hand")
    card.set_defaults(run=_card)


def _push(options: argparse.Namespace) -> None:
    from gpm_hf.hub.publishing import publish

    print(publish(**arguments_of(options)))


def _card(options: argparse.Namespace) -> None:
    from gpm_hf.hub.cards import card_was_edited, write_card

    if not options.overwrite and card_was_edited(options.folder):
        raise FileExistsError(
            f"{options.folder}/README.md was edited by hand since it was written: replace it by --overwrite, or edit "
            "it further."
        )
    print(f"Written: {write_card(options.folder, options.repo, options.license)}")
