"""`gpm-hf eval ...`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpm_hf.cli import evaluation_best_of, evaluation_pairs, evaluation_policies, recipes
from gpm_hf.cli.common import load_model, model_command
from gpm_hf.cli.outputs import writes
from gpm_hf.files import report_text

if TYPE_CHECKING:
    from gpm_hf.evaluation.benchmarks.ring_accuracy import CyclicResult


def add_commands(commands: Any) -> None:
    """Adds the commands to the parser's."""
    evaluate = commands.add_parser("eval", help="measure models on a data set, or a recipe's choices")
    kinds = evaluate.add_subparsers(dest="kind", required=True)
    cyclic = model_command(kinds, "cyclic", "cyclic preferences: pairs right, whole cycles right", _cyclic)
    cyclic.add_argument(
        "--dataset",
        required=True,
        help="Hub data set, folder or file: rings (`prompt`, `responses` in ring order, `ring: true`) or pairs "
        "(`prompt`, `chosen`, `rejected`, `cycle_id`, `edge`)",
    )
    cyclic.add_argument("--config", help="the data set's configuration, such as no_honesty")
    cyclic.add_argument("--split", default="train")
    cyclic.add_argument("--keep", metavar="COLUMN=VALUE", help="only the rows whose column has this value")
    cyclic.add_argument("--output", help="a JSON file for the numbers; in MODEL/results the card picks them up")
    cyclic.add_argument("--picture", help="a PNG file: learned cycles in the preference plane")
    writes(cyclic, lambda options: [options.output, options.picture], evaluation="cyclic")
    evaluation_pairs.add_kinds(kinds)
    evaluation_best_of.add_kinds(kinds)
    evaluation_policies.add_kinds(kinds)
    recipes.add_ablation(kinds)


def _cyclic(options: argparse.Namespace) -> None:
    from gpm_hf.data.splits import load_splits, split_of
    from gpm_hf.evaluation.benchmarks.ring_accuracy import evaluate_cyclic, result_table

    rows = split_of(load_splits(options.dataset, options.config, keep=options.keep), options.split)
    if not {"responses"} <= set(rows.column_names) and not {"chosen", "rejected"} <= set(rows.column_names):
        raise ValueError(
            f"{options.dataset} has neither `responses` (rings) nor `chosen` and `rejected` (pairs), but "
            f"{rows.column_names}. Pairs of other forms `gpm-hf data convert` writes, and `gpm-hf eval pairs` reads."
        )
    model, tokenizer = load_model(options)
    if options.picture and model.config.is_bradley_terry:
        raise ValueError("Bradley-Terry rewards lie on a line: there is no preference plane to draw.")

    result = evaluate_cyclic(
        rows, lambda prompts, groups: model.preference_scores(tokenizer, prompts, groups, options.batch_size)
    )
    if options.format == "json":
        print(report_text(result.to_dict()))
    else:
        print(result_table({Path(options.model).name: result}))
        print(f"\n{_interval_line(result)} Largest |S + S^T|: {result.skew_error:.2g}.")
    if options.output:
        data = Path(options.dataset).name if Path(options.dataset).exists() else options.dataset
        data = ", ".join(part for part in (data, options.config, options.split, options.keep) if part)
        from gpm_hf.hub.results import dataset_of, save_result

        dataset = dataset_of(options.dataset, options.config, options.split)
        save_result(options.output, options.model, "cyclic", data, result.to_dict(), options.picture, dataset)
    if options.picture:
        _draw_cycles(options.picture, rows, model, tokenizer)
        if options.format == "text":
            print(f"The first cycles are drawn in {options.picture}.")


def _interval_line(result: "CyclicResult") -> str:
    from gpm_hf.evaluation.statistics.bootstrap import MIN_CLUSTERS, interval_text

    prompts, interval = len(result.prompts), result.interval()
    if interval is None:
        return f"No interval of the pairs: {prompts} prompts say too little, at least {MIN_CLUSTERS} are needed."
    return f"95% interval of the pairs, over {prompts} prompts: {interval_text(interval, '{:.1%} to {:.1%}')}."


def _draw_cycles(path: str, rows: Any, model: Any, tokenizer: Any, at_most: int = 9) -> None:
    """One cycle of each of the first prompts that have one."""
    from gpm_hf.cli.scoring import text_of
    from gpm_hf.evaluation.benchmarks.ring_accuracy import rings_by_prompt
    from gpm_hf.evaluation.plots.preference_plots import CyclePanel, plot_cycles
    from gpm_hf.modeling import preference_matrix

    panels = []
    for group in [group for group in rings_by_prompt(rows) if group.cycles][:at_most]:
        ring = [group.responses[better] for better, _ in group.cycles[0]]
        embeddings, scales = model.embed(tokenizer, group.prompt, ring)
        scores = preference_matrix(embeddings, scales, model.config.tau)
        # A hybrid model's rewards are one block more, which no cycle shows in.
        blocks = model.config.embedding_dim // 2
        own_scales = None if scales is None else scales[:blocks]
        texts = [text_of(response) for response in ring]
        panels.append(CyclePanel(text_of(group.prompt), embeddings[:, : 2 * blocks], own_scales, scores, texts))
    plot_cycles(path, panels)
