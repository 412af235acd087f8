"""
What backbones said to the questions of `probing_gpm.py`, kept on disk, so that the next process need not ask again.

A file for each question and backbone, written whole and never changed, so that processes cannot spoil each other's.
Its name is a digest of all that the answer depends on; and only a yes is kept: a no may be of a moment in which memory
was short. The folder lies where transformers keeps the code that it fetched, or where `GPM_HF_PROBE_CACHE` in the
environment says. A file that cannot be read or written is no error: the backbone is asked again.
"""

import contextlib
import hashlib
import inspect
import json
import os
import sys
import tempfile

import torch
from transformers import __version__
from transformers.utils import HF_MODULES_CACHE

from .remote_backbone_gpm import is_remote


def folder_of_answers():
    """Where answers are kept."""
    return os.environ.get("GPM_HF_PROBE_CACHE") or os.path.join(HF_MODULES_CACHE, "gpm_hf_answers")


def described(model, kind, settings):
    """
    All that a backbone's answers depend on.

    Args:
        model ([`GPMForPreference`]): the model.
        kind (`tuple`): its attention, device and types.
        settings (`str`): its whole configuration.

    Returns:
        `dict` with strings, or `None` where that cannot be said: somebody has put another `forward` on a module, or
        its code is in no file.
    """
    classes, modules = set(), [model.model]
    # As `modules()`, which takes twice as long.
    while modules:
        module = modules.pop()
        if "forward" in vars(module):
            return None
        classes.add(type(module))
        modules += module.children()
    forwards = {one.forward for one in classes}
    if not all(inspect.isfunction(forward) for forward in forwards):
        return None
    written = {one.__module__ for one in classes | forwards}
    try:
        code = sorted(_sources(name for name in written if not name.startswith("torch.")))
    except (KeyError, OSError):
        return None
    device = model.device
    return {
        "type": model.config.text_config.model_type,
        "class": f"{model.backbone_class.__module__}.{model.backbone_class.__qualname__}",
        "kind": " ".join(map(str, kind)),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "transformers": __version__,
        "modules": _digest(sorted(f"{one.__module__}.{one.__qualname__}" for one in classes | forwards)),
        "code": _digest(code),
        "configuration": _digest(settings),
        "quantization": _digest(str(vars(model.config).get("quantization_config"))),
    }


def is_kept(description, road):
    """Whether this backbone was asked about this road before, and said yes."""
    said = {"road": road, **description}
    try:
        with open(_file_of(said), "rb", buffering=0) as file:
            return json.loads(file.read()) == said
    except (OSError, ValueError):
        return False


def keep(description, road):
    """Writes that this backbone said yes."""
    said = {"road": road, **description}
    path = _file_of(said)
    # A home that is full or cannot be written, as in many containers: then each process asks.
    with contextlib.suppress(OSError):
        os.makedirs(folder_of_answers(), exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder_of_answers()) as aside:
            whole = os.path.join(aside, "whole")
            with open(whole, "w", encoding="utf-8") as file:
                json.dump(said, file)
            os.replace(whole, path)


def _sources(names):
    """Name and digest of each file that these modules are made of, and of the files beside this one: the roads."""
    here = os.path.dirname(__file__)
    paths = {os.path.join(here, name) for name in os.listdir(here) if name.endswith("_gpm.py")}
    for name in names:
        path = vars(sys.modules[name])["__file__"]
        folder = os.path.dirname(path)
        # Code that came with a checkpoint reads the files beside it.
        beside = os.listdir(folder) if is_remote(name) else []
        paths |= {path, *(os.path.join(folder, other) for other in beside if other.endswith(".py"))}
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            yield f"{os.path.basename(path)} {hashlib.sha256(file.read()).hexdigest()}"


def _digest(said):
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _file_of(said):
    return os.path.join(folder_of_answers(), f"{said['road']}-{_digest(said)}.json")
