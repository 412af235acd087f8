"""
The screen of a command: its own words, one bar at a time, and libraries that are silent unless they are asked.

What libraries take from the environment is set there, and before they are imported: the processes that a launcher
starts are then as quiet.
"""

import logging
import os
import sys
import warnings
from collections.abc import Iterable, Sequence

VERBOSE = "GPM_HF_VERBOSE"
_QUIET = {
    "TQDM_DELAY": "2",  # seconds: what is done by then is not worth a bar
    "TQDM_LEAVE": "",  # a bar that is full makes room for the next
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "DATASETS_VERBOSITY": "error",
}
# Their notes on how they compute are for those who write programs with them. An error stays an error.
_LIBRARIES = ("accelerate", "bitsandbytes", "peft", "torch", "trl")


def quiet_libraries() -> None:
    """
    Silences what the libraries below say, unless `GPM_HF_VERBOSE=1` (which `gpm-hf --verbose` sets): their notes,
    warnings about their own next versions, and bars of what takes two seconds or less. What the environment says
    already is left.
    """
    if os.environ.get(VERBOSE) == "1":
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)
    # It sets its level when it is imported, which is later.
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category)
    warnings.showwarning = _show_warning


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """The sentence alone: where in the code it was raised is nothing to whoever typed a command."""
    print(message, file=sys.stderr if file is None else file)


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table; the first column is text, the others are numbers."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False).print(table)
