"""Votes of known truth, by formulas of their own: of the tests, and of `benchmarks/ratings.py`."""

from itertools import combinations
from math import comb

import numpy as np

from gpm_hf.ratings import count_votes

# Log-odds of a judge who errs by `flip` alone.
SURE = 60.0


def round_robin(rng, log_odds, repeats, ties=0.0, flip=0.0):
    """Whole votes on all pairs of each of a stack of matrices of log-odds, by hand, group by group."""
    a, b, outcome, prompt = [], [], [], []
    for group, matrix in enumerate(log_odds):
        for i, j in combinations(range(len(matrix)), 2):
            chance = 1 / (1 + np.exp(-matrix[i, j]))
            chance = flip + (1 - 2 * flip) * chance
            for _ in range(repeats):
                a.append(i)
                b.append(j)
                outcome.append(0.5 if rng.random() < ties else float(rng.random() < chance))
                prompt.append(group)
    votes = count_votes(a, b, outcome, prompt=prompt)
    return votes.within_prompts() if len(log_odds) > 1 else votes


def additive(rng, groups, items, scale=1.0):
    rating = rng.normal(size=(groups, items)) * scale
    return rating[:, :, None] - rating[:, None]


def rotated(rng, groups, items):
    angle = rng.uniform(0, 2 * np.pi, (groups, items))
    return np.sin(angle[:, :, None] - angle[:, None])


def true_share(log_odds):
    """Cyclic triples of matrices, from the numbers of wins: C(n, 3) less the sum of C(wins, 2) in a full round."""
    wins = (log_odds > 0).sum(-1)
    triples = comb(log_odds.shape[-1], 3)
    return float(np.mean(triples - (wins * (wins - 1) / 2).sum(-1)) / triples)


def bradley_terry_votes(rng, items, repeats, groups=1, scale=1.0, ties=0.0):
    return round_robin(rng, additive(rng, groups, items, scale), repeats, ties)


def noisy_judge_votes(rng, items, repeats, error, groups=1):
    """A ranking, read by a judge who errs as often on any pair: transitive and far from additive."""
    order = np.array([rng.permutation(items) for _ in range(groups)])
    return round_robin(rng, SURE * np.sign(order[:, None] - order[:, :, None]), repeats, flip=error)


def planted_votes(rng, items, repeats, strength, groups=1):
    """Ratings and one rotating block; also the share of triples that are truly cyclic."""
    truth = additive(rng, groups, items) + strength * rotated(rng, groups, items)
    return round_robin(rng, truth, repeats), true_share(truth)


def read_twice(rng, log_odds, noise, first=0.0):
    """Averages and disagreements of both orders of each of a stack of matrices, each order read with its own noise."""
    scores, disagreements = [], []
    for matrix in log_odds:
        size = len(matrix)
        average, apart = np.zeros((size, size)), np.zeros((size, size))
        for i, j in combinations(range(size), 2):
            forth, back = matrix[i, j] + first + noise * rng.normal(), matrix[j, i] + first + noise * rng.normal()
            average[i, j], average[j, i] = (forth - back) / 2, (back - forth) / 2
            apart[i, j] = apart[j, i] = (forth + back) / 2
        scores.append(average)
        disagreements.append(apart)
    return scores, disagreements
