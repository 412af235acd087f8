"""Rows as a model reads them: the text of their token ids, with the tokens that a template adds."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from gpm_hf.data.judged_groups import is_grouped, read_judged_group
from gpm_hf.data.preference import encode_responses
from gpm_hf.data.preference_rows import read_label

_LONGEST = 600


def shown_row(
    row: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    needs_prompt: bool = True,
    longest: int = _LONGEST,
    **encoding: Any,
) -> str:
    """
    A pair or a group as text for a screen: the prompt's tokens, then each response's, and who is preferred.

    Args:
        row: a preference pair or a judged group.
        tokenizer: the model's.
        needs_prompt: whether the model has a scale gate.
        longest: characters of a text; of longer ones the middle is left out.
        encoding: further arguments of [`~gpm_hf.data.preference.encode_responses`].

    Raises:
        ValueError: a row that cannot be trained on.
    """
    if is_grouped(row):
        group = read_judged_group(row)
        prompt, responses = group.prompt, group.responses
        pairs = ", ".join(f"{pair.first} > {pair.second}{_label(pair.probability)}" for pair in group.pairs)
        names = [f"response {number}" for number in range(len(responses))]
    else:
        prompt, responses, names = row.get("prompt"), [row["chosen"], row["rejected"]], ["chosen", "rejected"]
        label = row.get("preference_probability")
        probability = 1.0 if label is None else read_label(label, "preference_probability")
        pairs = f"chosen > rejected{_label(probability)}"
    encoded = encode_responses(prompt, responses, tokenizer, needs_prompt=needs_prompt, **encoding)
    shared = len(encoded.prompt_ids or ())
    lines = []
    if encoded.prompt_ids is not None:
        lines.append(f"prompt ({shared} tokens): {_text(tokenizer, encoded.prompt_ids, longest)}")
    for name, ids in zip(names, encoded.sequences, strict=True):
        # Where a response's first characters merge into the prompt's last token, the whole sequence is shown.
        begins = shared and list(ids[:shared]) == list(encoded.prompt_ids or ())
        shown = ids[shared:] if begins else ids
        lines.append(f"{name} ({len(shown)} tokens): {_text(tokenizer, shown, longest)}")
    return "\n".join([*lines, f"preferred: {pairs}"])


def _label(probability: float) -> str:
    return "" if probability == 1 else f" (probability {probability:.3g})"


def _text(tokenizer: PreTrainedTokenizerBase, ids: Any, longest: int) -> str:
    text = repr(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]} ... {text[-half:]}"
