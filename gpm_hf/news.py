"""News of what is going on: the logger `gpm_hf` at the level INFO, shown by commands and scripts, not by a library."""

import logging
import sys
from typing import Any


class _MainProcessLogger(logging.LoggerAdapter):
    """Speaks on a launcher's main process alone. (accelerate's own adapter writes the rank before each sentence.)"""

    def isEnabledFor(self, level: int) -> bool:
        from accelerate import PartialState

        return super().isEnabledFor(level) and PartialState().is_main_process


def get_logger(name: str) -> logging.LoggerAdapter[Any]:
    """The logger of a module whose code all processes of a launcher run."""
    return _MainProcessLogger(logging.getLogger(name), {})


class _AboveBars(logging.Handler):
    """Writes to the standard error stream, on lines of their own where there are bars."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


def show_news() -> None:
    """Writes news and warnings of this package to the standard error stream, unless the program logs already."""
    logging.basicConfig(format="%(message)s", handlers=[_AboveBars()])
    logging.getLogger("gpm_hf").setLevel(logging.INFO)
