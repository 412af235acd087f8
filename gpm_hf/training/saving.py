"""Saving by a trainer, so that a folder never holds the weights of two models."""

import json
import os
from pathlib import Path
from typing import Any

from accelerate.utils import is_peft_model
from typing_extensions import override

from gpm_hf.files import written_whole
from gpm_hf.identity import weights_digest
from gpm_hf.modeling import ADAPTER_BASE_NAME, check_base_elsewhere, check_one_model, saved_as_one_model
from gpm_hf.training.checkpoints import WholeCheckpointsMixin


class OneModelMixin(WholeCheckpointsMixin):
    """
    What a trainer saves (checkpoints, the final model) takes the place of what was in the folder, weights of another
    kind included: an adapter those of a whole model, one file those in shards; see
    [`~gpm_hf.modeling.saved_as_one_model`].
    """

    model: Any

    @override
    def train(self, *arguments, **options):
        """As the parent's, but for an adapter that could not be saved in the end."""
        if is_peft_model(self.model):
            check_base_elsewhere(self.model.active_peft_config.base_model_name_or_path, self.args.output_dir)
        return super().train(*arguments, **options)

    @override
    def _save(self, output_dir=None, state_dict=None):
        folder = output_dir if output_dir is not None else self.args.output_dir
        if not self.args.should_save:
            self._write_model(folder, state_dict)
            return
        with saved_as_one_model(folder) as aside:
            self._write_model(str(aside), state_dict)

    def _write_model(self, folder, state_dict):
        """Writes model, tokenizer and options into an empty folder (on processes that write)."""
        super()._save(folder, state_dict)
        base = self.model.active_peft_config.base_model_name_or_path if is_peft_model(self.model) else None
        if self.args.should_save and base and os.path.isdir(base):
            # What lies there may be another model by the time that the adapter is loaded.
            with written_whole(Path(folder, ADAPTER_BASE_NAME)) as file:
                json.dump({"weights_sha256": weights_digest(base, both_formats=True)}, file)

    @override
    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        check_one_model(resume_from_checkpoint)
        super()._load_from_checkpoint(resume_from_checkpoint, model)
