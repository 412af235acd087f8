"""Offline preference optimisation by regression of log-ratios: GPO, SPPO, LN-GPO and REBEL on TRL's DPOTrainer."""

from typing import Any

import torch
from datasets import Dataset
from transformers import ProcessorMixin
from trl.data_utils import get_dataset_column_names
from trl.trainer.utils import get_config_model_id, global_then_local_main_first
from typing_extensions import override

from gpm_hf.data.columns import check_text_columns
from gpm_hf.identity import tied_to_versions
from gpm_hf.scoring.preference_model import load_tokenizer
from gpm_hf.training.losses import gpo_residuals, per_token, rebel_residuals, squared_residuals
from gpm_hf.training.new_tokens import check_tokenizer, vocabulary_of_checkpoint
from gpm_hf.training.offline_batches import (
    PAIR,
    SINGLE_TO_PAIR,
    ScoredResponseCollator,
    add_length,
    add_targets,
    sides_of,
)
from gpm_hf.training.offline_gpo_config import OfflineGPOConfig
from gpm_hf.training.policy_adapter import load_if_adapter
from gpm_hf.training.precomputed_reference import PrecomputedReferenceDPOTrainer
from gpm_hf.training.publishing_mixin import PublishingMixin
from gpm_hf.training.quantized_layers import keep_trainable
from gpm_hf.training.row_means import BY_LENGTH, COUNTED, RowMeansMixin, fetch_own_batches
from gpm_hf.training.run_record import data_sources, policy_record

# At the first step the policy is the reference. What rounding in bfloat16 or another engine's kernels make of equal
# log-probabilities stays under this, in nats per token; another temperature or other tokens do not.
MOST_DRIFT_PER_TOKEN = 0.05


