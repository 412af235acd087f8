"""Online General Preference Optimization: GRPO's machinery, GPO's regression (paper section 5)."""

import inspect
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import PreTrainedModel
from trl import GRPOTrainer
from trl.extras.profiling import profiling_context
from trl.trainer.utils import get_config_model_id
from typing_extensions import override

from gpm_hf.modeling import has_cycle, preference_matrix
from gpm_hf.training.block_advantages import BlockAdvantagesMixin, with_blocks
from gpm_hf.training.initial_policy import InitialPolicy, ProgressCallback
from gpm_hf.training.losses import (
    divergence_terms,
    gpo_residuals,
    group_mean_scores,
    opponent_mean_scores,
    per_token,
    squared_residuals,
)
from gpm_hf.training.online_gpo_config import OnlineGPOConfig
from gpm_hf.training.online_rounds import SaveStepsCheck, as_list, check_number_of_prompts, describe_sources
from gpm_hf.training.opponents import COLUMN, Responses, copy_of_policy, make_opponent, rows_of_both, text_tokenizer
from gpm_hf.training.policy_adapter import load_if_adapter
from gpm_hf.training.preference_signal import RewardSignal, group_by_prompt, load_preference_signal
from gpm_hf.training.prompt_rows import check_prompt_columns
from gpm_hf.training.quantized_layers import keep_trainable
from gpm_hf.training.row_means import CompletionMeansMixin
from gpm_hf.training.run_record import data_sources, policy_record
from gpm_hf.training.sampling_guard import SamplingGuard, unwrapped_for_generation
from gpm_hf.training.vllm_engine import engine_options

_INITIAL_POLICY_FILE = "initial_policy.json"


