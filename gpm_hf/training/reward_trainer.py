"""Training of general preference models, and of Bradley-Terry reward models as their case of dimension 1."""

import copy
import os
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, is_peft_model
from datasets import Dataset, IterableDataset
from transformers import PreTrainedTokenizerBase, set_seed
from transformers.integrations import is_fsdp_enabled
from transformers.utils import ModelOutput
from trl import RewardTrainer
from typing_extensions import override

from gpm_hf.data.collator import PreferenceCollator, collate_states
from gpm_hf.data.group_rows import GROUP_COLUMNS
from gpm_hf.data.packed_collator import PackedPreferenceCollator
from gpm_hf.data.preference import LABEL_COLUMNS, TOKEN_COLUMNS
from gpm_hf.data.preference_rows import IDENTICAL
from gpm_hf.modeling import (
    UNKNOWN_DATE,
    GPMConfig,
    GPMForPreference,
    checked_date,
    fixed_templates,
    packing_obstacle,
    pair_scores,
)
from gpm_hf.news import get_logger
from gpm_hf.scoring.preference_model import check_gpm_options, load_or_start_preference_model, load_tokenizer
from gpm_hf.training.group_batches import pair_weights, rows_in, take_pairs
from gpm_hf.training.head_states import ROW_COLUMNS, with_head_states
from gpm_hf.training.long_rows import count_left_out
from gpm_hf.training.losses import cross_entropy_loss, regression_loss
from gpm_hf.training.new_tokens import check_base, check_tokenizer, vocabulary_of_checkpoint
from gpm_hf.training.peft_config import adapter_config
from gpm_hf.training.publishing_mixin import PublishingMixin
from gpm_hf.training.quantized_layers import keep_trainable
from gpm_hf.training.reward_config import GPMRewardConfig
from gpm_hf.training.reward_data import count_undecided, prepare_preferences
from gpm_hf.training.reward_groups import count_groups, cut_groups, group_pairs, ungroup
from gpm_hf.training.reward_metrics import PairMetricsMixin
from gpm_hf.training.row_means import COUNTED, NO_SEARCH, fetch_own_batches
from gpm_hf.training.run_record import data_sources, preference_model_record
from gpm_hf.training.spectral_heads import spectral_embedding_head, state_pairs
from gpm_hf.training.token_batches import TokenBatchSampler

logger = get_logger(__name__)

HEADS = ("embedding_head", "gate_head", "reward_head")


