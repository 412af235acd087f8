"""Options of [`OfflineGPOTrainer`]."""

from dataclasses import MISSING, dataclass, fields

from trl import DPOConfig
from typing_extensions import override

from gpm_hf.options import check_choices, choice, described
from gpm_hf.training.masked_options import MaskedOptionsMixin

# Options of DPO's losses that a regression of log-ratios has no place for, or that would change its reference or cut
# the responses whose scores it regresses on.
_IGNORED = (
    "beta",
    "discopop_tau",
    "f_alpha_divergence_coef",
    "f_divergence_type",
    "label_smoothing",
    "ld_alpha",
    "loss_weights",
    "pad_token",
    "padding_free",
    "ref_model_mixup_alpha",
    "ref_model_sync_steps",
    "sync_ref_model",
    "truncation_mode",
    "use_weighting",
)


@described
@dataclass(repr=False)
class OfflineGPOConfig(MaskedOptionsMixin, DPOConfig):
    r"""
    Configuration class for the [`OfflineGPOTrainer`]: TRL's [`~trl.DPOConfig`] (data, batches, reference, logging)
    with regressions of log-ratios in place of DPO's losses.

    Parameters:
        > Parameters that control the loss

        gpo_beta (`float`, *optional*, defaults to `0.001`):
            The paper's beta, the step size's inverse: the log-ratio is regressed on target / beta; REBEL's 1 / eta.
            DPO's `beta` has no meaning here and is refused.
        loss_type (`str`, *optional*, defaults to `"gpo"`):
            `"gpo"`: the target is the mean log-odds against the group ("Beyond Bradley-Terry Models", equation 5.3,
            log Z = 0). `"sppo"`: the mean win probability minus 1/2 (arXiv:2405.00675, equation 4.7), soft, where
            TRL's `sppo_hard` puts 1 and 0. `"rebel"`: the *difference* of a pair's log-ratios is regressed on the
            difference of its mean log-odds (arXiv:2404.16767, algorithm 1); needs pairs.
        length_normalize (`bool`, *optional*, defaults to `False`):
            Divide each log-ratio by the number of the response's tokens (LN-GPO).
        rescale_loss (`bool`, *optional*, defaults to `True`):
            Multiply the loss by beta^2, so that it is (beta * log-ratio - target)^2 and of the size of target^2 (for
            REBEL the published form). Without it 1/beta = 1000 gives losses of a million.

        precompute_ref_log_probs (`bool`, *optional*, defaults to `True`):
            Compute the reference's log-probabilities once, before the training, and keep no model. (TRL's default is
            `False`.)

    > [!NOTE]
    > Rows with a sequence over `max_length` tokens are not truncated but left out, counted and said: a response's
    > score does not belong to its beginning.

    Raises:
        ValueError: for impossible values, and for any option of DPO's losses that would be ignored here.
    """

    gpo_beta: float = 0.001
    loss_type: str = choice("gpo", "sppo", "rebel", default="gpo")
    length_normalize: bool = False
    rescale_loss: bool = True
    precompute_ref_log_probs: bool = True

    @override
    def __post_init__(self):
        check_choices(self)
        if not self.gpo_beta > 0:
            raise ValueError(
                f"gpo_beta={self.gpo_beta} is not possible: targets are divided by it, so it must be positive."
            )
        defaults = {one.name: one.default for one in fields(DPOConfig) if one.default is not MISSING}
        ignored = [name for name in _IGNORED if getattr(self, name) != defaults[name]]
        if ignored:
            remedy = "Use `gpo_beta`." if ignored == ["beta"] else "Leave it at its default."
            raise ValueError(
                f"{', '.join(ignored)}: the loss is a regression on whole responses with a fixed reference, and would "
                f"ignore this. {remedy}"
            )
        loss_type = self.loss_type
        super().__post_init__()
        self.loss_type = loss_type  # DPO makes a list of it, for sums of losses
