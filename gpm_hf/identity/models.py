"""Models by all that their scores depend on: weights, settings, tokenizer, code; of an adapter also its base."""

import hashlib
import importlib.util
import json
import os
import re
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from transformers.utils import ADAPTER_CONFIG_NAME, CONFIG_NAME

from gpm_hf.endpoints import Endpoint
from gpm_hf.identity.contents import file_digest, files_digest
from gpm_hf.modeling import check_one_model

# What lies beside a model and says nothing of its scores. All else counts: a tokenizer may be made of files of any
# name, and code reads what it likes.
_BESIDE = (
    ".*",
    "README*",
    "LICENSE*",
    "NOTICE*",
    "*.md",
    "*.png",
    "*.jpg",
    "*.svg",
    "*.pdf",
    "*.csv",
    "*.jsonl",
    "*.log",
    # Of a run: its record, and what a checkpoint has to go on with.
    "gpm_run.json",
    "initial_policy.json",
    "running_figures.json",
    "*_results.json",
    "trainer_state.json",
    "training_args.bin",
    "optimizer*",
    "scheduler.pt",
    "scaler.pt",
    "rng_state*.pth",
    # The same weights for other libraries.
    "*.h5",
    "*.msgpack",
    "*.onnx",
)
# Templates, and the modules of a folder for sentence-transformers.
_FOLDERS = ("additional_chat_templates", "1_Pooling", "2_Dense")
_SNAPSHOT = re.compile(r"/snapshots/([^/]+)/")
_HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only")
_NO_MODEL = ("random", "constant")


def model_identity(name: str | Path, **options: Any) -> str:
    """
    What tells a model from every other.

    Args:
        name: a folder or file, or a Hub id.
        options: as for `from_pretrained`; those count that say where on the Hub it is read (`revision`, ...).

    Returns:
        `"sha256:..."`, a digest of what it holds (see [`model_digest`]), or `"NAME@COMMIT"` of the Hub; of an adapter
        on the Hub, of which the commit does not tell all, `" on "` the identity of its base.

    Raises:
        FileNotFoundError: a folder without a model.
        ValueError: a folder with several models; a Hub id that cannot be looked up, in the Hub or in its cache.
    """
    if os.path.isfile(name):
        return f"sha256:{file_digest(name)}"
    if os.path.isdir(name):
        return f"sha256:{model_digest(name, **options)}"
    hub_options = {key: value for key, value in options.items() if key in _HUB_OPTIONS and value is not None}
    adapter = _hub_file(str(name), ADAPTER_CONFIG_NAME, hub_options)
    config = adapter or _hub_file(str(name), CONFIG_NAME, hub_options)
    if config is None:
        raise ValueError(f"{name} has neither {CONFIG_NAME} nor {ADAPTER_CONFIG_NAME} on the Hub: it holds no model.")
    found = f"{name}@{_commit_of(config)}"
    rest = [_base_identity(adapter, options)] if adapter else []
    return " on ".join([found, *rest, *_code_elsewhere(config, options)])


def model_digest(folder: str | Path, **options: Any) -> str:
    """
    SHA-256, in hex, over all in a model's folder that its scores may depend on, by name and content: weights,
    settings, tokenizer, chat templates, code; not cards, pictures, results, checkpoints. Of an adapter also the
    identity of its base, and of code that lies elsewhere on the Hub its commit.

    Raises:
        FileNotFoundError: a folder without weights.
        ValueError: a folder with the weights of several models; a base that is not there.
    """
    folder = Path(folder)
    check_one_model(folder, both_formats=True)
    files = [path for path in folder.iterdir() if path.is_file() and not any(fnmatch(path.name, p) for p in _BESIDE)]
    if not any(path.suffix in (".safetensors", ".bin", ".gguf") for path in files):
        raise FileNotFoundError(f"{folder} has no .safetensors file: it holds no saved model.")
    for name in _FOLDERS:
        files += [path for path in (folder / name).rglob("*") if path.is_file()]
    digest = files_digest(folder, files)
    adapter, config = folder / ADAPTER_CONFIG_NAME, folder / CONFIG_NAME
    rest = [_base_identity(adapter, options)] if adapter.is_file() else []
    if config.is_file():
        rest += _code_elsewhere(config, options)
    return hashlib.sha256(json.dumps([digest, *rest]).encode()).hexdigest() if rest else digest


