"""Which model of ratings predicts votes that it has not seen: Bradley-Terry, a reward with blocks, or blocks alone."""

from dataclasses import dataclass, replace

import numpy as np

from .blocks import BlockFit, fit_blocks
from .bradley_terry import BradleyTerryFit, fit_bradley_terry
from .outcomes import Outcomes, draw_outcomes, outcome_probabilities
from .votes import Votes, summed

MODELS = ("bradley_terry", "hybrid", "blocks")
# From the strongest: the search ends once two weaker ones have predicted worse.
_PATIENCE = 2
_RIDGES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
_BLOCK_RIDGES = (100.0, 25.0, 6.0, 1.5, 0.4, 0.1)
# Ridges are chosen on so many folds; on one where pairs or prompts are more than a few.
_INNER, _FEW = 3, 3000
_RESAMPLES, _FLOOR_DRAWS = 1000, 50
# Nats per vote: what blocks that came out as nothing gain by rounding is less.
_LEAST_GAIN = 1e-5


@dataclass(frozen=True)
class HeldOut:
    """
    One model on votes that it was not fitted to.

    Attributes:
        model: of [`MODELS`].
        log_loss: mean over votes, in nats, of the expected score of a against b, a tie counting half.
        excess: `log_loss` less the entropy of the held-out frequencies: what a model that knew these would not lose.
        ridge, block_ridge: chosen by the mean over folds; `None` where there is none.
    """

    model: str
    log_loss: float
    excess: float
    ridge: float | None
    block_ridge: float | None


@dataclass(frozen=True)
class Comparison:
    """
    Attributes:
        unit: what was held out, "pairs" or "prompts".
        folds: how many times.
        blocks: of the hybrid; blocks alone have one more, in place of the reward, where there are items enough.
        models: each model's losses.
        floor: the excess that the true probabilities would have, from the sampling of the held-out votes: of votes
            drawn from the best model's predictions, or for probabilities from their spread over prompts; `None` where
            neither can be had.
        gains: by model, what its log loss is below Bradley-Terry's, in nats per vote.
        gain_intervals: 95% bootstrap intervals of these, over held-out pairs.
        best: the model to use: Bradley-Terry, unless another's gain is above 0 by its whole interval.
    """

    unit: str
    folds: int
    blocks: int
    models: dict[str, HeldOut]
    floor: float | None
    gains: dict[str, float]
    gain_intervals: dict[str, tuple[float, float]]
    best: str


Fit = BradleyTerryFit | BlockFit


def compare_models(
    votes: Votes, blocks: int = 1, ties: str = "davidson", unit: str = "pairs", folds: int = 5, seed: int = 0
) -> Comparison:
    """
    Cross-validation. In each fold a model's ridges are chosen on a part of what it may see, and the rest of the fold
    is predicted, so that no held-out vote has a say in its own prediction.

    Args:
        votes: of one group of items.
        blocks: see [`Comparison`].
        ties: see [`gpm_hf.ratings.bradley_terry.fit_bradley_terry`].
        unit: `"pairs"`: all votes between two items are held out together; `"prompts"`: all votes on a prompt are.
        folds: at least 3.
        seed: the result is a function of the arguments.

    Raises:
        ValueError: an unknown unit, fewer pairs or prompts than folds, or more blocks than the items have room for.
    """
    if unit not in ("pairs", "prompts"):
        raise ValueError(f"unit={unit!r}: hold out pairs or prompts.")
    if folds < 3:
        raise ValueError(f"folds={folds}: three at least, one to predict, one to choose ridges and one to fit.")
    keys = votes.pair_key if unit == "pairs" else votes.prompt
    if unit == "prompts" and (votes.prompt < 0).any():
        raise ValueError("There are votes that name no prompt: hold out pairs.")
    names, place = np.unique(keys, return_inverse=True)
    if len(names) < folds:
        raise ValueError(f"There are {len(names)} {unit}, which is less than {folds} folds.")
    fold = np.random.default_rng(seed).permutation(len(names))[place] % folds
    tables: dict[str, list[np.ndarray]] = {name: [] for name in MODELS}
    chosen: dict[str, list[dict]] = {name: [] for name in MODELS}
    truths = []
    for number in range(folds):
        inner = [other for other in range(folds) if other != number][: _INNER if len(names) <= _FEW else 1]
        splits = [
            (votes.where((fold != number) & (fold != other)).by_pair(), votes.where(fold == other).by_pair())
            for other in inner
        ]
        training, held = votes.where(fold != number).by_pair(), votes.where(fold == number).by_pair()
        ridges: dict = {}
        for name in MODELS:
            ridges = _choose(name, splits, blocks, ties, ridges)
            predicted = predict(_fit(name, training, blocks, ties, **ridges), held)
            tables[name].append(_losses(held, predicted))
            chosen[name].append(ridges)
        truths.append(held)
    losses = {name: np.concatenate(found) for name, found in tables.items()}
    count = np.concatenate([held.size for held in truths])
    entropy = np.concatenate([_losses(held, _frequency(held)) for held in truths])
    gains = {name: losses["bradley_terry"] - losses[name] for name in MODELS[1:]}
    intervals = {name: _ratio_interval(gain, count, seed) for name, gain in gains.items()}
    worth = [name for name in gains if intervals[name][0] > _LEAST_GAIN]
    best = min(worth, key=lambda name: losses[name].sum(), default="bradley_terry")
    return Comparison(
        unit=unit,
        folds=folds,
        blocks=blocks,
        models={
            name: HeldOut(
                name,
                float(losses[name].sum() / count.sum()),
                float((losses[name] - entropy).sum() / count.sum()),
                **_typical(name, chosen[name]),
            )
            for name in MODELS
        },
        floor=_floor(votes, truths, best, chosen[best], blocks, ties, seed),
        gains={name: float(gain.sum() / count.sum()) for name, gain in gains.items()},
        gain_intervals=intervals,
        best=best,
    )


