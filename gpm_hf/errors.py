"""Which errors are a sentence for whoever typed the command, and which are faults of the program."""

import difflib
import dis
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

# They read what a command line names, and say in a `ValueError` what is wrong with it.
_READERS = ("accelerate", "datasets", "huggingface_hub", "peft", "transformers", "trl")


class UsageError(ValueError):
    """An option of a command line that cannot be, whatever the data and the model are: exit code 2."""


def is_explained(error: BaseException) -> bool:
    """
    Whether the message was written for whoever typed the command: of files and of the Hub, of a package that is not
    installed, and every `ValueError` that a `raise` of this package, or a library that reads what was named, raised. A
    `ValueError` out of an unpacking or a conversion, or of NumPy or torch, is a fault of the program, and so is any
    other error: these need their traceback.
    """
    if isinstance(error, (OSError, ImportError)) or _is_of_http(error):
        return True
    return isinstance(error, ValueError) and _was_raised_in_words(error)


def explanation(error: BaseException) -> str:
    """The message of an error that [`is_explained`], with what to do where that is of the Hub."""
    if _is_of_http(error):
        return f"the Hub cannot be reached: {error}"
    message = str(error)
    return f"{message}\nLog in with `hf auth login`, or set HF_TOKEN." if "401" in message else message


def _is_of_http(error: BaseException) -> bool:
    # The HTTP library below huggingface_hub has changed its name before, and its errors are not OSErrors.
    return type(error).__module__.startswith("httpx")


def _was_raised_in_words(error: ValueError) -> bool:
    at = error.__traceback__
    if at is None:
        return False
    while at.tb_next is not None:
        at = at.tb_next
    room = at.tb_frame.f_globals.get("__name__", "").partition(".")[0]
    raises = dis.opname[at.tb_frame.f_code.co_code[at.tb_lasti]] == "RAISE_VARARGS"
    return room in _READERS or (room in ("gpm_hf", "transformers_modules") and raises)


# --- command lines ---------------------------------------------------------------------------------------------------


def unknown_options(unknown: Sequence[str], usage: str) -> str:
    """What to say of options that there are not; the usage of their command lists those that there are."""
    if not unknown[0].startswith("-"):
        return f"too many arguments: {' '.join(unknown)}. A text with spaces stands in quotation marks."
    known = re.findall(r"(?<![\w-])--?\w[\w-]*", usage)
    close = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1)
    return f"there is no option {unknown[0]}." + (f" Did you mean {close[0]}?" if close else "")


def end_with_usage(program: str, message: str) -> NoReturn:
    """Ends the program with exit code 2: what is wrong, and where the options are listed."""
    sys.stderr.write(f"{program}: {message}\n`{program} --help` lists the options.\n")
    sys.exit(2)
