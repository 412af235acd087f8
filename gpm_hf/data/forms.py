"""
The forms in which public preference data and people's own tables come, told by their columns, each read as rows that
are trained on: pairs (`prompt`, `chosen`, `rejected`, perhaps `preference_probability`) or groups (`prompt`,
`responses` and one statement, see [`gpm_hf.data.judged_groups`]).

What the columns of the public sets mean, as their cards and the code that reads them say: HH-RLHF's two transcripts
differ in what follows the last question; Nectar's `rank` is 1 for the best of its seven answers; HelpSteer2's
`preference_strength` and HelpSteer3's `overall_preference` run from -3 (the first response is much better) to 3 (the
second is), 0 being no preference; PKU-SafeRLHF names by number the `better_response_id` (helpful) and the
`safer_response_id` of its two; Chatbot Arena's `winner` has two words for a tie; AlpacaEval's `preference` runs from
1 (the first) to 2 (the second).
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from gpm_hf.data.fields import text_field
from gpm_hf.data.files import MalformedRow
from gpm_hf.data.judged_groups import is_grouped, read_judged_group
from gpm_hf.data.outcomes import alpaca_outcome, arena_outcome, read_number
from gpm_hf.data.preference import LABEL_COLUMNS, TOKEN_COLUMNS
from gpm_hf.data.preference_rows import read_label
from gpm_hf.data.rated_groups import is_rated, rated_group
from gpm_hf.data.transcripts import is_transcript, part, read_prompt_turns, read_transcript
from gpm_hf.errors import UsageError
from gpm_hf.modeling import is_empty, read_group
from gpm_hf.modeling.messages_gpm import MessageGroup

_STRONGEST = 3
_PROMPTS = ("prompt", "instruction", "question", "query")


@dataclass(frozen=True)
class FormOptions:
    """
    What a form leaves to whoever reads it.

    Attributes:
        label: of PKU-SafeRLHF, "better" (the more helpful response) or "safer".
        ties: "keep", as the probability 1/2, or "drop".
        aspects: of ratings by aspect, those whose mean counts; all if `None`.
    """

    label: str = "better"
    ties: str = "keep"
    aspects: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.label not in ("better", "safer"):
            raise ValueError(f'the label {self.label!r} is unknown: choose "better" or "safer".')
        if self.ties not in ("keep", "drop"):
            raise ValueError(f'ties={self.ties!r} is unknown: choose "keep" or "drop".')


@dataclass(frozen=True)
class Form:
    """
    A form of preference data.

    Attributes:
        name: by which it is asked for and reported.
        columns: in words, for messages and the documentation.
        fits: whether a data set with these columns and this first row is of the form.
        read: one row as a pair or a group; a [`MalformedRow`] for one to leave out.
        is_trained_on: whether the trainer reads it as it is.
    """

    name: str
    columns: str
    fits: Callable[[Collection[str], Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any], int, FormOptions], dict[str, Any]]
    is_trained_on: bool = False


def form_of_rows(columns: Collection[str], first: Mapping[str, Any]) -> Form:
    """
    The form of a data set.

    Args:
        columns: its columns.
        first: its first row.

    Raises:
        ValueError: columns of no known form.
    """
    form = told_form(columns, first)
    if form is not None:
        return form
    raise ValueError(
        f"the columns {sorted(columns)} are of no known form. Name them by --columns, as "
        "`prompt=COLUMN,chosen=COLUMN,rejected=COLUMN` or `prompt=COLUMN,response_a=COLUMN,response_b=COLUMN,"
        "winner=COLUMN`."
    )


def told_form(columns: Collection[str], first: Mapping[str, Any]) -> Form | None:
    """As [`form_of_rows`]; `None` where no form is told."""
    return next((form for form in FORMS if form.fits(columns, first)), None)


def is_read_as_is(columns: Collection[str], first: Mapping[str, Any]) -> bool:
    """Whether the trainer reads such a data set itself, or will say what it lacks: no other form is told."""
    found = told_form(columns, first)
    return found is None or found.is_trained_on


def form_named(name: str) -> Form:
    """A form by its name; a `UsageError` lists those there are."""
    for form in FORMS:
        if form.name == name:
            return form
    raise UsageError(f"there is no form {name!r}; known are {', '.join(form.name for form in FORMS)}.")


# --- one row each ----------------------------------------------------------------------------------------------------


def _judged(prompt: Any, first: Any, second: Any, p_first: float, options: FormOptions) -> dict[str, Any]:
    """A pair of which the first is better with this probability; the better one is chosen."""
    if first == second:
        raise MalformedRow("identical responses")
    if p_first == 0.5 and options.ties == "drop":
        raise MalformedRow("a tie")
    chosen, rejected = (first, second) if p_first >= 0.5 else (second, first)
    probability = max(p_first, 1 - p_first)
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "preference_probability": probability}


def _certain(prompt: Any, chosen: Any, rejected: Any) -> dict[str, Any]:
    if chosen == rejected:
        raise MalformedRow("identical responses")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _prompt(row: Mapping[str, Any]) -> Any:
    name = next((name for name in _PROMPTS if row.get(name) is not None), "prompt")
    return text_field(row, name)


def _outcome(row: Mapping[str, Any], of: Callable[[Mapping[str, Any]], Any]) -> Any:
    try:
        return of(row)
    except KeyError as error:
        raise MalformedRow(f"no `{error.args[0]}`") from error
    except ValueError as error:
        raise MalformedRow(str(error)) from error


def _number(row: Mapping[str, Any], name: str) -> float:
    return _outcome(row, lambda row: read_number(row[name], name))


def _read_hh(row: Mapping[str, Any], number: int, options: FormOptions) -> dict[str, Any]:
    sides = [text_field(row, side) for side in ("chosen", "rejected")]
    if not all(isinstance(side, str) for side in sides):
        raise MalformedRow("no transcript, but chat messages")
    return _certain(*part(*map(read_transcript, sides)))


def _read_nectar(row: Mapping[str, Any], number: int, options: FormOptions) -> dict[str, Any]:
    prompt = text_field(row, "prompt")
    answers = row["answers"]
    if not isinstance(answers, (list, tuple)) or not all(isinstance(one, Mapping) for one in answers):
        raise MalformedRow("`answers` is no list of answers with `answer` and `rank`")
    texts = [text_field(one, "answer") for one in answers]
    if len(texts) < 2:
        raise MalformedRow("fewer than two answers")
    ranks = [_number(one, "rank") for one in answers]
    places = [[number for number, rank in enumerate(ranks) if rank == place] for place in sorted(set(ranks))]
    if len(places) == 1:
        raise MalformedRow("all responses tie")
    # One list for each place, also of one, so that a table holds all rows alike.
    messages = read_transcript(prompt) if is_transcript(prompt) else prompt
    return {"prompt": messages, "responses": texts, "ranking": places}


def _read_rated(row: Mapping[str, Any], number: int, options: FormOptions) -> dict[str, Any]:
    group = rated_group(row, number, options.aspects)
    if not all(isinstance(text, str) and text.strip() for text in group["responses"]):
        raise MalformedRow("a response is missing or empty")
    if len({rating for rating in group["ratings"] if rating is not None}) < 2:
        raise MalformedRow("no two responses are rated differently")
    return group


def _read_strength(response: str, strength: str, prompt: str) -> Callable:
    def read(row: Mapping[str, Any], number: int, options: FormOptions) -> dict[str, Any]:
        first, second = (text_field(row, f"{response}{place}") for place in (1, 2))
        value = _number(row, strength)
        if abs(value) > _STRONGEST:
            raise MalformedRow(f"`{strength}` is not from -{_STRONGEST} to {_STRONGEST}")
        question = text_field(row, prompt)
        if isinstance(question, str):
            question = read_prompt_turns(question)
        return _judged(question, first, second, 0.5 - value / (2 * _STRONGEST), options)

    return read


def _read_safe(row: Mapping[str, Any], number: int, options: FormOptions) -> dict[str, Any]:
    name = f"{options.label}_response_id"
    if str(row.get(name)) not in ("0", "1"):
        raise MalformedRow(f"`{name}` is neither 0 nor 1")
    responses = [text_field(row, "response_0"), text_field(row, "response_1")]
    better = int(row[name])
    return _certain(text_field(row, "prompt"), responses[better], responses[1 - better])


def _read_arena(row: Mapping[str, Any], number: int, options: FormOptions) -> dict[str, Any]:
    sides = [_messages(row, f"conversation_{side}") for side in "ab"]
    return _judged(*part(*sides), _outcome(row, arena_outcome), options)


def _messages(row: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    value = row.get(name)
    if isinstance(value, str):
        value = _from_json(value, name)
    value = text_field({name: value}, name)
    # In newer arenas the content of a message comes in parts.
    try:
        return read_group(None, [value]).responses[0]
    except ValueError as error:
        raise MalformedRow(f"`{name}` holds no chat messages of text") from error


def _from_json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise MalformedRow(f"`{name}` is no JSON") from error


def _read_table(row: Mapping[str, Any], number: int, options: FormOptions) -> dict[str, Any]:
    prompt, first, second = _prompt(row), text_field(row, "response_a"), text_field(row, "response_b")
    outcome = _outcome(row, arena_outcome)
    asked, answered, other = (_turns(text) for text in (prompt, first, second))
    if asked is None or answered is None or other is None:
        return _judged(prompt, first, second, outcome, options)
    # The form of the Arena's competition: lists of turns, written as JSON.
    return _judged(*part(_conversation(asked, answered), _conversation(asked, other)), outcome, options)


def _conversation(asked: list[Any], answered: list[Any]) -> list[dict[str, Any]]:
    if len(asked) != len(answered) or not all(isinstance(turn, str) and turn.strip() for turn in asked + answered):
        raise MalformedRow("a turn without text")
    turns = zip(asked, answered, strict=True)
    return [{"role": role, "content": text} for turn in turns for role, text in zip(("user", "assistant"), turn)]


def _turns(text: Any) -> list[Any] | None:
    """A list of turns written as JSON; `None` for a text."""
    if not (isinstance(text, str) and text.startswith("[") and text.endswith("]")):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if all(one is None or isinstance(one, str) for one in found) else None


def _read_alpaca(row: Mapping[str, Any], number: int, options: FormOptions) -> dict[str, Any]:
    outcome = _outcome(row, alpaca_outcome)
    if outcome is None:
        raise MalformedRow("`preference` is null")
    prompt = text_field(row, "instruction")
    if isinstance(prompt, str) and isinstance(row.get("input"), str) and row["input"].strip():
        prompt = f"{prompt}\n\n{row['input']}"
    return _judged(prompt, text_field(row, "output_1"), text_field(row, "output_2"), outcome, options)


def _read_scored_pair(row: Mapping[str, Any], number: int, options: FormOptions) -> dict[str, Any]:
    group = pair_group(row)
    scores = [_number(row, f"score_{side}") for side in _SIDES]
    if scores[0] < scores[1]:
        raise MalformedRow("the rejected response has the higher score")
    outcome = 0.5 if scores[0] == scores[1] else 1.0
    return _judged(group.prompt, group.responses[0], group.responses[1], outcome, options)


_SIDES = ("chosen", "rejected")


def pair_group(row: Mapping[str, Any]) -> MessageGroup:
    """What a row's `prompt`, `chosen` and `rejected` hold; raises [`MalformedRow`] where that is no pair."""
    sides = [text_field(row, side) for side in _SIDES]
    prompt = None if row.get("prompt") is None else text_field(row, "prompt")
    try:
        return read_group(prompt, sides)
    except ValueError as error:
        raise MalformedRow(str(error).rstrip(".")) from error