def predict(fit: Fit, cells: Votes) -> np.ndarray:
    """Expected score of each cell's a against its b, a tie counting half, shape (C,)."""
    return _outcomes(fit, cells).score


def _outcomes(fit: Fit, cells: Votes) -> Outcomes:
    return outcome_probabilities(fit.scores(cells.a, cells.b), fit.log_tie)


def fit_model(votes: Votes, comparison: Comparison, model: str, ties: str = "davidson") -> Fit:
    """A model fitted to all votes, with the ridges that the comparison chose."""
    found = comparison.models[model]
    return _fit(model, votes, comparison.blocks, ties, found.ridge, found.block_ridge)


def _fit(
    model: str, votes: Votes, blocks: int, ties: str, ridge: float | None, block_ridge: float | None = None
) -> Fit:
    if model == "bradley_terry":
        return fit_bradley_terry(votes, ridge or 0.0, ties)
    reward = model == "hybrid"
    count = blocks if reward else min(blocks + 1, max(1, len(votes.items) // 2))
    return fit_blocks(votes, count, reward, ridge or 1.0, block_ridge or 1.0, ties)


def _choose(model: str, splits: list[tuple[Votes, Votes]], blocks: int, ties: str, before: dict) -> dict:
    """Ridges by the loss on the second of each split; a hybrid's reward keeps Bradley-Terry's."""
    if model == "bradley_terry":
        grid = [{"ridge": ridge, "block_ridge": None} for ridge in _RIDGES]
    else:
        ridge = before["ridge"] if model == "hybrid" else None
        grid = [{"ridge": ridge, "block_ridge": block_ridge} for block_ridge in _BLOCK_RIDGES]
    best, least, worse = grid[0], np.inf, 0
    for one in grid:
        loss = 0.0
        for fitting, choosing in splits:
            loss += float(_losses(choosing, predict(_fit(model, fitting, blocks, ties, **one), choosing)).sum())
        if loss < least:
            best, least, worse = one, loss, 0
        elif loss > least + 1e-6 * abs(least):
            worse += 1
        if worse == _PATIENCE:
            break
    return best


def _typical(model: str, chosen: list[dict]) -> dict:
    """The geometric mean over folds."""
    means = {}
    for name in ("ridge", "block_ridge"):
        values = [one[name] for one in chosen]
        means[name] = None if None in values else float(np.exp(np.log(values).mean()))
    return means


def _frequency(cells: Votes) -> np.ndarray:
    return (cells.wins + cells.ties / 2) / cells.size


def _losses(cells: Votes, predicted: np.ndarray) -> np.ndarray:
    """Nats that each cell's votes cost, a tie half a vote for both."""
    won, lost = cells.wins + cells.ties / 2, cells.losses + cells.ties / 2
    tiny = np.finfo(float).tiny
    return -(won * np.log(np.maximum(predicted, tiny)) + lost * np.log(np.maximum(1 - predicted, tiny)))


def _ratio_interval(values: np.ndarray, count: np.ndarray, seed: int) -> tuple[float, float]:
    """95% bootstrap interval of sum(values) / sum(count), over pairs."""
    rng, size, found = np.random.default_rng(seed), len(values), []
    block = max(1, (1 << 22) // size)
    for start in range(0, _RESAMPLES, block):
        drawn = rng.multinomial(size, np.full(size, 1 / size), min(block, _RESAMPLES - start))
        found.append((drawn @ values) / (drawn @ count))
    low, high = np.quantile(np.concatenate(found), [0.025, 0.975])
    return float(low), float(high)


def _floor(
    votes: Votes, truths: list[Votes], best: str, chosen: list[dict], blocks: int, ties: str, seed: int
) -> float | None:
    if not votes.are_whole:
        return _floor_of_probabilities(votes)
    fit = _fit(best, votes, blocks, ties, **_typical(best, chosen))
    rng, excess = np.random.default_rng(seed), 0.0
    for held in truths:
        chance = _outcomes(fit, held)
        for _ in range(_FLOOR_DRAWS):
            wins, tied, losses = draw_outcomes(chance, held.size, rng)
            drawn = replace(held, wins=wins, ties=tied, losses=losses)
            excess += float((_losses(drawn, chance.score) - _losses(drawn, _frequency(drawn))).sum())
    return excess / _FLOOR_DRAWS / votes.total


def _floor_of_probabilities(votes: Votes) -> float | None:
    """By the spread over prompts of each pair's probability: variance of its mean over twice that of a vote."""
    if votes.prompts < 2:
        return None
    share = votes.pair_share
    _, (count, total, squares) = summed(votes.pair_key, len(votes.items) ** 2, np.ones_like(share), share, share**2)
    mean = total / count
    variance = np.maximum(squares / count - mean**2, 0) * count / np.maximum(count - 1, 1)
    known = (count >= 2) & (mean > 0) & (mean < 1)
    if not known.any():
        return None
    return float((variance[known] / (2 * mean[known] * (1 - mean[known]))).sum() / count[known].sum())