class OfflineGPOTrainer(PublishingMixin, RowMeansMixin, PrecomputedReferenceDPOTrainer):
    """
    Trainer for one offline round of General Preference Optimization and its relatives, on responses that a policy
    sampled and a preference model scored ([`gpm_hf.data.policy_data`] makes the rows).

    What differs from TRL's [`~trl.DPOTrainer`]: the loss is a regression of log-ratios on scores (see
    [`OfflineGPOConfig`]), rows may hold one response instead of a pair, what is trained is what was sampled (see
    `train_dataset`), rows over `max_length` are left out and counted instead of truncated, and loss, gradient and
    metrics are exact means over rows (see [`~gpm_hf.training.row_means.RowMeansMixin`]). LoRA, the reference model and
    checkpoints are inherited.

    The loss of a row is the mean over its responses of (beta * log-ratio - target)^2, for REBEL the square of the
    difference; times the row's `weight` where there is that column. So on pairs the loss is that of the samples in
    them, half of what TRL's `sppo_hard` sums up.

    Args:
        model (`str`, [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]): the policy that sampled the responses,
            from which the training starts. The training of an adapter, by its name or as an object, goes on.
        args ([`OfflineGPOConfig`], *optional*): options.
        train_dataset (`Dataset` or `IterableDataset`): pairs with `prompt`, `chosen`, `rejected`, `chosen_score`,
            `rejected_score` (mean log-odds; for SPPO `chosen_probability`, `rejected_probability`), or single
            responses with `prompt`, `completion` and `score` (or `probability`). Strings or chat messages, as in TRL.
            With the ids that were sampled (`prompt_ids`, `chosen_ids`, `rejected_ids` or `completion_ids`, and
            `tokenizer_digest`, see [`gpm_hf.data.sampled_ids`]) those are trained; without them the texts, and a row
            is refused where the chat template does not render it as prompt, answer and end. Optional: `weight`, and
            the reference's log-probabilities (`ref_chosen_logps` and `ref_rejected_logps`, or `ref_logps`), which are
            then not computed.
        eval_dataset (*optional*): the same.
        processing_class (`PreTrainedTokenizerBase`, *optional*): the policy's tokenizer; its padding side is of no
            consequence.
        ref_model (`PreTrainedModel`, *optional*): the policy that sampled, where it is not `model` as it comes.
            Otherwise the reference is the initial policy: its log-probabilities are computed before the training, or
            with `precompute_ref_log_probs=False` at each step by the adapter switched off (a pretrained adapter: by a
            frozen copy), without an adapter by the model loaded anew from `model`'s path.
        preference_name (`str`, *optional*): who scored the responses, for the card.
        kwargs: further arguments of [`~trl.DPOTrainer`] (`peft_config`, `callbacks`, `optimizers`, ...).

    Metrics: `gpo/log_ratio`, `gpo/target` and their absolute values, `gpo/residual_abs` (targets are log-odds or
    probabilities minus 1/2; log-ratios nats, here not divided by anything unless `length_normalize`),
    `gpo/sign_accuracy` (share of responses, for REBEL of pairs, whose log-ratio has moved to the target's side),
    for pairs `gpo/pair_accuracy` (chosen has the larger log-ratio), `logps`, `entropy`, `response_length`,
    `num_tokens`, and in training `rows_over_max_length`.

    Raises:
        ValueError: where columns are missing; where no step would be taken; where given reference log-probabilities
            are not those of the initial policy; and as in [`OfflineGPOConfig`].
    """

    args: OfflineGPOConfig
    _signature_columns: Any
    _tag_names = ["trl", "gpm-hf", "offline-gpo"]
    _name = "Offline GPO"

    def __init__(
        self,
        model,
        args=None,
        train_dataset=None,
        eval_dataset=None,
        processing_class=None,
        ref_model=None,
        preference_name=None,
        **kwargs,
    ):
        model_name = model if isinstance(model, str) else get_config_model_id(model.config)
        if args is None:
            args = OfflineGPOConfig(f"{model_name.split('/')[-1]}-OfflineGPO")
        fetch_own_batches(args)
        model_init_kwargs = args.model_init_kwargs
        given, options = model, {name: kwargs.get(name) for name in ("peft_config", "quantization_config")}
        model, processing_class = load_if_adapter(model, args, processing_class, **options)
        if model is not given:
            # TRL would say that they are ignored.
            args.model_init_kwargs, kwargs["quantization_config"] = None, None
        if isinstance(train_dataset, Dataset) and len(train_dataset) == 0:
            raise ValueError("The train data set is empty: there is nothing to learn from.")
        revision = (args.model_init_kwargs or {}).get("revision") if isinstance(model, str) else None
        options = {"trust_remote_code": args.trust_remote_code} | ({} if revision is None else {"revision": revision})
        if processing_class is None:
            processing_class = load_tokenizer(model_name, **options)
        if isinstance(processing_class, ProcessorMixin):
            raise TypeError(
                f"This trainer reads text alone: give the tokenizer of the {type(processing_class).__name__}."
            )
        if isinstance(model, str):
            check_tokenizer(processing_class, vocabulary_of_checkpoint(model, **options))
        else:
            check_tokenizer(processing_class, model.config.get_text_config().vocab_size)
        if processing_class.pad_token is None:
            processing_class.pad_token = processing_class.eos_token
        # Before the rows are tokenised: what was made of them does not know where they are from.
        self.data_sources = data_sources(train_dataset)
        self.was_given_a_name = isinstance(model, str)
        self.preference_name = preference_name
        # Dropout makes the policy differ from itself, and another reference differs from it rightly.
        self._starts_as_reference = ref_model is None and args.disable_dropout
        self._reference_is_given = ref_model is not None
        super().__init__(
            model,
            ref_model,
            args,
            ScoredResponseCollator(processing_class.pad_token_id, args.pad_to_multiple_of),
            train_dataset,
            eval_dataset,
            processing_class,
            **kwargs,
        )
        keep_trainable(self.model)
        self.args.model_init_kwargs = model_init_kwargs
        # Of an adapter under ZeRO-3 TRL sets these by an old name, which transformers has read already.
        self.args.activation_checkpointing_kwargs = self.args.gradient_checkpointing_kwargs
        _check_number_of_rows(self.train_dataset, args)

    # --- data -------------------------------------------------------------------------------------------------------

    @override
    def _prepare_dataset(self, dataset, processing_class, args, dataset_name):
        check_text_columns(dataset, f"The {dataset_name} data set")
        dataset = tied_to_versions(dataset)
        columns = get_dataset_column_names(dataset)
        sides = sides_of(columns, args.loss_type, dataset_name)
        if sides != PAIR:
            # TRL's methods know pairs: the response stands for both until it is tokenised.
            dataset = dataset.rename_columns({old: new for old, new in SINGLE_TO_PAIR.items() if old in columns})
            double = {"rejected": "chosen", "rejected_ids": "chosen_ids"}
            with global_then_local_main_first():
                dataset = dataset.map(lambda row: {new: row[old] for new, old in double.items() if old in row})
            sides = PAIR[:1]
        given = [side for side in sides if f"ref_{side}_logps" in get_dataset_column_names(dataset)]
        if given and (len(given) < len(sides) or not args.precompute_ref_log_probs):
            raise ValueError(
                f"The {dataset_name} data set has reference log-probabilities of {given} "
                f"(precompute_ref_log_probs={args.precompute_ref_log_probs}): they are used where every response has "
                "them and `precompute_ref_log_probs=True`. Set it, or remove the columns."
            )
        with global_then_local_main_first():
            dataset = dataset.map(
                add_targets, with_indices=True, fn_kwargs={"sides": sides, "loss_type": args.loss_type}
            )
        dataset = super()._prepare_dataset(dataset, processing_class, args, dataset_name)
        if args.train_sampling_strategy in BY_LENGTH:
            options = {"sides": sides, "column": args.length_column_name}
            with global_then_local_main_first():
                dataset = dataset.map(add_length, fn_kwargs=options)
        return dataset if sides == PAIR else dataset.remove_columns(sorted(double))

    @override
    def _set_signature_columns_if_needed(self):
        if self._signature_columns is None:
            names = [f"{side}_{kind}" for side in PAIR for kind in ("ids", "target")]
            names += [f"ref_{side}_logps" for side in PAIR]
            self._signature_columns = ["prompt_ids", *names, "weight", self.args.length_column_name]

    # --- the reference ----------------------------------------------------------------------------------------------

    @override
    def _precompute_ref_logps(self, dataset, name, batch_size):
        if "ref_chosen_logps" in get_dataset_column_names(dataset):
            if self._reference_is_given:
                raise ValueError(
                    f"There are two references: a `ref_model`, and log-probabilities in the {name} data set. Give one."
                )
            return dataset
        return super()._precompute_ref_logps(dataset, name, batch_size)

    @override
    def compute_ref_log_probs(self, model, inputs):
        """As in TRL, one tensor of shape (B,) for each of chosen and rejected; of single responses twice the same."""
        rows, responses = inputs["targets"].shape
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask", "completion_mask")}
        log_probs = torch.cat(super().compute_ref_log_probs(model, inputs))
        return log_probs.view(responses, rows)[[0, -1]].unbind()

    # --- the loss ---------------------------------------------------------------------------------------------------

    @override
    def rows_in(self, batch):
        """The number of rows in a batch, of one or two responses each."""
        return len(batch["weights"])

    @override
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """
        Mean over rows of weight * mean over the row's responses of (beta log pi_theta(y|x)/pi_t(y|x) - target)^2, for
        REBEL of the square of the pair's difference (see [`gpm_hf.training.losses`]).
        """
        mode = "train" if self.model.training else "eval"
        rows, responses = inputs["targets"].shape
        model_inputs = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
        outputs = model(
            **model_inputs,
            **({"output_router_logits": True} if self.aux_loss_enabled else {}),
            use_cache=False,
            labels=inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100),
            fused_lm_head=True,
        )
        mask = inputs["completion_mask"][:, 1:]

        def per_response(values):
            """Sums over the tokens of each response, of shape (B, R). Prompt-learning adapters put tokens in front."""
            return (values[:, -mask.size(1) :] * mask).sum(1).view(responses, rows).T

        log_probs, lengths = per_response(outputs.log_probs), per_response(mask).clamp(min=1)
        if self.precompute_ref_logps:
            reference = inputs["ref_log_probs"]
        else:
            reference = torch.stack(self.compute_ref_log_probs(self.ref_model or self.model, inputs)[:responses], 1)
        log_ratios = log_probs - reference
        if mode == "train":
            self._check_start(log_ratios.detach(), lengths)
        if self.args.length_normalize:
            log_ratios = per_token(log_ratios, lengths)

        residuals_of = rebel_residuals if self.args.loss_type == "rebel" else gpo_residuals
        residuals = residuals_of(log_ratios, inputs["targets"], self.args.gpo_beta)
        losses = squared_residuals(residuals, self.args.gpo_beta, self.args.rescale_loss)
        per_row = inputs["weights"] * losses.mean(1)
        counted = inputs.get(COUNTED, torch.ones(rows, dtype=torch.bool, device=log_ratios.device))
        loss = self.mean_over_rows(per_row, counted, num_items_in_batch)
        if self.aux_loss_enabled:
            share = self.current_gradient_accumulation_steps if mode == "train" else 1
            loss = loss + self.router_aux_loss_coef * outputs.aux_loss / share
            per_row = per_row + self.router_aux_loss_coef * outputs.aux_loss
            self._metrics[mode]["aux_loss"].append(self.accelerator.gather(outputs.aux_loss.detach()).mean().item())

        with torch.no_grad():
            self._record(mode, inputs, log_ratios, residuals, counted)
            self._record_means(mode, "logps", log_probs, counted)
            self._record_means(mode, "entropy", per_response(outputs.entropy) / lengths, counted)
            self._record_means(mode, "response_length", lengths.float(), counted)
            if mode == "eval":  # the training's is logged by the parent
                self._record_means(mode, "loss", per_row, counted)
            if return_outputs:  # `compute_metrics` wants logits, which the fused head does not build
                outputs = model(**model_inputs, use_cache=False)
        return (loss, outputs) if return_outputs else loss

    def _check_start(self, log_ratios, lengths):
        """The first log-ratios are those of the policy with itself."""
        if not self._starts_as_reference or self.state.global_step > 0:
            return
        self._starts_as_reference = False  # true of the first batch only
        drift = (log_ratios.abs().sum() / lengths.sum()).item()
        if not drift <= MOST_DRIFT_PER_TOKEN:
            raise ValueError(
                f"Before the first step the policy's log-probabilities differ from the reference's by {drift:.3f} "
                f"nats per token (at most {MOST_DRIFT_PER_TOKEN} is rounding), so the reference is not the policy "
                "that this training starts from. Given log-probabilities must be sums over the tokens of the response "
                "(its sampled ids, where the rows have them), at temperature 1, by this very model: remove their "
                "columns to have them computed. A model that was changed after loading needs "
                "`precompute_ref_log_probs=True`; an adapter that changes the policy before it is trained needs a "
                "`ref_model`."
            )

    # --- metrics ----------------------------------------------------------------------------------------------------

    def _record(self, mode, inputs, log_ratios, residuals, counted):
        metrics, targets = self._metrics[mode], inputs["targets"]
        if mode == "train":
            tokens = self.accelerator.gather(inputs["attention_mask"].sum()).sum().item()
            self._total_train_tokens += tokens // self._tp_size
            if self._train_rows_over_max_length is not None:
                metrics["rows_over_max_length"] = [self._train_rows_over_max_length]
        metrics["num_tokens"] = [self._total_train_tokens]
        if log_ratios.size(1) == 2:
            self._record_means(mode, "gpo/pair_accuracy", (log_ratios[:, 0] > log_ratios[:, 1]).float(), counted)
        if self.args.loss_type == "rebel":
            log_ratios, targets = log_ratios[:, 0] - log_ratios[:, 1], targets[:, 0] - targets[:, 1]
        for name, values in (("log_ratio", log_ratios), ("target", targets)):
            self._record_means(mode, f"gpo/{name}", values, counted)
            self._record_means(mode, f"gpo/{name}_abs", values.abs(), counted)
        self._record_means(mode, "gpo/residual_abs", residuals.abs(), counted)
        self._record_means(mode, "gpo/sign_accuracy", (log_ratios * targets > 0).float(), counted)

    def _record_means(self, mode, name, values, counted):
        """Adds one value per response or pair, so that the logged means are exact whatever the sizes of batches."""
        self._metrics[mode][name].extend(self.gather_rows(values, counted).flatten().tolist())

    # --- the Hub ----------------------------------------------------------------------------------------------------

    @override
    def run_record(self, dataset_name=None, tags=None):
        """What this run was and measured, see [`policy_record`]."""
        preference = f"`{self.preference_name}`" if self.preference_name else "a preference model not recorded"
        return policy_record(self, preference, "offline", dataset_name, tags)


def _check_number_of_rows(dataset, args):
    """Incomplete batches may be dropped: with too few rows the training would end without a step."""
    needed = args.train_batch_size * args.world_size
    if args.dataloader_drop_last and isinstance(dataset, Dataset) and len(dataset) < needed:
        raise ValueError(
            f"The training set has {len(dataset)} rows, but one batch needs {needed} "
            "(per_device_train_batch_size * processes) and `dataloader_drop_last` drops smaller ones, so no step "
            "would be taken. Lower `per_device_train_batch_size`, add rows, or set `dataloader_drop_last=False`."
        )
