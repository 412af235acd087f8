"""
What a training run was and measured, kept beside its model and tied to its weights, so that a card can be written from
it at any time.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpm_hf.files import report_text, written_whole
from gpm_hf.identity import weights_digest
from gpm_hf.modeling import GPMConfig

RECORD_FILE = "gpm_run.json"


@dataclass
class RunRecord:
    """
    A run, as its card tells it. Nothing here is a guess: what is not known is empty.

    Attributes:
        kind: "preference_model" or "policy".
        base_model, base_revision: Hub id and commit of what was trained; empty for a local folder.
        datasets: one `{"name", "revision"}` per data set; the name of a local file without its folder.
        settings: what distinguishes the model, by readable name.
        hyperparameters: of the optimisation.
        metrics: measured by the run itself, by readable name; `None` for what was not finite.
        hardware: in plain words.
        versions: of the libraries.
        tags: for the Hub.
        plots: files beside the model and their captions, shown in the card and uploaded with it.
        license: the base model's licence, as the Hub calls it, once somebody has named it.
        card_sha256: of the card as it was last written, so that a card edited by hand is told from it.
        weights_sha256: of the weights that it is about, see [`~gpm_hf.identity.weights_digest`]; empty for none.
    """

    kind: str
    base_model: str = ""
    base_revision: str = ""
    datasets: list[dict[str, str]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float | None] = field(default_factory=dict)
    hardware: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    plots: dict[str, str] = field(default_factory=dict)
    license: str | None = None
    card_sha256: str = ""
    weights_sha256: str = ""

    def save(self, folder: str | Path) -> None:
        """Writes the record into a model's folder."""
        with written_whole(Path(folder) / RECORD_FILE) as file:
            file.write(report_text(asdict(self), indent=1))

    @classmethod
    def load(cls, folder: str | Path) -> "RunRecord":
        """
        Reads the record of a model's folder.

        Raises:
            FileNotFoundError: where there is none.
            ValueError: where the weights in the folder are others than the run's.
        """
        path = Path(folder) / RECORD_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} has no {RECORD_FILE}, so nothing is known of the run that made it. The trainers of this "
                "package write it with the card; for another model write the card by hand."
            )
        record = cls(**json.loads(path.read_text(encoding="utf-8")))
        if record.weights_sha256 and record.weights_sha256 != weights_digest(folder):
            raise ValueError(
                f"{path} is about other weights than those in {folder}: another model was saved over the one that the "
                f"run made. Remove {RECORD_FILE} and its card README.md, or put back the run's weights."
            )
        return record


def preference_model_settings(config: GPMConfig) -> dict[str, Any]:
    """What distinguishes a preference model, by readable name."""
    return {
        "backbone": config.text_config.model_type,
        "embedding dimension": config.embedding_dim,
        "scale gate": config.gate_activation if config.scale_gate else "none",
        "unit-norm embeddings (L2)": config.normalize_embeddings,
        "reward head": config.reward_head,
        "tau": config.tau,
        "prompt format": config.prompt_format,
        "date in the chat template": config.template_date,
    }
