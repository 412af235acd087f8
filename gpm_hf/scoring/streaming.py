"""Scoring data of any size: chunk by chunk, in constant memory, by several processes, and on from where it stopped."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from gpm_hf.shards import map_in_shards


def score_stream(
    rows: Iterable[dict[str, Any]],
    score: Callable[[list, list], list],
    describe: Callable[[dict, Any], dict],
    output: str | Path,
    settings: dict[str, Any],
    chunk_size: int = 256,
) -> int:
    """
    Scores rows into a `.jsonl` file, in their order; see [`gpm_hf.shards.map_in_shards`] for how it goes on after a
    kill and with several processes.

    Args:
        rows: each with `prompt` and `responses`, as [`gpm_hf.data.groups.as_group`] makes them; read once, and never
            held but for one chunk.
        score: from prompts and groups of responses to log-odds matrices.
        describe: from a row and its matrix to what is added to the row.
        output: the file to write.
        settings: what the scores depend on, as JSON can hold it: a run goes on only where these are the same.
        chunk_size: rows scored and written at once.

    Returns:
        The number of rows, on all processes.

    Raises:
        ValueError: parts of an interrupted run with other settings; no rows; a row that is refused, with its number.
        RuntimeError: processes that are not connected.
    """

    def scored(number: int, chunk: list[dict[str, Any]]) -> list[dict[str, Any]]:
        matrices = scores_of_rows(score, chunk, first=number * chunk_size + 1)
        return [row | describe(row, scores) for row, scores in zip(chunk, matrices, strict=True)]

    return map_in_shards(rows, scored, output, settings, chunk_size)


def scores_of_rows(score: Callable[[list, list], list], rows: Sequence[dict[str, Any]], first: int = 1) -> list:
    """
    The matrices of rows with `prompt` and `responses`, where a row that is refused is named by its number.

    Args:
        score: as in [`score_stream`].
        rows: given to it at once.
        first: the number of the first of them.

    Raises:
        ValueError: what `score` raises, with the row's number.
    """
    try:
        return score([row["prompt"] for row in rows], [row["responses"] for row in rows])
    except ValueError:
        # Which of them it was, the message cannot say: they are asked one by one.
        for number, row in enumerate(rows, start=first):
            try:
                score([row["prompt"]], [row["responses"]])
            except ValueError as error:
                raise ValueError(f"Row {number}: {error}") from error
        raise
