"""Options of [`OnlineGPOTrainer`]."""

from dataclasses import dataclass, fields
from typing import Any

from trl import GRPOConfig
from typing_extensions import override

from gpm_hf.options import check_choices, choice, described
from gpm_hf.training.block_advantages import MONITORS, BlockMonitor
from gpm_hf.training.masked_options import MaskedOptionsMixin

# Options of GRPO's loss that GPO's regression has no place for.
_IGNORED = (
    "epsilon",
    "epsilon_high",
    "delta",
    "importance_sampling_level",
    "sapo_temperature_neg",
    "sapo_temperature_pos",
    "vespo_k_pos",
    "vespo_k_neg",
    "vespo_lambda_pos",
    "vespo_lambda_neg",
    "multi_objective_aggregation",
    "top_entropy_quantile",
    "entropy_coef",
    "use_adaptive_entropy",
    "entropy_coef_min",
    "entropy_coef_max",
    "entropy_coef_delta",
    "entropy_target",
    "off_policy_mask_threshold",
)
# Sampling from the whole policy.
_WHOLE: dict[str, tuple] = {"top_p": (1.0,), "top_k": (0, -1), "min_p": (None, 0.0)}
# What TRL has options for when it starts a vLLM engine, or relies on.
_TRLS_OF_VLLM = (
    "model",
    "tensor_parallel_size",
    "gpu_memory_utilization",
    "max_model_len",
    "max_num_seqs",
    "enable_sleep_mode",
    "model_impl",
    "distributed_executor_backend",
    "logprobs_mode",
    "quantization",
    "trust_remote_code",
)


