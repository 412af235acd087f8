"""Where the embedding head starts when the backbone is frozen: in the planes in which the preferences turn most."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch


def state_pairs(rows: Mapping[str, Any], loss_type: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    What [`spectral_embedding_head`] reads of stored states.

    Args:
        rows: columns of pairs or groups, see [`~gpm_hf.training.head_states.with_head_states`].
        loss_type: whose labels they have.

    Returns:
        States of the chosen and of the rejected responses, shape (P, hidden_size) each, and how much each pair is
        preferred this way, shape (P,).
    """
    label = "target_score" if loss_type == "regression" else "preference_probability"
    if "pairs" in rows:
        groups = zip(rows["sequence_states"], rows["pairs"], strict=True)
        places = [(group, pair) for group, pairs in groups for pair in pairs]
        chosen, rejected = (torch.stack([group[pair[side]] for group, pair in places]) for side in (0, 1))
        labels = torch.tensor([value for values in rows[label] for value in values])
    else:
        chosen, rejected = (torch.stack([states[side] for states in rows["sequence_states"]]) for side in (0, 1))
        labels = torch.tensor(rows[label]) if label in rows else torch.ones(len(chosen))
    return chosen, rejected, labels if loss_type == "regression" else 2 * labels - 1


@torch.no_grad()
def spectral_embedding_head(
    pairs: Iterable[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
    head: torch.Tensor,
    ridge: float = 1.0,
    beside_reward: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The bias-free embedding head whose blocks agree best with the preferences, by one eigendecomposition.

    The states of a language model share a large common vector, beside which what distinguishes two responses is
    small. A random head therefore sends all responses to nearly one point of the unit sphere, where every log-odds is
    nearly zero and the gradient with it; few dimensions then never learn. So: whiten the states by their second
    moment (uncentred, as the head has no bias), take `M = mean(w (z_c z_r^T - z_r z_c^T))` over pairs of chosen and
    rejected, which among all skew-symmetric forms of its norm gives the preferences the largest mean score, and keep
    its k strongest planes (the truncation of the paper's Theorem 4.5).

    Args:
        pairs: batches of chosen and rejected states, shape (n, hidden_size) each, and weights, shape (n,): how much
            each pair is preferred this way, negative for the other way.
        head: the weight to replace, shape (2k, hidden_size). The size of its outputs (root mean square over the
            states) is kept, so that learning rates mean what they mean for it.
        ridge: added to the eigenvalues of the second moment, in units of the states' mean variance per dimension:
            directions in which the states hardly vary are noise.
        beside_reward: leave to a reward head what a reward can express. A plane that reads the common vector in one
            direction and a difference of responses in the other is a reward, `v = (c, r)`, and where some responses
            beat most others it is the strongest of all; the planes are then sought among those that do not read the
            states' mean.

    Returns:
        The new weight, of the shape and type of `head`, and the k strengths of its planes, strongest first. Where the
        preferences span fewer planes, the strengths of the others are 0 and their rows those of `head`, without what
        they read of the states' mean.
    """
    blocks, hidden_size = len(head) // 2, head.shape[1]
    moment, cross = (torch.zeros(hidden_size, hidden_size, dtype=torch.float64) for _ in range(2))
    mean, count = torch.zeros(hidden_size, dtype=torch.float64), 0
    for chosen, rejected, weights in pairs:
        chosen, rejected = chosen.double(), rejected.double()
        moment += chosen.T @ chosen + rejected.T @ rejected
        cross += (chosen * weights.double()[:, None]).T @ rejected
        mean += chosen.sum(0) + rejected.sum(0)
        count += len(chosen)
    moment, cross, mean = moment / (2 * count), cross / count, mean / (2 * count)

    variance = (moment.trace() - mean @ mean) / hidden_size
    if not variance > 0:
        raise ValueError("All states are the same: the texts do not differ, or the backbone does not tell them apart.")
    values, vectors = torch.linalg.eigh(moment)
    whitening = vectors * (values.clamp_min(0) + ridge * variance).rsqrt() @ vectors.T
    skew = whitening @ (cross - cross.T) @ whitening
    if beside_reward:
        common = torch.nn.functional.normalize(whitening @ mean, dim=0)
        others = torch.eye(hidden_size, dtype=torch.float64) - torch.outer(common, common)
        skew = others @ skew @ others
    # i M is Hermitian: its eigenvalues come as +-sigma, and the two parts of an eigenvector span the plane.
    strengths, planes = torch.linalg.eigh(1j * skew)
    strengths, planes = strengths.flip(0)[:blocks].clamp_min(0), planes.flip(1)[:, :blocks]
    found = strengths > 1e-6 * max(float(strengths[0]), 1e-6)
    strengths = strengths * found
    planes = planes * strengths.sqrt()
    new = torch.stack([planes.imag.T, planes.real.T], dim=1).flatten(0, 1) @ whitening
    rows = found.repeat_interleave(2)
    if found.any():
        replaced = head.double() * rows[:, None]
        old_size, new_size = (((weight @ moment) * weight).sum().sqrt() for weight in (replaced, new))
        new = new * old_size / new_size
    old = head.double() - torch.outer(head.double() @ mean, mean) / (mean @ mean).clamp_min(1e-12)
    return torch.where(rows[:, None], new, old).to(head.dtype), strengths
