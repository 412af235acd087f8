"""
Hidden states of a frozen backbone, computed once and kept on disk, so that training the heads costs only the heads.

The file's name is a hash of all that the states depend on: the backbone's weights and settings and the token ids,
which in turn hold the tokenizer, the chat template and the texts. A change of any of them is another file; nothing is
ever looked up by name or date.
"""

import os
from pathlib import Path

import datasets
import numpy as np
import torch
import xxhash
from accelerate.logging import get_logger
from datasets import Dataset, Features, List, Value

from gpm_hf.modeling import EncodedGroup, GPMForPreference, collate_groups

logger = get_logger(__name__)

ROW_COLUMNS = ("chosen_row", "rejected_row", "prompt_row")


def with_head_states(dataset: Dataset, model: GPMForPreference, batch_size: int) -> Dataset:
    """
    Replaces token ids by the backbone's hidden states.

    Args:
        dataset: rows with `chosen_ids`, `rejected_ids` and, for a model with a gate, `prompt_ids`.
        model: the preference model, on the device that is to compute the states.
        batch_size: sequences encoded at once.

    Returns:
        The same rows; reading one gives `chosen_state`, `rejected_state` and, with a gate, `prompt_state`, each a
        float32 tensor of shape (hidden_size,), and its labels.
    """
    sequences: dict[bytes, tuple[int, list[int], int]] = {}

    def index_of(ids: list[int], prompt_length: int) -> int:
        key = xxhash.xxh3_128_digest(np.asarray([prompt_length, *ids], dtype=np.int64).tobytes())
        return sequences.setdefault(key, (len(sequences), ids, prompt_length))[0]

    columns: dict[str, list[int]] = {name: [] for name in ROW_COLUMNS[: 3 if model.config.scale_gate else 2]}
    for row in dataset:
        # The collation that training and inference use decides where the gate reads.
        group = EncodedGroup([row["chosen_ids"], row["rejected_ids"]], row.get("prompt_ids"))
        batch = collate_groups([group], pad_token_id=0, with_prompts=model.config.scale_gate)
        lengths = batch["prompt_lengths"].tolist() if model.config.scale_gate else [1, 1]
        rows = [index_of(ids, length) for ids, length in zip(group.sequences, lengths)]
        columns["chosen_row"].append(rows[0])
        columns["rejected_row"].append(rows[1])
        if model.config.scale_gate:
            gate_row = int(batch["gate_rows"][0])
            prompt_row = rows[0] if gate_row == 0 else index_of(group.prompt_ids, len(group.prompt_ids))
            columns["prompt_row"].append(prompt_row)

    states = _compute_states(list(sequences.values()), model, batch_size)
    labels = [name for name in dataset.column_names if not name.endswith("_ids")]
    indexed = dataset.select_columns(labels) if labels else None
    rows_only = Dataset.from_dict(columns)
    indexed = datasets.concatenate_datasets([indexed, rows_only], axis=1) if indexed is not None else rows_only

    def look_up(rows):
        found = {name: values for name, values in rows.items() if name not in ROW_COLUMNS}
        for name in columns:
            kind = "prompt_state" if name == "prompt_row" else "response_state"
            found[name.replace("_row", "_state")] = list(states[rows[name]][kind])
        return found

    return indexed.with_transform(look_up)


def _compute_states(sequences: list[tuple[int, list[int], int]], model: GPMForPreference, batch_size: int) -> Dataset:
    """A data set whose i-th row holds `response_state` and `prompt_state` of the sequence with index i."""
    hidden_size = model.config.text_config.hidden_size
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "gpm_hf_head_states"
    file = folder / f"{_fingerprint(sequences, model)}.arrow"
    tokens = sum(len(ids) for _, ids, _ in sequences)
    size = len(sequences) * hidden_size * 4 * 2 / 1e6
    if file.exists():
        logger.warning(f"Reading the backbone's states of {len(sequences)} sequences from {file}.")
    else:
        logger.warning(
            f"Computing the backbone's states once: {len(sequences)} sequences, {tokens} tokens; {size:.1f} MB in "
            f"{folder}."
        )
    folder.mkdir(parents=True, exist_ok=True)
    # Longest first: sequences of like length share a batch, and if memory is too small it shows at once.
    by_length = sorted(sequences, key=lambda item: -len(item[1]))
    table = Dataset.from_dict(
        {
            "index": [index for index, _, _ in by_length],
            "ids": [ids for _, ids, _ in by_length],
            "prompt_length": [length for _, _, length in by_length],
        }
    )

    @torch.no_grad()
    def encode(rows):
        groups = [EncodedGroup([ids], None) for ids in rows["ids"]]
        batch = collate_groups(groups, pad_token_id=0, with_prompts=False)
        batch["prompt_lengths"] = torch.tensor(rows["prompt_length"])
        output = model(**{name: value.to(model.device) for name, value in batch.items()})
        prompt_states = output.prompt_states if model.config.scale_gate else output.response_states
        return {
            "index": rows["index"],
            "response_state": output.response_states.float().cpu().numpy(),
            "prompt_state": prompt_states.float().cpu().numpy(),
        }

    model.eval()
    vector = List(Value("float32"), length=hidden_size)
    states = table.map(
        encode,
        batched=True,
        batch_size=batch_size,
        remove_columns=table.column_names,
        features=Features({"index": Value("int64"), "response_state": vector, "prompt_state": vector}),
        cache_file_name=os.fspath(file),
        load_from_cache_file=True,
        keep_in_memory=False,
        desc="Encoding with the frozen backbone",
    )
    # Back from length order to index order.
    order = np.argsort(np.asarray(states["index"]))
    return states.select(order).select_columns(["response_state", "prompt_state"]).with_format("torch")


def _fingerprint(sequences: list[tuple[int, list[int], int]], model: GPMForPreference) -> str:
    digest = xxhash.xxh3_128()
    backbone = model.model
    settings = {"class": type(backbone).__name__, "attention": backbone.config._attn_implementation}
    digest.update(
        repr((settings, model.config.scale_gate, sorted(backbone.config.to_dict().items(), key=str))).encode()
    )
    for name, tensor in backbone.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    for _, ids, prompt_length in sequences:
        digest.update(np.asarray([prompt_length, len(ids), *ids], dtype=np.int64).tobytes())
    return digest.hexdigest()
