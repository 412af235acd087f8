"""Rows of sampled responses with their scores, read and checked: see [`gpm_hf.data.policy_data`]."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from gpm_hf.data.groups import named_responses
from gpm_hf.data.sampled_ids import SampledIds, read_ids
from gpm_hf.modeling import PromptError, is_empty, read_group
from gpm_hf.modeling.messages_gpm import as_messages
from gpm_hf.preference.arrays import read_scores, sigmoid

Row = TypeVar("Row", bound=Mapping[str, Any])
Found = TypeVar("Found")


class ScoredGroup(NamedTuple):
    """
    A scored row, checked.

    Attributes:
        name: for messages, "row 3".
        prompt: chat messages.
        responses: K strings.
        scores: log-odds of shape (K, K), float64 and exactly skew-symmetric.
        mean_scores: log-odds of shape (K,).
        mean_probabilities: K mean win probabilities against the group, 1/2 against oneself.
        log_probs: the policy's, K of them, or `None`.
        ids: what was sampled, or `None`.
    """

    name: str
    prompt: list[dict[str, Any]]
    responses: list[str]
    scores: np.ndarray
    mean_scores: np.ndarray
    mean_probabilities: np.ndarray
    log_probs: list[float] | None
    ids: SampledIds | None


def with_text(name: str, row: Mapping[str, Any], counts: Counter) -> dict[str, Any]:
    """
    The row as a `dict` without its responses that have no text, and without what belongs to them.

    Args:
        name: of the row, for messages.
        row: `prompt`, `responses` and optionally `policy_log_probs` and the sampled ids.
        counts: how many were left out is added to it.

    Raises:
        ValueError: naming the row, where it lacks a column or columns do not fit together.
    """
    if "prompt" not in row or "responses" not in row:
        raise ValueError(f"{name} has the columns {sorted(row)}: it needs `prompt` and `responses`.")
    try:
        responses, names = named_responses(row["responses"])
    except ValueError as error:
        raise ValueError(f"{name}: `responses` must be a list of strings, or a mapping to them: {error}") from error
    if any(not isinstance(text, str) for text in responses):
        raise ValueError(f"{name}: `responses` must be a list of strings.")
    log_probs = row.get("policy_log_probs")
    if log_probs is not None:
        log_probs = _numbers(name, "policy_log_probs", log_probs)
    if log_probs is not None and len(log_probs) != len(responses):
        raise ValueError(f"{name} has {len(responses)} responses and {len(log_probs)} `policy_log_probs`.")
    kept = [i for i, text in enumerate(responses) if not is_empty(text)]
    counts["responses without text"] += len(responses) - len(kept)
    full = {**row, "responses": [responses[i] for i in kept]}
    names = row.get("names") if names is None else names
    if isinstance(names, list) and len(names) == len(responses):
        full["names"] = [names[i] for i in kept]
    if log_probs is not None:
        full["policy_log_probs"] = [log_probs[i] for i in kept]
    ids = read_ids(name, row, len(responses))
    if ids is not None:
        full["response_ids"] = [ids.response_ids[i] for i in kept]
    return full


def score_in_chunks(
    rows: Iterable[tuple[str, Row]], score: Callable[[list, list], Sequence[Found]], chunk_size: int
) -> Iterator[list[tuple[str, Row, Found]]]:
    """
    The one loop that scores many rows.

    Args:
        rows: each row's name for messages, and the row with its `prompt` and `responses`; never held but for a chunk.
        score: from prompts and groups of responses to a matrix of log-odds each, or what has it.
        chunk_size: rows scored at once.

    Yields:
        A chunk's rows with their names, and what was found for each.

    Raises:
        ValueError: naming the row that is refused, or where another number of matrices is returned.
    """
    if chunk_size < 1:
        raise ValueError(f"{chunk_size} rows at once: at least 1 is needed.")
    rows = iter(rows)
    while chunk := list(itertools.islice(rows, chunk_size)):
        prompts, groups = [row["prompt"] for _, row in chunk], [row["responses"] for _, row in chunk]
        try:
            found = score(prompts, groups)
        except PromptError as error:
            raise ValueError(f"{chunk[error.number][0]} cannot be scored: {error.reason}") from error
        except ValueError:
            # A function of someone's own, which does not say for which prompt: it is asked again, one by one.
            for (name, _), prompt, group in zip(chunk, prompts, groups):
                try:
                    score([prompt], [group])
                except ValueError as error:
                    raise ValueError(f"{name} cannot be scored: {error}") from error
            raise
        if len(found) != len(chunk):
            raise ValueError(f"The scorer returned {len(found)} matrices for {len(chunk)} prompts.")
        yield [(name, row, one) for (name, row), one in zip(chunk, found)]


def score_columns(name: str, matrix: Any, size: int) -> dict[str, Any]:
    """
    The columns `scores` and `mean_scores` of a row.

    Args:
        name: of the row, for messages.
        matrix: a scorer's log-odds.
        size: K, the number of its responses.

    Raises:
        ValueError: naming the row, a matrix that is not (K, K), finite and skew-symmetric.
    """
    scores = _checked_scores(name, matrix, size)
    return {"scores": scores.tolist(), "mean_scores": scores.mean(-1).tolist()}


def scored_groups(rows: Iterable[Mapping[str, Any]], counts: Counter) -> Iterator[ScoredGroup]:
    """
    Scored rows, checked; those with fewer than two responses are left out.

    Args:
        rows: see [`gpm_hf.data.policy_data`].
        counts: how many were left out is added to it.

    Raises:
        ValueError: a malformed row (the message names it; the first is row 0), or rows with sampled ids among rows
            without them.
    """
    with_ids: bool | None = None
    for number, row in enumerate(rows):
        name = f"row {number}"
        before: Counter = Counter()
        full = with_text(name, row, before)
        if before["responses without text"]:
            raise ValueError(f"{name} has scores for a response without text: score the rows by `score_rows`.")
        if "scores" not in row:
            raise ValueError(f"{name} has no `scores`: score the rows by `score_rows`.")
        responses = full["responses"]
        if len(responses) < 2:
            counts["rows with fewer than two responses"] += 1
            continue
        scores = _checked_scores(name, row["scores"], len(responses))
        means = scores.mean(-1)
        given = means if row.get("mean_scores") is None else _numbers(name, "mean_scores", row["mean_scores"])
        if len(given) != len(means) or not np.allclose(given, means, rtol=1e-5, atol=1e-5):
            raise ValueError(f"{name}: `mean_scores` are not the row means of `scores`; they belong to other scores.")
        ids = read_ids(name, full, len(responses))
        if with_ids not in (None, ids is not None):
            raise ValueError(
                f"{name} has {'no' if ids is None else 'the'} ids of what was sampled (`response_ids`), unlike the "
                "rows before it: learn from rows with ids and from rows without them in two runs."
            )
        with_ids = ids is not None
        yield ScoredGroup(
            name,
            _prompt_messages(name, row["prompt"]),
            responses,
            scores,
            means,
            sigmoid(scores).mean(-1),
            full.get("policy_log_probs"),
            ids,
        )


def _prompt_messages(name: str, prompt: Any) -> list[dict[str, Any]]:
    if not prompt:
        raise ValueError(f"{name}: `prompt` must be a string or chat messages, got {prompt!r}.")
    try:
        return as_messages(read_group(prompt, ["any answer"]).prompt)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _numbers(name: str, column: str, values: Any) -> list[float]:
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: `{column}` must be a list of numbers, one for each response, got {values!r:.80}."
        ) from error


def _checked_scores(name: str, scores: Any, size: int) -> np.ndarray:
    try:
        matrix = read_scores(scores)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if matrix.shape != (size, size):
        raise ValueError(f"{name} has {size} responses, but a matrix of scores of shape {matrix.shape}.")
    return matrix
