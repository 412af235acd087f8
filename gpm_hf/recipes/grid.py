"""Many runs, one row of results each, written as it ends: a grid that was interrupted goes on where it was."""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gpm_hf.locks import only_run
from gpm_hf.records import Records


def run_grid(
    cells: Iterable[dict[str, Any]],
    run: Callable[[dict[str, Any]], dict[str, Any]],
    path: str | Path,
    made_with: dict[str, Any],
) -> list[dict[str, Any]]:
    """
    Runs every cell that has no row yet.

    Args:
        cells: what distinguishes the runs, as JSON can hold it; all different.
        run: from a cell to its results.
        path: a `.jsonl` file, one row per finished cell: `{"cell": ..., "made_with": ..., "seconds": ...,
            "result": ...}`. A row that a kill cut off counts for nothing, nor does one that was made with something
            else.
        made_with: what all results depend on beside their cells, by content; as JSON can hold it.

    Returns:
        The rows of the given cells, in their order.

    Raises:
        ValueError: another run is writing to this file, or it holds something else.
    """
    cells, found = list(cells), []
    with only_run(path):
        records = Records(path, lambda row: _key(row["cell"], row.get("made_with")), "row of results")
        for number, cell in enumerate(cells, 1):
            name = ", ".join(f"{name} {value}" for name, value in cell.items())
            key = _key(cell, made_with)
            if key in records:
                print(f"[{number}/{len(cells)}] {name}: done already", flush=True)
            else:
                start = time.monotonic()
                result = run(cell)
                seconds = round(time.monotonic() - start, 1)
                records.add([{"cell": cell, "made_with": made_with, "seconds": seconds, "result": result}])
                print(f"[{number}/{len(cells)}] {name}: {seconds:.0f} s", flush=True)
            found.append(records[key])
    return found


def _key(cell: dict[str, Any], made_with: dict[str, Any] | None) -> str:
    """Rows of earlier versions do not say what they were made with, and are found by none."""
    return json.dumps([cell, made_with], sort_keys=True)
