"""Scoring data of any size: chunk by chunk, in constant memory, by several processes, and on from where it stopped."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gpm_hf.data.scored_rows import score_in_chunks
from gpm_hf.shards import map_in_shards


def score_stream(
    rows: Iterable[dict[str, Any]],
    score: Callable[[list, list], list],
    describe: Callable[[dict, Any], dict],
    output: str | Path,
    settings: dict[str, Any],
    chunk_size: int = 256,
    overwrite: bool = True,
    name: Callable[[int, dict], str] = lambda place, row: f"Row {place}",
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
        overwrite: whether the output may be there already, and is replaced.
        name: from a row's place, counted from 1, and the row to its name for messages.

    Returns:
        The number of rows, on all processes.

    Raises:
        ValueError: another run is writing to this output; parts of an interrupted run with other settings; no rows; a
            row that is refused, by name.
        FileExistsError: the output is there, and is not to be replaced.
        RuntimeError: processes that are not connected.
    """

    def scored(number: int, chunk: list[dict[str, Any]]) -> list[dict[str, Any]]:
        named = [(name(place, row), row) for place, row in enumerate(chunk, number * chunk_size + 1)]
        return [
            row | describe(row, scores)
            for found in score_in_chunks(named, score, chunk_size)
            for _, row, scores in found
        ]

    return map_in_shards(rows, scored, output, settings, chunk_size, overwrite)
