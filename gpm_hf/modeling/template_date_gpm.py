"""
The date that a chat template writes, fixed, so that scores do not change with the day.

Templates such as those of Llama 3.2 and gpt-oss ask `strftime_now` for today's date. A macro of that name at a
template's head answers in its place, and holds for everything that reads the template.
"""

import datetime
import re
from functools import lru_cache

from transformers.utils import logging

logger = logging.get_logger(__name__)

# What the templates of Llama 3 write where they are given no date.
TEMPLATE_DATE = "2024-07-26"
# Of a model that was saved before its configuration held a date.
UNKNOWN_DATE = "unknown"

_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_ASKS = "strftime_now"
_MACRO = re.compile(r"\A\{%- macro strftime_now\(format\) -%\}.*?\{%- endmacro %\}\n", re.DOTALL)


def checked_date(date):
    """A date as "YYYY-MM-DD", from that or a `datetime.date`; `None` is [`TEMPLATE_DATE`], "unknown" stays."""
    if date is None or date == UNKNOWN_DATE:
        return date or TEMPLATE_DATE
    try:
        return datetime.date.fromisoformat(str(date)).isoformat()
    except ValueError as error:
        raise ValueError(f'template_date={date!r} is no date: write it as "YYYY-MM-DD".') from error


def asks_for_date(chat_template):
    """Whether a chat template, or one of several, writes today's date."""
    templates = chat_template.values() if isinstance(chat_template, dict) else [chat_template]
    return any(isinstance(template, str) and _ASKS in template for template in templates)


def fixed_templates(chat_template, date):
    """
    Chat templates that write one date, whatever the day is.

    Args:
        chat_template (`str`, `dict[str, str]` or `None`): a tokenizer's template, or several by their names.
        date (`str`): "YYYY-MM-DD"; or "unknown", which fixes [`TEMPLATE_DATE`] where a template is not fixed yet, and
            says so once.

    Returns:
        The same kind; equal to what was given where no template asks for the date.
    """
    if isinstance(chat_template, dict):
        return {name: fixed_templates(template, date) for name, template in chat_template.items()}
    if not asks_for_date(chat_template):
        return chat_template
    if date == UNKNOWN_DATE:
        if _MACRO.match(chat_template):
            return chat_template
        logger.warning_once(
            "The chat template writes today's date, and this preference model was saved without the date that it was "
            f'trained with: {TEMPLATE_DATE} is written. Name another by `template_date` ("YYYY-MM-DD") in its '
            "config.json."
        )
        date = TEMPLATE_DATE
    return _with_macro(chat_template, date)


@lru_cache(maxsize=16)
def _with_macro(template, date):
    day = datetime.date.fromisoformat(date)
    month, weekday = _MONTHS[day.month - 1], _DAYS[day.weekday()]
    # Names are English whatever the locale, and it is midnight.
    directives = {
        "%Y": f"{day.year:04}",
        "%y": f"{day.year % 100:02}",
        "%m": f"{day.month:02}",
        "%-m": f"{day.month}",
        "%d": f"{day.day:02}",
        "%-d": f"{day.day}",
        "%e": f"{day.day:2}",
        "%B": month,
        "%b": month[:3],
        "%A": weekday,
        "%a": weekday[:3],
        "%j": f"{day.timetuple().tm_yday:03}",
        "%u": f"{day.isoweekday()}",
        "%w": f"{day.isoweekday() % 7}",
        "%F": date,
        "%H": "00",
        "%-H": "0",
        "%I": "12",
        "%-I": "12",
        "%M": "00",
        "%S": "00",
        "%p": "AM",
        "%f": "000000",
        "%%": "%",
    }
    replaced = "".join(f' | replace("{directive}", "{text}")' for directive, text in directives.items())
    # The line break belongs to the macro: the template begins at the start of a line, as before.
    macro = "{%- macro strftime_now(format) -%}{{- format" + replaced + " -}}{%- endmacro %}\n"
    return macro + _MACRO.sub("", template)