class GPMRewardTrainer(PublishingMixin, PairMetricsMixin, RewardTrainer):
    """
    Trainer for general preference models ("Beyond Bradley-Terry Models: A General Preference Model for Language Model
    Alignment", ICML 2025, section 4 and appendix A.1).

    What differs from TRL's [`~trl.RewardTrainer`]: the model is a [`GPMForPreference`], the loss is a function of the
    log-odds between the two embeddings of a pair, rows are tokenised by the encoding that also scores later, rows over
    `max_length` are counted and said, and metrics are exact means over rows. Everything else is inherited.

    Args:
        model (`str` or [`GPMForPreference`] or [`~peft.PeftModel`]):
            A saved preference model or a language model to start one from (Hub id, folder, folder with one `.gguf`
            file), or a model object.
        args ([`GPMRewardConfig`], *optional*):
            Configuration of the trainer.
        train_dataset, eval_dataset ([`~datasets.Dataset`] or [`~datasets.IterableDataset`]):
            Preference data: `chosen`, `rejected` and `prompt`, as strings or chat messages (conversations may contain
            the prompt instead), or tokenised as `chosen_ids`, `rejected_ids` and `prompt_ids`. Optional columns:
            `margin` (log-odds), `preference_probability` (that chosen is preferred), `target_score` (log-odds). Or
            groups: `prompt`, `responses` and who of them beats whom, see [`gpm_hf.data.judged_groups`]. Each response
            then passes the backbone once, the prompt once for all of them, and a batch has the gradient of its pairs.
        processing_class ([`~transformers.PreTrainedTokenizerBase`], *optional*):
            The tokenizer; by default the one beside the model.
        peft_config ([`~peft.PeftConfig`], *optional*):
            Trains an adapter, by any method of PEFT that adapts layers. The heads are added to `modules_to_save`,
            since they are new. Without `target_modules` PEFT adapts its default modules for the backbone (LoRA: the
            query and value projections); `target_modules="all-linear"` adapts more and often learns more.

    Metrics are of the direction that a pair's label prefers, the chosen response's unless `preference_probability` is
    under 1/2 or, in regression, `target_score` under 0: `accuracy` (share of pairs with positive log-odds that way),
    `mean_probability`, `mean_log_odds`. Pairs about which nobody can be right are left out of these three and counted:
    `identical_pairs` of equal responses, `undecided_labels` of 1/2 or 0. Further `margin`, TRL's (the mean log-odds of
    chosen over rejected, whatever the label), `skew_error` (largest |s_ij + s_ji|, zero by construction), in training
    `rows_over_max_length` (but of a stream), of groups `groups_right`, the share of those whose pairs are all right,
    and `cycles_right`, of those whose labels go round in a circle. An evaluation puts `eval_` or `eval_NAME_` first.
    """

    _tag_names = ["trl", "gpm-hf", "preference-model", "reward-trainer"]
    _name = "GPM"
    args: GPMRewardConfig
    model: Any
    train_dataset: Any
    data_collator: Any
    _signature_columns: Any

    def __init__(
        self,
        model: Any,
        args: GPMRewardConfig | None = None,
        data_collator: Any = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Any = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        quantization_config: Any = None,
        peft_config: Any = None,
        **kwargs: Any,
    ):
        if "model_init" in kwargs:
            raise ValueError(f"`model_init` is for a search of hyper-parameters. {NO_SEARCH}")
        if args is None:
            name = model if isinstance(model, str) else model.config.name_or_path
            args = GPMRewardConfig(f"{os.path.basename(name.rstrip('/')) or 'model'}-GPM")
        # A copy, because the parent would read options that are settled here.
        init_args = copy.copy(args)
        init_args.model_init_kwargs = None
        fetch_own_batches(init_args)

        # New heads are random, so the seed must come before the model.
        set_seed(args.seed)
        is_named = isinstance(model, str)
        revision = (args.model_init_kwargs or {}).get("revision") if is_named else None
        if isinstance(model, str):
            model_options = self._model_options(args, quantization_config)
            if processing_class is None:
                tokenizer_options = {
                    name: model_options[name] for name in ("revision", "gguf_file") if model_options.get(name)
                }
                processing_class = load_tokenizer(model, trust_remote_code=args.trust_remote_code, **tokenizer_options)
            model, is_new = load_or_start_preference_model(model, args.gpm_options, **model_options)
        else:
            gpm, is_new = _unwrap(model), False
            if gpm.config.model_type != GPMConfig.model_type:
                raise TypeError(
                    f"The model is a {type(gpm).__name__}, not a preference model: pass its name or path, or make one "
                    "with `GPMForPreference.from_backbone`."
                )
            check_gpm_options(gpm.config, args.gpm_options, "The given model")
            if processing_class is None:
                processing_class = load_tokenizer(model.config.name_or_path, trust_remote_code=args.trust_remote_code)
        self.gpm = _unwrap(model)
        self._gpm_class = type(self.gpm)
        keep_trainable(self.gpm)
        if self.gpm.config.template_date == UNKNOWN_DATE:
            # Trained before there were dates; what is made of it here has one.
            self.gpm.config.template_date = checked_date(args.template_date)
        # What reads the saved tokenizer's template without this package writes the model's date as well.
        processing_class.chat_template = fixed_templates(processing_class.chat_template, self.gpm.config.template_date)
        if is_fsdp_enabled():
            _share_heads(self.gpm)
        # The training data are prepared first.
        # Of the card: how many training groups, pairs and distinct responses; nothing for pairs.
        self.group_counts: dict[str, int] = {}
        self._train_counts: dict[str, int] | None = None if train_dataset is not None else {}
        # Before the rows are tokenised: what was made of them does not know where they are from.
        self.data_sources = data_sources(train_dataset)
        self.was_given_a_name = is_named
        if is_peft_model(model) and not any(
            p.requires_grad for head in self.gpm.heads().values() for p in head.parameters()
        ):
            raise ValueError(
                "The heads of this PEFT model are frozen, and new heads are random numbers. Name them in its "
                "`modules_to_save`, or pass the model without an adapter and a `peft_config`."
            )
        check_tokenizer(processing_class, self.gpm.config.text_config.vocab_size)
        base, base_size = None, 0
        if peft_config is not None or is_peft_model(model):
            base = model.active_peft_config.base_model_name_or_path if is_peft_model(model) else model.name_or_path
        if base:  # a model made from a configuration has no name, and nobody could load its adapter
            base_size = self.gpm.config.text_config.vocab_size
            if not is_named:
                base_size = vocabulary_of_checkpoint(base, trust_remote_code=args.trust_remote_code)
            check_base(self.gpm.config.text_config.vocab_size, base, base_size)
        context = self.gpm.context_length
        if context is not None and (args.max_length is None or args.max_length > context):
            logger.warning(f"max_length={args.max_length} is lowered to {context}, the backbone's context.")
            init_args.max_length = context

        if args.train_heads_only:
            if peft_config is not None or is_peft_model(model):
                raise ValueError("train_heads_only freezes the backbone, so a PEFT adapter would never be trained.")
            if args.deepspeed_plugin is not None and args.deepspeed_plugin.zero_stage == 3:
                raise ValueError(
                    "train_heads_only computes the backbone's states before the training starts, when ZeRO-3 has not "
                    "gathered its weights yet. Use plain data parallelism: the heads need no sharding."
                )
            self.gpm.model.requires_grad_(False)
            self.gpm.to(args.device)
            # There is no backbone pass whose activations could be recomputed.
            init_args.gradient_checkpointing = False
        if peft_config is not None:
            peft_config = adapter_config(peft_config, self.gpm)
            if peft_config.revision is None and isinstance(revision, str):
                peft_config.revision = revision
        heads = {name: head.weight.detach().clone() for name, head in self.gpm.heads().items()}
        self._groups_unasked = data_collator is None
        if data_collator is None and args.train_heads_only:
            data_collator = collate_states
        elif data_collator is None:
            data_collator = PreferenceCollator(
                # Padded positions are masked, so where the tokenizer has no padding token any id will do.
                pad_token_id=processing_class.pad_token_id or 0,
                with_prompts=self.gpm.config.scale_gate,
                pad_to_multiple_of=args.pad_to_multiple_of,
            )
            obstacle = packing_obstacle(self.gpm)
            if args.packing and obstacle is not None:
                raise ValueError(f"packing=True is not possible: {obstacle} Leave `packing` unset.")
            # Unasked only with the attention of which it has been measured when that pays.
            by_sdpa = self.gpm.config.text_config._attn_implementation.startswith("sdpa")
            if args.packing or (args.packing is None and obstacle is None and by_sdpa):
                hidden_size = self.gpm.config.text_config.hidden_size
                data_collator = PackedPreferenceCollator(data_collator, hidden_size, always=args.packing is True)
        elif args.packing:
            raise ValueError("packing=True is what a data collator does, and you passed one of your own.")
        # The rows are prepared for it, by the parent's `__init__`.
        self._collator = data_collator
        super().__init__(
            model=model,
            args=init_args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            peft_config=peft_config,
            **kwargs,
        )
        self.args.model_init_kwargs = args.model_init_kwargs
        if base:  # the tokens of a `chat_template_path` have come since
            check_base(self.gpm.config.text_config.vocab_size, base, base_size)
        if self._starts_spectral(is_new):
            self._initialize_embedding_head()
        # For quantised models the parent casts all that is trained to bfloat16, the heads too.
        for name, parameter in self.gpm.named_parameters():
            if name.startswith(HEADS) and parameter.dtype != heads[name.split(".")[0]].dtype:
                parameter.data = heads[name.split(".")[0]].to(parameter.device)

    def _starts_spectral(self, is_new):
        asked = self.args.head_initialization
        if asked == "spectral":
            if self.gpm.config.is_bradley_terry:
                raise ValueError('head_initialization="spectral" finds planes; a Bradley-Terry head has none.')
            if self.train_dataset is None:
                raise ValueError('head_initialization="spectral" reads the training data, and there is none.')
            return True
        new_planes = is_new and not self.gpm.config.is_bradley_terry
        return asked is None and self.args.train_heads_only and new_planes and self.train_dataset is not None

    def _initialize_embedding_head(self):
        def batches(size=1024):
            for start in range(0, len(self.train_dataset), size):
                rows = self.train_dataset[start : start + size]
                yield state_pairs(rows, self.args.loss_type)

        weight = self.gpm.embedding_head.weight
        new, strengths = spectral_embedding_head(
            batches(), weight.detach().cpu(), beside_reward=self.gpm.config.reward_head
        )
        weight.data.copy_(new)
        told = ", ".join(f"{strength:.3g}" for strength in strengths.tolist())
        logger.info(f"The embedding head starts in the planes in which the preferences turn: strengths {told}.")

    @staticmethod
    def _model_options(args: GPMRewardConfig, quantization_config: Any) -> dict[str, Any]:
        options = dict(args.model_init_kwargs or {})
        # TRL's rule: weights to be trained are float32 unless another type is asked for.
        options["dtype"] = options.get("dtype") or "float32"
        if quantization_config is not None:
            options["quantization_config"] = quantization_config
        options.setdefault("trust_remote_code", args.trust_remote_code)
        return {name: value for name, value in options.items() if value is not None}

    @override
    def _prepare_dataset(self, dataset, processing_class, args, dataset_name):
        is_prepared = isinstance(dataset, Dataset) and {"sequence_rows", "sequence_ids"} & set(dataset.column_names)
        if is_prepared:
            return dataset  # `evaluate` on a data set that `__init__` prepared
        config = cast(GPMConfig, self.gpm.config)
        dataset, grouped, dropped = prepare_preferences(dataset, processing_class, config, args, dataset_name)
        is_training = self._train_counts is None
        if grouped and is_training and args.group_pairs is False:
            dataset, grouped = ungroup(dataset, args, dataset_name), False
        if isinstance(dataset, IterableDataset):
            if args.train_heads_only:
                raise ValueError("train_heads_only keeps states on disk, row by row; a streamed data set has no rows.")
            if args.max_tokens_per_batch is not None:
                raise ValueError("max_tokens_per_batch needs to know all rows, and those of a stream nobody knows.")
            if args.max_length is not None:
                count_left_out(dataset, dataset, args.max_length, dataset_name)
            self._train_counts = self._train_counts or {}
            return dataset if grouped else super()._prepare_dataset(dataset, processing_class, args, dataset_name)
        if not grouped:
            before = dataset
            dataset = super()._prepare_dataset(dataset, processing_class, args, dataset_name)
            dropped += count_left_out(before, dataset, args.max_length, dataset_name)
        undecided = count_undecided(dataset, args.loss_type, dataset_name)
        if is_training:
            self._train_counts = {"rows_over_max_length": dropped, **undecided}
            if not grouped:
                shares_prompt = isinstance(self._collator, PackedPreferenceCollator)
                dataset = group_pairs(dataset, args, shares_prompt, self._groups_unasked, dataset_name)
            if "pairs" in dataset.column_names:
                self.group_counts = count_groups(dataset)
            if args.max_tokens_per_batch is not None and self.group_counts:
                dataset = cut_groups(dataset, args.max_tokens_per_batch, self._collator, dataset_name)
        if args.train_heads_only:
            dataset = with_head_states(dataset, self.gpm, args.head_states_batch_size)
        return dataset

    @override
    def _get_train_sampler(self, train_dataset=None):
        most_tokens = self.args.max_tokens_per_batch
        if most_tokens is None:
            return super()._get_train_sampler(train_dataset)
        rows = self.train_dataset if train_dataset is None else train_dataset
        return TokenBatchSampler(
            [self.data_collator.shape_of(row) for row in rows],
            self.data_collator.tokens_of,
            most_rows=self.args.train_batch_size,
            most_tokens=most_tokens,
            processes=self.accelerator.num_processes // self._tp_size,
            rank=self.accelerator.process_index // self._tp_size,
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
            shuffle=self.args.train_sampling_strategy == "random",
        )

    @override
    @property
    def _batches_differ(self):
        return super()._batches_differ or self.args.max_tokens_per_batch is not None

    @override
    def predict(self, test_dataset, *arguments, **options):
        """
        As the parent's, for the data sets that `evaluate` takes; predictions are one log-odds per pair, those of
        groups one group after the other. (`compute_metrics` sees them with a row per group, padded.)
        """
        test_dataset = self._prepare_dataset(test_dataset, self.processing_class, self.args, "test")
        output = super().predict(test_dataset, *arguments, **options)
        if isinstance(test_dataset, Dataset) and "pairs" in test_dataset.column_names:
            counts = [len(pairs) for pairs in test_dataset.with_format(None)["pairs"]]
            rows = zip(output.predictions, counts, strict=True)
            output = output._replace(predictions=np.concatenate([row[:count] for row, count in rows]))
        return output

    @override
    def _set_signature_columns_if_needed(self):
        if self._signature_columns is None:
            columns = [*TOKEN_COLUMNS, *GROUP_COLUMNS, "prompt_ids", *ROW_COLUMNS, *LABEL_COLUMNS, IDENTICAL]
            self._signature_columns = [*columns, self.args.length_column_name]

    @override
    def rows_in(self, batch):
        """The number of pairs or groups in a batch, whichever collator made it."""
        return rows_in(batch)

    @override
    def weight_of(self, batch):
        """The number of pairs that count or, with `pair_weight="prompt"`, of prompts."""
        return pair_weights(batch, self.args.pair_weight == "prompt").sum()

    @override
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        mode = "train" if self.model.training else "eval"
        labels = {name: inputs.pop(name) for name in (*LABEL_COLUMNS, IDENTICAL) if name in inputs}
        counted_rows = inputs.get(COUNTED)
        if counted_rows is None:
            device = next(iter(inputs.values())).device
            counted_rows = inputs[COUNTED] = torch.ones(self.rows_in(inputs), dtype=torch.bool, device=device)
        weights = pair_weights(inputs, self.args.pair_weight == "prompt")
        del inputs[COUNTED]
        pairs = take_pairs(inputs)
        outputs = model(**inputs)

        chosen, rejected = outputs.embeddings[pairs.places].unbind(1)
        scales = outputs.scales
        # Stored states have their prompts', also for a model without a gate.
        if scales is not None and pairs.gate_rows is not None:
            scales = scales[pairs.gate_rows]
        log_odds = pair_scores(chosen, rejected, scales, self.gpm.config.tau)

        if self.args.loss_type == "regression":
            losses = regression_loss(log_odds, labels["target_score"])
        else:
            losses = cross_entropy_loss(log_odds, labels.get("preference_probability", 1.0), labels.get("margin", 0.0))
        if mode == "train" and "attention_mask" in inputs:
            tokens = self.accelerator.gather(inputs["attention_mask"].sum()).sum().item()
            self._total_train_tokens += tokens // self._tp_size
        with torch.no_grad():
            reversed_log_odds = pair_scores(rejected, chosen, scales, self.gpm.config.tau)
            self.record_pairs(mode, labels, pairs, counted_rows, weights, losses, log_odds, reversed_log_odds)
        loss = self.mean_over_rows(losses, weights, num_items_in_batch)
        # `compute_metrics` receives the log-odds: of all outputs only they have one row per pair or group.
        return (loss, ModelOutput(loss=loss, log_odds=pairs.padded(log_odds))) if return_outputs else loss

    @override
    def _write_model(self, folder, state_dict):
        with _of_class(self.gpm, self._gpm_class):
            super()._write_model(folder, state_dict)
        if self.args.should_save and is_peft_model(self.model):
            # An adapter of a plain language model says neither what the heads are nor how to run them.
            self.gpm.save_config_and_code(folder)

    @override
    def run_record(self, dataset_name=None, tags=None):
        """What this run was and measured, see [`preference_model_record`]."""
        return preference_model_record(self, dataset_name, tags)


def _share_heads(model):
    """
    Gives all processes the first one's heads. FSDP with cpu_ram_efficient_loading leaves new weights without values on
    the others: nowhere in memory, and as accelerate knows an optimizer's weights by their addresses, two heads would
    then be taken for one; or, beside a quantised backbone, wherever they happen to lie, for those are not sent later.
    """
    heads = model.heads()
    is_first = PartialState().is_main_process
    weights = {name: head.weight.detach().cpu() for name, head in heads.items()} if is_first else None
    (weights,) = broadcast_object_list([weights])
    for name, head in heads.items():
        device = "cpu" if head.weight.is_meta else head.weight.device
        head.weight = torch.nn.Parameter(weights[name].to(device), requires_grad=head.weight.requires_grad)


@contextmanager
def _of_class(model, own_class):
    """FSDP2 gives a sharded model a class of torch's, and the code that is saved with a model is that of its class."""
    sharded = type(model)
    model.__class__ = own_class
    try:
        yield
    finally:
        model.__class__ = sharded


def _unwrap(model) -> GPMForPreference:
    return model.get_base_model() if is_peft_model(model) else model