class OnlineGPOTrainer(BlockAdvantagesMixin, CompletionMeansMixin, GRPOTrainer):
    """
    Trainer for online General Preference Optimization ("Beyond Bradley-Terry Models: A General Preference Model for
    Language Model Alignment", ICML 2025, section 5).

    In each round the policy pi_t answers every prompt K times, the preference model scores the answers against each
    other, and the policy is fitted by the squared loss of equation 5.3,

        mean over samples of ( log pi_theta(y|x) / pi_t(y|x) - (s_hat(y|x) - log Z) / beta )^2,

    whose exact minimiser is one step of multiplicative weights; their average nears the von Neumann winner (Theorem
    5.1), also where preferences are cyclic and no best answer exists. With `opponent="reference"` or `"mixture"` the
    answers are scored against another policy's instead (equation 5.1 leaves it open whose); against a fixed one the
    policy nears the best reply to it. Everything but the signal and the loss is [`~trl.GRPOTrainer`]'s: generation,
    vLLM, tools, LoRA, checkpoints, tables of completions.

    Args:
        model (`str`, [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]): the policy. The training of an
            adapter, by its name or as an object, goes on.
        preference_model: who prefers what, as [`~gpm_hf.training.preference_signal.load_preference_signal`] takes it:
            a path or Hub id, or another description of a scorer (`"judge:NAME"`, ...); a
            [`~gpm_hf.modeling.GPMForPreference`] (Bradley-Terry included) or sequence-classification reward model; a
            [`~gpm_hf.scoring.Scorer`]; or a function `f(prompts, groups)` that returns a K x K matrix of log-odds per
            group. Under ZeRO-3 and FSDP models that read one response at a time are sharded; a model that reads pairs
            is whole on every process, which scores its share of the groups.
        args ([`OnlineGPOConfig`], *optional*): options.
        train_dataset (`Dataset` or `IterableDataset`): rows with a `prompt`, a string or messages; for
            `opponent="reference"` optionally `opponent_responses`, a list of as many strings (or lists of messages)
            in each row.
        eval_dataset (*optional*): as in GRPO.
        processing_class (`PreTrainedTokenizerBase`, *optional*): the policy's tokenizer.
        preference_processing_class (`PreTrainedTokenizerBase`, *optional*): the preference model's tokenizer; by
            default the one saved beside it.
        reward_funcs (*optional*): TRL reward functions or reward models, instead of a preference model or beside it.
            A reward model reads the same text as by `preference_model` ([`~gpm_hf.scoring.RewardModelScorer`]).
            The differences of their rewards are log-odds (tau = 1), added with `reward_weights` (the preference
            model's weight comes first). `None` or NaN for a completion means that this function says nothing about it.
        reward_processing_classes (*optional*): as in GRPO, for `reward_funcs`.
        kwargs: further arguments of [`~trl.GRPOTrainer`] (`callbacks`, `optimizers`, `peft_config`, `tools`, ...).

    A completion on which no source says anything (for a preference model: one without text) is unscorable: it drops
    out of the regression, whose denominator stays, and its group is scored without it. To make the policy avoid such
    completions give a reward function that says so.

    Raises:
        ValueError: where there is no signal; where a round needs more prompts than there are; for a score that is NaN;
            and as in [`OnlineGPOConfig`].
    """

    # The groups being scored: K, their row numbers (G, K), the preference model's log-odds and all sources' (G, K, K),
    # or (G, K + M, K + M) with the opponent's responses after the policy's; what `preference` has to say.
    _group_size: int
    args: OnlineGPOConfig
    model: Any
    _signature_columns: Any
    _groups: torch.Tensor
    _preference_scores: torch.Tensor
    _scores: torch.Tensor
    _mean_scores: list

    _tag_names = ["trl", "gpm-hf", "online-gpo"]
    _name = "Online GPO"

    def __init__(
        self,
        model,
        preference_model=None,
        args=None,
        train_dataset=None,
        eval_dataset=None,
        processing_class=None,
        preference_processing_class=None,
        reward_funcs=None,
        reward_processing_classes=None,
        **kwargs,
    ):
        if args is None:
            model_name = model if isinstance(model, str) else get_config_model_id(model.config)
            args = OnlineGPOConfig(f"{model_name.split('/')[-1]}-GPO")
        check_prompt_columns(train=train_dataset, eval=eval_dataset)
        name, model_init_kwargs = model, args.model_init_kwargs
        model, processing_class = load_if_adapter(
            model, args, processing_class, kwargs.get("peft_config"), kwargs.get("quantization_config")
        )
        if model is not name:
            # TRL would say that they are ignored.
            args.model_init_kwargs, kwargs["quantization_config"] = None, None
        check_number_of_prompts(train_dataset, args)
        interactive = [name for name in ("tools", "rollout_func", "environment_factory") if kwargs.get(name)]
        if interactive and args.win_rate_prompts:
            raise ValueError(
                f"`win_rate_prompts` compares single answers, which `{interactive[0]}` does not give: set it to 0."
            )
        if interactive and args.opponent != "self":
            raise ValueError(
                f"opponent={args.opponent!r} gives single answers, and the policy has `{interactive[0]}`: only "
                "opponent='self' plays on equal terms."
            )

        reward_funcs = as_list(reward_funcs)
        preference_name = describe_sources(preference_model, reward_funcs)
        processing_classes = as_list(reward_processing_classes) or [None] * len(reward_funcs)
        reward_models = []
        for index, (source, tokenizer) in enumerate(zip(reward_funcs, processing_classes)):
            if isinstance(source, (str, PreTrainedModel)):
                # GRPO itself would leave out the BOS and EOS that plain text was trained with.
                signal = load_preference_signal(source, tokenizer, args.preference_batch_size)
                if not isinstance(signal, RewardSignal):
                    raise ValueError(f"`reward_funcs` names {source}, a preference model: it is a `preference_model`.")
                reward_models.append(signal)
                reward_funcs[index], processing_classes[index] = signal.reward_function(), None
        self.preference_signal, asked = None, None
        if preference_model is not None:
            asked = load_preference_signal(
                preference_model,
                preference_processing_class,
                args.preference_batch_size,
                args.preference_model_init_kwargs,
            )
        if args.block_advantages:
            asked = with_blocks(args, asked, others=bool(reward_funcs or kwargs.get("environment_factory")))
        if asked is not None:
            function = self.preference
            if isinstance(asked, RewardSignal):
                # Of a scalar reward model GRPO logs the rewards themselves.
                reward_models.append(asked)
                function = asked.reward_function()
            else:
                self.preference_signal = asked
            reward_funcs, processing_classes = [function, *reward_funcs], [None, *processing_classes]
        elif not reward_funcs and not kwargs.get("environment_factory"):
            raise ValueError("There is nothing to learn from: give a `preference_model`, or `reward_funcs`.")

        given = len(reward_funcs)
        initial = copy_of_policy(model, args, train_dataset, kwargs.get("peft_config"))
        datasets = train_dataset, eval_dataset
        with engine_options(self, args):
            super().__init__(model, reward_funcs, args, *datasets, processing_class, processing_classes, **kwargs)
        self.args.model_init_kwargs = model_init_kwargs
        if self.preference_signal is not None:
            self.preference_signal.prepare(self.accelerator)
        self.stop_at_drift()
        for signal in reward_models:
            signal.prepare(self.accelerator)
        by_transformers = not (self.use_vllm or self.use_transformers_continuous_batching or self.rollout_func)
        self.sampling = SamplingGuard(
            self,
            text_tokenizer(self.processing_class),
            [lambda: unwrapped_for_generation(self, self.model_wrapped)],
            self.generation_config if by_transformers else None,
        )
        keep_trainable(self.model)
        self.opponent = make_opponent(self, model, initial, kwargs.get("quantization_config"))
        self.add_callback(SaveStepsCheck())
        self.data_sources = data_sources(train_dataset)
        self.was_given_a_name = isinstance(model, str)
        # After those that were given come the environments that own their rewards.
        environments = [f"`{name}`" for name in self.reward_func_names[given:]]
        self._preference_name = ", ".join(filter(None, [preference_name, *environments]))
        self.initial_policy: InitialPolicy | None = None
        if args.win_rate_prompts:
            has_one = eval_dataset is not None and not isinstance(eval_dataset, dict)
            dataset = eval_dataset if has_one else train_dataset
            self.initial_policy = InitialPolicy(self, dataset, args.win_rate_prompts)
            self.add_callback(ProgressCallback(self))

    # --- the signal -------------------------------------------------------------------------------------------------

    def preference(self, prompts, completions, **columns):
        """
        The preference model as one of GRPO's reward functions, so that its mean scores are in GRPO's logs and tables.
        The matrices behind them are computed before it is called, see `_score`.
        """
        return self._mean_scores

    @override
    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        groups = self._groups_of(prompts, self._group_size)
        theirs = None if self.opponent is None else self.opponent.respond(groups, inputs, prompts)
        return self._score(groups, Responses(inputs, prompts, completions, completion_ids_list), theirs)

    def _groups_of(self, prompts, size):
        groups = group_by_prompt(gather_object(list(prompts)), size)
        return torch.tensor(groups, device=self.accelerator.device)

    def _score(self, groups, ours, theirs=None):
        """
        Scores groups of responses by all sources, among themselves or together with the opponent's; the log-odds stay
        in `_scores`. Returns GRPO's rewards of `ours`, of all processes.
        """
        self._groups, members, size = groups, groups, groups.shape[1]
        prompts, completions, means = list(ours.prompts), list(ours.completions), []
        if theirs is not None:
            members = rows_of_both(groups, len(ours), len(theirs), self.opponent.size)
            prompts, completions = prompts + theirs.prompts, completions + theirs.completions
        if self.preference_signal is not None:
            with profiling_context(self, "preference_model"):
                scores = torch.stack(self.preference_signal(prompts, completions, members.tolist()))
            self._preference_scores = scores
            if theirs is None:
                means = self._local(torch.stack([group_mean_scores(one) for one in scores])).tolist()
            else:
                means = self._local(opponent_mean_scores(scores[:, :size, size:])).tolist()
        if theirs is not None:
            opponent_rewards = self._rewards(theirs, [0.0] * len(theirs))
            self._drop_logs()
        rewards = both = self._rewards(ours, [None if mean != mean else mean for mean in means])
        if theirs is not None:
            processes = (self.accelerator.num_processes, -1)
            both = torch.cat([rewards.unflatten(0, processes), opponent_rewards.unflatten(0, processes)], 1)
            both = both.flatten(0, 1)
        self._scores = self._sum_of_scores(both, members)
        return rewards

    def _rewards(self, responses, mean_scores):
        """GRPO's rewards of all processes; of the preference model the given mean scores."""
        self._mean_scores = mean_scores
        rewards = super()._calculate_rewards(
            responses.inputs, responses.prompts, responses.completions, responses.token_ids
        )
        self._check_rewards(rewards, responses.prompts)
        return rewards

    def _drop_logs(self):
        """What reward functions want to log belongs to the policy's rollouts."""
        self._pending_extra_logs.clear()
        self._pending_metrics.clear()

    def _sum_of_scores(self, rewards, members):
        """Log-odds (G, n, n) of groups (G, n) by all sources; a pair on which a source says nothing gets 0 from it."""
        total = torch.zeros(*members.shape, members.shape[1], device=rewards.device)
        unscorable = torch.ones_like(members, dtype=torch.bool)
        for index, weight in enumerate(self.reward_weights.tolist()):
            if index == 0 and self.preference_signal is not None:
                scores = self._preference_scores
            else:
                scores = preference_matrix(rewards[:, index][members][..., None])
            total += weight * scores.nan_to_num(0.0)
            unscorable &= scores.diagonal(dim1=-2, dim2=-1).isnan()  # lost only if no source scores it
        return total.masked_fill(unscorable[:, :, None] | unscorable[:, None, :], torch.nan)

    def _check_rewards(self, rewards, prompts):
        """NaN is `None`; infinity is a failure of anyone."""
        broken = rewards.isinf()
        if broken.any():
            row, column = broken.nonzero()[0].tolist()
            raise ValueError(
                f"{self.reward_func_names[column]} gave {rewards[row, column].item()} for a completion of the prompt "
                f"{gather_object(list(prompts))[row]!r}. A reward function says `None` where it cannot score."
            )

    def judge(self, inputs, prompts, completions, completion_ids, group_size):
        """
        Scores groups of given completions by all sources, each group among itself. All processes call this together.

        Args:
            inputs (`list[dict]`): data set rows of the completions of this process.
            prompts, completions, completion_ids (`list`): one per completion.
            group_size (`int`): K, the number of completions of each group.

        Returns:
            `tuple`: row numbers, through all processes, of shape (G, K), and log-odds of shape (G, K, K).
        """
        groups = self._groups_of(prompts, group_size)
        self._score(groups, Responses(inputs, prompts, completions, completion_ids))
        self._drop_logs()
        return self._groups, self._scores

    @override
    def _generate(self, prompts):
        self.sampling.look()
        return super()._generate(prompts)

    @override
    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        self.sampling.check_lengths(prompt_ids)
        return super()._generate_single_turn(prompt_ids, *args, **kwargs)

    @override
    def _get_per_token_logps_and_entropies(self, model, *args, **kwargs):
        return super()._get_per_token_logps_and_entropies(self.sampling.reader(model), *args, **kwargs)

    @override
    def _generate_and_score_completions(self, inputs):
        mode = "train" if self.model.training else "eval"
        self._group_size = self.num_generations if mode == "train" else self.num_generations_eval
        output = super()._generate_and_score_completions(inputs)
        self.sampling.compare(output)
        scores, against = self._scores, "group"
        own_scores = scores[:, : self._group_size, : self._group_size]
        if self.opponent is not None:
            scores, against = scores[:, : self._group_size, self._group_size :], "opponent"
            self._metrics[mode]["gpo/win_rate_opponent"].append(scores.sigmoid().nanmean().item())
        targets = self.targets_of(scores, against, mode)
        # One number per completion: groups are shuffled and split before the loss. NaN marks what has no target.
        output["targets"] = self._local(targets)
        self._metrics[mode]["gpo/unscorable"].append(targets.isnan().float().mean().item())
        self._metrics[mode]["gpo/groups_with_cycle"].append(has_cycle(own_scores).float().mean().item())
        return output

    @override
    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        if COLUMN not in self._signature_columns:
            self._signature_columns.append(COLUMN)

    def _local(self, values):
        """This process's rows of values (G, K) of all groups."""
        flat = torch.empty(values.numel(), dtype=values.dtype, device=values.device)
        flat[self._groups.flatten()] = values.flatten()
        count = len(flat) // self.accelerator.num_processes
        return flat[self.accelerator.process_index * count :][:count]

    # --- the loss ---------------------------------------------------------------------------------------------------

    @override
    def _compute_loss(self, model, inputs):
        """
        Mean over samples of ( beta log pi_theta(y|x)/pi_t(y|x) - (s_hat(y|x) - beta log Z) )^2, which is equation 5.3
        times beta^2 (without `rescale_loss`: equation 5.3), see [`gpm_hf.training.losses`].
        """
        mode = "train" if self.model.training else "eval"
        log_probs, entropies, aux_loss = self._token_log_probs(model, inputs)
        # GRPO leaves them out when the policy cannot have moved since it sampled.
        old_log_probs = inputs.get("old_per_token_logps", log_probs.detach())
        mask = inputs["completion_mask"]
        if "tool_mask" in inputs:
            mask = mask * inputs["tool_mask"]
        lengths, targets = mask.sum(-1), inputs["targets"]

        log_ratios = ((log_probs - old_log_probs) * mask).sum(-1)
        if self.args.length_normalize:
            log_ratios = per_token(log_ratios, lengths)
        # No target, or no token left (a truncated completion under `mask_truncated_completions`): no term in the sum.
        counts = ~targets.isnan() & (lengths > 0)
        residuals = gpo_residuals(log_ratios, targets, self.args.gpo_beta).masked_fill(~counts, 0.0)
        per_sample = squared_residuals(residuals, self.args.gpo_beta, self.args.rescale_loss)
        if "importance_sampling_ratio" in inputs:  # (B, 1): pi_t / q of what vLLM sampled; equation 5.3 is over pi_t
            per_sample = per_sample * inputs["importance_sampling_ratio"].squeeze(1)

        if self.beta != 0.0:
            kl = divergence_terms(log_probs, inputs["ref_per_token_logps"])
            if self.args.use_bias_correction_kl:
                kl = kl * (log_probs - old_log_probs).exp()
            per_sample = per_sample + self.beta * (kl * mask).sum(-1) / lengths.clamp(min=1)
            self.log_mean(mode, "kl", kl, mask)

        loss = per_sample.mean()  # over all samples: one without a target leaves the denominator as it is
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * aux_loss
            per_sample = per_sample + self.router_aux_loss_coef * aux_loss
            self._metrics[mode]["aux_loss"].append(self.accelerator.gather(aux_loss).mean().item())

        self.log_mean(mode, "entropy", entropies, mask)
        self.log_mean(mode, "gpo/target_abs", targets.abs(), counts)
        self.log_mean(mode, "gpo/residual_abs", residuals.abs(), counts)
        self.log_mean(mode, "gpo/log_ratio_abs", log_ratios.abs(), counts)
        if mode == "eval":  # the training's is logged by the parent
            self.log_mean(mode, "loss", per_sample, torch.ones_like(per_sample))
        return loss / (self.current_gradient_accumulation_steps if mode == "train" else 1.0)

    def _token_log_probs(self, model, inputs):
        """Log-probabilities and entropies of the completions' tokens, (B, length), and the loss of routers."""
        completion_ids = inputs["completion_ids"]
        return self._get_per_token_logps_and_entropies(
            model,
            torch.cat([inputs["prompt_ids"], completion_ids], dim=1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
            completion_ids.size(1),
            compute_entropy=True,
            compute_aux_loss=self.aux_loss_enabled,
            **{name: inputs[name] for name in _MODEL_INPUTS if name in inputs},
        )

    # --- checkpoints ---------------------------------------------------------------------------------------------

    @override
    def write_beside_state(self, folder):
        super().write_beside_state(folder)
        if self.initial_policy is not None:
            self.initial_policy.save(folder / _INITIAL_POLICY_FILE)

    @override
    def check_checkpoint(self, folder):
        super().check_checkpoint(folder)
        if self.initial_policy is not None:
            path = folder / _INITIAL_POLICY_FILE
            if not path.is_file():
                raise ValueError(
                    f"{folder} holds no answers of the initial policy ({path.name}), so nothing could be measured "
                    "against them: its run had no `win_rate_prompts`. Go on without, or train from the beginning."
                )
            self.initial_policy.load(path)

    # --- the Hub -------------------------------------------------------------------------------------------------

    @override
    def run_record(self, dataset_name=None, tags=None):
        """What this run was and measured, see [`policy_record`]."""
        return policy_record(self, self._preference_name, "online", dataset_name, tags)


# What models of images read beside ids and masks is in a batch under the names of this method's options.
_MODEL_INPUTS = tuple(inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters)
