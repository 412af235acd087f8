"""
Hidden states of a frozen backbone, computed once and kept on disk, so that training the heads costs only the heads.

The file's name is a hash of all that the states depend on: the backbone's weights and settings and the token ids,
which in turn hold the tokenizer, the chat template and the texts. A change of any of them is another file; nothing is
ever looked up by name or date.
"""

import os
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
import torch
import xxhash
from accelerate import PartialState
from accelerate.logging import get_logger
from datasets import Dataset, Features, List, Value

from gpm_hf.modeling import EncodedGroup, GPMForPreference, collate_groups

logger = get_logger(__name__)

ROW_COLUMNS = ("chosen_row", "rejected_row", "prompt_row")


def with_head_states(dataset: Dataset, model: GPMForPreference, batch_size: int) -> Dataset:
    """
    Replaces token ids by the backbone's hidden states.

    Args:
        dataset: rows with `chosen_ids`, `rejected_ids` and, needed for a model with a gate, `prompt_ids`.
        model: the preference model, on the device that is to compute the states.
        batch_size: sequences encoded at once.

    Returns:
        The same rows; reading one gives `chosen_state`, `rejected_state` and, with prompts, `prompt_state`, each a
        float32 tensor of shape (hidden_size,), and its labels.
    """
    # The states of the prompts are kept also for a model that has no gate, so that models which differ only in their
    # heads share one file.
    with_prompts = "prompt_ids" in dataset.column_names
    sequences: dict[bytes, _Sequence] = {}

    def key_of(ids: list[int], prompt_length: int) -> bytes:
        key = xxhash.xxh3_128_digest(np.asarray([prompt_length, *ids], dtype=np.int64).tobytes())
        sequences.setdefault(key, _Sequence(ids, prompt_length))
        return key

    keys: dict[str, list[bytes]] = {name: [] for name in ROW_COLUMNS[: 3 if with_prompts else 2]}
    for row in dataset:
        group = EncodedGroup([row["chosen_ids"], row["rejected_ids"]], row.get("prompt_ids"))
        # As in `collate_groups`: where the gate does not read a sequence, any of its tokens will do.
        inside = with_prompts and group.prompt_is_inside
        length = len(row["prompt_ids"]) if inside else 1
        pair = [key_of(ids, length) for ids in group.sequences]
        keys["chosen_row"].append(pair[0])
        keys["rejected_row"].append(pair[1])
        if with_prompts:
            keys["prompt_row"].append(pair[0] if inside else key_of(row["prompt_ids"], len(row["prompt_ids"])))

    # Longest first: sequences of like length share a batch, and too little memory shows at once. The order depends on
    # the sequences alone, so the same texts paired otherwise have the same file.
    ordered = sorted(sequences, key=lambda key: (-len(sequences[key].ids), key))
    states = _compute_states([sequences[key] for key in ordered], model, batch_size)
    row_of = {key: row for row, key in enumerate(ordered)}
    rows_only = Dataset.from_dict({name: [row_of[key] for key in values] for name, values in keys.items()})
    labels = [name for name in dataset.column_names if not name.endswith("_ids")]
    parts = [dataset.select_columns(labels), rows_only] if labels else [rows_only]
    indexed = datasets.concatenate_datasets(parts, axis=1)
    response_states, prompt_states = _RowReader(states, "response_state"), _RowReader(states, "prompt_state")

    def look_up(rows):
        found = {name: values for name, values in rows.items() if name not in ROW_COLUMNS}
        for name in keys:
            reader = prompt_states if name == "prompt_row" else response_states
            found[name.replace("_row", "_state")] = [reader[row] for row in rows[name]]
        return found

    return indexed.with_transform(look_up)


class _RowReader:
    """Rows of a column of vectors, as tensors read from the mapped file: a row stays on disk until it is read."""

    def __init__(self, states: Dataset, column: str):
        chunks = states.data.column(column).chunks
        self.arrays = [chunk.flatten().to_numpy(zero_copy_only=True).reshape(len(chunk), -1) for chunk in chunks]
        self.starts = np.cumsum([0] + [len(array) for array in self.arrays])

    def __getitem__(self, row: int) -> torch.Tensor:
        chunk = int(np.searchsorted(self.starts, row, side="right")) - 1
        return torch.from_numpy(self.arrays[chunk][row - self.starts[chunk]].copy())


class _Sequence(NamedTuple):
    ids: list[int]
    prompt_length: int


def _compute_states(sequences: list[_Sequence], model: GPMForPreference, batch_size: int) -> Dataset:
    """A data set whose i-th row holds `response_state` and `prompt_state` of the i-th sequence."""
    PartialState()  # the logger speaks on the first process only, and asks it which that is
    hidden_size = model.config.text_config.hidden_size
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "gpm_hf_head_states"
    file = folder / f"{_fingerprint(sequences, model)}.arrow"
    tokens = sum(len(sequence.ids) for sequence in sequences)
    size = len(sequences) * hidden_size * 4 * 2 / 1e6
    if file.exists():
        logger.warning(f"Reading the backbone's states of {len(sequences)} sequences from {file}.")
    else:
        logger.warning(
            f"Computing the backbone's states once: {len(sequences)} sequences, {tokens} tokens; {size:.1f} MB in "
            f"{folder}."
        )
    folder.mkdir(parents=True, exist_ok=True)
    table = Dataset.from_dict(
        {
            "ids": [sequence.ids for sequence in sequences],
            "prompt_length": [sequence.prompt_length for sequence in sequences],
        }
    )

    @torch.no_grad()
    def encode(rows):
        groups = [EncodedGroup([ids], None) for ids in rows["ids"]]
        batch = collate_groups(groups, pad_token_id=0, with_prompts=False)
        batch["prompt_lengths"] = torch.tensor(rows["prompt_length"])
        states = model.pool(**{name: value.to(model.device) for name, value in batch.items()})
        return {
            "response_state": states[0].float().cpu().numpy(),
            "prompt_state": states[1].float().cpu().numpy(),
        }

    model.eval()
    vector = List(Value("float32"), length=hidden_size)
    return table.map(
        encode,
        batched=True,
        batch_size=batch_size,
        remove_columns=table.column_names,
        features=Features({"response_state": vector, "prompt_state": vector}),
        cache_file_name=os.fspath(file),
        # Known already; else the whole model would be pickled for one.
        new_fingerprint=file.stem,
        load_from_cache_file=True,
        keep_in_memory=False,
        desc="Encoding with the frozen backbone",
    )


def _fingerprint(sequences: list[_Sequence], model: GPMForPreference) -> str:
    digest = xxhash.xxh3_128()
    backbone = model.model
    settings = {"class": type(backbone).__name__, "attention": backbone.config._attn_implementation}
    digest.update(repr((settings, sorted(backbone.config.to_dict().items(), key=str))).encode())
    for name, tensor in backbone.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    for ids, prompt_length in sequences:
        digest.update(np.asarray([prompt_length, len(ids), *ids], dtype=np.int64).tobytes())
    return digest.hexdigest()
