"""AlpacaEval's length-controlled win rate with any scorer for a judge, computed by the package `alpaca_eval`."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from huggingface_hub import hf_hub_download

from gpm_hf.evaluation.benchmarks.optional_packages import import_error
from gpm_hf.evaluation.reports.policy_answers import assistant_text
from gpm_hf.evaluation.reports.win_rates import WinRates
from gpm_hf.modeling import is_empty

# Of AlpacaEval's instructions as a JSON list, white space aside, in the benchmark's order: its regression finds the
# difficulty of an instruction by its place.
INSTRUCTIONS_SHA256 = "d553c99b8c7b3d9a7dc8f2767288404d374ea69848d8e5c83b09749ff46c81f9"


def alpaca_eval_annotations(result: WinRates, policy: str, baseline: str) -> list[dict[str, Any]]:
    """
    A scorer's preferences in the form of AlpacaEval's annotations.

    Args:
        result: see [`gpm_hf.evaluation.reports.win_rates.measure_win_rates`].
        policy, baseline: names of two of its policies.

    Returns:
        For each prompt `instruction`, `output_1` and `generator_1` (the baseline), `output_2` and `generator_2` (the
        policy), `annotator` and `preference`: 1 + P(the policy's answer is preferred), from 1 (the baseline's) to 2.
        A prompt that one of the two did not answer is left out, as AlpacaEval does.
    """
    a, b = result.policies.index(policy), result.policies.index(baseline)
    return [
        {
            "instruction": prompt if isinstance(prompt, str) else prompt[-1]["content"],
            "output_1": assistant_text(answers[b]),
            "generator_1": baseline,
            "output_2": assistant_text(answers[a]),
            "generator_2": policy,
            "annotator": result.scorer,
            "preference": 1 + float(probability),
        }
        for prompt, answers, probability in zip(result.prompts, result.responses, result.probabilities[:, a, b])
        if answers[a] is not None and answers[b] is not None
    ]


def prepare_alpaca_eval(instructions: Sequence[str]) -> None:
    """
    Makes sure that [`alpaca_eval_metrics`] can be computed, before hours of judging.

    Args:
        instructions: in the order in which they will be given to it.

    Raises:
        ImportError: the package is not installed.
        ValueError: other instructions than AlpacaEval's 805, or another order.
        OSError: the Hub cannot be reached, and its cache does not have the package's data.
    """
    words = [" ".join(text.split()) if isinstance(text, str) else text for text in instructions]
    if hashlib.sha256(json.dumps(words).encode()).hexdigest() != INSTRUCTIONS_SHA256:
        raise ValueError(
            f"These {len(instructions)} instructions are not AlpacaEval's 805 in the benchmark's order; its "
            "regression knows the difficulty of those alone, by place. Give the baseline's answers as AlpacaEval "
            "publishes them (alpaca_eval_gpt4_baseline.json). For other prompts `gpm-hf eval win-rates --baseline` "
            "has the win rate at the baseline's length."
        )
    try:
        from alpaca_eval import constants
        from alpaca_eval.metrics import glm_winrate  # noqa: F401
    except ImportError as error:
        raise import_error(error, "alpaca_eval", "AlpacaEval's regression") from error
    try:
        hf_hub_download(
            "tatsu-lab/alpaca_eval", "df_gamed.csv", repo_type="dataset", cache_dir=constants.DEFAULT_CACHE_DIR
        )
    except OSError as error:
        raise OSError(
            "AlpacaEval's regression needs the file df_gamed.csv, which is neither in the Hub's cache nor to be had "
            "now. Where the Hub can be reached: `hf download tatsu-lab/alpaca_eval df_gamed.csv --repo-type dataset`."
        ) from error


def alpaca_eval_metrics(
    annotations: Sequence[dict[str, Any]], instructions: Sequence[str] | None = None
) -> dict[str, float]:
    """
    AlpacaEval 2's metrics, by the package's own regression (`length_controlled_v1`). It reads the difficulty of the
    instructions, and annotations of models that were told to be brief or verbose, from `df_gamed.csv` of the Hub's
    data set `tatsu-lab/alpaca_eval`. Both come from GPT-4 Turbo's judgements against GPT-4 Turbo's answers: with
    another judge the number is AlpacaEval's computation, but no entry of its leaderboard.

    Where a policy left instructions unanswered, the others are counted, as the package does: the difficulty of an
    instruction is then that of its place among those.

    Args:
        annotations: see [`alpaca_eval_annotations`]; of AlpacaEval's instructions, in its order.
        instructions: all 805 of them, where the annotations may lack some; by default the annotations'.

    Returns:
        `length_controlled_winrate`, `win_rate`, `standard_error`, `lc_standard_error` and `discrete_win_rate`, in per
        cent; `n_total`, `n_wins`, `n_wins_base`, `n_draws`; `avg_length` of the policy's answers in characters;
        `n_empty` of them without text.

    Raises:
        ImportError, ValueError, OSError: see [`prepare_alpaca_eval`].
    """
    asked = [row["instruction"] for row in annotations]
    instructions = asked if instructions is None else list(instructions)
    prepare_alpaca_eval(instructions)
    known = iter(instructions)
    if not all(instruction in known for instruction in asked):
        raise ValueError("The annotations are not of the instructions, or in another order.")
    from alpaca_eval.metrics.glm_winrate import get_length_controlled_winrate

    # Without a folder for the weights, which by default is the package's own.
    found = get_length_controlled_winrate(list(annotations), save_weights_dir=None)
    metrics = {name: float(value) for name, value in found.items()}
    metrics["n_empty"] = sum(is_empty(row["output_2"]) for row in annotations)
    metrics["avg_length"] = sum(len(row["output_2"]) for row in annotations) / len(annotations)
    return metrics
