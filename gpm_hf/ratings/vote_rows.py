"""Votes from rows of files: the forms of Chatbot Arena, AlpacaEval, judgements by prompt, pairs and tables."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpm_hf.data.files import file_rows, form_of
from gpm_hf.data.outcomes import alpaca_outcome, arena_outcome, read_number

from .votes import Votes, count_votes

FORMS = """\
`model_a`, `model_b` and `winner` (model_a, model_b, tie, ...) or `winner_model_a`, `winner_model_b`, `winner_tie`;
`generator_1`, `generator_2` and `preference` (1 to 2; AlpacaEval); `winner` and `loser` (with `tie`, `count`);
`a` and `b` with `p_a`, or with `wins`, `losses` and `ties`; `prompt`, `responses` (with `model`) and `judgments`;
`prompt`, `chosen` and `rejected` (responses of one prompt compete)"""


def vote_rows(
    source: str, split: str | None = None, config: str | None = None
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """
    Rows of a file or of a data set of the Hub with the names of their places, see
    [`gpm_hf.data.raw_rows.read_sure_rows`]; files of text take no library to be read.
    """
    if config is None and split in (None, "train") and Path(source).is_file() and form_of(source) != "parquet":
        return ((f"{source}, {found.place}", found.checked(source)) for found in file_rows(source))
    from gpm_hf.data.raw_rows import read_sure_rows

    return read_sure_rows(source, split, config)


@dataclass
class _Columns:
    a: list = field(default_factory=list)
    b: list = field(default_factory=list)
    outcome: list[float] = field(default_factory=list)
    count: list[float] = field(default_factory=list)
    ordered: list[bool] = field(default_factory=list)
    prompt: list = field(default_factory=list)

    def add(
        self, a: Any, b: Any, outcome: float, count: float = 1.0, ordered: bool = False, prompt: Any = None
    ) -> None:
        for name, value in vars(self).items():
            value.append(locals()[name])


def read_votes(rows: Iterable[tuple[str, Mapping[str, Any]]], judge: str | None = None) -> Votes:
    """
    Votes of rows in any of the forms of [`FORMS`], told by their columns.

    In Chatbot Arena's form a is presented first; of judgements `ab` are votes with a first and `ba` with b first. An
    outcome of exactly 1/2 is a tie, any other number between 0 and 1 a vote that is split. Of preference pairs each
    response is an item of its prompt.

    Args:
        rows: where each row stands, for messages, and the row, see [`vote_rows`].
        judge: whose judgements, where rows hold several judges'.

    Raises:
        ValueError: no rows, a row of no such form, or an outcome that is none; the message names the row. Also rows of
            which some name a prompt and others do not, or several judges of whom none was named.
    """
    columns, within = _Columns(), False
    judges: set[str] = set()
    for place, row in rows:
        try:
            if row.get("judgments") is not None:
                _judgments(columns, row, judge, judges)
            elif row.get("chosen") is not None and row.get("rejected") is not None:
                within = True
                _pair(columns, row)
            else:
                _vote(columns, row)
        except (ValueError, TypeError, KeyError) as error:
            reason = f"`{error.args[0]}` is missing" if isinstance(error, KeyError) else error
            raise ValueError(f"{place}: {reason}") from error
    if not columns.a:
        found = f"; there are judgements by {sorted(judges)}" if judges else ""
        raise ValueError(f"There are no votes{f' by {judge!r}' if judge else ''}{found}.")
    prompts = [prompt is not None for prompt in columns.prompt]
    if any(prompts) and not all(prompts):
        raise ValueError(
            f"Some votes name their prompt, and vote {prompts.index(False) + 1} does not: name all or none."
        )
    votes = count_votes(
        columns.a,
        columns.b,
        columns.outcome,
        columns.count,
        columns.ordered,
        [_key(prompt) for prompt in columns.prompt] if all(prompts) else None,
    )
    return votes.within_prompts() if within else votes


def _vote(columns: _Columns, row: Mapping[str, Any]) -> None:
    prompt = next((row[name] for name in ("prompt", "question_id", "instruction") if row.get(name) is not None), None)
    count = read_number(row["count"], "count") if row.get("count") is not None else 1.0
    if row.get("model_a") is not None:
        columns.add(row["model_a"], row["model_b"], arena_outcome(row), count, True, prompt)
    elif row.get("generator_1") is not None:
        outcome = alpaca_outcome(row)
        if outcome is None:
            return
        columns.add(row["generator_1"], row["generator_2"], outcome, count, False, prompt)
    elif row.get("winner") is not None and row.get("loser") is not None:
        tied = str(row.get("tie")).lower() in ("true", "1", "1.0")
        columns.add(row["winner"], row["loser"], 0.5 if tied else 1.0, count, False, prompt)
    elif row.get("a") is not None and row.get("b") is not None:
        if row.get("p_a") is not None:
            columns.add(row["a"], row["b"], read_number(row["p_a"], "p_a"), count, False, prompt)
            return
        for name, outcome in (("wins", 1.0), ("ties", 0.5), ("losses", 0.0)):
            number = read_number(row[name], name) if name != "ties" else read_number(row.get("ties") or 0, name)
            if number:
                columns.add(row["a"], row["b"], outcome, number, False, prompt)
    else:
        raise ValueError(f"the columns {sorted(row)} are of no known form of votes. Known are {FORMS}.")


def _judgments(columns: _Columns, row: Mapping[str, Any], judge: str | None, judges: set) -> None:
    judgments = row["judgments"]
    if isinstance(judgments, Mapping):
        judges |= set(judgments)
        if judge is None and len(judges) > 1:
            raise ValueError(f"there are several judges, {sorted(judges)}: name one")
        judgments = judgments.get(judge, []) if judge is not None else next(iter(judgments.values()), [])
    elif judge is not None:
        raise ValueError("the row does not say who judged: name no judge")
    for judgment in judgments:
        a, b = judgment["a"], judgment["b"]
        known = False
        for name, first, second in (("ab", a, b), ("ba", b, a)):
            given = judgment.get(name)
            for value in given if isinstance(given, (list, tuple)) else [] if given is None else [given]:
                known, number = True, read_number(value, name)
                columns.add(first, second, number if first == a else 1 - number, 1.0, True, row["prompt"])
        if not known and judgment.get("p_a") is not None:
            columns.add(a, b, read_number(judgment["p_a"], "p_a"), 1.0, False, row["prompt"])


def _pair(columns: _Columns, row: Mapping[str, Any]) -> None:
    probability = row.get("preference_probability")
    outcome = 1.0 if probability is None else read_number(probability, "preference_probability")
    if row.get("prompt") is None:
        raise ValueError("a pair of responses names its `prompt`, within which they compete")
    columns.add(_key(row["chosen"]), _key(row["rejected"]), outcome, 1.0, False, row["prompt"])


def _key(value: Any) -> Any:
    """What may be a key of a dictionary: text as it is, messages as JSON."""
    return value if isinstance(value, (str, int)) else json.dumps(value, sort_keys=True, ensure_ascii=False)
