"""Reading benchmarks of pairs: RewardBench, RM-Bench, JudgeBench, and files in their schemas."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from gpm_hf.data.fields import is_text_list, text_field, text_list_field
from gpm_hf.data.forms import FORMS, FormOptions, pair_group
from gpm_hf.data.judged_groups import is_grouped, read_judged_group
from gpm_hf.data.raw_rows import MalformedRow, ReadReport, read_kept
from gpm_hf.modeling import encode_group, is_empty, read_group

# RM-Bench writes each answer in three styles: concise, detailed plain text, detailed with Markdown.
_STYLES = 3
_NO_SUBSET = "pairs"


def read_pairs(
    source: str,
    split: str | None = None,
    config: str | None = None,
    count_tokens: Callable[[Any, Any], int] | None = None,
    max_tokens: int | None = None,
    needs_prompt: bool = True,
) -> tuple[list[dict[str, Any]], ReadReport]:
    """
    Reads preference pairs. A row is one of

    - RewardBench's, and all that a preference model is trained on: `prompt`, `chosen`, `rejected` (strings or chat
      messages), `subset`, perhaps `id`. What two whole conversations begin with is their prompt;
    - RM-Bench's: the same with lists of three strings in `chosen` and `rejected`, one answer in three styles, and
      `domain` for the subset. It becomes 9 pairs, which share a `group` and so are scored together (6 responses). As
      in RM-Bench's own accuracy, `difficulty` is "hard" where the rejected answer is in the fancier style, "normal"
      where both are in one style, "easy" where the chosen answer is in the fancier one;
    - a group that is trained on (`prompt`, `responses` and who of them beats whom): all its pairs, which share a
      `group`;
    - of another form of [`gpm_hf.data.forms`], such as HH-RLHF's transcripts, votes of an arena and UltraFeedback;
    - JudgeBench's: `question`, `response_A`, `response_B`, `label` ("A>B" or "B>A"), and `source` for the subset.

    Rows that cannot be evaluated (missing fields, empty texts, identical responses, a label that names no winner, more
    tokens than the model reads) are left out, counted and named in the report; of an RM-Bench row all pairs are.

    Args:
        source: a Hub data set or a local file, see [`read_rows`].
        split, config: of a Hub data set.
        count_tokens: tokens of a prompt with one response, see [`token_counter`]; given with `max_tokens`.
        max_tokens: rows with a longer sequence are left out.
        needs_prompt: leave out rows without a prompt too. Else theirs is `None`: a model without a scale gate reads
            the responses as a whole.

    Returns:
        Rows of `id`, `prompt`, `chosen`, `rejected`, `subset` ("pairs" where the file names none), for groups and
        RM-Bench `group`, for this `difficulty`, and `preference_probability` where the row has it, or 1/2 where it
        has a true `tie`; and the report.

    Raises:
        FileNotFoundError: a file that is not there.
        ValueError: nothing left; only one of `count_tokens` and `max_tokens`.
    """
    check_token_limit(count_tokens, max_tokens)

    def read(row: Any, name: str) -> list[dict[str, Any]]:
        found = list(_pairs_of(row, name, needs_prompt))
        if count_tokens and max_tokens:
            for pair in found:
                check_tokens(pair["prompt"], (pair["chosen"], pair["rejected"]), count_tokens, max_tokens)
        return found

    return read_kept(source, split, config, read)


def token_counter(tokenizer: Any, **encoding_options: Any) -> Callable[[Any, Any], int]:
    """
    A `count_tokens` that counts as [`GPMForPreference`] encodes.

    Args:
        tokenizer: the preference model's.
        encoding_options: the model's `config.encoding_options`.
    """

    def count_tokens(prompt: Any, response: Any) -> int:
        group = encode_group(tokenizer, prompt, [response], **encoding_options)
        return max(len(group.sequences[0]), len(group.prompt_ids or ()))

    return count_tokens


def check_token_limit(count_tokens: Callable | None, max_tokens: int | None) -> None:
    """Raises `ValueError` where one of the two is given without the other."""
    if (count_tokens is None) != (max_tokens is None):
        raise ValueError("`count_tokens` and `max_tokens` are given together: a way to count and a limit.")


def check_tokens(prompt: Any, responses: Sequence[Any], count_tokens: Callable, max_tokens: int) -> None:
    """Raises [`MalformedRow`] for a prompt with a response of more than `max_tokens`."""
    for response in responses:
        # No count in the reason, or each such row would be a reason of its own.
        if count_tokens(prompt, response) > max_tokens:
            raise MalformedRow(f"more than {max_tokens} tokens")


def _pairs_of(row: Any, name: str, needs_prompt: bool) -> Iterator[dict[str, Any]]:
    # A table (parquet) has every column in every row, with None where there was nothing.
    if row.get("response_A") is not None or row.get("response_B") is not None:
        yield _judge_bench_pair(row, name)
    elif row.get("num_correct") is not None:
        raise MalformedRow("a best-of-n row: evaluate it as RewardBench 2")
    elif row.get("chosen") and is_text_list(row["chosen"]):
        yield from _rm_bench_pairs(row, name)
    else:
        form = next((form for form in FORMS if not form.is_trained_on and form.fits(row.keys(), row)), None)
        if form is not None:  # HH-RLHF's transcripts, votes, ...
            row = {**row, **form.read(row, 0, FormOptions())}
        if is_grouped(row.keys()):
            yield from _group_pairs(row, name, needs_prompt)
            return
        group = pair_group(row)
        if group.prompt is None and needs_prompt:
            raise MalformedRow(f"no `prompt`: {group.why_no_prompt}")
        chosen, rejected = group.responses
        yield {**_pair(row, name, group.prompt, chosen, rejected, "subset"), **_tie(row)}


def _tie(row: Mapping[str, Any]) -> dict[str, float]:
    """What the row says of a tie, as the probability that the chosen response is preferred; nothing where silent."""
    if str(row.get("tie")).lower() in ("true", "1", "1.0"):
        return {"preference_probability": 0.5}
    if row.get("preference_probability") is None:
        return {}
    try:
        probability = float(row["preference_probability"])
    except (TypeError, ValueError):
        probability = math.nan
    if not 0 <= probability <= 1:
        raise MalformedRow("`preference_probability` is no number from 0 to 1")
    return {"preference_probability": probability}


def _judge_bench_pair(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    first, second = text_field(row, "response_A"), text_field(row, "response_B")
    label = row.get("label")
    if label not in ("A>B", "B>A"):
        raise MalformedRow(f"the label {label!r} is neither 'A>B' nor 'B>A'")
    chosen, rejected = (first, second) if label == "A>B" else (second, first)
    return _pair(row, name, text_field(row, "question"), chosen, rejected, "source")


def _rm_bench_pairs(row: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    prompt = text_field(row, "prompt")
    chosen, rejected = text_list_field(row, "chosen"), text_list_field(row, "rejected")
    if (len(chosen), len(rejected)) != (_STYLES, _STYLES):
        raise MalformedRow(f"not {_STYLES} styles each in `chosen` and `rejected`")
    for i, better in enumerate(chosen):
        for j, worse in enumerate(rejected):
            pair = _pair(row, name, prompt, better, worse, "domain")
            difficulty = "normal" if i == j else "hard" if i < j else "easy"
            yield {**pair, "id": f"{pair['id']}/{i}-{j}", "group": name, "difficulty": difficulty}


def _group_pairs(row: Mapping[str, Any], name: str, needs_prompt: bool) -> Iterator[dict[str, Any]]:
    """The judgements of a group, but for those of two equal responses."""
    try:
        judged = read_judged_group(row)
        group = read_group(judged.prompt, judged.responses)
    except ValueError as error:
        raise MalformedRow(str(error).rstrip(".")) from error
    if group.prompt is None and needs_prompt:
        raise MalformedRow(f"no `prompt`: {group.why_no_prompt}")
    if any(is_empty(response) for response in group.responses):
        raise MalformedRow("an empty response")
    texts = group.responses
    pairs = [one for one in judged.pairs if texts[one.first] != texts[one.second]]
    if not pairs:
        raise MalformedRow("no response is preferred to another")
    for one in pairs:
        pair = _pair(row, name, group.prompt, texts[one.first], texts[one.second], "subset")
        identity = f"{pair['id']}/{one.first}-{one.second}"
        yield {**pair, "id": identity, "group": name, "preference_probability": one.probability}


def follow_labels(rows: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """
    Pairs as their labels have them: where `preference_probability` is below 1/2 the sides are exchanged, and rows of
    1/2, in which nobody can be right, are left out.

    Returns:
        The pairs, and the number of ties that were left out.
    """
    sided, ties = [], 0
    for row in rows:
        probability = row.get("preference_probability", 1.0)
        if probability == 0.5:
            ties += 1
        elif probability > 0.5:
            sided.append(dict(row))
        else:
            better = {"chosen": row["rejected"], "rejected": row["chosen"], "preference_probability": 1 - probability}
            sided.append({**row, **better})
    return sided, ties


def _pair(
    row: Mapping[str, Any], name: str, prompt: Any, chosen: Any, rejected: Any, subset_field: str
) -> dict[str, Any]:
    if chosen == rejected:
        raise MalformedRow("identical responses")
    identity = row.get("pair_id") if row.get("id") is None else row["id"]
    subset = row.get(subset_field) or row.get("subset") or _NO_SUBSET
    return {
        "id": name if identity is None else str(identity),
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "subset": str(subset),
    }
