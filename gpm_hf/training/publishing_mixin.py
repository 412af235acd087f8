"""What both trainers do with the Hub: a record of the run, a card written from it, and one commit."""

import os
from pathlib import Path
from typing import Any

from typing_extensions import override

from gpm_hf.hub.cards import write_card
from gpm_hf.hub.publishing import publish
from gpm_hf.hub.record import RunRecord
from gpm_hf.identity import weights_digest
from gpm_hf.modeling import is_weight_file
from gpm_hf.training.saving import OneModelMixin


class PublishingMixin(OneModelMixin):
    """
    Cards and uploads of a trainer.

    What differs from transformers' and TRL's: the card states what this run was and measured, and is written from a
    record beside the model (`gpm_run.json`), so that `gpm-hf card` can write it anew after evaluations; the upload has
    no pickles (`training_args.bin`) and no checkpoints.
    """

    hub_model_id: Any
    _last_saved: tuple[str, int] | None = None

    def run_record(self, dataset_name=None, tags=None) -> RunRecord:
        """What this run was and measured."""
        raise NotImplementedError

    @override
    def create_model_card(  # type: ignore[override]  # TRL's arguments, which transformers' has not
        self, model_name=None, dataset_name=None, tags=None, plots=None
    ):
        """
        Writes the record of this run and, from it, the card `README.md`.

        Args:
            model_name: unused; the name is the Hub id's or the folder's.
            dataset_name: used where the data set does not itself know where on the Hub it is from.
            tags: further tags, one or a list.
            plots: pictures in the output folder and their captions, `{file: caption}`.

        Raises:
            ValueError: where this run's model, as it now is, was not saved into the output folder.
        """
        if self.is_world_process_zero():
            if self.control.should_save:  # true while a checkpoint is written
                # TRL asks for a card then. Beside the weights of an earlier run it would be taken for theirs.
                if any(is_weight_file(path.name) for path in Path(self.args.output_dir).glob("*")):
                    return
            elif self._last_saved != self._saved_in(self.args.output_dir):
                raise ValueError(
                    f"{self.args.output_dir} does not hold the model as it now is, and a card tells of the weights "
                    "beside it: save it first, `trainer.save_model()`."
                )
            record = self.run_record(dataset_name, tags)
            record.plots = dict(plots or {})
            record.weights_sha256 = weights_digest(self.args.output_dir)
            record.save(self.args.output_dir)
            write_card(self.args.output_dir, repo=self.hub_model_id, results=[])

    def _saved_in(self, folder):
        return os.path.realpath(folder), self.state.global_step

    @override
    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        if not self.control.should_save:
            self._last_saved = self._saved_in(self.args.output_dir if output_dir is None else output_dir)

    @override
    def save_model(self, output_dir=None, _internal_call=False):
        """As the parent's; saved by name into the output folder, the model gets its record and card too."""
        super().save_model(output_dir, _internal_call)
        if not _internal_call and output_dir in (None, self.args.output_dir):
            self.create_model_card()

    @override
    def _push_from_checkpoint(self, checkpoint_folder):
        """
        Nothing goes to the Hub before the end. The parent would upload the whole output folder at each checkpoint,
        with `training_args.bin`, in which the Hub's token may be.
        """
        if self.args.hub_strategy in ("checkpoint", "all_checkpoints"):
            raise ValueError(
                f"hub_strategy={self.args.hub_strategy} uploads checkpoints, which hold pickles with the Hub's token. "
                'Choose hub_strategy="end": the final model is uploaded in one commit.'
            )

    @override
    def push_to_hub(
        self, commit_message="End of training", blocking=True, token=None, revision=None, private=None, **card
    ):
        """
        Saves the model with its card and uploads it in one commit, see [`~gpm_hf.hub.publishing.publish`].

        Args:
            commit_message, token, revision, private: as in [`~transformers.Trainer.push_to_hub`].
            blocking: must be `True`.
            card: further arguments of `create_model_card`.

        Returns:
            The commit's `CommitInfo` on the main process, `None` on the others.
        """
        if not blocking:
            raise ValueError("push_to_hub uploads one whole commit and waits for it: blocking=False is not offered.")
        token = token or self.args.hub_token
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        self.create_model_card(**card)
        if not self.is_world_process_zero():
            return None
        self._finish_current_push()
        return publish(
            self.args.output_dir,
            self.hub_model_id,
            private=self.args.hub_private_repo if private is None else private,
            revision=revision or self.args.hub_revision,
            message=commit_message,
            token=token,
            # What lies there is of earlier weights.
            with_results=False,
        ).commit
