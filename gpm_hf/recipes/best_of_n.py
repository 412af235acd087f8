"""The best of several answers, by what a preference model says of all of them."""

from collections import Counter
from typing import Any

from gpm_hf.data.scored_rows import score_columns, score_in_chunks, with_text
from gpm_hf.preference import select
from gpm_hf.scoring import Scorer

_NO_SCORES: dict[str, list] = {"scores": [], "mean_scores": []}


def choose_best(rows: list[dict[str, Any]], scorer: Scorer, rule: str = "mean") -> list[dict[str, Any]]:
    """
    Chooses one answer to each prompt. Answers without text cannot be scored, and are left out with their ids and
    log-probabilities; where only one has text, it is the best, and where none has, the best is empty.

    Args:
        rows: N rows of `prompt` (a string or chat messages) and `responses`, as a policy's
            [`~gpm_hf.generation.Sampler`] gives them also with what was sampled, see [`gpm_hf.data.sampled_ids`].
        scorer: of preference, see [`~gpm_hf.scoring.Scorer`].
        rule: see [`gpm_hf.preference.select`].

    Returns:
        For each prompt `prompt`, `best` (the answer chosen), `index` (its place in `responses`; `None` without one),
        `responses` (those with text), `scores` (K x K log-odds), `mean_scores`, and the other columns of its row:
        scored rows, see [`gpm_hf.data.policy_data`].

    Raises:
        ValueError: naming the prompt: the scorer refuses it, or its scores are not skew-symmetric.
    """
    names = [f"The prompt {row['prompt']!r}" for row in rows]
    kept = [(name, with_text(name, row, Counter())) for name, row in zip(names, rows)]
    with_responses = [(name, row) for name, row in kept if row["responses"]]
    chunks = score_in_chunks(with_responses, scorer, max(len(rows), 1))
    matrices = (matrix for chunk in chunks for _, _, matrix in chunk)
    best = []
    for name, row in kept:
        responses = row["responses"]
        columns = score_columns(name, next(matrices), len(responses)) if responses else _NO_SCORES
        index = None if not responses else int(select(columns["scores"], rule)) if len(responses) > 1 else 0
        text = "" if index is None else responses[index]
        best.append({"prompt": row["prompt"], "best": text, "index": index, **row, **columns})
    return best
