"""`gpm-hf eval win-rates`, `alpaca`, `mt-bench` and `lm-eval`: policies, by the answers that they gave."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpm_hf.cli.evaluation_scorers import load_scorers, scoring_options, store_of
from gpm_hf.cli.outputs import writes
from gpm_hf.files import refuse_existing, report_text, write_rows, written_whole
from gpm_hf.hub.local_paths import without_paths

if TYPE_CHECKING:
    from gpm_hf.evaluation.reports.policy_answers import PolicyAnswers
    from gpm_hf.evaluation.reports.win_rates import WinRates
    from gpm_hf.ratings.report import RatingsReport


def add_kinds(kinds: Any) -> None:
    """Adds the kinds to those of `gpm-hf eval`."""
    win_rates = _judged(
        kinds, "win-rates", "policies against each other: win rates, lengths, the game between them", _win_rates
    )
    win_rates.add_argument(
        "--baseline", metavar="NAME", help="one of the policies: win rates against it, as cards have"
    )
    win_rates.add_argument("--questions", metavar="FILE", help="the answers are FastChat's to this question.jsonl")
    win_rates.add_argument("--tokenizer", metavar="MODEL", help="mean lengths in this model's tokens as well")
    win_rates.add_argument(
        "--card",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="the answers of the policy NAME are those of the weights in FOLDER: its win rate against the baseline "
        "goes to FOLDER/results, where its card picks it up",
    )
    win_rates.add_argument(
        "--ratings",
        action="store_true",
        help="also rate the policies by Bradley-Terry, by a reward with a block and by blocks alone, and say which of "
        "these the judgements support and whether cycles are more than noise",
    )
    win_rates.add_argument("--picture", help="a PNG file: the axis of the ranking, and the plane of what it leaves")
    alpaca = _judged(
        kinds,
        "alpaca",
        "AlpacaEval's length-controlled win rate, with any scorer for a judge (needs gpm-hf[judge])",
        _alpaca,
    )
    alpaca.add_argument("--baseline", metavar="NAME", required=True, help="one of the policies")
    alpaca.add_argument(
        "--annotations", metavar="FOLDER", help="keep the judgements in AlpacaEval's format, FOLDER/POLICY.json"
    )
    mt_bench = kinds.add_parser(
        "mt-bench",
        help="a policy's answers to MT-Bench, for FastChat's judge",
        description="Turns a policy's answers to MT-Bench into the file that FastChat's judge reads. While turns are "
        "left to answer, writes their prompts. The judge itself is FastChat's (fschat[llm_judge]), with its own "
        "data/judge_prompts.jsonl, data/mt_bench/question.jsonl and data/mt_bench/reference_answer/gpt-4.jsonl, and "
        "an API key of the judging model.",
    )
    mt_bench.add_argument("answers", nargs="*", metavar="FILE", help="the policy's answers, of all turns so far")
    mt_bench.add_argument("--questions", metavar="FILE", required=True, help="FastChat's question.jsonl")
    mt_bench.add_argument("--model-id", required=True, help="the policy's name for the judge")
    mt_bench.add_argument(
        "--output", metavar="FOLDER", required=True, help="FastChat's data/mt_bench, or one laid out as it is"
    )
    mt_bench.add_argument("--overwrite", action="store_true", help="replace the file for the judge")
    mt_bench.set_defaults(run=_mt_bench)
    lm_eval = kinds.add_parser(
        "lm-eval",
        help="GSM8K, MMLU and other tasks by the LM evaluation harness (needs gpm-hf[judge])",
        description="Runs tasks of the LM evaluation harness on a policy or its LoRA adapter.",
    )
    lm_eval.add_argument("model", help="Hub id or folder of a causal language model, or folder of its LoRA adapter")
    lm_eval.add_argument("--tasks", required=True, help="names, separated by commas: gsm8k,mmlu")
    lm_eval.add_argument("--num-fewshot", type=int, help="examples in the prompt (default: the task's own number)")
    lm_eval.add_argument("--batch-size", default="1", help="a number or auto")
    lm_eval.add_argument("--limit", type=int, help="only so many examples of each task, the first")
    lm_eval.add_argument("--apply-chat-template", action="store_true", help="ask as the chat template has it")
    lm_eval.add_argument("--include-path", metavar="FOLDER", help="task files of your own")
    lm_eval.add_argument("--dtype", default="auto", help="float32, bfloat16, ... (default: as saved)")
    lm_eval.add_argument("--device", help="cpu, cuda, ... (default: a GPU where there is one)")
    lm_eval.add_argument("--output", help="a JSON file for the numbers; in MODEL/results the card picks them up")
    lm_eval.add_argument("--format", choices=["text", "json"], default="text")
    writes(lm_eval, lambda options: [options.output], evaluation="lm-eval")
    lm_eval.set_defaults(run=_lm_eval)


def _judged(kinds: Any, name: str, text: str, run: Any) -> argparse.ArgumentParser:
    """A command that reads files of answers and has a scorer for a judge."""
    parser = kinds.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument(
        "policies",
        nargs="+",
        metavar="NAME=FILE",
        help="a policy's answers: JSON with `instruction` and `output` (AlpacaEval's format, `gpm-hf answer`) or JSON "
        "Lines with `prompt` and `response`; without NAME= the policy has the name that its file says",
    )
    parser.add_argument(
        "--scorer",
        dest="scorers",
        nargs=1,
        required=True,
        metavar="SCORER",
        help="the judge: gpm:NAME, reward:NAME, pair:NAME, judge:NAME, as in `gpm-hf eval pairs`",
    )
    parser.add_argument("--store", metavar="FOLDER", help="keep scores here, by which a run that was stopped goes on")
    scoring_options(parser)
    parser.add_argument("--output", help="a JSON file for all numbers")
    writes(parser, _outputs, evaluation="alpaca-eval" if name == "alpaca" else name)
    parser.set_defaults(run=run)
    return parser


def _outputs(options: argparse.Namespace) -> list[Any]:
    names = [Path(given.partition("=")[2], "results", "win_rates.json") for given in vars(options).get("card", [])]
    return [options.output, vars(options).get("picture"), *names]


def _win_rates(options: argparse.Namespace) -> None:
    from gpm_hf.evaluation.reports.win_rates import cycle_lines, empty_line, policy_table, win_rate_table

    policies = _policies(options)
    cards = _card_folders(options, [policy.name for policy in policies])
    result = _measure(options, policies)
    answer = result.to_dict(options.baseline)
    ratings = _rated(options, result)
    if ratings is not None:
        answer["ratings"] = ratings.to_dict()
    if options.format == "json":
        print(report_text(answer))
    else:
        print(win_rate_table(result), policy_table(result, options.baseline), cycle_lines(result), sep="\n\n")
        print(
            f"\n{len(result.prompts)} prompts, judged by {result.scorer}. {_intervals_line(result)} The von "
            "Neumann winner is of the mean over prompts of P - 1/2: the mixture of policies, one drawn for each "
            f"prompt, that no policy beats. {empty_line(result)}".rstrip()
        )
        if ratings is not None:
            _print_ratings(result, ratings)
    if options.output:
        with written_whole(options.output) as file:
            file.write(report_text({"evaluation": "win-rates", "data": _data_name(result), **answer}, indent=1))
    for name, folder in cards.items():
        numbers = result.card_numbers(name, options.baseline)
        data = f"{_data_name(result)}, against {options.baseline}, judged by {without_paths(options.scorers[0])}"
        from gpm_hf.hub.results import save_result

        save_result(folder / "results" / "win_rates.json", folder, "win-rates", data, numbers)


def _rated(options: argparse.Namespace, result: "WinRates") -> "RatingsReport | None":
    if not (options.ratings or options.picture):
        return None
    from gpm_hf.evaluation.reports.policy_ratings import rate_policies

    report = rate_policies(result)
    if options.picture:
        from gpm_hf.evaluation.plots.rating_plots import plot_ratings

        plot_ratings(options.picture, report, f"{len(result.policies)} policies, judged by {result.scorer}")
    return report


def _print_ratings(result: "WinRates", report: "RatingsReport") -> None:
    from gpm_hf.evaluation.reports.policy_ratings import policy_rating_table
    from gpm_hf.ratings.report import model_table, sentences

    tables = [policy_rating_table(result, report), *map(model_table, report.comparisons.values())]
    print("", *tables, "\n".join(sentences(report)), sep="\n\n")


def _intervals_line(result: "WinRates") -> str:
    from gpm_hf.evaluation.statistics.bootstrap import MIN_CLUSTERS

    if len(result.prompts) < MIN_CLUSTERS:
        return f"No intervals: at least {MIN_CLUSTERS} prompts are needed."
    return "Intervals: 95%, over prompts."


def _card_folders(options: argparse.Namespace, names: list[str]) -> dict[str, Path]:
    """By policy."""
    if options.card and not options.baseline:
        raise ValueError("--card states a win rate against a baseline: name it by --baseline.")
    found: dict[str, Path] = {}
    for given in options.card:
        name, equals, folder = given.partition("=")
        if not equals or not name or not folder:
            raise ValueError(f"--card {given}: give NAME=FOLDER.")
        if name not in names or name == options.baseline:
            raise ValueError(f"--card {given}: {name!r} is none of the policies that are compared with the baseline.")
        from gpm_hf.identity import model_digest

        model_digest(folder)
        found[name] = Path(folder)
    return found


def _data_name(result: "WinRates") -> str:
    return f"answers to {len(result.prompts)} prompts"


def _policies(options: argparse.Namespace, as_alpaca: bool = False) -> list["PolicyAnswers"]:
    """
    The files, read before the scorer is loaded, so that what is wrong with them is said at once. As AlpacaEval has
    them the baseline, whose file has the benchmark's order, is first, and the others may lack answers.
    """
    from gpm_hf.evaluation.reports.policy_answers import on_prompts_of, same_prompts

    policies = _read_policies(options)
    names = [policy.name for policy in policies]
    if options.baseline and options.baseline not in names:
        raise ValueError(f"--baseline {options.baseline} is none of the policies {', '.join(names)}.")
    if as_alpaca:
        policies.sort(key=lambda policy: policy.name != options.baseline)
        policies = [on_prompts_of(policies[0], policy) for policy in policies]
    return same_prompts(policies)


def _measure(options: argparse.Namespace, policies: list["PolicyAnswers"]) -> "WinRates":
    from gpm_hf.evaluation.reports.win_rates import measure_win_rates

    count_tokens = None
    if vars(options).get("tokenizer"):
        from gpm_hf.scoring import load_tokenizer

        count_tokens = _token_counter(load_tokenizer(options.tokenizer))
    (scorer,) = load_scorers(options)
    return measure_win_rates(
        policies, scorer, options.chunk_size, store_of(options, scorer), progress=True, count_tokens=count_tokens
    )


def _token_counter(tokenizer: Any) -> Callable[[str], int]:
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _read_policies(options: argparse.Namespace) -> list["PolicyAnswers"]:
    from gpm_hf.evaluation.benchmarks.mt_bench import read_fastchat_answers, read_questions
    from gpm_hf.evaluation.reports.policy_answers import read_answers

    found = []
    questions = read_questions(options.questions) if vars(options).get("questions") else None
    for given in options.policies:
        name, equals, path = given.partition("=")
        name, path = (name, path) if equals else ("", given)
        found.append(
            read_answers(path, name or None)
            if questions is None
            else read_fastchat_answers(path, questions, name or None)
        )
    return found


def _alpaca(options: argparse.Namespace) -> None:
    from gpm_hf.evaluation.benchmarks.alpaca_eval_judge import (
        alpaca_eval_annotations,
        alpaca_eval_metrics,
        prepare_alpaca_eval,
    )
    from gpm_hf.tables import markdown_table

    policies = _policies(options, as_alpaca=True)
    instructions = policies[0].prompts
    prepare_alpaca_eval(instructions)
    result = _measure(options, policies)
    annotations = {name: alpaca_eval_annotations(result, name, options.baseline) for name in result.policies[1:]}
    if options.annotations:
        for name, rows in annotations.items():
            with written_whole(Path(options.annotations) / f"{name}.json") as file:
                json.dump(rows, file, indent=1, ensure_ascii=False)
    metrics = {name: alpaca_eval_metrics(rows, instructions) for name, rows in annotations.items()}
    answer = {"scorer": result.scorer, "baseline": options.baseline, "policies": metrics}
    if options.format == "json":
        print(report_text(answer))
    else:
        columns = ["length_controlled_winrate", "win_rate", "standard_error", "avg_length"]
        cells = [[name, *[f"{found[column]:.2f}" for column in columns]] for name, found in metrics.items()]
        print(markdown_table(["policy", *[column.replace("_", " ") for column in columns]], cells))
        print(f"\nAgainst {options.baseline}, judged by {result.scorer}: no entry of AlpacaEval's leaderboard.")
        for name, found in metrics.items():
            lacking = len(instructions) - len(annotations[name])
            if lacking or found["n_empty"]:
                print(
                    f"{name}: {found['n_empty']:.0f} answers without text, which lose; {lacking} instructions without "
                    "an answer, left out."
                )
    if options.output:
        with written_whole(options.output) as file:
            file.write(report_text({"evaluation": "alpaca-eval", **answer}, indent=1))


def _mt_bench(options: argparse.Namespace) -> None:
    from gpm_hf.evaluation.benchmarks.mt_bench import answers_by_turn, next_prompts, read_questions, write_fastchat
    from gpm_hf.evaluation.reports.policy_answers import PolicyAnswers, read_answers

    questions = read_questions(options.questions)
    answers = PolicyAnswers(options.model_id, [], [], [])
    for path in options.answers:
        one = read_answers(path, options.model_id)
        answers.prompts += one.prompts
        answers.responses += one.responses
        answers.rows += one.rows
    found = answers_by_turn(questions, answers)
    left = next_prompts(questions, found)
    if left:
        path = Path(options.output) / f"{options.model_id}.prompts.jsonl"
        write_rows(path, left)
        print(
            f"{len(left)} of {len(questions)} questions have turns left to answer; the next prompts are in {path}. "
            "Answer them, and give those answers too."
        )
        return
    path = Path(options.output) / "model_answer" / f"{options.model_id}.jsonl"
    refuse_existing(path, options.overwrite)
    write_fastchat(path, options.model_id, questions, found)
    print(
        f"The answers to {len(questions)} questions are in {path}. In FastChat's fastchat/llm_judge, with its data/: "
        f"python gen_judgment.py --model-list {options.model_id} --judge-model gpt-4"
    )


def _lm_eval(options: argparse.Namespace) -> None:
    from gpm_hf.evaluation.benchmarks.lm_eval_tasks import run_lm_eval
    from gpm_hf.tables import markdown_table

    tasks = [name.strip() for name in options.tasks.split(",") if name.strip()]
    given = {"num_fewshot": options.num_fewshot, "limit": options.limit, "device": options.device}
    scores = run_lm_eval(
        options.model,
        tasks,
        options.include_path,
        options.dtype,
        batch_size=options.batch_size,
        apply_chat_template=options.apply_chat_template,
        **{name: value for name, value in given.items() if value is not None},
    )
    if not scores:
        return
    numbers: dict[str, Any] = {}
    for score in scores:
        numbers[score.name] = score.value
        if score.interval:
            numbers[f"{score.name}_interval"] = score.interval
    if options.format == "json":
        print(report_text(numbers))
    else:
        errors = ["" if score.standard_error is None else f"{score.standard_error:.4f}" for score in scores]
        ends = ["" if score.interval is None else "{:.4f} to {:.4f}".format(*score.interval) for score in scores]
        rows = [[score.name, f"{score.value:.4f}", *rest] for score, *rest in zip(scores, errors, ends)]
        print(markdown_table(["task", "value", "standard error", "95% interval"], rows))
    if options.output:
        parts = [
            *tasks,
            f"{options.num_fewshot} examples in the prompt" if options.num_fewshot is not None else None,
            f"first {options.limit} of each" if options.limit else None,
            "with the chat template" if options.apply_chat_template else None,
        ]
        from gpm_hf.hub.results import save_result

        save_result(options.output, options.model, "lm-eval", ", ".join(filter(None, parts)), numbers)
