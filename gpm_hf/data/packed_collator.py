"""Batches in which each prompt stands once, with its responses after it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gpm_hf.data.collator import PreferenceCollator, Shape, is_group, label_tensors, pair_tensors, sequences_of
from gpm_hf.modeling import EncodedGroup


@dataclass
class PackedPreferenceCollator:
    """
    Packs each preference row into one row of tokens, the prompt and then every response of the pair or group, see
    [`GPMForPreference.forward`]; where that cannot be done or does not pay, the batch is `separate`'s.

    With a gate the shared part is the prompt, else whatever the sequences begin with alike. A batch stays separate if
    in one of its rows nothing is shared: where a response merges into the prompt's last token, or is empty.

    Args:
        separate: the collator of batches with one sequence in a row.
        hidden_size: the backbone's.
        always: pack whatever can be packed, also where that is slower.

    Returns, when called with rows:
        `input_ids` and `attention_mask` of shape (B, length), `prompt_lengths` of shape (B,), `response_lengths` of
        shape (B, K), 0 for what a group has less than K responses, the labels, with a gate `gate_rows`, and of groups
        what [`~gpm_hf.data.collator.pair_tensors`] returns.
    """

    separate: PreferenceCollator
    hidden_size: int
    always: bool = False

    def shape_of(self, row: dict[str, Any]) -> Shape:
        """How long a row's sequences are, and what they share."""
        sequences = sequences_of(row)
        if self.separate.with_prompts:
            prompt = row["prompt_ids"]
            shared = len(prompt) if EncodedGroup(sequences, prompt).prompt_is_inside else 0
        else:
            shared = _common_prefix(sequences)
        lengths = tuple(map(len, sequences))
        return Shape(shared if shared < min(lengths) else 0, lengths)

    def tokens_of(self, shapes: Sequence[Shape]) -> int:
        """Tokens of a batch of rows of these shapes that pass the backbone."""
        if not self.packs(shapes):
            return self.separate.tokens_of(shapes)
        return sum(sum(lengths) - shared * (len(lengths) - 1) for shared, lengths in shapes)

    def packs(self, shapes: Sequence[Shape]) -> bool:
        """Whether a batch of rows of these shapes is packed."""
        return all(shape.shared for shape in shapes) and (self.always or packing_pays(shapes, self.hidden_size))

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        shapes = [self.shape_of(row) for row in rows]
        if not self.packs(shapes):
            return self.separate(rows)

        packed = []
        for row, (shared, _) in zip(rows, shapes, strict=True):
            first, *others = sequences_of(row)
            packed.append([*first, *(token for ids in others for token in ids[shared:])])
        length, most = max(map(len, packed)), max(len(shape.lengths) for shape in shapes)
        batch = {
            "input_ids": torch.tensor([ids + [self.separate.pad_token_id] * (length - len(ids)) for ids in packed]),
            "attention_mask": torch.tensor([[1] * len(ids) + [0] * (length - len(ids)) for ids in packed]),
            "prompt_lengths": torch.tensor([shape.shared for shape in shapes]),
            "response_lengths": torch.tensor(
                [[length - shared for length in lengths] + [0] * (most - len(lengths)) for shared, lengths in shapes]
            ),
        }
        if self.separate.with_prompts:
            batch["gate_rows"] = most * torch.arange(len(rows))
        if is_group(rows[0]):
            batch |= pair_tensors(rows, [most] * len(rows), batch.get("gate_rows"))
        return batch | label_tensors(rows)


def packing_pays(shapes: Sequence[Shape], hidden_size: int) -> bool:
    """
    Whether a batch costs less packed than separate, by a twentieth at least.

    What is counted are tokens, padding included (packed rows have none, see `packing_gpm.py`), and the pairs of tokens
    of which one may attend to the other; packed, each response also meets the tokens of the others in its row, which
    are masked, or has a section of its own, as long as the longest (see `packed_attention_gpm.py`). A token costs as
    much as 2.5 pairs per hidden dimension, as measured with `benchmarks/reward_step.py` on a small backbone; in large
    ones attention counts for less.

    Args:
        shapes: of the batch's rows.
        hidden_size: the backbone's.
    """
    pairs_per_token = 2.5 * hidden_size
    longest = max(max(shape.lengths) for shape in shapes)
    separate = sum(len(shape.lengths) for shape in shapes) * (longest * pairs_per_token + longest**2 / 2)
    prompts = [shape.shared for shape in shapes]
    responses = [sum(shape.lengths) - shape.shared * len(shape.lengths) for shape in shapes]
    tokens = sum(prompts) + sum(responses)
    columns = max(prompts) + max(responses)
    most = max(len(shape.lengths) for shape in shapes)
    own = max(max(shape.lengths) - shape.shared for shape in shapes)
    in_responses = max(responses) * columns
    in_own_sections = most * own * (max(prompts) + own)
    if in_own_sections < 0.75 * in_responses:
        in_responses = in_own_sections
    packed = tokens * pairs_per_token + len(shapes) * (max(prompts) ** 2 / 2 + in_responses)
    return packed < 0.95 * separate


def _common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """How many tokens the sequences begin with alike, but for the last one of any."""
    limit = min(map(len, sequences)) - 1
    first = sequences[0]
    return next((place for place in range(limit) if any(ids[place] != first[place] for ids in sequences)), limit)
