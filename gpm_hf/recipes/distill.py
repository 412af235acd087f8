"""
A judge made into a preference model: any scorer labels groups of responses, and a model is trained on its labels.

A judge that reads two responses at once needs K(K - 1) calls for K of them; the model that learns from it needs K
encodes, and as its labels are whole matrices it can keep the judge's cycles.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from accelerate import PartialState
from datasets import Dataset

from gpm_hf.data.columns import dataset_of_rows
from gpm_hf.data.groups import as_group
from gpm_hf.data.overlap import hold_out
from gpm_hf.data.rated_groups import is_rated, rated_group
from gpm_hf.data.splits import load_splits, split_of
from gpm_hf.evaluation.reports.agreement import Agreement, agreement, agreement_table
from gpm_hf.evaluation.reports.scored_groups import ResponseGroup, score_groups
from gpm_hf.hub.cards import write_card
from gpm_hf.hub.local_paths import without_paths
from gpm_hf.hub.results import RESULTS_FOLDER, save_result
from gpm_hf.identity import scorer_identity
from gpm_hf.preference.arrays import sigmoid
from gpm_hf.scoring import Scorer, load_scorer
from gpm_hf.scoring.load_scorer import NO_MODEL, read_description
from gpm_hf.training import GPMRewardTrainer

LABELS_FILE = "labels.jsonl"
TEST_SHARE = 0.1
_CHUNK = 16


def label_groups(
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    scorer: str,
    store: str | Path,
    options: Mapping[str, Any] | None = None,
    as_log_odds: bool = False,
) -> dict[str, Dataset]:
    """
    Labels groups of responses by a scorer, both orders of a pair averaged. Every label is stored as it is made, so a
    run that was killed goes on, and the processes of a launcher share the work.

    Args:
        rows: by split, groups (`prompt` and `responses`, at least two; see [`~gpm_hf.data.groups.as_group`]), pairs as
            groups of two, or rows of UltraFeedback's form. What else they say of who beats whom is left out.
        scorer: see [`~gpm_hf.scoring.load_scorer`].
        store: the file of the labels, see [`~gpm_hf.evaluation.reports.scored_groups.score_groups`].
        options: for [`~gpm_hf.scoring.load_scorer`] (`batch_size`, `dtype`, `revision`, ...).
        as_log_odds: label by `target_scores`, for the regression, in place of `preference_matrix`.

    Returns:
        The splits: `prompt`, `responses` and the labels, K x K probabilities or log-odds.

    Raises:
        ValueError: a row that is no group, or that the scorer refuses, naming it; a description of no scorer.
    """
    groups = {split: [_group(split, *numbered) for numbered in enumerate(own)] for split, own in rows.items()}
    everything = [group for own in groups.values() for group in own]
    state = PartialState()
    judge = _load(scorer, dict(options or {}))
    if state.num_processes > 1:
        own = everything[state.process_index :: state.num_processes]
        if own:
            score_groups(own, judge, _CHUNK, store, progress=state.is_main_process)
        state.wait_for_everyone()
    scores = iter(score_groups(everything, judge, _CHUNK, store, progress=state.is_main_process).scores)
    column = "target_scores" if as_log_odds else "preference_matrix"

    def labelled(group: ResponseGroup) -> dict[str, Any]:
        matrix = next(scores)
        # Exactly 1 together, also where one of them is too small to be told from 0.
        labels = matrix if as_log_odds else np.where(matrix > 0, 1 - sigmoid(-matrix), sigmoid(matrix))
        prompt = {} if group.prompt is None else {"prompt": group.prompt}
        return {**prompt, "responses": group.responses, column: labels.tolist()}

    return {split: dataset_of_rows([labelled(group) for group in own]) for split, own in groups.items()}


def _group(split: str, number: int, row: Mapping[str, Any]) -> ResponseGroup:
    name = f"{split}, row {number}"
    row = rated_group(row, number) if is_rated(row) else row
    if isinstance(row.get("responses"), Mapping):  # a table's has the names of all rows
        named = {key: text for key, text in row["responses"].items() if text is not None}
        row = {**row, "responses": named}
    group = as_group(dict(row), name)
    if len(group["responses"]) < 2:
        raise ValueError(f"{name}: it has {len(group['responses'])} responses: to prefer one, two are needed.")
    return ResponseGroup(name, group["prompt"], group["responses"])


def _load(spec: str, options: dict[str, Any]) -> Scorer:
    """The scorer, its name telling what its scores depend on, on this process's device."""
    kind, _ = read_description(spec, options)
    if kind not in NO_MODEL:
        options = {"device": str(PartialState().device), **options}
    told = {name: value for name, value in options.items() if name not in ("device", "batch_size")}
    hub = {"revision": options["revision"]} if "revision" in options else {}
    name = scorer_identity(spec, **hub) + (f" {json.dumps(told, sort_keys=True)}" if told else "")
    return load_scorer(spec, **{"name": name, **options})