@described
@dataclass(repr=False)
class OnlineGPOConfig(MaskedOptionsMixin, GRPOConfig):
    r"""
    Configuration class for the [`OnlineGPOTrainer`]: TRL's [`~trl.GRPOConfig`] (generation, vLLM, batches, logging)
    with GPO's loss in place of GRPO's ("Beyond Bradley-Terry Models", section 5, equations 5.1 to 5.3).

    The batch arithmetic is GRPO's: `per_device_train_batch_size` counts completions, `num_generations` (K) is the size
    of a group, and one generation is used for `num_iterations * steps_per_generation / gradient_accumulation_steps`
    optimizer steps. With one such step the policy is still the one that sampled, the log-ratio is 0, and the gradient
    of the (unrescaled) loss is that of RLOO times (2/beta)(K-1)/K; only from the second step on is GPO a regression.
    The default is two (`num_iterations=2`).

    Parameters:
        > Parameters that control the loss

        gpo_beta (`float`, *optional*, defaults to `0.001`):
            The paper's beta, the step size's inverse: the log-ratio is regressed on s_hat / beta. Not to be confused
            with TRL's `beta`, the coefficient of the KL divergence from the reference policy, which stays what it is
            (0 by default; added to the loss as the mean over the tokens of each completion).
        loss_type (`str`, *optional*, defaults to `"gpo"`):
            `"gpo"`: s_hat is the mean log-odds against the group. `"sppo"`: the mean win probability minus 1/2.
        length_normalize (`bool`, *optional*, defaults to `False`):
            Divide the log-ratio by the number of the completion's tokens (LN-GPO).
        log_z (`str`, *optional*, defaults to `"zero"`):
            The logarithm of the normaliser of the target: `"zero"` as in the paper, or `"group"`, the logarithm of the
            group's mean of exp(s_hat / beta), which is better where s_hat / beta is large.
        include_self (`bool`, *optional*, defaults to `True`):
            Divide by K as the paper does, or by K - 1, which is the unbiased estimate over samples of one policy.
        rescale_loss (`bool`, *optional*, defaults to `True`):
            Multiply the loss by beta^2, so that it is (beta * log-ratio - s_hat)^2 and of the size of s_hat^2. Without
            it 1/beta = 1000 gives losses of a million.

        > Parameters that control the opponent

        opponent (`str`, *optional*, defaults to `"self"`):
            Whom the policy's K responses to a prompt are scored against, mu of equation 5.1. `"self"`: each other, as
            in the paper. `"reference"`: a fixed policy's M responses, the column `opponent_responses` of the data set
            (a list of strings, or of lists of messages, per row) or else samples of the reference policy: TRL's where
            `beta` is not 0 (which `sync_ref_model` moves), the policy with a new adapter switched off, or a copy of
            the initial policy. `"mixture"`: M samples of Nash-MD's geometric mixture, token by token
            ~ pi^(1 - alpha) * pi_ref^alpha. Then s_hat_i is the mean over the opponent's responses of S_ij; over the
            policy's samples it need not average to 0, which `log_z="group"` accounts for. Samples are drawn by
            transformers with the policy's sampling options.
        mixture_coef (`float`, *optional*, defaults to `0.5`):
            alpha, the reference's share in the mixture, strictly between 0 and 1.
        num_opponent_generations (`int`, *optional*):
            M, the opponent's responses to each prompt; by default `num_generations`, or as many as are stored.

        > Parameters that control the preference model

        preference_model_init_kwargs (`dict` or `str`, *optional*):
            Options of a preference model that is given by its path or as a scorer's description: for `from_pretrained`
            (`dtype`, `revision`, ...), and the scorer's own (`temperature`, `template`, `both_orders`, ...).
        preference_batch_size (`int`, *optional*, defaults to `16`):
            Sequences that the preference model encodes at once.

        > Parameters that control advantages by blocks

        block_advantages (`bool`, *optional*, defaults to `False`):
            Put for s_hat the advantages of GPRL, which normalise each block of the preference model within the group
            (the formulas, with units, in [`gpm_hf.training.block_advantages`]). They are standard deviations, not
            log-odds, and `gpo_beta` divides them.
        block_monitor (`str`, *optional*, defaults to `"log"`):
            What happens when a block runs away: `"log"` nothing but what is logged anyway (`gpo/block_drift`, and of
            each block `gpo/block_share_0` and `gpo/block_weight_0`), `"reweigh"` its weight falls and steps shrink,
            `"stop"` the training ends. See [`~gpm_hf.training.block_advantages.BlockMonitor`].
        block_drift_max (`float`, *optional*, defaults to `0.1`):
            How far the shares of the blocks may be from those of the start: a divergence, in nats.
        block_drift_rounds (`int`, *optional*, defaults to `10`):
            Rounds of generation that the shares of the start, and later ones, are averaged over.

        > Parameters that control generation

        vllm_engine_kwargs (`dict` or `str`, *optional*):
            Further arguments of the `vllm.LLM` that TRL starts with `vllm_mode="colocate"`, such as `enforce_eager` or
            `dtype`. By default it computes in the type in which the policy is trained (bfloat16 with `bf16`, float16
            with `fp16`, else that of its weights).

        > Parameters that control the logging

        win_rate_prompts (`int`, *optional*, defaults to `16`):
            Size of the fixed set of prompts (the first of the evaluation set, else of the training set) that the
            initial policy answers once at the start. Logged from then on: `win_rate`, the mean probability that an
            answer of the present policy is preferred to it by the preference model, and
            `kl_start_policy`, KL(start || policy) in nats per answer, estimated on the same stored answers, with its
            standard error. The mean reward of
            self-play is always 0 and shows no progress. 0 turns it off.
        win_rate_steps (`int`, *optional*, defaults to `20`):
            Optimizer steps between two such measurements; the last one is after the last step.

        > Parameters whose default values differ from those of [`~trl.GRPOConfig`]

        num_iterations (`int`, *optional*, defaults to `2`):
            Passes over a generation; more than one gradient step makes GPO a regression.
        disable_dropout (`bool`, *optional*, defaults to `True`):
            Whether to disable dropout in the model: its noise would enter the square.
        scale_rewards (`str`, *optional*, defaults to `"none"`):
            Only "none": the target is not divided by anything, and the logged advantages are s_hat.

    Raises:
        ValueError: for impossible values, and for any option of GRPO's loss that would be ignored here.
    """

    _VALID_DICT_FIELDS = [*GRPOConfig._VALID_DICT_FIELDS, "preference_model_init_kwargs", "vllm_engine_kwargs"]

    gpo_beta: float = 0.001
    loss_type: str = choice("gpo", "sppo", default="gpo")
    length_normalize: bool = False
    log_z: str = choice("zero", "group", default="zero")
    include_self: bool = True
    rescale_loss: bool = True
    opponent: str = choice("self", "reference", "mixture", default="self")
    mixture_coef: float = 0.5
    num_opponent_generations: int | None = None
    preference_model_init_kwargs: dict[str, Any] | str | None = None
    preference_batch_size: int = 16
    block_advantages: bool = False
    block_monitor: str = choice(*MONITORS, default="log")
    block_drift_max: float = 0.1
    block_drift_rounds: int = 10
    vllm_engine_kwargs: dict[str, Any] | str | None = None
    win_rate_prompts: int = 16
    win_rate_steps: int = 20
    num_iterations: int = 2
    disable_dropout: bool = True
    scale_rewards: str = "none"

    @override
    def __post_init__(self):
        # Before GRPO's own checks, whose sentences speak of advantages.
        for name in ("num_generations", "num_generations_eval"):
            value = getattr(self, name)
            if value is not None and value < 2:
                raise ValueError(
                    f"{name}={value} is not possible: a group preference compares at least two completions."
                )
        super().__post_init__()
        if not self.gpo_beta > 0:
            raise ValueError(
                f"gpo_beta={self.gpo_beta} is not possible: scores are divided by it, so it must be positive."
            )
        check_choices(self)
        for name, least in (("win_rate_prompts", 0), ("win_rate_steps", 1), ("preference_batch_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} is not possible: it must be at least {least}.")
        self._refuse_ignored()
        self._check_opponent()
        self._check_blocks()
        self._check_vllm()

    def _check_blocks(self):
        options = {option.name: option.default for option in fields(type(self))}
        names = ("block_monitor", "block_drift_max", "block_drift_rounds")
        if not self.block_advantages:
            given = [name for name in names if getattr(self, name) != options[name]]
            if given:
                raise ValueError(f"{', '.join(given)}: nothing is done by blocks without `block_advantages`.")
            return
        BlockMonitor(self.block_monitor, self.block_drift_max, self.block_drift_rounds)
        if self.loss_type != "gpo" or not self.include_self:
            raise ValueError(
                "block_advantages are of mean log-odds, whatever factor these have: leave `loss_type` at 'gpo' and "
                "`include_self` at its default."
            )

    def _check_opponent(self):
        if self.opponent == "self" and self.num_opponent_generations is not None:
            raise ValueError("num_opponent_generations: with opponent='self' the group is the opponent; leave it out.")
        if self.num_opponent_generations is not None and self.num_opponent_generations < 1:
            raise ValueError(
                f"num_opponent_generations={self.num_opponent_generations} is not possible: it must be at least 1."
            )
        if self.opponent != "mixture" and self.mixture_coef != 0.5:
            raise ValueError(f"mixture_coef: opponent={self.opponent!r} mixes nothing; leave it at its default.")
        if not 0 < self.mixture_coef < 1:
            raise ValueError(
                f"mixture_coef={self.mixture_coef} is not possible: it lies strictly between 0 (opponent='self') and "
                "1 (opponent='reference')."
            )
        if self.opponent != "self" and not self.include_self:
            raise ValueError(
                f"include_self=False leaves a response out of its own group, and with opponent={self.opponent!r} it "
                "is not among those it is scored against: leave it at its default."
            )
        if self.opponent == "mixture" and self.use_vllm:
            raise ValueError(
                "opponent='mixture' mixes the logits of two models token by token, which vLLM cannot: turn off "
                "`use_vllm`, or take opponent='reference'."
            )

    def _refuse_ignored(self):
        defaults = {option.name: option.default for option in fields(GRPOConfig)}
        ignored = [name for name in _IGNORED if getattr(self, name) != defaults[name]]
        if self.scale_rewards != "none":
            ignored.append("scale_rewards")
        if ignored:
            raise ValueError(
                f"{', '.join(ignored)}: GPO's loss is a regression that has no such term and would ignore this. Leave "
                "it at its default."
            )

    def _check_vllm(self):
        given: Any = self.vllm_engine_kwargs or {}  # of the command line's text TRL has made a dictionary
        if given and not (self.use_vllm and self.vllm_mode == "colocate"):
            raise ValueError(
                "vllm_engine_kwargs are of an engine in the trainer's process: they need `use_vllm` and "
                "vllm_mode='colocate'. A server has its own options."
            )
        if taken := sorted(given.keys() & set(_TRLS_OF_VLLM)):
            raise ValueError(
                f"vllm_engine_kwargs: {', '.join(taken)} is TRL's to set; what of it can be chosen has an option of "
                "TRL's."
            )
        if not (self.use_vllm and self.vllm_importance_sampling_correction):
            return
        if not self.vllm_importance_sampling_mode.startswith("sequence_"):
            raise ValueError(
                f"vllm_importance_sampling_mode={self.vllm_importance_sampling_mode!r} weighs tokens, and GPO's loss "
                "has one term per completion. Use 'sequence_mask' or 'sequence_truncate', or turn off "
                "`vllm_importance_sampling_correction`."
            )
        truncating = [name for name in ("top_p", "top_k", "min_p") if getattr(self, name) not in _WHOLE[name]]
        if truncating:
            raise ValueError(
                f"{', '.join(truncating)} beside vllm_importance_sampling_correction: a completion's weight would be "
                "the probability that this left of the policy, token by token, and shrink with its length. Turn off "
                "`vllm_importance_sampling_correction` (what GPO fits to a completion does not depend on its weight), "
                "or sample from the whole policy."
            )
