"""
One folder, one model: which files of a folder are weights, whether they are those of one model, and saving so that
they are.

Where a folder holds the weights of two models, libraries choose one without a word: a single file is taken and shards
beside it are ignored, and an adapter is put on whatever whole model lies beside it.
"""

import json
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

from transformers.utils import ADAPTER_CONFIG_NAME, CONFIG_NAME

# The names under which transformers and PEFT save weights, each as one file or in shards with an index.
_KINDS = (
    ("model", "safetensors"),
    ("pytorch_model", "bin"),
    ("adapter_model", "safetensors"),
    ("adapter_model", "bin"),
)
_WEIGHT_FILE = re.compile(
    r"((adapter_)?model(-\d{5}-of-\d{5})?\.safetensors|(pytorch|adapter)_model(-\d{5}-of-\d{5})?\.bin)(\.index\.json)?"
)
# Beside an adapter of a local model: the digest of that model's weights.
ADAPTER_BASE_NAME = "adapter_base.json"
# Without these nothing is loaded from a folder.
_KEYS = (CONFIG_NAME, ADAPTER_CONFIG_NAME)
# How the sub-folder that a model is saved to first is called until all is written, and then until all is moved.
_SAVING, _SAVED = ".saving", ".saved"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
)


def is_weight_file(name):
    """Whether a file has one of the names under which transformers and PEFT save weights or the index of shards."""
    return _WEIGHT_FILE.fullmatch(name) is not None


def weight_sets(folder):
    """
    The weights in a folder, each of which a library might load. Variants such as `model.fp16.safetensors` do not
    count: they are loaded where they are asked for, and never else.

    Args:
        folder (`str` or `Path`): not its sub-folders.

    Returns:
        `list[list[str]]`: names of files. A set is one file; an index with the shards that it names; shards that no
        index names; or an adapter's weights with its `adapter_config.json`.

    Raises:
        ValueError: for an index that cannot be read.
    """
    names = set(os.listdir(folder))
    sets, adapters = [], []
    for stem, suffix in _KINDS:
        single, index = f"{stem}.{suffix}", f"{stem}.{suffix}.index.json"
        shards = {name for name in names if re.fullmatch(rf"{stem}-\d{{5}}-of-\d{{5}}\.{suffix}", name)}
        indexed = _files_of_index(Path(folder, index)) if index in names else set()
        found = [[single]] if single in names and single not in indexed else []
        if index in names:
            found.append([index, *sorted(indexed & names)])
        if shards - indexed:
            found.append(sorted(shards - indexed))
        (adapters if stem == "adapter_model" else sets).extend(found)
    if ADAPTER_CONFIG_NAME in names:
        adapters = [[ADAPTER_CONFIG_NAME, *files] for files in adapters] or [[ADAPTER_CONFIG_NAME]]
    return sets + adapters


def check_one_model(folder, both_formats=False):
    """
    Refuses a folder that holds the weights of more than one model. What is no folder (a Hub id) is not looked at.

    Args:
        folder (`str` or `Path`): where a model is to be loaded from.
        both_formats (`bool`, defaults to `False`): whether `.bin` files may lie beside `.safetensors`, as in many
            repositories, where they are the same model once more; the latter are loaded. Nothing of ours writes both.

    Raises:
        ValueError: naming the files.
    """
    if not os.path.isdir(folder):
        return
    for name in os.listdir(folder):
        left = os.path.join(folder, name)
        lacks = [key for key in _KEYS if not os.path.exists(os.path.join(folder, key))]
        if name.endswith(_SAVED) and any(os.path.exists(os.path.join(left, key)) for key in lacks):
            raise ValueError(
                f"Saving to {folder} was interrupted when all was written, and some of the model is still in {left}: "
                "move what is in there up, or save again."
            )
    sets = weight_sets(folder)
    if both_formats:
        kinds = {_kind(files) for files in sets}
        safe = {stem for stem, suffix in kinds if suffix == "safetensors"}
        sets = [files for files in sets if _kind(files)[1] != "bin" or _kind(files)[0] not in safe]
    if len(sets) > 1:
        listed = "; ".join(_some(files) for files in sets)
        raise ValueError(
            f"{folder} holds the weights of {len(sets)} models ({listed}), and which of them is loaded would be "
            "chance: keep the files of one and remove the others."
        )


