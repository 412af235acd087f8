"""Model cards, written from what lies in a model's folder: its configuration, the record of its run, results."""

import hashlib
import json
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers.utils import ADAPTER_CONFIG_NAME, CONFIG_NAME

from gpm_hf.files import written_whole
from gpm_hf.hub.escaping import address, code, literal, plain, shell_word, with_code
from gpm_hf.hub.record import RunRecord
from gpm_hf.hub.results import RESULTS_FOLDER, load_results
from gpm_hf.modeling import check_one_model
from gpm_hf.modeling.configuration_gpm import MINIMUM_TRANSFORMERS
from gpm_hf.tables import markdown_table
from gpm_hf.templates import card_template

_TEMPLATES = {"preference_model": "preference_model.md", "policy": "policy.md"}
# How the Hub sorts a model, and what its page shows to be tried.
_PIPELINES = {"preference_model": "text-ranking", "policy": "text-generation"}
_QUESTION = "How do I keep basil alive on a windowsill?"
_WIDGETS: dict[str, list[dict[str, Any]]] = {
    "preference_model": [{"text": _QUESTION}],
    "policy": [{"messages": [{"role": "user", "content": _QUESTION}]}],
}


def write_card(
    folder: str | Path,
    repo: str | None = None,
    license: str | None = None,
    results: list[dict[str, Any]] | None = None,
) -> Path:
    """
    Writes `README.md` into a folder of a saved model, from its configuration, the record of its run and the results of
    evaluations in `results/`. Only what was measured on these weights is stated.

    Args:
        folder: a preference model, an adapter of one, or an aligned policy, as the trainers save them.
        repo: the Hub id under which it can be loaded. Default: the folder's name, without where it is.
        license: the base model's licence, as the Hub calls it; remembered.
        results: what to state, by default what lies in `results/`. A trainer states none: that is of earlier weights.

    Returns:
        The file's path.

    Raises:
        FileNotFoundError: a folder without a record or a configuration.
        ValueError: a folder with the weights of two models, a record or results of other weights, or a record of an
            unknown kind.
    """
    folder = Path(folder)
    check_one_model(folder)
    record, results = RunRecord.load(folder), load_results(folder) if results is None else results
    if record.kind not in _TEMPLATES:
        raise ValueError(f"{folder} holds a {record.kind!r}; there are cards for {sorted(_TEMPLATES)}.")
    license = record.license = license or record.license
    name = (repo or folder.resolve().name).split("/")[-1]
    adapter = _read_json(folder / ADAPTER_CONFIG_NAME)
    config = _read_json(folder / CONFIG_NAME)
    data = ModelCardData(
        library_name="peft" if adapter else "transformers",
        pipeline_tag=_PIPELINES[record.kind],
        widget=_WIDGETS[record.kind],
        base_model=record.base_model or None,
        base_model_relation="adapter" if adapter and record.base_model else None,
        license=license,
        datasets=sorted({one["name"] for one in record.datasets if "/" in one["name"]}) or None,
        tags=sorted(record.tags),
        model_name=name,
        eval_results=_model_index(results),
    )
    metrics = {name: "not finite" if value is None else f"{value:.4g}" for name, value in record.metrics.items()}
    card = ModelCard.from_template(
        data,
        template_path=card_template(_TEMPLATES[record.kind]),
        model_name=plain(name),
        repo=literal(repo or folder.resolve().name),
        repo_word=shell_word(repo or folder.resolve().name),
        base=record.base_model and code(record.base_model),
        base_literal=literal(record.base_model or "BASE_MODEL"),
        base_revision=record.base_revision and code(record.base_revision),
        preference=with_code(record.settings.get("preference", "")),
        method=record.settings.get("method"),
        converted_from=with_code(record.settings.get("converted from", "")),
        transformers=".".join(map(str, MINIMUM_TRANSFORMERS)),
        base_is_preference_model=bool(adapter) and record.settings.get("adapter of") == "a preference model",
        is_adapter=bool(adapter),
        is_bradley_terry=config.get("embedding_dim") == 1,
        embedding_dim=config.get("embedding_dim"),
        prompt_format=config.get("prompt_format"),
        prompt_format_code=code(config.get("prompt_format", "")),
        template_date=config.get("template_date") and code(config["template_date"]),
        dtype=config.get("dtype") and plain(config["dtype"]),
        rounding=_rounding(config),
        settings=_table("setting", record.settings),
        data_sources=[
            code(one["name"]) + (f", revision {code(one['revision'])}" if one["revision"] else "")
            for one in record.datasets
        ],
        hyperparameters=_table("hyper-parameter", record.hyperparameters),
        metrics=_table("metric", metrics) if metrics else "",
        results=_result_tables(results),
        plots=_shown(folder, record.plots),
        result_plots=_shown(folder, _pictures_of(results)),
        hardware=plain(record.hardware),
        versions=plain(", ".join(f"{library} {number}" for library, number in record.versions.items())),
        license=license and code(license),
    )
    with written_whole(folder / "README.md") as file:
        file.write(str(card))
    record.card_sha256 = _digest(folder / "README.md")
    record.save(folder)
    return folder / "README.md"