def _read_pair(row: Mapping[str, Any], number: int, options: FormOptions) -> dict[str, Any]:
    group = pair_group(row)
    pair = _certain(group.prompt, *group.responses)
    try:
        labels = {name: read_label(row[name], name) for name in LABEL_COLUMNS if row.get(name) is not None}
    except ValueError as error:
        raise MalformedRow(str(error).rstrip(".")) from error
    if labels.get("preference_probability") == 0.5 and options.ties == "drop":
        raise MalformedRow("a tie")
    return pair | labels


def _read_group(row: Mapping[str, Any], number: int, options: FormOptions) -> dict[str, Any]:
    try:
        group = read_judged_group(row)
    except ValueError as error:
        raise MalformedRow(str(error).rstrip(".")) from error
    if not group.pairs:
        raise MalformedRow("no response is preferred to another")
    if any(is_empty(response) for response in group.responses):
        raise MalformedRow("an empty response")
    return {name: value for name, value in row.items() if value is not None}


def _has(*names: str) -> Callable[[Collection[str], Mapping[str, Any]], bool]:
    return lambda columns, first: set(names) <= set(columns)


def _is_hh(columns: Collection[str], first: Mapping[str, Any]) -> bool:
    return (
        set(_SIDES) <= set(columns)
        and "prompt" not in columns
        and all(is_transcript(first.get(one)) for one in _SIDES)
    )


