"""The reference's log-probabilities before the training, by several processes and under ZeRO-3."""

import copy
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from datasets import Dataset
from trl import DPOTrainer


class PrecomputedReferenceDPOTrainer(DPOTrainer):
    """
    TRL's [`~trl.DPOTrainer`] with `precompute_ref_log_probs=True` also for rows in memory on several processes, and
    under ZeRO-3 with an engine that leaves the model as it was.
    """

    _precompute_engine: Any

    def _precompute_ref_logps(self, dataset, name, batch_size):
        if isinstance(dataset, Dataset) and not dataset.cache_files:
            # TRL's main process writes a file that all read, which for rows in memory would lie in a temporary folder
            # of each process: it is the main process's.
            folder = [Path(dataset._get_cache_file_path("reference")).parent]
            broadcast_object_list(folder)
            dataset = copy.copy(dataset)
            dataset._get_cache_file_path = lambda fingerprint: str(folder[0] / f"reference-{fingerprint}.arrow")
        dataset = super()._precompute_ref_logps(dataset, name, batch_size)
        if self._precompute_engine is not None:
            # It has hung hooks into the model, which would go on beside those of the training's engine.
            self._precompute_engine.destroy()
            self._precompute_engine = None
        return dataset