@contextmanager
def saved_as_one_model(folder):
    """
    Gives an empty folder to save a model into, and then moves what is in it to `folder`, from where all older weights
    go: standard names of transformers and PEFT only. So do an older tokenizer's files, where there is a new one.

    Whenever the process is killed, the folder holds the old model whole or the new one whole; or, for the moment in
    which names change, none that anything would load, because `config.json` or `adapter_config.json` is missing: then
    the new model's files are all there, some still in the sub-folder, and [`check_one_model`] says so. On an error
    while saving nothing changes. What processes that were killed have left in such folders goes.

    Raises:
        ValueError: for an adapter whose base model is what lies in `folder`.
    """
    folder = Path(folder)
    aside, saved = (folder / f".{os.getpid()}{ending}" for ending in (_SAVING, _SAVED))
    _remove_left(folder, _SAVING)
    aside.mkdir(parents=True)
    try:
        yield aside
        check_base_elsewhere(_base_of(aside), folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    shutil.rmtree(saved, ignore_errors=True)
    aside.rename(saved)
    _move_up(saved, folder)
    saved.rmdir()
    _remove_left(folder, _SAVED)


def _remove_left(folder, ending):
    """Removes sub-folders of processes that are gone, or whose number is this one's by now."""
    for path in folder.glob(f".*{ending}"):
        process = path.name[1 : -len(ending)]
        if process.isdecimal() and (int(process) == os.getpid() or not _is_running(int(process))):
            shutil.rmtree(path, ignore_errors=True)


def _is_running(process):
    if os.name != "posix":
        return True  # to ask would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return True


def check_base_elsewhere(base, folder):
    """Raises `ValueError` where an adapter's base model (`str` or `None`) lies where the adapter is to be saved."""
    if base and os.path.isdir(base) and os.path.isdir(folder) and os.path.samefile(base, folder):
        raise ValueError(
            f"The adapter's base model lies in {folder}, where saving the adapter would replace it: save to another "
            "folder."
        )


def _base_of(folder):
    path = Path(folder, ADAPTER_CONFIG_NAME)
    return json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"] if path.is_file() else None


def _move_up(aside, folder):
    new = sorted(path.name for path in aside.iterdir())
    weights = [name for name in new if is_weight_file(name)]
    old = []
    if weights:
        # Before anything else changes: what cannot be loaded cannot be loaded wrongly.
        for key in _KEYS:
            (folder / key).unlink(missing_ok=True)
        old = [ADAPTER_BASE_NAME, *(name for name in os.listdir(folder) if is_weight_file(name))]
    if "tokenizer_config.json" in new:
        old += _TOKENIZER_FILES
    for name in [*weights, *(name for name in new if name not in (*weights, *_KEYS))]:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        os.replace(aside / name, folder / name)
    for name in old:
        if name not in new:
            (folder / name).unlink(missing_ok=True)
    for name in _KEYS:
        if name in new:
            os.replace(aside / name, folder / name)


def _files_of_index(index):
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of shards ({error!r}): remove it, or save the model again.") from error


def _kind(files):
    """Name and format of a set of weights, such as ("model", "bin"); of an adapter without weights no format."""
    weights = [name for name in files if is_weight_file(name)]
    if not weights:
        return "adapter_model", ""
    stem = next(stem for stem, _ in reversed(_KINDS) if weights[0].startswith(stem))
    return stem.replace("pytorch_", ""), "bin" if ".bin" in weights[0] else "safetensors"


def _some(files):
    return ", ".join(files) if len(files) <= 3 else f"{', '.join(files[:2])} and {len(files) - 2} more"
