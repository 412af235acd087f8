"""
The losses, as pure functions of tensors.

A preference model fits log-odds to labels (paper appendix A.1): [`cross_entropy_loss`], [`regression_loss`].

A policy fits a log-ratio to a target (section 5). What is squared is the residual, in the unit of the target:

    residual = beta * log( pi_theta(y|x) / pi_t(y|x) ) - target

| loss   | target                                                   | residual                                        |
|--------|----------------------------------------------------------|-------------------------------------------------|
| GPO    | s_hat - beta log Z, mean log-odds ([`gpo_targets`])      | that of a response ([`gpo_residuals`])          |
| SPPO   | the same with P - 1/2 for log-odds ([`win_margin`])      | that of a response                              |
| LN-GPO | GPO's                                                    | with the log-ratio per token ([`per_token`])    |
| REBEL  | mean log-odds                                            | a pair's difference ([`rebel_residuals`])       |

[`squared_residuals`] is then the loss of a sample or pair.
"""

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch.nn.functional import logsigmoid

from gpm_hf.modeling import mean_scores

Number = TypeVar("Number", torch.Tensor, float)

# --- preference models -----------------------------------------------------------------------------------------------


def cross_entropy_loss(
    log_odds: torch.Tensor,
    probability: torch.Tensor | float = 1.0,
    margin: torch.Tensor | float = 0.0,
) -> torch.Tensor:
    """
    `-[p log sigmoid(s) + (1 - p) log sigmoid(-s)]` with `s = log_odds - margin`, in nats: cross entropy between the
    model's preference and the label (appendix A.1).

    Args:
        log_odds: log-odds that the chosen response is preferred, shape (B,).
        probability: the label's probability p that the chosen response is preferred, shape (B,) or a number; 1 for
            hard labels.
        margin: by how much log-odds must exceed zero, in units of log-odds, shape (B,) or a number.

    Returns:
        Loss per pair, shape (B,).
    """
    shifted = log_odds - margin
    return -(probability * logsigmoid(shifted) + (1 - probability) * logsigmoid(-shifted))