def labelled_data(
    name: str,
    scorer: str,
    output: str | Path,
    config: str | None = None,
    keep: str | None = None,
    splits: tuple[str, str] = ("train", "test"),
    test_share: float = TEST_SHARE,
    seed: int = 42,
    options: Mapping[str, Any] | None = None,
    as_log_odds: bool = False,
) -> tuple[Dataset, Dataset]:
    """
    Groups of a data set or file, labelled: to be trained on, and held out, which is the second of `splits` where there
    is such a one, else a share of the prompts.

    Args:
        name, config, keep: see [`~gpm_hf.data.splits.load_splits`].
        scorer, options, as_log_odds: see [`label_groups`].
        output: the folder in which `labels.jsonl` keeps the labels.
        splits: to train on, and to hold out.
        test_share, seed: see [`~gpm_hf.data.overlap.hold_out`].
    """
    found = load_splits(name, config, keep)
    rows = {split: split_of(found, split) for split in dict.fromkeys(splits) if split in found or split == splits[0]}
    labelled = label_groups(rows, scorer, Path(output, LABELS_FILE), options, as_log_odds)
    if len(labelled) == 2:
        return labelled[splits[0]], labelled[splits[1]]
    return hold_out(labelled[splits[0]], test_share, seed)


def kept_of_judge(trainer: GPMRewardTrainer) -> Agreement:
    """What a trainer's model keeps of the judge that labelled its `eval_dataset`. Every process calls it."""
    held_out = cast(Dataset, trainer.eval_dataset)
    rows, log_odds = held_out.with_format(None), trainer.predict(held_out).predictions
    regression = trainer.args.loss_type == "regression"
    label = "target_score" if regression else "preference_probability"
    judge, model, place = [], [], 0
    for pairs, labels in zip(rows["pairs"], rows[label], strict=True):
        size = 1 + max(number for pair in pairs for number in pair)
        probabilities, scores = np.full((size, size), np.nan), np.zeros((size, size))
        found = log_odds[place : place + len(pairs)]
        place += len(pairs)
        values = sigmoid(np.array(labels)) if regression else np.array(labels)
        for (first, second), probability, score in zip(pairs, values, found, strict=True):
            if first != second:  # equal responses
                probabilities[first, second], probabilities[second, first] = probability, 1 - probability
                scores[first, second], scores[second, first] = score, -score
        judge.append(probabilities)
        model.append(scores)
    return agreement(judge, model)


def write_report(own: Agreement, others: Mapping[str, Agreement], folder: str | Path, scorer: str, data: str) -> str:
    """
    Writes what is kept of a judge into a saved model's folder, `results/distillation.json`, and its card.

    Args:
        own: of the folder's model.
        others: of other models on the same held-out prompts, by name.
        folder: the saved model, with the record of its run.
        scorer: the judge's description.
        data: name of the data.

    Returns:
        The table, Markdown.
    """
    found = own.to_dict() | {"judge": without_paths(scorer)}
    for name, other in others.items():
        kept = {key: value for key, value in other.to_dict().items() if "kept" in key or key == "cross_entropy"}
        found |= {f"{name}: {key}": value for key, value in kept.items()}
    path = Path(folder, RESULTS_FOLDER, "distillation.json")
    save_result(path, folder, "distillation", f"{data}, held-out prompts judged by {without_paths(scorer)}", found)
    # Not what else lies there: it may be of earlier weights.
    write_card(folder, results=[json.loads(path.read_text(encoding="utf-8"))])
    return agreement_table({"this model": own, **others})
