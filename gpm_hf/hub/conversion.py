"""
The paper authors' published checkpoints in this package's format.

Theirs is the state dict of a causal language model with `value_head.weight` and, for the scale gate,
`prompt_head.weight`; `config.json` is the language model's own. What has to be known of the weights, their names,
shapes and types, is in the files' headers, so everything is checked before a tensor is read. Then one output shard at
a time is read and written: an 8B model needs the memory of one shard.
"""

import json
import os
import re
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from functools import reduce
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download, split_torch_state_dict_into_shards
from huggingface_hub.utils import HFValidationError, validate_repo_id
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoTokenizer
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from gpm_hf.files import folder_written_whole
from gpm_hf.hub.cards import write_card
from gpm_hf.hub.record import RunRecord, preference_model_settings
from gpm_hf.identity import weights_digest
from gpm_hf.modeling import GPMConfig, GPMForPreference
from gpm_hf.modeling.loading_gpm import backbone_prefix, check_backbone

VALUE_HEAD, PROMPT_HEAD = "value_head.weight", "prompt_head.weight"
HEADS = {VALUE_HEAD: "embedding_head.weight", PROMPT_HEAD: "gate_head.weight"}
# The language model's output head, and (in old checkpoints) frequencies that follow from the configuration.
_DROPPED = re.compile(r"^lm_head\.|\.rotary_emb\.inv_freq$")
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_TOKENIZER_FILES = (
    *_VOCABULARIES,
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


@dataclass(frozen=True)
class ConversionReport:
    """
    What [`convert_reference_checkpoint`] mapped to what.

    Attributes:
        source: the folder or Hub id that was converted.
        commit: the commit of the Hub repository; `None` for a folder.
        folder: the folder written.
        model_type: the backbone's, such as "llama".
        backbone_tensors: how many tensors became `model.*`.
        heads: name in the source -> shape, (embedding_dim, hidden_size) and (embedding_dim / 2, hidden_size).
        dropped: names in the source that a preference model does not use.
        copied: the tokenizer's files.
        embedding_dim: 2k, or 1 for a Bradley-Terry reward model.
        scale_gate: whether there is a gate.
        tau: the temperature written.
        dtype: the backbone's, such as "bfloat16", in which it is stored and loaded; heads are float32.
        total_bytes: of all weights written.
        shards: number of weight files written.
    """

    source: str
    commit: str | None
    folder: Path
    model_type: str
    backbone_tensors: int
    heads: dict[str, tuple[int, ...]]
    dropped: tuple[str, ...]
    copied: tuple[str, ...]
    embedding_dim: int
    scale_gate: bool
    tau: float
    dtype: str
    total_bytes: int
    shards: int

    def __str__(self) -> str:
        source = self.source if self.commit is None else f"{self.source} at {self.commit}"
        kind = "Bradley-Terry reward model" if self.embedding_dim == 1 else "general preference model"
        gate = "with a scale gate" if self.scale_gate else "without a scale gate"
        heads = [f"  {name} {shape} -> {HEADS[name]}, in float32" for name, shape in self.heads.items()]
        size = f"{self.total_bytes / 1e9:.2f} GB" if self.total_bytes >= 1e9 else f"{self.total_bytes / 1e6:.2f} MB"
        files = "1 file" if self.shards == 1 else f"{self.shards} files"
        return "\n".join(
            [
                f"{source}: a {kind} on {self.model_type}, embedding_dim={self.embedding_dim}, {gate}",
                f"  {self.backbone_tensors} tensors of the backbone -> model.*, in {self.dtype}",
                *heads,
                f"  dropped: {', '.join(self.dropped) or 'nothing'}",
                f"  tokenizer: {', '.join(self.copied)}",
                f'  config.json: tau={self.tau}, prompt_format="reference"',
                f"Written to {self.folder}: {size} of weights in {files}.",
            ]
        )


@dataclass(frozen=True)
class _Stored:
    """A tensor in a file, not read yet."""

    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: str


def convert_reference_checkpoint(
    src: str | Path,
    dst: str | Path,
    tau: float = 0.1,
    max_shard_size: int | str = "5GB",
    revision: str | None = None,
    token: str | None = None,
    overwrite: bool = False,
) -> ConversionReport:
    """
    Converts a checkpoint of the paper's authors (`general-preference/GPM-Llama-3.1-8B`, ...) to a folder that
    [`GPMForPreference.from_pretrained`] loads and that scores as their program does (`prompt_format="reference"`).
    Embeddings are normalised and the gate is a softmax from dimension 2, as in all that they published. Memory is
    needed for one output shard.

    Args:
        src: a folder, or the id of a Hub repository.
        dst: the folder to write, which must not hold anything yet. It is written aside and renamed.
        tau: temperature of the log-odds; the paper's is 0.1.
        max_shard_size: the most bytes of a weight file, or a string such as "5GB".
        revision: branch, tag or commit of a Hub repository.
        token: to read a private repository; default: the one of `hf auth login`.
        overwrite: whether a folder that holds something is replaced.

    Returns:
        [`ConversionReport`], whose text says what was mapped to what.

    Raises:
        FileExistsError: `dst` holds something, and is not to be replaced.
        ValueError: `src` is no such checkpoint (a plain language model, an encoder, a preference model of this
            package; weights that are missing, too many, of a wrong shape or in no safetensors file; no tokenizer with
            a chat template and EOS), or an option is not possible.
        OSError: the repository cannot be read.
    """
    source = str(src)
    # First of all, because a folder that cannot be written should not cost a download.
    with folder_written_whole(dst, overwrite) as aside:
        folder, commit = _fetch(source, revision, token)
        text_config = _read_backbone_config(folder, source)
        stored = _read_headers(folder, source)
        targets, dropped = _map_names(stored, text_config, source)
        tensors = {target: stored[name] for target, name in targets.items()}
        dim = _embedding_dim(tensors, text_config.hidden_size, source)
        config = GPMConfig(
            text_config=text_config,
            embedding_dim=dim,
            scale_gate=HEADS[PROMPT_HEAD] in targets,
            tau=tau,
            prompt_format="reference",
            architectures=[GPMForPreference.__name__],
        )
        # Names and shapes as this package's own saving has them; on the meta device nothing is allocated.
        with torch.device("meta"):
            model = GPMForPreference(config)
        tensors = _in_order_of(model, tensors, source)
        config.dtype = config.text_config.dtype = _backbone_dtype(tensors, source)
        model.save_config_and_code(aside)
        copied = _copy_tokenizer(folder, aside, source)
        total_bytes, shards = _write_weights(model, tensors, aside, max_shard_size)
        _write_card(config, source, commit, aside, Path(dst).resolve().name)
    heads = {name: stored[name].shape for name in HEADS if name in stored}
    return ConversionReport(
        source=source,
        commit=commit,
        folder=Path(dst),
        model_type=text_config.model_type,
        backbone_tensors=len(targets) - len(heads),
        heads=heads,
        dropped=dropped,
        copied=copied,
        embedding_dim=config.embedding_dim,
        scale_gate=config.scale_gate,
        tau=config.tau,
        dtype=str(config.dtype).removeprefix("torch."),
        total_bytes=total_bytes,
        shards=shards,
    )


def _fetch(source: str, revision: str | None, token: str | None) -> tuple[Path, str | None]:
    """The folder that holds the checkpoint, and the commit it is of, if it came from the Hub."""
    if os.path.isdir(source):
        if revision is not None:
            raise ValueError(f"{source} is a folder, which has no revision {revision!r}: leave the revision out.")
        return Path(source), None
    try:
        validate_repo_id(source)
    except HFValidationError as error:
        raise ValueError(f"{source} is neither a folder that exists nor a Hub id.") from error
    # The small files first: a repository that holds something else is refused before its weights are downloaded.
    names = [CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, *_TOKENIZER_FILES]
    folder = Path(snapshot_download(source, revision=revision, token=token, allow_patterns=names))
    text_config = _read_backbone_config(folder, source)
    weight_map = _read_index(folder, source)
    if weight_map is not None:
        _map_names(weight_map, text_config, source)
    # By commit, so that weights and configuration belong together even if the branch moves meanwhile.
    commit = folder.name
    names = [SAFE_WEIGHTS_NAME] if weight_map is None else sorted(set(weight_map.values()))
    return Path(snapshot_download(source, revision=commit, token=token, allow_patterns=names)), commit


def _read_backbone_config(folder: Path, source: str) -> Any:
    file = folder / CONFIG_NAME
    if not file.is_file():
        raise ValueError(f"{source} has no {CONFIG_NAME}, so it is no checkpoint of a whole model.")
    try:
        model_type = json.loads(file.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{CONFIG_NAME} of {source} is no JSON object: {error}") from error
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"{source} has the architecture {model_type!r}, which this version of transformers does not know (and no "
            "code of a checkpoint is run here)."
        )
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    check_backbone(source, config)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"{source} is a {model_type} model, not a causal language model with preference heads.")
    # The authors' class is in no library; what the backbone is a part of is the language model.
    language_model: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    config.architectures = [language_model.__name__]
    # A path of this machine means nothing to others: keep it out of the saved configuration.
    config.name_or_path = ""
    return config


