"""Several preference data sets as one, each with its share."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset, concatenate_datasets

from gpm_hf.data.columns import dataset_of_rows
from gpm_hf.data.judged_groups import is_grouped, read_judged_group
from gpm_hf.data.preference import LABEL_COLUMNS, TOKEN_COLUMNS, split_preference
from gpm_hf.modeling.messages_gpm import as_messages


def mix(parts: Sequence[Dataset], fractions: Sequence[float | None], names: Sequence[str]) -> Dataset:
    """
    One data set of several. Where they hold pairs and groups, all become groups; where texts are strings in some and
    chat messages in others, all become messages.

    Args:
        parts: pairs or groups.
        fractions: the share of each in the whole, as TRL's mixtures have them: normalised, and the whole is as large
            as it can be without a row twice, of each its first rows. All `None` takes all rows.
        names: what to call the parts.

    Raises:
        ValueError: shares for some and not for others, below 0 or all 0; parts that are tokenised, or labels that a
            group cannot have, beside parts of another kind.
    """
    parts = _shares(parts, fractions)
    if all(part.features == parts[0].features for part in parts):
        return concatenate_datasets(list(parts))
    kinds = {_kind(part) for part in parts}
    if "token ids" in kinds and len(kinds) > 1:
        raise ValueError(f"Of {', '.join(names)} some are tokenised and some are texts: mix what is alike.")
    if "token ids" in kinds:
        return concatenate_datasets(list(parts))
    as_groups = "groups" in kinds
    rows = []
    for part, name in zip(parts, names, strict=True):
        for number, row in enumerate(part):
            try:
                rows.append(_group(row) if as_groups else _pair(row))
            except ValueError as error:
                raise ValueError(f"{name}, row {number}: {error}") from error
    return dataset_of_rows(rows)


def _shares(parts: Sequence[Dataset], fractions: Sequence[float | None]) -> Sequence[Dataset]:
    given = [fraction for fraction in fractions if fraction is not None]
    if not given:
        return parts
    if len(given) < len(parts):
        raise ValueError("`fraction` must be given for all data sets of a mixture, or for none.")
    if min(given) < 0 or sum(given) <= 0:
        raise ValueError(f"The fractions {given} are no shares: they are 0 or more, and some is above 0.")
    weights = [fraction / sum(given) for fraction in given]
    total = min(len(part) / weight for part, weight in zip(parts, weights, strict=True) if weight > 0)
    return [part.select(range(round(weight * total))) for part, weight in zip(parts, weights, strict=True)]


def _kind(part: Dataset) -> str:
    if set(TOKEN_COLUMNS) <= set(part.column_names):
        return "token ids"
    return "groups" if is_grouped(part.column_names) else "pairs"


def _pair(row: Mapping[str, Any]) -> dict[str, Any]:
    prompt, chosen, rejected = split_preference(row)
    labels = {name: row[name] for name in LABEL_COLUMNS if row.get(name) is not None}
    # Without a probability a pair is certain; beside pairs that have one this must be said.
    labels.setdefault("preference_probability", 1.0)
    return {
        "prompt": _messages(prompt, "user"),
        "chosen": _messages(chosen),
        "rejected": _messages(rejected),
        **labels,
    }


def _group(row: Mapping[str, Any]) -> dict[str, Any]:
    if is_grouped(row):
        group = read_judged_group(row)
        prompt, responses = group.prompt, group.responses
        judged = [[pair.first, pair.second, pair.probability] for pair in group.pairs]
    else:
        prompt, *responses = split_preference(row)
        labels = [name for name in ("margin", "target_score") if row.get(name) is not None]
        if labels:
            raise ValueError(f"its label {labels} is a pair's, and the mixture has groups: leave it out.")
        probability = row.get("preference_probability")
        judged = [[0, 1, 1.0 if probability is None else float(probability)]]
    return {
        "prompt": _messages(prompt, "user"),
        "responses": [_messages(response) for response in responses],
        "preferences": judged,
    }


def _messages(text: Any, role: str = "assistant") -> Any:
    return None if text is None else as_messages(text, role)
