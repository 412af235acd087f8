"""The command line of a launch script: options out of dataclasses, errors in words."""

import os
import sys
from collections.abc import Callable
from typing import Any

from gpm_hf.errors import UsageError, explanation, is_explained
from gpm_hf.news import show_news
from gpm_hf.scripts.options import parse_options


def run_script(name: str, main: Callable[..., None], *options: Any) -> None:
    """
    Calls `main` with one object for each dataclass of `options`, filled from the command line and from `--config`.

    An error that the message explains is that message and exit code 1, or 2 for options that cannot be; with
    GPM_HF_DEBUG=1 it keeps its traceback.
    """
    show_news()
    try:
        main(*parse_options(f"gpm-hf train {name}", options))
    except Exception as error:
        if os.environ.get("GPM_HF_DEBUG") == "1" or not is_explained(error):
            raise
        print(f"gpm-hf train {name}: {explanation(error)}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