def _read_index(folder: Path, source: str) -> dict[str, str] | None:
    """Tensor name -> file name, of a sharded checkpoint."""
    file = folder / SAFE_WEIGHTS_INDEX_NAME
    if not file.is_file():
        return None
    try:
        weight_map = dict(json.loads(file.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{SAFE_WEIGHTS_INDEX_NAME} of {source} holds no weight map: {error!r}") from error
    for name in weight_map.values():
        if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+\.safetensors", name):
            raise ValueError(
                f"{SAFE_WEIGHTS_INDEX_NAME} of {source} names {name!r}, which is no weight file beside it."
            )
    return weight_map


def _read_headers(folder: Path, source: str) -> dict[str, _Stored]:
    """All tensors of the checkpoint by name."""
    weight_map = _read_index(folder, source)
    single = folder / SAFE_WEIGHTS_NAME
    if weight_map is None and not single.is_file():
        raise ValueError(
            f"{source} has neither {SAFE_WEIGHTS_NAME} nor {SAFE_WEIGHTS_INDEX_NAME}. Only safetensors files "
            "are read: a pickled file (pytorch_model.bin) can run any program when opened. If you trust it, save its "
            "tensors with `safetensors.torch.save_file` and convert that."
        )
    if weight_map is not None and single.is_file() and SAFE_WEIGHTS_NAME not in weight_map.values():
        raise ValueError(
            f"{source} has both {SAFE_WEIGHTS_NAME} and a {SAFE_WEIGHTS_INDEX_NAME} of other files: remove the one "
            "that does not belong to the checkpoint."
        )
    stored: dict[str, _Stored] = {}
    for file_name in [SAFE_WEIGHTS_NAME] if weight_map is None else sorted(set(weight_map.values())):
        file = folder / file_name
        if not file.is_file():
            raise ValueError(f"{source} is not complete: its index names {file_name}, which is missing.")
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 (it is no dict)
                    if name in stored:
                        raise ValueError(f"{source} holds {name} twice, in {stored[name].file.name} and {file_name}.")
                    part = opened.get_slice(name)
                    stored[name] = _Stored(name, file, tuple(part.get_shape()), part.get_dtype())
        except SafetensorError as error:
            raise ValueError(f"{file_name} of {source} is no whole safetensors file: {error}") from error
    absent = sorted((weight_map or {}).keys() - stored.keys())
    if absent:
        raise ValueError(f"{source} is not complete: its index names {_some(absent)}, but no file holds that.")
    return stored


def _map_names(names: Any, text_config: Any, source: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Our name -> the source's name, and the names that are dropped."""
    prefix = backbone_prefix(text_config) + "."
    targets, dropped, unknown = {}, [], []
    for name in sorted(names):
        if _DROPPED.search(name):
            dropped.append(name)
        elif name in HEADS:
            targets[HEADS[name]] = name
        elif name.startswith(prefix):
            targets["model." + name.removeprefix(prefix)] = name
        else:
            unknown.append(name)
    if VALUE_HEAD not in names:
        others = f" (it has {_some(unknown)}, which the authors' checkpoints have not)" if unknown else ""
        raise ValueError(
            f"{source} has no {VALUE_HEAD}, so it is a plain language model, not a checkpoint of the authors{others}. "
            "To start a preference model on it use `GPMForPreference.from_backbone(name_or_path)`."
        )
    if unknown:
        raise ValueError(f"{source} holds tensors that a checkpoint of the authors has not: {_some(unknown)}.")
    return targets, tuple(dropped)


def _embedding_dim(tensors: dict[str, _Stored], hidden_size: int, source: str) -> int:
    """Dimension of the embeddings, after a check that the heads fit each other and the backbone."""
    shape = tensors[HEADS[VALUE_HEAD]].shape
    if len(shape) != 2 or shape[1] != hidden_size:
        raise ValueError(
            f"{VALUE_HEAD} of {source} has the shape {shape}, but {CONFIG_NAME} says hidden_size={hidden_size}: they "
            "belong to different models."
        )
    dim = shape[0]
    if dim != 1 and (dim % 2 or dim == 0):
        raise ValueError(
            f"{VALUE_HEAD} of {source} gives embeddings of dimension {dim}; a preference embedding has an even "
            "dimension, a Bradley-Terry reward dimension 1."
        )
    gate = tensors.get(HEADS[PROMPT_HEAD])
    if gate is not None and dim == 1:
        raise ValueError(f"{source} has a {PROMPT_HEAD}, but a Bradley-Terry reward (dimension 1) has no scale gate.")
    if gate is not None and gate.shape != (dim // 2, hidden_size):
        raise ValueError(
            f"{PROMPT_HEAD} of {source} has the shape {gate.shape}, but embeddings of dimension {dim} need one scale "
            f"for each of their {dim // 2} blocks, ({dim // 2}, {hidden_size})."
        )
    return dim


def _in_order_of(model: GPMForPreference, tensors: dict[str, _Stored], source: str) -> dict[str, _Stored]:
    """The tensors in the model's own order, after a check that it is these that the model consists of."""
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    missing = sorted(expected.keys() - tensors.keys())
    extra = sorted(tensors[name].name for name in tensors.keys() - expected.keys())
    wrong = [
        f"{stored.name} {stored.shape} instead of {expected[name]}"
        for name, stored in sorted(tensors.items())
        if name in expected and stored.shape != expected[name]
    ]
    labelled = {"it lacks": missing, "it also has": extra, "it has": wrong}
    problems = [f"{label} {_some(names)}" for label, names in labelled.items() if names]
    if problems:
        backbone = type(model.model).__name__
        raise ValueError(f"{source} is not the {backbone} that its {CONFIG_NAME} describes: {'; '.join(problems)}.")
    return {name: tensors[name] for name in expected}


def _backbone_dtype(tensors: dict[str, _Stored], source: str) -> torch.dtype:
    """The one type to keep the backbone in, as transformers does; of a mixture, one in which nothing is lost."""
    for tensor in tensors.values():
        if tensor.dtype not in _DTYPES:
            raise ValueError(
                f"{tensor.name} of {source} has the type {tensor.dtype}, not one of {', '.join(_DTYPES)}: convert the "
                "checkpoint as it was before quantisation."
            )
    backbone = {_DTYPES[tensor.dtype] for name, tensor in tensors.items() if name not in HEADS.values()}
    return reduce(torch.promote_types, backbone)


def _copy_tokenizer(folder: Path, target: Path, source: str) -> tuple[str, ...]:
    copied = tuple(name for name in _TOKENIZER_FILES if (folder / name).is_file())
    remedy = "Put the tokenizer that the checkpoint was trained with beside it."
    if not set(copied) & set(_VOCABULARIES):
        raise ValueError(f"{source} has no tokenizer (none of {', '.join(_VOCABULARIES)}). {remedy}")
    for name in copied:
        shutil.copyfile(folder / name, target / name)
    try:
        # From the copy, to know that it is enough.
        tokenizer = AutoTokenizer.from_pretrained(target, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"The tokenizer of {source} ({', '.join(copied)}) cannot be loaded. {remedy}") from error
    if tokenizer.chat_template is None:
        raise ValueError(
            f"The tokenizer of {source} has no chat template, and the authors' scores are of rendered chats. Add the "
            "`chat_template` that the checkpoint was trained with to its tokenizer_config.json."
        )
    if tokenizer.eos_token_id is None:
        raise ValueError(f"The tokenizer of {source} has no EOS token, which ends what the authors score. {remedy}")
    return copied


def _write_weights(
    model: GPMForPreference, tensors: dict[str, _Stored], folder: Path, max_shard_size: int | str
) -> tuple[int, int]:
    """Writes the shards and their index as `save_pretrained` does; returns the bytes and the number of files."""
    dtypes: dict[str, Any] = {
        name: torch.float32 if name in HEADS.values() else model.config.dtype for name in tensors
    }
    # Without storage: sizes are all that the plan needs.
    shells = {name: torch.empty(tensors[name].shape, dtype=dtypes[name], device="meta") for name in tensors}
    pattern = SAFE_WEIGHTS_NAME.replace(".safetensors", "{suffix}.safetensors")
    plan = split_torch_state_dict_into_shards(shells, filename_pattern=pattern, max_shard_size=max_shard_size)
    for file_name, names in plan.filename_to_tensors.items():
        _write_shard({name: tensors[name] for name in names}, dtypes, folder / file_name)
    if plan.is_sharded:
        metadata = {"total_parameters": model.num_parameters(), **plan.metadata}
        index = {"metadata": metadata, "weight_map": plan.tensor_to_filename}
        content = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(content, encoding="utf-8")
    return plan.metadata["total_size"], len(plan.filename_to_tensors)


def _write_shard(tensors: dict[str, _Stored], dtypes: dict[str, torch.dtype], file: Path) -> None:
    # The source is opened anew for each shard: tensors are read into memory-mapped pages, which stay for as long as
    # the file is open.
    with ExitStack() as stack:
        sources = sorted({stored.file for stored in tensors.values()})
        opened = {path: stack.enter_context(safe_open(path, framework="pt")) for path in sources}
        shard = {name: opened[of.file].get_tensor(of.name).to(dtypes[name]) for name, of in tensors.items()}
        save_file(shard, file, metadata={"format": "pt"})


def _write_card(config: GPMConfig, source: str, commit: str | None, folder: Path, name: str) -> None:
    settings = preference_model_settings(config)
    origin = f"`{source}`, revision `{commit}`" if commit else "a local checkpoint of the paper's authors"
    record = RunRecord(
        kind="preference_model",
        base_model=source if commit else "",
        base_revision=commit or "",
        settings={"converted from": origin, **settings},
        versions={"gpm-hf": version("gpm-hf")},
        tags=["gpm-hf", "preference-model"],
        weights_sha256=weights_digest(folder),
    )
    record.save(folder)
    write_card(folder, repo=name)


def _some(names: list[str], most: int = 10) -> str:
    """Names for an error message; of many, the first."""
    listed = ", ".join(names[:most])
    return listed if len(names) <= most else f"{listed} and {len(names) - most} more"
