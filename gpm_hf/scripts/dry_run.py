"""What a training would do, without doing it: rows as they are read, parameters, memory, steps."""

import math
from typing import Any, cast

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from gpm_hf.data.preference import TOKEN_COLUMNS
from gpm_hf.data.shown_rows import shown_row
from gpm_hf.modeling import GPMForPreference
from gpm_hf.tables import markdown_table
from gpm_hf.training import GPMRewardTrainer

_ROWS = 3
# Bytes of AdamW's two moments per trained parameter, float32; of 8-bit optimizers and Adafactor less.
_MOMENTS = 8
# What a layer keeps of each token for the backward pass, in bytes of 16-bit numbers per hidden unit: Korthikanti et
# al. (2022), equation 1 without the attention's scores, which SDPA and FlashAttention do not keep.
_KEPT = 34


def describe(trainer: GPMRewardTrainer, rows: Any, heads_only: bool = False) -> str:
    """
    A training in words and numbers.

    Args:
        trainer: made, not trained.
        rows: its training data as they were loaded.
        heads_only: whether only the heads would be trained.
    """
    model = trainer.gpm
    encoding = {**model.config.encoding_options, "needs_prompt": model.config.scale_gate}
    lines = []
    if isinstance(rows, Dataset) and not set(TOKEN_COLUMNS) <= set(rows.column_names):
        for number in range(min(_ROWS, len(rows))):
            shown = shown_row(rows[number], cast(PreTrainedTokenizerBase, trainer.processing_class), **encoding)
            lines.append(f"--- row {number + 1}\n{shown}\n")
    total = sum(parameter.numel() for parameter in trainer.model.parameters())
    trained = _trained(trainer.model, model, heads_only)
    table = [("parameters", f"{total:,}"), ("trained", f"{trained:,} ({trained / total:.2%})")]
    if isinstance(trainer.train_dataset, Dataset):
        table += _steps(trainer)
    table += _memory(trainer, trained, heads_only)
    return "\n".join([*lines, markdown_table(["training", ""], table), "Nothing was trained or written."])


def _trained(whole: Any, model: GPMForPreference, heads_only: bool) -> int:
    if heads_only:
        return sum(parameter.numel() for head in model.heads().values() for parameter in head.parameters())
    return sum(parameter.numel() for parameter in whole.parameters() if parameter.requires_grad)


def _steps(trainer: GPMRewardTrainer) -> list[tuple[str, str]]:
    args = trainer.args
    batches = len(trainer.get_train_dataloader())
    each = max(math.ceil(batches / args.gradient_accumulation_steps), 1)
    steps = args.max_steps if args.max_steps > 0 else math.ceil(each * args.num_train_epochs)
    held_out = (
        f"{len(trainer.eval_dataset)} held out" if isinstance(trainer.eval_dataset, Dataset) else "none held out"
    )
    return [
        ("rows", f"{len(trainer.train_dataset)} to train on, {held_out}"),
        ("steps", f"{steps} of {each} an epoch, {steps / each:.3g} epochs"),
    ]


def _memory(trainer: GPMRewardTrainer, trained: int, heads_only: bool) -> list[tuple[str, str]]:
    args = trainer.args
    weights = sum(parameter.numel() * parameter.element_size() for parameter in trainer.model.parameters())
    bytes_each = 4
    found = [
        ("memory: weights", _bytes(weights)),
        ("memory: gradients", _bytes(trained * bytes_each)),
        ("memory: AdamW", _bytes(trained * _MOMENTS)),
    ]
    if heads_only or not isinstance(trainer.train_dataset, Dataset):
        return found
    text = trainer.gpm.config.text_config
    longest = _longest_batch(trainer)
    layers, width = text.num_hidden_layers, text.hidden_size
    # Activations are in 16-bit under autocast, else in float32.
    factor = 1 if args.bf16 or args.fp16 else 2
    kept = _KEPT * factor * longest * width * layers
    if args.gradient_checkpointing:
        kept = 2 * factor * longest * width * layers + _KEPT * factor * longest * width
    return [
        *found,
        ("memory: activations, about", f"{_bytes(kept)} ({longest} tokens in the largest batch at most)"),
        ("memory in all, about", _bytes(weights + trained * (bytes_each + _MOMENTS) + kept) + " a device, unsharded"),
    ]


def _longest_batch(trainer: GPMRewardTrainer) -> int:
    """An upper bound of the tokens of one batch: as many of the longest rows as a batch has."""
    args = trainer.args
    rows = trainer.train_dataset.with_format(None)
    if "sequence_ids" in rows.column_names:
        lengths = [sum(map(len, sequences)) for sequences in rows["sequence_ids"]]
    else:
        lengths = [sum(len(row[name]) for name in TOKEN_COLUMNS) for row in rows.select_columns(list(TOKEN_COLUMNS))]
    lengths.sort(reverse=True)
    tokens = sum(lengths[: args.per_device_train_batch_size])
    return tokens if args.max_tokens_per_batch is None else min(tokens, max(args.max_tokens_per_batch, lengths[0]))


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.3g} {unit}" if number < 1000 else f"{number:,.0f} {unit}"
        number /= 1000
    raise AssertionError(number)
