"""Work on many rows, shard by shard: in constant memory, by several processes, and on from where it stopped."""

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from accelerate import PartialState
from tqdm.auto import tqdm

from gpm_hf.files import json_rows, json_text, written_whole

_SETTINGS_FILE = "settings.json"


def map_in_shards(
    rows: Iterable[dict[str, Any]],
    work: Callable[[int, list[dict[str, Any]]], Iterable[dict[str, Any]]],
    output: str | Path,
    settings: dict[str, Any],
    shard_size: int,
) -> int:
    """
    Turns rows into the rows of a `.jsonl` file, in their order.

    Finished shards are kept beside the output, in `.NAME.parts/`, each written whole and tied to the rows that it was
    made of; a run that was killed goes on after them and ends with the same file, and one whose input was corrected
    does those shards again that the correction touches. Under a launcher each process takes every n-th shard.

    Args:
        rows: read once, and never held but for one shard.
        work: from a shard's number, counted from 0, and its rows to the rows to be written. It must depend on these
            alone, for any process may be asked for any shard.
        output: the file to write.
        settings: what the work depends on beside its rows, as JSON can hold it: a run goes on only where these are the
            same. A run that finished no shard binds nobody.
        shard_size: rows worked on and written at once.

    Returns:
        The number of rows read, on all processes.

    Raises:
        ValueError: finished parts of an interrupted run with other settings; no rows; an output that is a folder.
        RuntimeError: a launcher started several processes, and accelerate's state knows of one: on a CPU make it with
            `PartialState(cpu=True)` first.
    """
    if shard_size < 1:
        raise ValueError(f"{shard_size} rows at once: at least 1 is needed.")
    if Path(output).is_dir():
        raise ValueError(f"{output} is a folder: name a file to write.")
    state = PartialState()
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != launched:
        raise RuntimeError(
            f"The launcher started {launched} processes, but they are not connected ({state.distributed_type}): each "
            "would do everything. On a CPU make `accelerate.PartialState(cpu=True)` first (`--device cpu`)."
        )
    output = Path(output)
    parts = output.with_name(f".{output.name}.parts")
    if state.is_main_process:
        _check_settings(parts, {**settings, "shard_size": shard_size}, output)
    state.wait_for_everyone()

    count = 0
    bar = tqdm(unit=" rows", desc=output.stem, disable=not state.is_main_process)
    for number, shard in enumerate(_shards(rows, shard_size)):
        count += len(shard)
        if number % state.num_processes == state.process_index:
            _do_shard(parts / f"{number:09d}.jsonl", number, shard, work)
        bar.update(len(shard))
    bar.close()
    state.wait_for_everyone()
    if state.is_main_process:
        if count == 0:
            shutil.rmtree(parts)
            raise ValueError(f"There are no rows for {output.name}.")
        with written_whole(output, "wb") as file:
            # By number: parts beyond the input's end would be of another input.
            for number in range(-(-count // shard_size)):
                with open(parts / f"{number:09d}.jsonl", "rb") as part:
                    shutil.copyfileobj(part, file)
        shutil.rmtree(parts)
    state.wait_for_everyone()
    return count


class KeptShards:
    """
    What a job needs on its way, shard by shard: kept in a folder, tied to its own settings, until the job is done. So
    a job that goes on with another end does not make it again.

    Args:
        folder: for the parts.
        settings: what they depend on beside their rows, as in [`map_in_shards`].
    """

    def __init__(self, folder: Path, settings: dict[str, Any]):
        self.folder = folder
        if PartialState().is_main_process:
            _check_settings(folder, settings, folder)
        PartialState().wait_for_everyone()

    def rows(self, number: int, shard: list[dict[str, Any]], work: Callable) -> list[dict[str, Any]]:
        """A shard's rows, made by `work(number, shard)` where they are not there; see [`map_in_shards`]."""
        path = self.folder / f"{number:09d}.jsonl"
        _do_shard(path, number, shard, work)
        return list(json_rows(path))

    def remove(self) -> None:
        """Removes them all, when every process is done."""
        PartialState().wait_for_everyone()
        if PartialState().is_main_process:
            shutil.rmtree(self.folder)


def _do_shard(path: Path, number: int, shard: list[dict[str, Any]], work: Callable) -> None:
    """Makes a part, unless it is there and was made of these rows: their digest lies beside it, written first."""
    digest_path = path.with_suffix(".sha256")
    digest = hashlib.sha256(json.dumps(shard, sort_keys=True, default=str).encode()).hexdigest()
    if path.exists():
        if digest_path.read_text(encoding="utf-8") == digest:
            return
        path.unlink()
    done = work(number, shard)
    with written_whole(digest_path) as file:
        file.write(digest)
    with written_whole(path) as file:
        file.writelines(json_text(row) + "\n" for row in done)


def written_rows(path: str | Path) -> Iterator[dict[str, Any]]:
    """The rows of a file that [`map_in_shards`] wrote, one at a time."""
    return json_rows(path)


def _shards(rows: Iterable[dict], size: int) -> Iterator[list[dict]]:
    rows = iter(rows)
    while shard := list(itertools.islice(rows, size)):
        yield shard


def _check_settings(parts: Path, settings: dict[str, Any], output: Path) -> None:
    path = parts / _SETTINGS_FILE
    if any(parts.glob("*.jsonl")):
        earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if earlier != settings:
            differing = sorted(name for name in {*earlier, *settings} if earlier.get(name) != settings.get(name))
            raise ValueError(
                f"{parts} holds parts of an interrupted run to {output.name} with other {differing}. Run it again "
                "with the same options to go on, or remove that folder to start anew."
            )
        return
    os.makedirs(parts, exist_ok=True)
    with written_whole(path) as file:
        json.dump(settings, file)
