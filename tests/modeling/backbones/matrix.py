"""The table of all types: each in a process of its own, bounded in memory and time."""

import json
import os
import resource
import tempfile
import time
from pathlib import Path

MEMORY = 6 << 30
SECONDS = 60


def examine_apart(model_type, names=None, **options):
    """As [`examine`], in a child of this process, which has imported what all types need."""
    import torch

    from .cells import examine

    descriptor, file = tempfile.mkstemp(suffix=".json")
    os.close(descriptor)
    began = time.time()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            torch.set_num_threads(1)
            # FlexAttention as it is, not compiled: that would take a minute.
            torch.compiler.set_stance("force_eager")
            cells = examine(model_type, names, **options)
            Path(file).write_text(json.dumps(cells))
            status = 0
        except BaseException as error:
            cell = {"verdict": "error", "off": None, "why": f"not built: {type(error).__name__}: {error}"[:300]}
            Path(file).write_text(json.dumps({"build": cell}))
        finally:
            os._exit(status)
    _, _, usage = os.wait4(child, 0)
    text = Path(file).read_text()
    os.unlink(file)
    cells = json.loads(text) if text else {"build": {"verdict": "error", "off": None, "why": "the process died"}}
    return {"cells": cells, "cpu": round(usage.ru_utime + usage.ru_stime, 1), "wall": round(time.time() - began, 1)}
