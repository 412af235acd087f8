"""TRL's DPOTrainer for sampled responses: it trains the ids that were sampled, and computes the reference before."""

import copy
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from accelerate.utils import broadcast_object_list
from datasets import Dataset, IterableDataset
from trl import DPOTrainer
from trl.data_utils import get_dataset_column_names
from trl.trainer.utils import global_then_local_main_first
from typing_extensions import override

from gpm_hf.data.sampled_ids import tokenizer_digest
from gpm_hf.identity import tied_to_versions
from gpm_hf.training.long_rows import count_left_out
from gpm_hf.training.offline_batches import PAIR
from gpm_hf.training.sampled_rows import check_rendering, check_row_ids, has_sampled_ids
from gpm_hf.training.saving import OneModelMixin


class PrecomputedReferenceDPOTrainer(OneModelMixin, DPOTrainer):
    """
    TRL's [`~trl.DPOTrainer`] on what a policy sampled.

    What differs: rows with sampled ids (`prompt_ids`, `chosen_ids`, `rejected_ids`, `tokenizer_digest`) are trained as
    they are, where TRL would render their texts anew; rows without them are refused where a rendering is not the
    prompt, the answer and its end. Rows over `max_length` are left out, counted and said, instead of cut.
    `precompute_ref_log_probs=True` works also for rows in memory on several processes, and under ZeRO-3 with an engine
    that leaves the model as it was.
    """

    _precompute_engine: Any
    _folder: TemporaryDirectory | None = None
    _train_rows_over_max_length: int | None = None

    @override
    def _prepare_dataset(self, dataset, processing_class, args, dataset_name):
        dataset = tied_to_versions(dataset)
        columns = get_dataset_column_names(dataset)
        sides = tuple(side for side in PAIR if side in columns)
        if has_sampled_ids(columns, sides, dataset_name):
            expected = {"sides": sides, "digest": tokenizer_digest(processing_class)}
            dataset = _with_rows_checked(dataset, check_row_ids, expected, args.dataset_num_proc)
        else:
            # TRL drops rows whose prompt is too long without a word and cuts the others; here they are counted.
            whole = copy.copy(args)
            whole.max_length = None
            dataset = super()._prepare_dataset(dataset, processing_class, whole, dataset_name)
            by = {"sides": sides, "tokenizer": processing_class}
            dataset = _with_rows_checked(dataset, check_rendering, by, args.dataset_num_proc)
        return self._without_long_rows(dataset, sides, args.max_length, dataset_name)

    def _without_long_rows(self, dataset, sides, max_length, dataset_name):
        if max_length is None:
            return dataset

        def fits(row):
            return len(row["prompt_ids"]) + max(len(row[f"{side}_ids"]) for side in sides) <= max_length

        with global_then_local_main_first():
            kept = dataset.filter(fits)
        dropped = count_left_out(dataset, kept, max_length, dataset_name)
        if dataset_name == "train" and isinstance(kept, Dataset):
            self._train_rows_over_max_length = dropped
        return kept

    @override
    def _precompute_ref_logps(self, dataset, name, batch_size):
        if isinstance(dataset, Dataset) and not dataset.cache_files:
            dataset = self._on_disk(dataset)
        dataset = super()._precompute_ref_logps(dataset, name, batch_size)
        # The main process may be done with its folder before another one has opened what is in it.
        self.accelerator.wait_for_everyone()
        if self._precompute_engine is not None:
            # It has hung hooks into the model, which would go on beside those of the training's engine.
            self._precompute_engine.destroy()
            self._precompute_engine = None
        return dataset

    def _on_disk(self, dataset):
        """
        Rows in memory, read from a temporary folder of the main process. TRL's main process writes the reference's
        file beside the rows, and all read it: beside rows in memory there would be as many places as processes.
        """
        if self._folder is None and self.accelerator.is_main_process:
            self._folder = TemporaryDirectory(prefix="gpm-hf-reference-")
        folder = [None if self._folder is None else mkdtemp(dir=self._folder.name)]
        broadcast_object_list(folder)
        if self.accelerator.is_main_process:
            dataset.save_to_disk(folder[0])
        self.accelerator.wait_for_everyone()
        return Dataset.load_from_disk(folder[0])


def _with_rows_checked(dataset, check, options, num_proc):
    """The data set as it is, after a look at each row; at those of a stream when they are read."""
    if isinstance(dataset, IterableDataset):
        # What a function returns is added to a row there, so it may not be `None`.
        return dataset.map(lambda row, number: check(row, number, **options) or {}, with_indices=True)
    with global_then_local_main_first():
        return dataset.map(check, with_indices=True, fn_kwargs=options, num_proc=num_proc)
