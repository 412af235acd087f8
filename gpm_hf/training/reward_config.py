"""Options of [`GPMRewardTrainer`]."""

from dataclasses import dataclass

from transformers import TrainingArguments
from trl import RewardConfig
from typing_extensions import override

from gpm_hf.modeling.configuration_gpm import MODEL_OPTIONS
from gpm_hf.options import check_choices, choice, described
from gpm_hf.training.masked_options import MaskedOptionsMixin


@described
@dataclass(repr=False)
class GPMRewardConfig(MaskedOptionsMixin, RewardConfig):
    r"""
    Configuration class for the [`GPMRewardTrainer`]: TRL's [`~trl.RewardConfig`] and what a general preference model
    adds to it.

    Parameters:
        > Parameters that control the model (a new one; a saved model keeps its own, and a differing value is an error)

        embedding_dim (`int`, *optional*):
            Dimension of a response's embedding, an even number; 1 is the Bradley-Terry reward model. `None` means 6.
        scale_gate (`bool`, *optional*):
            Whether the prompt scales the embedding's blocks. `None` means `True` from dimension 2.
        normalize_embeddings (`bool`, *optional*):
            Whether embeddings have unit norm. `None` means `True` from dimension 2.
        tau (`float`, *optional*):
            Temperature that raw scores are divided by. `None` means 0.1.
        gate_activation (`str`, *optional*):
            `"softmax"` or `"softplus"`. `None` means `"softmax"`.
        prompt_format (`str`, *optional*):
            `"clean"` or `"reference"`. `None` means `"clean"`.
        template_date (`str`, *optional*):
            The date, "YYYY-MM-DD", that chat templates write which ask for today's. `None` means "2024-07-26".
        reward_head (`bool`, *optional*):
            Whether each response also has a scalar reward, whose differences are added to the raw scores. `None` means
            `False`.

        > Parameters that control the training

        loss_type (`str`, *optional*, defaults to `"cross_entropy"`):
            `"cross_entropy"` with hard labels, or soft ones from the column `preference_probability`, minus the
            column `margin` where there is one; or `"regression"` to the log-odds in the column `target_score`.
        train_heads_only (`bool`, *optional*, defaults to `False`):
            Freeze the backbone, compute its states once, keep them on disk, and train the heads on them.
        head_initialization (`str`, *optional*):
            With `train_heads_only`: `"spectral"` starts the embedding head in the planes in which the preferences of
            the training data turn most (see [`spectral_embedding_head`]), which few dimensions need in order to
            learn at all; `"random"` as it is. `None` means spectral for a new head of 2 dimensions or more. Beside a
            reward head these are the planes of what no reward can express; the reward starts at zero.
        head_states_batch_size (`int`, *optional*, defaults to `16`):
            Sequences encoded at once when those states are computed.
        packing (`bool`, *optional*):
            Whether a prompt passes the backbone once, with chosen and rejected response behind it in one row; losses
            and gradients are the same. `None` packs the batches that are faster so if the backbone attends by SDPA,
            `False` none, `True` all but those with a row whose sequences do not both begin with the prompt's tokens,
            by SDPA, FlexAttention or FlashAttention, and is an error where the backbone cannot. `num_tokens` counts
            each token that passes the backbone.

        group_pairs (`bool`, *optional*):
            Whether training pairs of one prompt become groups (of 16 responses at most), each distinct response
            encoded once; a batch has the losses and gradients of its pairs, and `per_device_train_batch_size` then
            counts groups. `None` does so, and says it, where responses come in several pairs, so that three quarters
            of them or of the tokens that pass the backbone are left at most (never with `train_heads_only`, where each
            text passes once anyway). `False` also takes groups of responses apart, into their pairs. What is evaluated
            stays as it is given, pairs or groups.
        pair_weight (`str`, *optional*, defaults to `"pair"`):
            `"pair"` takes the mean over all pairs; `"prompt"` over each prompt's pairs first, so that prompts with
            many pairs do not weigh more (as InstructGPT did), which implies `group_pairs`.
        max_tokens_per_batch (`int`, *optional*):
            The most tokens of a training batch that pass the backbone, padding included: batches are of fewer than
            `per_device_train_batch_size` rows where these are long. A group with more is cut by its responses into
            parts that keep every pair; two sequences that are longer pass together. The same batches come in another
            order in each epoch.
        rating_margin (`float`, *optional*, defaults to `0.0`):
            Of groups with `ratings`: log-odds of margin for each unit by which two ratings differ.

    > [!NOTE]
    > `load_best_model_at_end` takes the model with the best accuracy where no `metric_for_best_model` is named
    > (`Trainer` would take the lowest loss, which a model that is surer and as often right may not have).
    >
    > `center_rewards_coefficient` is refused: the log-odds of a pair do not have an offset that could drift.
    """

    embedding_dim: int | None = None
    scale_gate: bool | None = None
    normalize_embeddings: bool | None = None
    tau: float | None = None
    gate_activation: str | None = choice("softmax", "softplus", default=None)
    prompt_format: str | None = choice("clean", "reference", default=None)
    template_date: str | None = None
    reward_head: bool | None = None
    loss_type: str = choice("cross_entropy", "regression", default="cross_entropy")
    train_heads_only: bool = False
    head_initialization: str | None = choice("spectral", "random", default=None)
    head_states_batch_size: int = 16
    packing: bool | None = None
    group_pairs: bool | None = None
    pair_weight: str = choice("pair", "prompt", default="pair")
    max_tokens_per_batch: int | None = None
    rating_margin: float = 0.0

    @override
    def __post_init__(self):
        args: TrainingArguments = self
        if args.load_best_model_at_end and args.metric_for_best_model is None:
            args.metric_for_best_model = "accuracy"
        super().__post_init__()
        check_choices(self)
        if self.pair_weight == "prompt" and self.group_pairs is False:
            raise ValueError('pair_weight="prompt" weighs groups: leave `group_pairs` unset.')
        if self.max_tokens_per_batch is not None and self.max_tokens_per_batch < 1:
            raise ValueError(f"max_tokens_per_batch must be at least 1, got {self.max_tokens_per_batch}.")
        if self.max_tokens_per_batch is not None and self.train_sampling_strategy not in ("random", "sequential"):
            raise ValueError(
                f"max_tokens_per_batch makes the batches, and so does train_sampling_strategy="
                f"{self.train_sampling_strategy!r}: keep one of them."
            )
        if self.head_initialization == "spectral" and not self.train_heads_only:
            raise ValueError('head_initialization="spectral" reads stored states: it needs train_heads_only=True.')
        if self.max_tokens_per_batch is not None and self.train_heads_only:
            raise ValueError("max_tokens_per_batch has no meaning with train_heads_only=True: no tokens are passed.")
        if self.packing and self.train_heads_only:
            raise ValueError("packing=True has no meaning with train_heads_only=True, which trains on stored states.")
        if self.center_rewards_coefficient is not None:
            raise ValueError(
                "center_rewards_coefficient has no meaning here: the loss sees only log-odds of pairs, which have no "
                "offset to centre. Leave it unset."
            )

    @property
    def gpm_options(self) -> dict:
        """The options that describe a model, as [`GPMConfig`] names them; `None` where nothing was asked for."""
        return {name: getattr(self, name) for name in MODEL_OPTIONS}
