"""
A length axis that can be hacked: plain GPO, advantages by blocks, and blocks with the monitor, on one toy game.

    python benchmarks/block_advantages.py --seeds 20

The preference model has two blocks, a reward each: *quality*, whether the answer's first token is the good one of two,
and *length*, a fourth of a log-odds for each token. The policy is a table: the probabilities of the good token, the
bad one and the end, the same at every place; it starts at a third each, so that both blocks have about the same share
of the scores' variance. Rounds, steps and K are the same for all, targets and loss are the package's. Told are mean
length and share of good first tokens of the last policy, exactly.
"""

import argparse
import json
import logging

import numpy as np
import torch
from accelerate import PartialState
from scipy.stats import t

from gpm_hf.modeling import preference_matrix
from gpm_hf.tables import markdown_table
from gpm_hf.training.block_advantages import BlockMonitor, block_advantages, block_means, block_variances
from gpm_hf.training.losses import gpo_residuals, gpo_targets, squared_residuals

LONGEST, BETA, LEARNING_RATE, STEPS = 24, 2.5, 0.1, 2
# Arguments of their monitors.
SIGNALS: dict[str, tuple | None] = {
    "plain GPO": None,
    "blocks": ("log",),
    "blocks, reweighed": ("reweigh",),
    "blocks, reweighed early": ("reweigh", 0.02, 5),
    "blocks, stopped": ("stop",),
    "blocks, stopped early": ("stop", 0.02, 5),
}


def sample(logits, size, rng):
    """Tokens (size, longest), 0 good, 1 bad, 2 the end, and which of them are of the answer, its end included."""
    chances = logits.detach().softmax(-1).expand(size * LONGEST, 3)
    tokens = torch.multinomial(chances, 1, generator=rng).view(size, LONGEST)
    ended = (tokens == 2).cumsum(-1)
    return tokens, (ended == 0) | ((ended == 1) & (tokens == 2))


def blocks_of(tokens, mask):
    """Log-odds of quality and of length, shape (2, K, K); NaN for answers without a token."""
    quality = (tokens[:, 0] == 0).double()
    length = 0.25 * (mask & (tokens != 2)).sum(-1).double()
    blocks = torch.stack([preference_matrix(reward[:, None]) for reward in (quality, length)])
    empty = tokens[:, 0] == 2
    return blocks.masked_fill(empty[:, None] | empty, torch.nan)


def play(monitor, seed, rounds, group):
    """Mean tokens of an answer, and the probability of a good first one, after so many rounds of GPO."""
    rng = torch.Generator().manual_seed(seed)
    logits = torch.zeros(3, dtype=torch.double, requires_grad=True)
    optimizer, scales = torch.optim.SGD([logits], LEARNING_RATE), torch.ones(2, dtype=torch.double)
    largest = 0.0
    for _ in range(rounds):
        tokens, mask = sample(logits, group, rng)
        blocks = blocks_of(tokens, mask)
        if monitor is None:
            targets = gpo_targets(blocks.sum(0)[None], BETA)[0]
        else:
            means = block_means(blocks)
            monitor.update(block_variances(means, scales))
            largest = max(largest, monitor.drift)
            targets = block_advantages(means, scales, torch.tensor(monitor.weights).double()) / monitor.tightening
        sampled = logits.detach().log_softmax(-1)
        kept = ~targets.isnan()
        for _ in range(STEPS):
            log_ratios = ((logits.log_softmax(-1) - sampled)[tokens] * mask).sum(-1)
            residuals = gpo_residuals(log_ratios, targets, BETA)[kept]
            loss = squared_residuals(residuals, BETA, rescale=False).sum() / group
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if monitor is not None and monitor.action == "stop" and monitor.has_run_away:
            break
    good, bad, end = logits.detach().softmax(-1).tolist()
    tokens = sum((1 - end) ** place for place in range(1, LONGEST + 1))
    return {"tokens": tokens, "good": good / (good + bad), "drift": largest}


def play_all(seeds, rounds=60, group=64):
    """By signal, what each seed came to."""
    PartialState()
    logging.getLogger("gpm_hf").setLevel(logging.ERROR)
    return {
        name: [play(monitor and BlockMonitor(*monitor), seed, rounds, group) for seed in range(seeds)]
        for name, monitor in SIGNALS.items()
    }


def interval(values, form):
    """The mean and its 95% interval over seeds, by Student's t."""
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    mean = np.mean(values)
    return f"{mean:{form}} ({mean - half:{form}} to {mean + half:{form}})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="two at least")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--group", type=int, default=64, help="K")
    parser.add_argument("--output", help="a JSON file for the numbers")
    options = parser.parse_args()
    numbers, rows = play_all(options.seeds, options.rounds, options.group), []
    for name, found in numbers.items():
        cells = [interval([one[what] for one in found], form) for what, form in (("tokens", ".1f"), ("good", ".1%"))]
        drift = "" if SIGNALS[name] is None else f"{np.mean([one['drift'] for one in found]):.2f}"
        rows.append([name, len(found), *cells, drift])
    columns = ["seeds", "tokens (95%)", "good first tokens (95%)", "largest drift (nats)"]
    print(markdown_table(["signal", *columns], rows))
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:
            json.dump(numbers, file, indent=1)


if __name__ == "__main__":
    main()