def scorer_identity(spec: str, **options: Any) -> str:
    """
    The same of a scorer's description, `KIND:NAME` or `NAME`, see [`~gpm_hf.scoring.load_scorer`]. A function counts
    by the content of its module's file; a model that another process serves by what it holds, wherever that is.
    """
    kind, colon, name = spec.partition(":")
    if kind == "remote":
        return f"remote@{_remote_identity(name, options)}"
    if kind == "function":
        file = _module_file(name.rpartition(".")[0])
        return spec if file is None else f"{spec}@sha256:{file_digest(file)}"
    if kind in _NO_MODEL or (colon and not name):
        return spec  # has no model; or describes no scorer, which loading it says
    return f"{kind}:{model_identity(name, **options)}" if colon else model_identity(spec, **options)


def _module_file(module: str) -> str | None:
    """Where a module lies that can be imported from the working folder; `None` where importing it will say more."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return found.origin if found is not None and found.has_location else None


def _remote_identity(url: str, options: dict[str, Any]) -> str:
    address, _, model = url.partition("#")
    endpoint = Endpoint(address)
    served: dict[str, Any] = next(iter(endpoint.get("/v1/models").get("data", [])), {})
    if served.get("owned_by") == "gpm-hf":
        settings = endpoint.get("/settings")
        return f"{settings['identity']} in {settings['dtype']}"
    return model_identity(model or served.get("root") or str(served.get("id")), **options)


def _base_identity(adapter_config: str | Path, options: dict[str, Any]) -> str:
    settings = _read_json(adapter_config)
    base = settings.get("base_model_name_or_path")
    if not base:
        raise ValueError(f"{adapter_config} names no base model: name it there.")
    # The adapter's revision is not the base's, which the adapter remembers.
    options = {**options, "revision": None if os.path.isdir(base) else settings.get("revision")}
    try:
        return model_identity(base, **options)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{Path(adapter_config).parent} is an adapter of {base}, which cannot be loaded: put that model back, or "
            f"name where it is now as `base_model_name_or_path` in {ADAPTER_CONFIG_NAME} ({reason})"
        ) from error


def _code_elsewhere(config: str | Path, options: dict[str, Any]) -> list[str]:
    """Of modelling code that a configuration takes from other repositories (`"owner/name--file.Class"`)."""
    named = [str(value) for value in (_read_json(config).get("auto_map") or {}).values()]
    owners = sorted({name.split("--")[0] for name in named if "--" in name})
    hub_options = {key: options[key] for key in _HUB_OPTIONS[1:] if options.get(key) is not None}
    hub_options |= {"revision": options["code_revision"]} if options.get("code_revision") else {}
    found = []
    for owner in owners:
        path = _hub_file(owner, CONFIG_NAME, hub_options)
        found.append(f"{owner}@{_commit_of(path)}" if path else owner)
    return found


def _hub_file(name: str, file: str, hub_options: dict[str, Any]) -> str | None:
    """A file of a repository as `from_pretrained` finds it: of the Hub, or, where that is away, of its cache."""
    try:
        return hf_hub_download(name, file, **hub_options)
    except LocalEntryNotFoundError as error:
        if file == ADAPTER_CONFIG_NAME:
            return None  # the cache holds none; whether it holds a model the next file says
        raise ValueError(
            f"The commit of {name} cannot be told: the Hub is away, and its cache has no such model. Give its folder, "
            "or try again when the Hub can be reached."
        ) from error
    except EntryNotFoundError:
        return None
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise ValueError(f"{name} is neither a folder that exists nor a model of the Hub.") from error


def _commit_of(path: str) -> str:
    found = _SNAPSHOT.search(Path(path).as_posix())
    if found is None:
        raise ValueError(f"{path} does not lie in a snapshot of the Hub's cache, so its commit is not known.")
    return found.group(1)


def _read_json(path: str | Path) -> dict[str, Any]:
    return json.loads(Path(path).read_text(encoding="utf-8"))
