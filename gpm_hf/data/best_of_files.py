"""Reading RewardBench 2: one prompt, its correct answers, and wrong ones to tell them from."""

from collections.abc import Callable, Mapping
from typing import Any

from gpm_hf.data.fields import text_field, text_list_field
from gpm_hf.data.pair_files import check_token_limit, check_tokens
from gpm_hf.data.raw_rows import MalformedRow, ReadReport, read_kept

TIES = "ties"


def read_best_of(
    source: str,
    split: str | None = None,
    config: str | None = None,
    count_tokens: Callable[[Any, Any], int] | None = None,
    max_tokens: int | None = None,
) -> tuple[list[dict[str, Any]], ReadReport]:
    """
    Reads rows in RewardBench 2's schema: `id`, `prompt`, `chosen` (a list of correct answers), `rejected` (a list of
    wrong ones), `subset`, and `num_correct`, which must agree. Rows of the subset Ties have ids "ref:7" (one correct
    answer) and "tied:7" (several), the same number for the same question.

    Args:
        source: a Hub data set (`allenai/reward-bench-2`) or a local file, see [`read_rows`].
        split, config: of a Hub data set.
        count_tokens, max_tokens: as in [`read_pairs`].

    Returns:
        Rows of `id`, `prompt`, `responses` (the correct ones first), `correct` (how many those are) and `subset`; and
        the report.

    Raises:
        FileNotFoundError: a file that is not there.
        ValueError: nothing left; only one of `count_tokens` and `max_tokens`.
    """
    check_token_limit(count_tokens, max_tokens)

    def read(row: Any, name: str) -> list[dict[str, Any]]:
        found = _best_of_row(row)
        if count_tokens and max_tokens:
            check_tokens(found["prompt"], found["responses"], count_tokens, max_tokens)
        return [found]

    return read_kept(source, split, config, read)


def ties_question(identity: str) -> tuple[str, int]:
    """Kind ("ref" or "tied") and number of the question of a row of the subset Ties."""
    kind, separator, number = identity.partition(":")
    if not separator or kind not in ("ref", "tied") or not number.isdigit():
        raise MalformedRow("a row of Ties whose id reads neither ref:NUMBER nor tied:NUMBER")
    return kind, int(number)


def _best_of_row(row: Any) -> dict[str, Any]:
    prompt, subset, identity = text_field(row, "prompt"), _text(row, "subset"), _text(row, "id")
    chosen, rejected = text_list_field(row, "chosen"), text_list_field(row, "rejected")
    if row.get("num_correct") not in (None, len(chosen)):
        raise MalformedRow("`num_correct` is not the number of answers in `chosen`")
    if set(chosen) & set(rejected):
        raise MalformedRow("one response both correct and wrong")
    if subset.lower() == TIES:
        kind, _ = ties_question(identity)
        if (kind == "tied") != (len(chosen) > 1):
            raise MalformedRow("a row of Ties: ref has one correct answer, tied has several")
    return {
        "id": identity,
        "prompt": prompt,
        "responses": chosen + rejected,
        "correct": len(chosen),
        "subset": subset,
    }


def _text(row: Mapping[str, Any], name: str) -> str:
    if row.get(name) is None or not str(row[name]).strip():
        raise MalformedRow(f"no `{name}`")
    return str(row[name])
