"""Results of evaluations, kept in a model's folder and tied to the model that they were measured on."""

import json
from pathlib import Path
from typing import Any

from gpm_hf.files import report_text, written_whole
from gpm_hf.identity import model_digest

RESULTS_FOLDER = "results"


def save_result(
    path: str | Path,
    model: str | Path,
    evaluation: str,
    data: str,
    result: dict[str, Any],
    picture: str | Path | None = None,
    dataset: dict[str, str] | None = None,
) -> None:
    """
    Writes the result of an evaluation. In `FOLDER/results/` of the model's own folder its card picks it up.

    Args:
        path: the JSON file.
        model: the model's folder, whose files the result is tied to, or a Hub id, which is only named.
        evaluation: "cyclic", "rewardbench", ...
        data: name of the data.
        result: shares and counts, as JSON can hold them.
        picture: a picture of the result; the card shows it where it lies beside the result.
        dataset: the same as `data` for leaderboards, see [`dataset_of`]; `None` for several data sets at once.
    """
    local = Path(model).is_dir()
    found = {
        "evaluation": evaluation,
        "model": Path(model).name if local else str(model),
        "model_sha256": model_digest(model) if local else None,
        "data": data,
        "result": result,
    }
    if dataset is not None:
        found["dataset"] = dataset
    if picture is not None:
        found["picture"] = Path(picture).name
    with written_whole(path) as file:
        file.write(report_text(found, indent=1))


def dataset_of(source: str, config: str | None = None, split: str | None = None) -> dict[str, str]:
    """
    A data set as a model's metadata names it: `name`, and where there are such `id` (Hub), `config` and `split`.
    A file has no split.
    """
    local = Path(source).exists()
    found = {"name": Path(source).name if local else source}
    if not local:
        found["id"] = source
    if config:
        found["config"] = config
    if split and not Path(source).is_file():
        found["split"] = split
    return found


def load_results(folder: str | Path) -> list[dict[str, Any]]:
    """
    The results in a model's folder.

    Raises:
        ValueError: a result that was measured on another model than the folder's, or that has another form.
    """
    paths = sorted((Path(folder) / RESULTS_FOLDER).glob("*.json"))
    if not paths:
        return []
    digest = model_digest(folder)
    results = []
    for path in paths:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not {"evaluation", "model_sha256", "data", "result"} <= found.keys():
            raise ValueError(
                f"{path} is no result of one model, as `gpm-hf eval ... --output` writes it for one scorer; a "
                "comparison of several is not what a card states. Keep it in another folder."
            )
        if found["model_sha256"] != digest:
            raise ValueError(
                f"{path} was not measured on the model in {folder}: its weights, configuration, tokenizer, code or "
                "(of an adapter) base were others. A card states only what was measured on its model: evaluate "
                "again, or remove the file."
            )
        results.append(found)
    return results
