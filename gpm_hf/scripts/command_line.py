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
    given: tuple = ()
    try:
        given = tuple(parse_options(f"gpm-hf train {name}", options))
        main(*given)
    except KeyboardInterrupt:
        print(f"\ngpm-hf train {name}: stopped. {_how_to_go_on(given)}", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if os.environ.get("GPM_HF_DEBUG") == "1" or not is_explained(error):
            raise
        print(f"gpm-hf train {name}: {explanation(error)}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)


def _how_to_go_on(given: tuple) -> str:
    from transformers import TrainingArguments

    from gpm_hf.recipes.iterate_config import IterateConfig
    from gpm_hf.training.checkpoints import whole_checkpoints

    for options in given:
        if isinstance(options, IterateConfig):
            return "Typed again, the same command goes on where it was."
        if isinstance(options, TrainingArguments) and whole_checkpoints(options.output_dir)[0]:
            return "With `--resume_from_checkpoint true` the same command goes on from the last checkpoint."
    return "There was no checkpoint yet: typed again, it starts anew. `--save_steps` says how often there is one."
