"""The table of all types: each in a process of its own, bounded in memory and time."""

import json
import os
import resource
import tempfile
import time
from pathlib import Path

import torch

from .cells import examine

MEMORY = 6 << 30
SECONDS = 60


def _examine_here(model_type, names, options, file):
    """Writes the cells, and ends this process."""
    status = 1
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        torch.set_num_threads(1)
        # FlexAttention as it is, not compiled: that would take a minute.
        torch.compiler.set_stance("force_eager")
        file.write_text(json.dumps(examine(model_type, names, **options)))
        status = 0
    except BaseException as error:
        cell = {"verdict": "error", "off": None, "why": f"not built: {type(error).__name__}: {error}"[:300]}
        file.write_text(json.dumps({"build": cell}))
    finally:
        os._exit(status)


def examine_apart(model_type, names=None, **options):
    """As [`examine`], in a child of this process, which has imported what all types need."""
    began = time.time()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "cells.json")
        child = os.fork()
        if child == 0:
            # Asked anew: nothing that an earlier run was answered.
            os.environ["GPM_HF_PROBE_CACHE"] = str(Path(folder, "answers"))
            _examine_here(model_type, names, options, file)
        _, _, usage = os.wait4(child, 0)
        died = {"build": {"verdict": "error", "off": None, "why": "the process died"}}
        cells = json.loads(file.read_text()) if file.exists() else died
    return {"cells": cells, "cpu": round(usage.ru_utime + usage.ru_stime, 1), "wall": round(time.time() - began, 1)}
