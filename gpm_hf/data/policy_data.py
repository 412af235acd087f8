"""
Policy data: prompts with K scored responses of one policy, and what a preference optimiser learns from them.

A *scored row* is a `dict` (so that a JSON line, or a row of a data set, is one):

- `prompt`: a string (one user message) or chat messages;
- `responses`: K >= 2 strings, samples of one policy; a text that was sampled twice is there twice;
- `scores`: K x K log-odds, skew-symmetric: `scores[i][j]` is that of response i being preferred to response j;
- `mean_scores`: K row means of `scores`, log-odds: the paper's s_hat (equation 5.2; i itself counts, with 0);
- `policy_log_probs`, optional: K natural logarithms of the policy's probability of each response;
- `prompt_ids`, `response_ids`, `tokenizer_digest`, optional: the token ids that were sampled, which are then what is
  trained; see [`gpm_hf.data.sampled_ids`].

Other columns are left as they are.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
from datasets import Dataset

from gpm_hf.data.scored_rows import (
    ScoredGroup,
    score_columns,
    score_in_chunks,
    scored_groups,
    with_text,
)
from gpm_hf.preference import select, von_neumann_winner
from gpm_hf.preference.arrays import sigmoid

logger = logging.getLogger(__name__)

PAIR_RULES = ("mean", "von_neumann", "all")
SELECTIONS = (*PAIR_RULES, "all_responses")
# Differences of log-odds up to this, relative to the matrix's largest entry, are rounding.
TIE = 1e-9


def score_rows(
    rows: Iterable[Mapping[str, Any]],
    scorer: Callable[[list, list[list[str]]], list],
    batch_size: int = 64,
    skipped: Counter | None = None,
) -> list[dict[str, Any]]:
    """
    Scores sampled responses. A response without text cannot be scored: it is left out of its group with its
    log-probability and ids, and a row with fewer than two responses left is left out too; both are counted.

    Args:
        rows: `prompt`, `responses` and optionally `policy_log_probs` and the sampled ids.
        scorer: `f(prompts, groups)` that returns a (K, K) matrix of log-odds per prompt; every
            [`gpm_hf.scoring.Scorer`] is one.
        batch_size: prompts given to the scorer at once; results depend on it by rounding alone.
        skipped: what was left out is added to it, by reason. It is logged in any case.

    Returns:
        Scored rows, in order.

    Raises:
        ValueError: naming the row (the first is row 0): a row without `prompt` and `responses`, one that the scorer
            refuses, a matrix that is not square, finite and skew-symmetric (a pair model that contradicts itself has
            to average its two orders); or nothing is left.
    """
    counts: Counter = Counter()
    # All of them read before the first is scored.
    kept = list(rows_to_score(rows, counts))
    scored = [
        row | score_columns(name, matrix, len(row["responses"]))
        for chunk in score_in_chunks(kept, scorer, batch_size)
        for name, row, matrix in chunk
    ]
    _report(counts, skipped, bool(scored), "be scored")
    return scored


def rows_to_score(rows: Iterable[Mapping[str, Any]], skipped: Counter) -> Iterator[tuple[str, dict[str, Any]]]:
    """
    What can be scored of sampled responses, row by row: see [`score_rows`], which scores them too.

    Args:
        rows: `prompt`, `responses` and optionally `policy_log_probs` and the sampled ids.
        skipped: what is left out is added to it, by reason.

    Yields:
        The row's name for messages, "row 3", and the row.

    Raises:
        ValueError: a row without `prompt` and `responses`, naming it.
    """
    for number, row in enumerate(rows):
        full = with_text(f"row {number}", row, skipped)
        if len(full["responses"]) < 2:
            skipped["rows with fewer than two responses"] += 1
        else:
            yield f"row {number}", full


def select_pairs(
    rows: Iterable[Mapping[str, Any]],
    rule: str = "mean",
    with_policy_log_probs: bool = False,
    skipped: Counter | None = None,
) -> Dataset:
    """
    Preference pairs out of scored rows, in the columns of [`~trl.DPOTrainer`] (any of its losses, from `sigmoid` and
    `ipo` to `sppo_hard`) and of [`~gpm_hf.training.OfflineGPOTrainer`].

    Rules:

    - `"mean"`: the responses of highest and of lowest mean score, the paper's; the first among equals.
    - `"von_neumann"`: the most probable response of the von Neumann winner (`gpm_hf.preference.select`), against the
      reply that loses most to that mixed strategy (among equals, to the chosen response). Where there is a cycle,
      the chosen response need not be the one of higher mean score, nor preferred to the rejected one. Needs SciPy and
      some milliseconds a row.
    - `"all"`: all K(K-1)/2 pairs, the preferred response as chosen. The two orders of a pair weigh P and 1 - P; their
      difference is the column `weight`, 2P - 1, which [`~gpm_hf.training.OfflineGPOTrainer`] multiplies the pair's
      loss by. DPOTrainer weighs all pairs alike.

    A pair of equals (same text, or no preference between them) teaches nothing and is left out and counted.

    Args:
        rows: scored rows, see the top of this module. `mean_scores` may be absent.
        rule: one of the three.
        with_policy_log_probs: add the columns `ref_chosen_logps` and `ref_rejected_logps` from `policy_log_probs`, for
            an [`~gpm_hf.training.OfflineGPOTrainer`] that shall not compute the reference itself. They must be sums
            over exactly the tokens that it reads (`response_ids` where the rows have them), at temperature 1.
            DPOTrainer cannot take them.
        skipped: what was left out is added to it, by reason. It is logged in any case.

    Returns:
        `prompt`, `chosen`, `rejected` (chat messages), `chosen_score`, `rejected_score` (mean log-odds of each within
        its whole group), `chosen_probability`, `rejected_probability` (mean win probabilities within the group),
        `preference_probability` (that chosen is preferred to rejected), and with rule `"all"` also `weight`. Where the
        rows have sampled ids also `prompt_ids`, `chosen_ids`, `rejected_ids` and `tokenizer_digest`, by which
        OfflineGPOTrainer trains what was sampled; DPOTrainer renders the texts anew.

    Raises:
        ValueError: an unknown rule, a malformed row (the message names it; the first is row 0), or nothing is left.
    """
    if rule not in PAIR_RULES:
        raise ValueError(f"rule={rule!r}: choose one of {', '.join(PAIR_RULES)}.")
    counts: Counter = Counter()
    pairs = []
    for group in scored_groups(rows, counts):
        found = _PAIRS_BY_RULE[rule](group, counts)
        if not found:
            counts["rows without a preference"] += 1
        pairs += [_pair_row(group, chosen, rejected, rule, with_policy_log_probs) for chosen, rejected in found]
    _report(counts, skipped, bool(pairs), "be paired")
    return Dataset.from_list(pairs)


def all_responses(
    rows: Iterable[Mapping[str, Any]], with_policy_log_probs: bool = False, skipped: Counter | None = None
) -> Dataset:
    """
    All K responses of scored rows, one per row, for [`~gpm_hf.training.OfflineGPOTrainer`]: the mean over these rows
    is the mean over samples of equation 5.3, for even and odd K, with one encode per response. Pairs cannot give it
    as cheaply: an odd K does not split into pairs, and in all K(K-1)/2 pairs each response is read K - 1 times.

    Args:
        rows, skipped: as in [`select_pairs`].
        with_policy_log_probs: add the column `ref_logps` from `policy_log_probs`, see [`select_pairs`].

    Returns:
        `prompt`, `completion` (chat messages), `score` (mean log-odds), `probability` (mean win probability); where
        the rows have sampled ids also `prompt_ids`, `completion_ids` and `tokenizer_digest`.

    Raises:
        ValueError: a malformed row (the message names it; the first is row 0), or nothing is left.
    """
    counts: Counter = Counter()
    samples = []
    for group in scored_groups(rows, counts):
        for i, text in enumerate(group.responses):
            sample = {
                "prompt": group.prompt,
                "completion": _reply(text),
                "score": float(group.mean_scores[i]),
                "probability": float(group.mean_probabilities[i]),
            }
            if with_policy_log_probs:
                sample["ref_logps"] = _log_probs(group)[i]
            samples.append(sample | _id_columns(group, completion=i))
    _report(counts, skipped, bool(samples), "be learned from")
    return Dataset.from_list(samples)


def select_rows(rows: Iterable[Mapping[str, Any]], selection: str, with_policy_log_probs: bool = False) -> Dataset:
    """[`select_pairs`] by a rule, or [`all_responses`]: one of `SELECTIONS`."""
    if selection == "all_responses":
        return all_responses(rows, with_policy_log_probs)
    return select_pairs(rows, selection, with_policy_log_probs)


def _report(counts: Counter, skipped: Counter | None, any_left: bool, purpose: str) -> None:
    counts = +counts  # reasons that occurred
    told = ", ".join(f"{number} {reason}" for reason, number in sorted(counts.items()))
    if skipped is not None:
        skipped.update(counts)
    if not any_left:
        raise ValueError(f"No row is left that could {purpose}. Left out: {told or 'nothing; there were no rows'}.")
    if told:
        logger.warning(f"Left out: {told}.")


# --- pairs -----------------------------------------------------------------------------------------------------------


def _ties(group: ScoredGroup, i: int, j: int, difference: float) -> bool:
    return bool(difference <= TIE * np.abs(group.scores).max()) or group.responses[i] == group.responses[j]


def _best_and_worst(group: ScoredGroup, counts: Counter) -> list[tuple[int, int]]:
    best, worst = int(group.mean_scores.argmax()), int(group.mean_scores.argmin())
    gap = group.mean_scores[best] - group.mean_scores[worst]
    return [] if _ties(group, best, worst, gap) else [(best, worst)]


def _winner_and_worst_reply(group: ScoredGroup, counts: Counter) -> list[tuple[int, int]]:
    scale = np.abs(group.scores).max()
    if scale == 0:
        return []
    chosen = int(select(group.scores, "von_neumann"))
    # By how much the mixed strategy wins against each; within a cycle it wins nothing, up to rounding.
    wins = (von_neumann_winner(group.scores) @ group.scores / scale).round(9)
    direct = group.scores[chosen]
    order = [int(i) for i in np.lexsort((-direct, -wins)) if i != chosen]
    rejected = order[0]
    gap = max(wins[rejected] * scale, direct[rejected])
    return [] if _ties(group, chosen, rejected, gap) else [(chosen, rejected)]


def _all_pairs(group: ScoredGroup, counts: Counter) -> list[tuple[int, int]]:
    found = []
    for i, j in combinations(range(len(group.responses)), 2):
        if _ties(group, i, j, abs(group.scores[i, j])):
            counts["pairs of equals"] += 1
        else:
            found.append((i, j) if group.scores[i, j] > 0 else (j, i))
    return found


_PAIRS_BY_RULE = {"mean": _best_and_worst, "von_neumann": _winner_and_worst_reply, "all": _all_pairs}


def _pair_row(
    group: ScoredGroup, chosen: int, rejected: int, rule: str, with_policy_log_probs: bool
) -> dict[str, Any]:
    preference = float(sigmoid(group.scores[chosen, rejected]))
    row: dict[str, Any] = {"prompt": group.prompt}
    for side, index in (("chosen", chosen), ("rejected", rejected)):
        row[side] = _reply(group.responses[index])
        row[f"{side}_score"] = float(group.mean_scores[index])
        row[f"{side}_probability"] = float(group.mean_probabilities[index])
        if with_policy_log_probs:
            row[f"ref_{side}_logps"] = _log_probs(group)[index]
    row["preference_probability"] = preference
    if rule == "all":
        row["weight"] = 2 * preference - 1
    return row | _id_columns(group, chosen=chosen, rejected=rejected)


def _id_columns(group: ScoredGroup, **sides: int) -> dict[str, Any]:
    """The sampled ids of some of the responses, by what a trainer's row calls them."""
    if group.ids is None:
        return {}
    ids = {f"{side}_ids": group.ids.response_ids[index] for side, index in sides.items()}
    return {"prompt_ids": group.ids.prompt_ids, **ids, "tokenizer_digest": group.ids.tokenizer_digest}


def _reply(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _log_probs(group: ScoredGroup) -> list[float]:
    if group.log_probs is None:
        raise ValueError(f"{group.name} has no `policy_log_probs`, which were asked for.")
    if not np.isfinite(group.log_probs).all():
        raise ValueError(f"{group.name}: `policy_log_probs` are not all finite: {group.log_probs}.")
    return group.log_probs
