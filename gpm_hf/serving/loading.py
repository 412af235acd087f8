"""The model of a server, from whatever holds one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gpm_hf.hub.sentence_transformers_export import load_export
from gpm_hf.identity import model_identity
from gpm_hf.modeling import GPMForPreference
from gpm_hf.scoring import SETTINGS_FILE, ServedHeads, load_preference_model, load_tokenizer, served_heads


@dataclass
class ServedModel:
    """
    Attributes:
        model: in evaluation mode.
        tokenizer: its own.
        settings: what clients must know.
        source: the folder or Hub id, from which clients read the tokenizer.
    """

    model: GPMForPreference
    tokenizer: Any
    settings: ServedHeads
    source: str


def load_served(source: str, dtype: str = "auto", device: str | None = None, **options: Any) -> ServedModel:
    """
    Args:
        source: a Hub id or folder of a preference model or its adapter, which is merged; or an exported folder.
        dtype: as in [`~gpm_hf.hub.sentence_transformers_export.export_sentence_transformers`]; an exported folder says
            it itself.
        device: by default a GPU where there is one.
        options: for `from_pretrained` (`revision`, ...).

    Raises:
        ValueError: no preference model; an export that scores its reference group otherwise than it did.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = load_tokenizer(source, **options)
    if (Path(source) / SETTINGS_FILE).is_file():
        exported, settings = load_export(source)
        if dtype not in ("auto", settings.dtype):
            raise ValueError(f"{source} was exported in {settings.dtype}: leave --dtype {dtype} out, or export anew.")
        settings.check_tokenizer(tokenizer, source)
        return ServedModel(_placed(exported, device), tokenizer, settings, source)
    model = _placed(load_preference_model(source, merge=True, dtype=dtype, **options), device)
    name = Path(source).resolve().name if Path(source).is_dir() else source
    settings = served_heads(model, tokenizer, name, model_identity(source, **options))
    return ServedModel(model, tokenizer, settings, str(Path(source).resolve()) if Path(source).is_dir() else source)


def _placed(model: Any, device: str) -> GPMForPreference:
    return model.to(device)
