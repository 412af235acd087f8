"""
Hidden states of a frozen backbone, computed once and kept on disk, so that training the heads costs only the heads.

They lie in a folder whose name is a hash of all that they depend on: the backbone's weights and settings, the versions
of what computes, and the token ids, which in turn hold the tokenizer, the chat template and the texts. A change of any
of them is another folder; nothing is ever looked up by name or date.

In the folder are shards, each written whole. The processes of a launcher share them out, a run that was killed goes on
with those that are not there, and runs that compute the same one at the same time put equal files in the same place.
"""

import random
import shutil
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
import xxhash
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from safetensors.torch import load_file, save
from typing_extensions import override

from gpm_hf.data.collator import sequences_of
from gpm_hf.files import written_whole
from gpm_hf.identity import versions
from gpm_hf.modeling import EncodedGroup, GPMForPreference, collate_groups, evaluation_mode
from gpm_hf.modeling.engine_gpm import can_share_prompts, pool_shared
from gpm_hf.modeling.packed_attention_gpm import plain_attention
from gpm_hf.news import get_logger
from gpm_hf.progress import TimedBar

logger = get_logger(__name__)

# Of rows with stored states: which have one prompt.
PROMPT_KEY = "prompt_key"
ROW_COLUMNS = ("sequence_rows", "prompt_row")
# Minutes of work for a small backbone on a CPU, seconds on a GPU: what a killed run loses at most.
SHARD_TOKENS = 2**17
# A short sequence counts as so many tokens, because its states take as much room as a long one's.
LEAST_TOKENS = 64
# Read at once on a CPU, which more does not make faster: the bar moves after each.
CPU_TEXTS = 32

# Of prompts, in a cache for their responses at one time: 0.4 GB for SmolLM2-135M, 1 GB for 8B in bfloat16.
KEPT_TOKENS = 2**13
# A shorter prompt is encoded with each of its responses: a pass of its own would cost what it saves.
LEAST_SHARED = 32


class _Sequence(NamedTuple):
    ids: np.ndarray
    prompt_length: int


class _Shard(NamedTuple):
    file: Path
    sequences: list[_Sequence]


class HeadStates:
    """
    Stored states, mapped into memory shard by shard: a row stays on disk until it is read. They are pickled as the
    files' names, so that neither data loader workers nor a data set's fingerprint copy them.

    Args:
        files: the shards.
        starts: the number of each shard's first row.
    """

    def __init__(self, files: list[Path], starts: list[int]):
        self.files, self.starts = files, starts
        self._open: dict[int, dict[str, torch.Tensor]] = {}

    @override
    def __reduce__(self):
        return type(self), (self.files, self.starts)

    def read(self, name: str, rows: Sequence[int]) -> list[torch.Tensor]:
        """
        Float32 vectors of shape (hidden_size,), one for each of the rows; `name` is `response_states` or
        `prompt_states`.
        """
        shards = np.searchsorted(self.starts, rows, side="right") - 1
        found: dict[int, torch.Tensor] = {}
        for shard in np.unique(shards).tolist():
            if shard not in self._open:
                self._open[shard] = load_file(self.files[shard])
            places = np.flatnonzero(shards == shard)
            inside = torch.from_numpy(np.asarray(rows)[places] - self.starts[shard])
            found.update(zip(places.tolist(), self._open[shard][name][inside], strict=True))
        return [found[place] for place in range(len(rows))]


