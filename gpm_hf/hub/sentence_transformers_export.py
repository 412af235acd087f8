"""
A preference model as a folder that engines of embeddings load without this package and without its code.

The backbone is saved as transformers' own class, and the heads as one `Dense` of sentence-transformers behind the last
token's state: sentence-transformers and vLLM run that alike (of several `Dense` modules vLLM makes a chain). What the
numbers mean is in `gpm_serving.json`, see [`gpm_hf.scoring.served_heads`].
"""

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModel
from transformers.utils import CONFIG_NAME

from gpm_hf.files import folder_written_whole
from gpm_hf.hub.escaping import plain
from gpm_hf.identity import model_identity
from gpm_hf.modeling import GPMConfig, GPMForPreference, fixed_templates
from gpm_hf.modeling.configuration_gpm import MODEL_OPTIONS
from gpm_hf.modeling.remote_backbone_gpm import is_remote
from gpm_hf.scoring import (
    SETTINGS_FILE,
    ServedHeads,
    load_preference_model,
    load_tokenizer,
    served_heads,
    stacked_heads,
)
from gpm_hf.templates import card_template

POOLING_FOLDER, DENSE_FOLDER = "1_Pooling", "2_Dense"
_HEADS = "linear.weight"
# The names of before sentence-transformers 5, which later ones, vLLM and text-embeddings-inference all read.
_MODULES = (("", "Transformer"), (POOLING_FOLDER, "Pooling"), (DENSE_FOLDER, "Dense"))


def export_sentence_transformers(
    model: str,
    output: str | Path,
    dtype: str = "auto",
    overwrite: bool = False,
    name: str | None = None,
    **options: Any,
) -> ServedHeads:
    """
    Writes a preference model as a folder for sentence-transformers, vLLM (`--runner pooling`) and whatever reads such
    folders. An adapter is merged into its base, which is dequantised for it.

    Args:
        model: a Hub id or folder of a preference model or of its adapter.
        output: the folder to write; whole or not at all.
        dtype: what the backbone is stored in, and must be served in: "float32", "bfloat16" or "float16"; by default as
            the model is. The heads are float32.
        overwrite: whether a folder that holds something is replaced.
        name: how the model is called; by default the folder's name or the Hub id.
        options: for `from_pretrained` (`revision`, ...).

    Returns:
        [`~gpm_hf.scoring.served_heads.ServedHeads`]: the settings written.

    Raises:
        FileExistsError: `output` holds something, and is not to be replaced.
        ValueError: no preference model; a quantised one that is no adapter; a backbone that brings its own code; a
            chat template that is more than one.
    """
    with folder_written_whole(output, overwrite) as aside:
        loaded = load_preference_model(model, merge=True, dtype=dtype, **options)
        _check_backbone(model, loaded)
        tokenizer = load_tokenizer(model, **options)
        # Whoever renders text by this template writes the date that the model was trained with.
        tokenizer.chat_template = fixed_templates(tokenizer.chat_template, loaded.config.template_date)
        name = name or (Path(model).resolve().name if Path(model).is_dir() else model)
        settings = served_heads(loaded, tokenizer, name, model_identity(model, **options))
        loaded.model.config.name_or_path = ""
        loaded.model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        _write_modules(aside, settings)
        (aside / DENSE_FOLDER).mkdir()
        save_file({_HEADS: stacked_heads(loaded)}, aside / DENSE_FOLDER / "model.safetensors", {"format": "pt"})
        _write_json(
            aside / DENSE_FOLDER / CONFIG_NAME,
            {
                "in_features": settings.hidden_size,
                "out_features": settings.output_size,
                "bias": False,
                "activation_function": "torch.nn.modules.linear.Identity",
            },
        )
        (aside / SETTINGS_FILE).write_text(settings.to_json(), encoding="utf-8")
        _write_card(aside, settings)
    return settings


def load_export(folder: str | Path) -> tuple[GPMForPreference, ServedHeads]:
    """
    The preference model out of an exported folder, in evaluation mode, and the settings beside it.

    Raises:
        FileNotFoundError: a folder that is no export.
        ValueError: heads of other sizes than the settings say.
    """
    settings = ServedHeads.from_folder(folder)
    backbone = AutoModel.from_pretrained(folder, dtype=settings.dtype)
    config = GPMConfig(text_config=backbone.config, **{option: getattr(settings, option) for option in MODEL_OPTIONS})
    model = GPMForPreference(config, backbone).eval()
    with safe_open(Path(folder) / DENSE_FOLDER / "model.safetensors", framework="pt") as opened:
        stacked = opened.get_tensor(_HEADS)
    if stacked.shape != (settings.output_size, settings.hidden_size):
        raise ValueError(
            f"{folder}: its heads are of shape {tuple(stacked.shape)}, and {SETTINGS_FILE} says "
            f"({settings.output_size}, {settings.hidden_size}): they are of two exports."
        )
    sizes = [head.weight.shape[0] for head in model.heads().values()]
    with torch.no_grad():
        for head, weight in zip(model.heads().values(), stacked.split(sizes)):
            head.weight.copy_(weight)
    return model, settings


def _check_backbone(name: str, model: GPMForPreference) -> None:
    config = model.config.text_config
    if is_remote(config):
        raise ValueError(
            f"{name}: its backbone {config.model_type} brings its own code, which no engine runs without trust in it. "
            "Only backbones of transformers can be exported."
        )
    if "quantization_config" in {**config.to_dict(), **model.config.to_dict()}:
        raise ValueError(
            f"{name} is stored quantised, and engines would read its weights as they are. Export the model that it "
            "was quantised from; an adapter on a quantised base is merged into the dequantised one."
        )


def _write_modules(folder: Path, settings: ServedHeads) -> None:
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(_MODULES)
    ]
    _write_json(folder / "modules.json", modules)
    _write_json(folder / "config_sentence_transformers.json", {"prompts": {}, "similarity_fn_name": None})
    limit = {} if settings.max_length is None else {"max_seq_length": settings.max_length}
    _write_json(folder / "sentence_bert_config.json", {**limit, "do_lower_case": False})
    (folder / POOLING_FOLDER).mkdir()
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    pooling = {f"pooling_mode_{mode}": mode == "lasttoken" for mode in modes}
    _write_json(
        folder / POOLING_FOLDER / CONFIG_NAME,
        {"word_embedding_dimension": settings.hidden_size, **pooling, "include_prompt": True},
    )


def _write_card(folder: Path, settings: ServedHeads) -> None:
    data = ModelCardData(
        library_name="sentence-transformers", tags=["gpm-hf", "preference-model"], model_name=plain(settings.model)
    )
    card = ModelCard.from_template(
        data,
        template_path=card_template("served_model.md"),
        model_name=plain(settings.model),
        settings=settings,
    )
    (folder / "README.md").write_text(str(card), encoding="utf-8")


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")