def card_was_edited(folder: str | Path) -> bool:
    """Whether somebody has changed the card since [`write_card`] wrote it."""
    path = Path(folder) / "README.md"
    return path.is_file() and _digest(path) != RunRecord.load(folder).card_sha256


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pictures(folder: Path, record: RunRecord, results: list[dict[str, Any]]) -> dict[str, str]:
    """The pictures that a folder's card shows, and their captions: those of its run and of its results."""
    found = record.plots | _pictures_of(results)
    return {file: caption for file, caption in found.items() if (folder / file).is_file()}


def _pictures_of(results: list[dict[str, Any]]) -> dict[str, str]:
    return {
        f"{RESULTS_FOLDER}/{Path(one['picture']).name}": f"{code(one['evaluation'])} on {code(one['data'])}"
        for one in results
        if "picture" in one
    }


def _shown(folder: Path, plots: dict[str, str]) -> list[tuple[str, str]]:
    """Address and caption of each picture that is there, for the template."""
    return [(address(file), with_code(caption)) for file, caption in plots.items() if (folder / file).is_file()]


def _table(header: str, rows: dict[str, Any]) -> str:
    return markdown_table([header, "value"], [(with_code(name), with_code(value)) for name, value in rows.items()])


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _model_index(results: list[dict[str, Any]]) -> list[EvalResult] | None:
    """Every share of every result, as the Hub's leaderboards read them, with its 95% interval."""
    found = []
    for one in results:
        # A file of somebody's own is no data set of the Hub, and its name is no id of one.
        dataset = one.get("dataset") or {"name": one["data"]}
        for metric, value in one["result"].items():
            if metric.endswith("accuracy") and isinstance(value, (int, float)):
                interval = one["result"].get(f"{metric}_interval")
                found.append(
                    EvalResult(
                        task_type="text-ranking",
                        task_name=f"Preference ({one['evaluation']})",
                        dataset_type=dataset.get("id", "unknown"),
                        dataset_name=dataset["name"],
                        dataset_config=dataset.get("config"),
                        dataset_split=dataset.get("split"),
                        metric_type="accuracy",
                        metric_name=metric.replace("_", " "),
                        metric_value=round(value, 6),
                        metric_args={"interval_95": interval} if interval and None not in interval else None,
                    )
                )
    return found or None


def _result_tables(results: list[dict[str, Any]]) -> str:
    parts = []
    for one in results:
        rows = []
        for metric, value in one["result"].items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            interval = one["result"].get(f"{metric}_interval")
            spread = (
                f" (95% interval {interval[0]:.4g} to {interval[1]:.4g})" if interval and None not in interval else ""
            )
            rows.append((plain(metric.replace("_", " ")), f"{value:.4g}{spread}"))
        parts.append(
            f"{code(one['evaluation'])} on {code(one['data'])}:\n\n{markdown_table(['metric', 'value'], rows)}"
        )
    return "\n\n".join(parts)


def _rounding(config: dict[str, Any]) -> str:
    """How far a preference model's log-odds move with the batch in the type it is stored in, where that is known."""
    from gpm_hf.modeling import GPMConfig, rounding_bound

    if config.get("model_type") != GPMConfig.model_type or "dtype" not in config:
        return ""
    # Of the heads alone: a backbone may be known to code only that is not run here.
    heads = GPMConfig.from_dict({**config, "text_config": {"model_type": "llama"}})
    bound = rounding_bound(heads, config["dtype"])
    return "" if bound is None else f"{bound:.2g}"