def with_head_states(dataset: Dataset, model: GPMForPreference, batch_size: int) -> Dataset:
    """
    Replaces token ids by the backbone's hidden states. Under a launcher every process calls it, and each computes a
    part.

    Args:
        dataset: prepared pairs or groups, with `prompt_ids`, which a model with a gate needs, or without.
        model: the preference model, on the device that is to compute the states.
        batch_size: sequences encoded at once.

    Returns:
        The same rows; reading one gives `sequence_states`, a list (of a pair: chosen, rejected), and with prompts
        `prompt_state`, each state a float32 tensor of shape (hidden_size,), and the row's labels.

    Raises:
        OSError: the states are larger than what is free on the disk.
        ValueError: states that are not finite; processes with different weights or rows.
    """
    # The states of the prompts are kept also for a model that has no gate, so that models which differ only in their
    # heads share them.
    with_prompts = "prompt_ids" in dataset.column_names
    sequences: dict[bytes, _Sequence] = {}

    def key_of(ids: list[int], prompt_length: int) -> bytes:
        key = xxhash.xxh3_128_digest(np.asarray([prompt_length, *ids], dtype=np.int64).tobytes())
        if key not in sequences:
            sequences[key] = _Sequence(np.asarray(ids, dtype=np.int32), prompt_length)
        return key

    keys: dict[str, list[Any]] = {name: [] for name in ROW_COLUMNS[: 1 + with_prompts]}
    prompt_keys: list[str] = []
    for row in dataset:
        group = EncodedGroup(sequences_of(row), row.get("prompt_ids"))
        # As in `collate_groups`: where the gate does not read a sequence, any of its tokens will do.
        inside = with_prompts and group.prompt_is_inside
        length = len(row["prompt_ids"]) if inside else 1
        found = [key_of(ids, length) for ids in group.sequences]
        keys["sequence_rows"].append(found)
        if with_prompts:
            prompt_keys.append(xxhash.xxh3_128_hexdigest(np.asarray(row["prompt_ids"], dtype=np.int64).tobytes()))
            keys["prompt_row"].append(found[0] if inside else key_of(row["prompt_ids"], len(row["prompt_ids"])))

    # Longest first: sequences of like length share a batch, and too little memory shows at once; those that share a
    # prompt stay together. The order depends on the sequences alone, so the same texts paired otherwise have the same
    # states.
    by_length = sorted(sequences, key=lambda key: (-len(sequences[key].ids), key))
    ordered = [by_length[place] for unit in _units([sequences[key] for key in by_length], model) for place in unit]
    fingerprint = _fingerprint(ordered, model)
    if len(set(gather_object([fingerprint]))) > 1:
        raise ValueError(
            "The processes have different backbones or different rows, so they cannot share the states. FSDP with "
            "cpu_ram_efficient_loading gives the weights to the first process only: switch it off, or use plain data "
            "parallelism, which is all that training the heads needs."
        )
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "gpm_hf_head_states" / fingerprint
    shards = _shards([sequences[key] for key in ordered], folder)
    _compute(shards, folder, model, batch_size)
    first_rows = np.cumsum([0] + [len(shard.sequences) for shard in shards[:-1]]).tolist()
    states = HeadStates([shard.file for shard in shards], first_rows)

    row_of = {key: row for row, key in enumerate(ordered)}

    def rows_of(key: Any) -> Any:
        return [row_of[one] for one in key] if isinstance(key, list) else row_of[key]

    columns: dict[str, list[Any]] = {name: list(map(rows_of, values)) for name, values in keys.items()}
    rows_only = Dataset.from_dict(columns | ({PROMPT_KEY: prompt_keys} if with_prompts else {}))
    labels = [name for name in dataset.column_names if not name.endswith("_ids")]
    parts = [dataset.select_columns(labels), rows_only] if labels else [rows_only]

    def look_up(rows):
        found = {name: values for name, values in rows.items() if name not in ROW_COLUMNS}
        if "sequence_rows" in rows:
            groups = rows["sequence_rows"]
            read = iter(states.read("response_states", [row for group in groups for row in group]))
            found["sequence_states"] = [[next(read) for _ in group] for group in groups]
        if "prompt_row" in rows:
            found["prompt_state"] = states.read("prompt_states", rows["prompt_row"])
        return found

    return datasets.concatenate_datasets(parts, axis=1).with_transform(look_up)


def _units(sequences: list[_Sequence], model: GPMForPreference) -> list[list[int]]:
    """
    Which sequences are encoded together, by their places: those of one prompt, where that is encoded once for three or
    more and so saves a quarter of the tokens, and all others alone; in the order of the first of each.
    """
    by_prompt: dict[bytes, list[int]] = {}
    for place, sequence in enumerate(sequences):
        by_prompt.setdefault(sequence.ids[: sequence.prompt_length].tobytes(), []).append(place)
    units = []
    for places in by_prompt.values():
        first = sequences[places[0]]
        lengths = [len(sequences[place].ids) for place in places]
        shares = len(places) >= 3 and can_share_prompts(model)
        # After its prompt each has something of its own.
        shares &= LEAST_SHARED <= first.prompt_length < min(lengths)
        shares &= 4 * first.prompt_length * (len(places) - 1) >= sum(lengths)
        units += [places] if shares else [[place] for place in places]
    return sorted(units)


