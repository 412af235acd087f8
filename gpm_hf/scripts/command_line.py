"""The command line of a launch script: options out of dataclasses, errors in words."""

import os
import sys
from collections.abc import Callable
from typing import Any

from trl import TrlParser

from gpm_hf.errors import explanation, is_explained


def run_script(name: str, main: Callable[..., None], *options: Any) -> None:
    """
    Calls `main` with one object for each dataclass of `options`, filled from the command line and from `--config`.

    An error that the message explains is that message and exit code 1; with GPM_HF_DEBUG=1 it keeps its traceback.
    """
    try:
        main(*TrlParser(options).parse_args_and_config(fail_with_unknown_args=True))
    except Exception as error:
        if os.environ.get("GPM_HF_DEBUG") == "1" or not is_explained(error):
            raise
        print(f"gpm-hf train {name}: {explanation(error)}", file=sys.stderr)
        sys.exit(1)
