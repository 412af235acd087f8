"""Work on many rows, shard by shard: in constant memory, by several processes, and on from where it stopped."""

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import PartialState

from gpm_hf.files import json_rows, json_text, written_whole
from gpm_hf.locks import only_run
from gpm_hf.progress import TimedBar
from gpm_hf.records import Records

Work = Callable[[int, list[dict[str, Any]]], Iterable[dict[str, Any]]]
_SETTINGS = "settings"


class Stage(NamedTuple):
    """
    Attributes:
        name: of its parts, which lie in `.OUTPUT.NAME.parts`.
        work: from a shard's number, counted from 0, and its rows to others. It must depend on these alone, for any
            process may be asked for any shard.
        settings: what the work depends on beside its rows, as JSON can hold it.
    """

    name: str
    work: Work
    settings: dict[str, Any]


def map_in_shards(
    rows: Iterable[dict[str, Any]],
    work: Work,
    output: str | Path,
    settings: dict[str, Any],
    shard_size: int,
    overwrite: bool = True,
    first: Stage | None = None,
    write: Callable[[Iterator[dict[str, Any]]], Any] | None = None,
) -> int:
    """
    Turns rows into the rows of a `.jsonl` file, in their order.

    Finished shards are kept beside the output in one file, `.NAME.parts`, each found again by the settings and the
    rows that it was made of; a run that was killed goes on after them and ends with the same file, and one whose input
    was corrected does those shards again that the correction touches. Under a launcher each process takes every n-th
    shard.

    Args:
        rows: read once, and never held but for one shard.
        work: as in [`Stage`].
        output: the file to write.
        settings: as in [`Stage`]. A run goes on only where these are the same; one that finished no shard binds
            nobody.
        shard_size: rows worked on and written at once.
        overwrite: whether the output may be there already, and is replaced.
        first: what is done before with each shard, whose rows then go into `work`. Its parts are kept by themselves,
            so that another `work` does not cost them.
        write: writes the output, whole, from an iterator over all rows; default: as JSON Lines.

    Returns:
        The number of rows read, on all processes.

    Raises:
        ValueError: another run is writing to this output; finished parts of an interrupted run with other settings; no
            rows; an output that is a folder.
        FileExistsError: the output is there, and is not to be replaced.
        RuntimeError: a launcher started several processes, and accelerate's state knows of one: on a CPU make it with
            `PartialState(cpu=True)` first.
    """
    if shard_size < 1:
        raise ValueError(f"{shard_size} rows at once: at least 1 is needed.")
    output = Path(output)
    if output.is_dir():
        raise ValueError(f"{output} is a folder: name a file to write.")
    _check_connected()
    with only_run(output, overwrite):
        job = _Parts(output, Stage("", work, {**settings, "shard_size": shard_size}))
        before = first and _Parts(output, first._replace(settings={**first.settings, "shard_size": shard_size}))
        state, keys, count = PartialState(), [], 0
        bar = TimedBar(unit=" rows", desc=output.stem, disable=not state.is_main_process)
        for number, shard in enumerate(_shards(rows, shard_size)):
            count += len(shard)
            keys.append(job.key(number, shard))
            if number % state.num_processes == state.process_index and keys[-1] not in job.records:
                job.add(number, shard, before.rows(number, shard) if before else shard)
            bar.update(len(shard))
        bar.close()
        state.wait_for_everyone()
        if state.is_main_process:
            job.records.refresh()
            if keys and write is None:
                with written_whole(output) as file:
                    file.writelines(line + "\n" for line in job.lines(keys))
            elif keys and write is not None:
                write(json.loads(line) for line in job.lines(keys))
            for parts in (before, job):
                if parts:
                    parts.remove()
            if not keys:
                raise ValueError(f"There are no rows for {output.name}.")
        state.wait_for_everyone()
    return count


def unfinished_parts(output: str | Path) -> Path | None:
    """Where an interrupted run left finished shards of an output; `None` if there are none."""
    path = _parts_path(Path(output), "")
    if path.is_dir():  # of an earlier version
        return path if any(path.glob("*.jsonl")) else None
    return path if path.exists() and len(_records(path)) > 1 else None


def written_rows(path: str | Path) -> Iterator[dict[str, Any]]:
    """The rows of a file that [`map_in_shards`] wrote, one at a time."""
    return json_rows(path)


class _Parts:
    """
    The finished shards of a stage, in one file: its first line has the stage's settings, so that there is never a
    moment with shards and without settings, and removing it is one step.
    """

    def __init__(self, output: Path, stage: Stage):
        self.stage, self.path = stage, _parts_path(output, stage.name)
        state = PartialState()
        if state.is_main_process:
            self._check_settings(output)
        state.wait_for_everyone()
        self.records = _records(self.path)

    def key(self, number: int, shard: list[dict[str, Any]]) -> str:
        """By which a shard is found: a digest of all that it is made of."""
        made_of = json.dumps([self.stage.settings, number, shard], sort_keys=True, default=str)
        return hashlib.sha256(made_of.encode()).hexdigest()

    def add(self, number: int, shard: list[dict[str, Any]], given: list[dict[str, Any]]) -> None:
        """Works on `given`, what became of a shard so far."""
        done = [json_text(row) for row in self.stage.work(number, given)]
        self.records.add([{"shard": self.key(number, shard), "lines": done}])

    def rows(self, number: int, shard: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What becomes of a shard, made where it is not there."""
        key = self.key(number, shard)
        if key not in self.records:
            self.add(number, shard, shard)
        return [json.loads(line) for line in self.records[key]["lines"]]

    def lines(self, keys: Iterable[str]) -> Iterator[str]:
        return itertools.chain.from_iterable(self.records[key]["lines"] for key in keys)

    def remove(self) -> None:
        self.path.unlink()

    def _check_settings(self, output: Path) -> None:
        settings = json.loads(json.dumps(self.stage.settings, default=str))
        if self.path.is_dir():
            raise ValueError(
                f"{self.path} holds parts of a run to {output.name} that was interrupted under an earlier version, "
                "which did not tell all that they were made of: remove that folder to start anew."
            )
        found = _records(self.path)
        earlier = found[_SETTINGS][_SETTINGS] if _SETTINGS in found else None
        if earlier == settings:
            return
        if earlier is not None and len(found) > 1:
            differing = sorted(name for name in {*earlier, *settings} if earlier.get(name) != settings.get(name))
            raise ValueError(
                f"{self.path} holds parts of an interrupted run to {output.name} with other {differing}. Run it again "
                "with the same options to go on, or remove that file to start anew."
            )
        self.path.unlink(missing_ok=True)
        _records(self.path).add([{_SETTINGS: settings}])


def _parts_path(output: Path, name: str) -> Path:
    return output.with_name(f".{output.name}{'.' * bool(name)}{name}.parts")


def _records(path: Path) -> Records:
    return Records(path, lambda record: record.get("shard", _SETTINGS), "part")


def _shards(rows: Iterable[dict], size: int) -> Iterator[list[dict]]:
    rows = iter(rows)
    while shard := list(itertools.islice(rows, size)):
        yield shard


def _check_connected() -> None:
    state = PartialState()
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != launched:
        raise RuntimeError(
            f"The launcher started {launched} processes, but they are not connected ({state.distributed_type}): each "
            "would do everything. On a CPU make `accelerate.PartialState(cpu=True)` first (`--device cpu`)."
        )
