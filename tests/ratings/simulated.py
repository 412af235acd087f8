"""Votes of known truth, by formulas of their own."""

import math

import numpy as np

from gpm_hf.ratings import count_votes


def probability(log_odds):
    return 1 / (1 + math.exp(-log_odds))


def round_robins(rng, win, items, repeats, groups=1, ties=0.0):
    """Every pair of every group judged so often; `win(group, i, j)` is P(i is better)."""
    a, b, outcome, prompt = [], [], [], []
    for group in range(groups):
        for i in range(items):
            for j in range(i + 1, items):
                chance = win(group, i, j)
                for _ in range(repeats):
                    a.append(i)
                    b.append(j)
                    outcome.append(0.5 if rng.random() < ties else float(rng.random() < chance))
                    prompt.append(group)
    votes = count_votes(a, b, outcome, prompt=prompt)
    return votes.within_prompts() if groups > 1 else votes


def bradley_terry_votes(rng, items, repeats, groups=1, scale=1.0, ties=0.0):
    rating = rng.normal(size=(groups, items)) * scale
    return round_robins(rng, lambda g, i, j: probability(rating[g, i] - rating[g, j]), items, repeats, groups, ties)


def noisy_judge_votes(rng, items, repeats, error, groups=1):
    """A ranking, read by a judge who errs as often on any pair: transitive and far from additive."""
    order = np.array([rng.permutation(items) for _ in range(groups)])
    return round_robins(rng, lambda g, i, j: 1 - error if order[g, i] < order[g, j] else error, items, repeats, groups)


def planted_votes(rng, items, repeats, strength, groups=1):
    """Ratings and one rotating block; also the share of triples that are truly cyclic."""
    rating, angle = rng.normal(size=(groups, items)), rng.uniform(0, 2 * np.pi, (groups, items))

    def log_odds(g, i, j):
        return rating[g, i] - rating[g, j] + strength * math.sin(angle[g, i] - angle[g, j])

    cycles = triples = 0
    for g in range(groups):
        for i in range(items):
            for j in range(i + 1, items):
                for k in range(j + 1, items):
                    triples += 1
                    wins = [log_odds(g, x, y) > 0 for x, y in ((i, j), (j, k), (k, i))]
                    cycles += all(wins) or not any(wins)
    votes = round_robins(rng, lambda g, i, j: probability(log_odds(g, i, j)), items, repeats, groups)
    return votes, cycles / triples