def _shards(sequences: list[_Sequence], folder: Path) -> list[_Shard]:
    tokens_before = np.cumsum([0] + [max(len(sequence.ids), LEAST_TOKENS) for sequence in sequences[:-1]])
    starts = np.flatnonzero(np.diff(tokens_before // SHARD_TOKENS, prepend=-1)).tolist()
    bounds = list(pairwise([*starts, len(sequences)]))
    return [
        _Shard(folder / f"states-{number:05d}-of-{len(bounds):05d}.safetensors", sequences[first:last])
        for number, (first, last) in enumerate(bounds, 1)
    ]


def _compute(shards: list[_Shard], folder: Path, model: GPMForPreference, batch_size: int) -> None:
    """Sees to it that every shard is there."""
    state = PartialState()
    missing = [shard for shard in shards if not shard.file.exists()]
    count = sum(len(shard.sequences) for shard in shards)
    if missing:
        tokens = sum(len(sequence.ids) for shard in missing for sequence in shard.sequences)
        # Two vectors of 4-byte numbers per sequence.
        size = sum(len(shard.sequences) for shard in missing) * model.config.text_config.hidden_size * 8
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        logger.info(
            f"Computing the backbone's states of {count} sequences once: {len(missing)} of {len(shards)} shards, "
            f"{tokens} tokens, {size / 1e6:.1f} MB in {folder}."
        )
        if size > free:
            raise OSError(
                f"The backbone's states take {size / 1e6:.1f} MB more, and {folder} has {free / 1e6:.1f} MB left. Set "
                "the environment variable HF_DATASETS_CACHE to a folder with more room, or train on fewer rows."
            )
    else:
        logger.info(f"Reading the backbone's states of {count} sequences from {folder}.")

    own = shards[state.process_index :: state.num_processes]
    # What is not there after the first round was computed where this process cannot see it: on another machine's disk.
    for part in (own, shards):
        # The longest sequences first. The rest in an order of its own, so that independent runs which compute the same
        # states share the work more than they repeat it.
        rest = part[1:]
        random.SystemRandom().shuffle(rest)
        todo = [shard for shard in part[:1] + rest if not shard.file.exists()]
        is_quiet = not todo or not state.is_main_process
        total = sum(len(shard.sequences) for shard in todo)
        with TimedBar(total=total, desc="Reading with the frozen backbone", unit=" texts", disable=is_quiet) as bar:
            for shard in todo:
                if shard.file.exists():
                    bar.update(len(shard.sequences))
                    continue
                with written_whole(shard.file, "wb") as file:
                    file.write(save(_encode(shard.sequences, model, batch_size, bar)))
        state.wait_for_everyone()


@torch.no_grad()
def _encode(
    sequences: list[_Sequence], model: GPMForPreference, batch_size: int, bar: TimedBar
) -> dict[str, torch.Tensor]:
    units = _units(sequences, model)
    found: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    if model.device.type == "cpu":
        batch_size = min(batch_size, CPU_TEXTS)
    for batch in _shared_batches([unit for unit in units if len(unit) > 1], sequences):
        groups = [
            EncodedGroup([sequences[place].ids.tolist() for place in unit], _prompt(sequences[unit[0]]))
            for unit in batch
        ]
        pooled = pool_shared(model, groups, batch_size, bar.update)
        for unit, (responses, prompt_state) in zip(batch, pooled, strict=True):
            found |= {place: (state, prompt_state) for place, state in zip(unit, responses, strict=True)}
    alone = [unit[0] for unit in units if len(unit) == 1]
    states = _encode_alone([sequences[place] for place in alone], model, batch_size, bar)
    found |= dict(zip(alone, states, strict=True))
    response_states, prompt_states = (
        torch.stack([found[place][kind].float().cpu() for place in range(len(sequences))]) for kind in (0, 1)
    )
    if not bool(response_states.isfinite().all() and prompt_states.isfinite().all()):
        raise ValueError(
            "The backbone's states are not finite: its weights contain NaN or infinity, or its hidden states overflow "
            f"in {model.dtype}. Check the checkpoint, or load it in bfloat16 or float32."
        )
    return {"response_states": response_states, "prompt_states": prompt_states}


def _prompt(sequence: _Sequence) -> list[int]:
    return sequence.ids[: sequence.prompt_length].tolist()


def _shared_batches(units: list[list[int]], sequences: list[_Sequence]) -> Iterator[list[list[int]]]:
    """Units of several sequences, cut into what is encoded at once: those whose prompts have [`KEPT_TOKENS`]."""
    batch: list[list[int]] = []
    # Longest first: to the first of a batch the others are padded.
    for unit in sorted(units, key=lambda unit: -sequences[unit[0]].prompt_length):
        if batch and (len(batch) + 1) * sequences[batch[0][0]].prompt_length > KEPT_TOKENS:
            yield batch
            batch = []
        batch.append(unit)
    if batch:
        yield batch


def _encode_alone(
    sequences: list[_Sequence], model: GPMForPreference, batch_size: int, bar: TimedBar
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """States at the end of each sequence and of its prompt, one sequence a row."""
    batches = [sequences[start : start + batch_size] for start in range(0, len(sequences), batch_size)]
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    with evaluation_mode(model):
        for rows in batches:
            groups = [EncodedGroup([sequence.ids], None) for sequence in rows]
            batch = collate_groups(groups, pad_token_id=0, with_prompts=False)
            batch["prompt_lengths"] = torch.tensor([sequence.prompt_length for sequence in rows])
            states = model.pool(**{name: value.to(model.device) for name, value in batch.items()})
            found += zip(*states, strict=True)
            bar.update(len(rows))
    return found


def _fingerprint(keys: list[bytes], model: GPMForPreference) -> str:
    digest = xxhash.xxh3_128(b"".join(keys))
    backbone = model.model
    settings = {
        "class": type(backbone).__name__,
        "attention": plain_attention(backbone.config._attn_implementation),
        "shards": (SHARD_TOKENS, LEAST_TOKENS),
        "versions": versions("modeling", "training/head_states.py"),
    }
    digest.update(repr((settings, sorted(backbone.config.to_dict().items(), key=str))).encode())
    for name, tensor in backbone.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