def regression_loss(log_odds: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """
    `0.5 (log_odds - target)^2`, in squared log-odds: the error to a continuous label (appendix A.1).

    Args:
        log_odds: log-odds that the chosen response is preferred, shape (B,).
        target: what they should be, in units of log-odds, shape (B,).

    Returns:
        Loss per pair, shape (B,).
    """
    return 0.5 * (log_odds - target) ** 2


def label_sides(labels: Mapping[str, torch.Tensor], loss_type: str, like: torch.Tensor) -> torch.Tensor:
    """
    Which response of each pair the label prefers: 1 for the chosen one, -1 for the rejected one, 0 where the label has
    no side (a probability of 1/2, a target of 0).

    Args:
        labels: `preference_probability` or, for `"regression"`, `target_score` (log-odds), shape (B,); without the
            former every pair is labelled as it stands.
        loss_type: `"cross_entropy"` or `"regression"`.
        like: log-odds, shape (B,).

    Returns:
        Signs, shape (B,).
    """
    if loss_type == "regression":
        return labels["target_score"].sign()
    if "preference_probability" in labels:
        return (labels["preference_probability"] - 0.5).sign()
    return torch.ones_like(like)


# --- targets of policies ---------------------------------------------------------------------------------------------


def group_mean_scores(scores: torch.Tensor, include_self: bool = True) -> torch.Tensor:
    """
    `s_hat_i = 1/K sum_j S_ij`, in the unit of `scores` (equation 5.2): mean score of each response against the
    scorable ones of its group.

    Args:
        scores: a skew-symmetric matrix of shape (K, K), rows and columns of unscorable responses NaN.
        include_self: as in [`~gpm_hf.modeling.mean_scores`].

    Returns:
        Shape (K,): NaN for what is unscorable, and for a response that is the only scorable one of its group: there is
        nothing to compare it with.
    """
    means = torch.full_like(scores[..., 0], torch.nan)
    scorable = ~scores.diagonal().isnan()
    if scorable.sum() > 1:
        means[scorable] = mean_scores(scores[scorable][:, scorable], include_self)
    return means


def opponent_mean_scores(scores: torch.Tensor) -> torch.Tensor:
    """
    `s_hat_i = 1/M sum_j S_ij` over M responses of an opponent, in the unit of `scores`: over samples of mu, s_hat of
    equation 5.1.

    Args:
        scores: the K responses' scores against the opponent's M, shape (..., K, M); rows and columns of unscorable
            responses NaN.

    Returns:
        Shape (..., K): NaN for what is unscorable, and for all K where no response of the opponent is scorable.
    """
    return scores.nanmean(-1)


def win_margin(probability: Number) -> Number:
    """
    `P - 1/2`, a probability's distance from an even chance: what SPPO puts in place of log-odds (arXiv:2405.00675,
    equation 4.7). It is skew-symmetric as they are, and 0 against oneself.

    Args:
        probability: probabilities of winning, of any shape.
    """
    return probability - 0.5


def gpo_targets(
    scores: torch.Tensor,
    gpo_beta: float,
    loss_type: str = "gpo",
    log_z: str = "zero",
    include_self: bool = True,
    against: str = "group",
) -> torch.Tensor:
    """
    `s_hat - beta log Z`, in the unit of s_hat: what beta times the log-ratio is regressed on (equations 5.2 and 5.3).

    Args:
        scores: log-odds of each group, shape (G, K, K), or (G, K, M) against an opponent; rows and columns of
            unscorable responses NaN.
        gpo_beta: the paper's beta.
        loss_type: `"gpo"`: s_hat is the mean log-odds; `"sppo"`: the mean win probability minus 1/2.
        log_z: `"zero"`, or `"group"`: log of the group's mean of exp(s_hat / beta).
        include_self: mean over the group, or over the others.
        against: `"group"`: columns are the rows' responses themselves; `"opponent"`: they are M responses of an
            opponent.

    Returns:
        Shape (G, K): NaN for an unscorable response.
    """
    if loss_type == "sppo":
        scores = win_margin(scores.sigmoid())
    if against == "opponent":
        targets = opponent_mean_scores(scores)
    else:
        targets = torch.stack([group_mean_scores(one, include_self) for one in scores])
    return less_log_z(targets, gpo_beta) if log_z == "group" else targets


def less_log_z(targets: torch.Tensor, gpo_beta: float) -> torch.Tensor:
    """
    `s_hat - beta log Z` with the group's estimate of Z, its mean of exp(s_hat / beta), in the unit of s_hat.

    Args:
        targets: s_hat, shape (G, K); NaN for an unscorable response.
        gpo_beta: the paper's beta.
    """
    scorable = ~targets.isnan()
    exponents = (targets / gpo_beta).masked_fill(~scorable, -torch.inf)
    count = scorable.sum(-1).to(targets.dtype)
    return targets - gpo_beta * (exponents.logsumexp(-1) - count.log())[:, None]


# --- policies --------------------------------------------------------------------------------------------------------


def per_token(log_ratios: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """
    `log-ratio / |y|`, in nats per token: LN-GPO's log-ratio, which does not grow with the response.

    Args:
        log_ratios: of whole responses, any shape.
        lengths: tokens of each, the same shape; 0 counts as 1.
    """
    return log_ratios / lengths.clamp(min=1)


def gpo_residuals(log_ratios: torch.Tensor, targets: torch.Tensor, gpo_beta: float) -> torch.Tensor:
    """
    `beta log-ratio - target`, in the unit of the targets: beta times the difference that equation 5.3 squares (for
    SPPO: equation 4.7 of arXiv:2405.00675).

    Args:
        log_ratios: log pi_theta(y|x) / pi_t(y|x) in nats (per token for LN-GPO), any shape.
        targets: mean log-odds, or mean win probabilities minus 1/2, minus beta log Z; the same shape. NaN stays NaN.
        gpo_beta: the paper's beta.
    """
    return gpo_beta * log_ratios - targets


def rebel_residuals(log_ratios: torch.Tensor, targets: torch.Tensor, gpo_beta: float) -> torch.Tensor:
    """
    `beta (log-ratio_1 - log-ratio_2) - (target_1 - target_2)`, in the unit of the targets: REBEL (arXiv:2404.16767,
    algorithm 1 with 1/eta = beta).

    Args:
        log_ratios, targets, gpo_beta: as in [`gpo_residuals`], of pairs, shape (B, 2).

    Returns:
        Shape (B, 1).
    """
    residuals = gpo_residuals(log_ratios, targets, gpo_beta)
    return residuals[:, :1] - residuals[:, 1:]


def squared_residuals(residuals: torch.Tensor, gpo_beta: float, rescale: bool = True) -> torch.Tensor:
    """
    `residual^2`, in squared units of the target, or without `rescale` `(residual / beta)^2`, in nats^2: a term of
    equation 5.3, which the former is beta^2 times.

    Args:
        residuals: of [`gpo_residuals`] or [`rebel_residuals`], any shape.
        gpo_beta: the paper's beta.
        rescale: 1/beta = 1000 gives losses of a million without.
    """
    return (residuals if rescale else residuals / gpo_beta) ** 2


def divergence_terms(log_probs: torch.Tensor, reference_log_probs: torch.Tensor) -> torch.Tensor:
    """
    `r - 1 - log r` with r = pi_ref / pi_theta, in nats: TRL's estimate of KL(pi_theta || pi_ref) at a token, to be
    added to a loss (J. Schulman, "Approximating KL Divergence", 2020: k3).

    Args:
        log_probs, reference_log_probs: of the tokens, any shape.
    """
    log_ratio = reference_log_probs - log_probs
    return log_ratio.exp() - log_ratio - 1