def _is_table(columns: Collection[str], first: Mapping[str, Any]) -> bool:
    has_outcome = "winner" in columns or "winner_tie" in columns
    return {"response_a", "response_b"} <= set(columns) and has_outcome and bool(set(_PROMPTS) & set(columns))


FORMS = (
    Form("hh", "`chosen`, `rejected`: transcripts with `Human:` and `Assistant:` (HH-RLHF)", _is_hh, _read_hh),
    Form(
        "ultrafeedback",
        "`instruction`, `completions` with `annotations` (UltraFeedback's ratings)",
        lambda columns, first: is_rated(columns),
        _read_rated,
    ),
    Form(
        "ultrafeedback-binarized",
        "`chosen`, `rejected`, `score_chosen`, `score_rejected` (UltraFeedback, binarized)",
        _has("chosen", "rejected", "score_chosen", "score_rejected"),
        _read_scored_pair,
    ),
    Form(
        "helpsteer2",
        "`prompt`, `response_1`, `response_2`, `preference_strength` (HelpSteer2, its folder `preference`)",
        _has("prompt", "response_1", "response_2", "preference_strength"),
        _read_strength("response_", "preference_strength", "prompt"),
    ),
    Form(
        "helpsteer3",
        "`context`, `response1`, `response2`, `overall_preference` (HelpSteer3)",
        _has("context", "response1", "response2", "overall_preference"),
        _read_strength("response", "overall_preference", "context"),
    ),
    Form("nectar", "`prompt`, `answers` with `answer` and `rank` (Nectar)", _has("prompt", "answers"), _read_nectar),
    Form(
        "safe-rlhf",
        "`prompt`, `response_0`, `response_1`, `better_response_id`, `safer_response_id` (PKU-SafeRLHF)",
        _has("prompt", "response_0", "response_1", "better_response_id", "safer_response_id"),
        _read_safe,
    ),
    Form(
        "arena",
        "`conversation_a`, `conversation_b`, `winner` (Chatbot Arena)",
        _has("conversation_a", "conversation_b", "winner"),
        _read_arena,
    ),
    Form(
        "table",
        "`prompt`, `response_a`, `response_b`, `winner` (a table of one's own, the Arena's competition)",
        _is_table,
        _read_table,
    ),
    Form(
        "alpaca-eval",
        "`instruction`, `output_1`, `output_2`, `preference` (annotations of AlpacaEval)",
        _has("instruction", "output_1", "output_2", "preference"),
        _read_alpaca,
    ),
    Form(
        "chosen-reject",
        "`instruction`, `chosen`, `reject` (the authors' own)",
        lambda columns, first: {"chosen", "reject"} <= set(columns) and bool(set(_PROMPTS) & set(columns)),
        lambda row, number, options: _certain(_prompt(row), text_field(row, "chosen"), text_field(row, "reject")),
    ),
    Form(
        "pairs",
        "`chosen`, `rejected`, perhaps `prompt` and labels (TRL's; Skywork's conversations)",
        lambda columns, first: set(_SIDES) <= set(columns) or set(TOKEN_COLUMNS) <= set(columns),
        _read_pair,
        is_trained_on=True,
    ),
    Form(
        "groups",
        "`prompt`, `responses` and who of them beats whom",
        lambda columns, first: is_grouped(columns),
        _read_group,
        is_trained_on=True,
    ),
)
