"""The best of several answers, by what a preference model says of all of them."""

from collections import Counter
from typing import Any

from gpm_hf.data.scored_rows import named_matrices, score_columns, with_text
from gpm_hf.preference import select
from gpm_hf.scoring import Scorer


def choose_best(rows: list[dict[str, Any]], scorer: Scorer, rule: str = "mean") -> list[dict[str, Any]]:
    """
    Chooses one answer to each prompt. Answers without text cannot be scored, and are left out with their ids and
    log-probabilities; where only one has text, it is the best.

    Args:
        rows: N rows of `prompt` (a string or chat messages) and `responses`, as a policy's
            [`~gpm_hf.generation.Sampler`] gives them also with what was sampled, see [`gpm_hf.data.sampled_ids`].
        scorer: of preference, see [`~gpm_hf.scoring.Scorer`].
        rule: see [`gpm_hf.preference.select`].

    Returns:
        For each prompt `prompt`, `best` (the answer chosen), `index` (its place in `responses`), `responses` (those
        with text), `scores` (K x K log-odds), `mean_scores`, and the other columns of its row: scored rows, see
        [`gpm_hf.data.policy_data`].

    Raises:
        ValueError: naming the prompt: no answer to it has text, the scorer refuses it, or its scores are not
            skew-symmetric.
    """
    names = [f"The prompt {row['prompt']!r}" for row in rows]
    kept = [(name, with_text(name, row, Counter())) for name, row in zip(names, rows)]
    for _, row in kept:
        if not row["responses"]:
            raise ValueError(f"No answer to {row['prompt']!r} has any text: sample more, or raise the temperature.")
    best = []
    for (name, row), matrix in zip(kept, named_matrices(kept, scorer)):
        columns = score_columns(name, matrix, len(row["responses"]))
        index = int(select(columns["scores"], rule)) if len(row["responses"]) > 1 else 0
        chosen = {"prompt": row["prompt"], "best": row["responses"][index], "index": index}
        best.append({**chosen, **row, **columns})
    return best
