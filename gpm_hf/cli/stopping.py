"""What Ctrl-C leaves, and how to go on."""

import argparse

EXIT_CODE = 130  # as shells say it of a program that was interrupted
_GO_ON = ("answer", "iterate", "table1")


def after_a_stop(options: argparse.Namespace) -> str:
    """A sentence for whoever stopped a command: nothing half-written is there, and whether it goes on where it was."""
    given = vars(options)
    if options.command == "demo":
        return "Typed again, it starts anew, with the texts that it has read already."
    keeps_shards = options.command in ("score", "rank", "best-of-n") and given["output"]
    if options.command in _GO_ON or keeps_shards or given.get("store") or given.get("kind") == "ablation":
        return "Typed again, the same command goes on where it was."
    return "Nothing half-written is left; typed again, it starts anew."
