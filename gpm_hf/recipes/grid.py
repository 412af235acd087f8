"""Many runs, one row of results each, written as it ends: a grid that was interrupted goes on where it was."""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gpm_hf.files import json_rows, written_whole


def run_grid(
    cells: Iterable[dict[str, Any]], run: Callable[[dict[str, Any]], dict[str, Any]], path: str | Path
) -> list[dict[str, Any]]:
    """
    Runs every cell that has no row yet.

    Args:
        cells: what distinguishes the runs, as JSON can hold it; all different.
        run: from a cell to its results.
        path: a `.jsonl` file, one row per finished cell: `{"cell": ..., "seconds": ..., "result": ...}`. It is
            rewritten whole after each cell, so a kill leaves it as it was.

    Returns:
        The rows of the given cells, in their order.
    """
    path = Path(path)
    rows = list(json_rows(path)) if path.exists() else []
    done = {json.dumps(row["cell"], sort_keys=True): row for row in rows}
    found = []
    cells = list(cells)
    for number, cell in enumerate(cells, 1):
        key = json.dumps(cell, sort_keys=True)
        name = ", ".join(f"{name} {value}" for name, value in cell.items())
        if key in done:
            print(f"[{number}/{len(cells)}] {name}: done already", flush=True)
        else:
            start = time.monotonic()
            result = run(cell)
            seconds = round(time.monotonic() - start, 1)
            done[key] = {"cell": cell, "seconds": seconds, "result": result}
            rows.append(done[key])
            with written_whole(path) as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
            print(f"[{number}/{len(cells)}] {name}: {seconds:.0f} s", flush=True)
        found.append(done[key])
    return found
