"""
Ratings and the test of cycles on votes of known truth, and side by side with evalica.

    python benchmarks/ratings.py alarms power recovery  # of `gpm_hf.ratings` alone
    python benchmarks/ratings.py speed                  # needs `pip install evalica`
    python benchmarks/ratings.py judges --judgments allpairs.jsonl      # rows of `prompt`, `responses`, `judgments`

`alarms`: how often votes of rankings are called cyclic. `orders`: the same of scores that were read in both orders.
`power`: how often votes with planted cycles are. `recovery`: which model held-out pairs speak for. `speed`: 1,000
items and 1,000,000 votes. `judges`: each judge's cycles against a ranking with its noise.
"""

import argparse
import json
import time
from itertools import combinations

import numpy as np
from scipy.stats import binomtest

from gpm_hf.ratings import count_votes, cycle_power, cycle_test, fit_blocks, fit_bradley_terry
from gpm_hf.ratings.held_out import compare_models
from gpm_hf.ratings.order_noise import score_cycle_power, score_cycle_test
from gpm_hf.ratings.vote_rows import read_votes, vote_rows
from gpm_hf.tables import markdown_table
from tests.ratings.simulated import SURE, additive, read_twice, rotated, round_robin, true_share


def alarms(options):
    """Rates of p <= 0.05."""
    cases = {
        "ratings, 10 items, 10 votes a pair": lambda r: round_robin(r, additive(r, 1, 10), 10),
        "ratings and 20% ties, 10 items, 3 votes": lambda r: round_robin(r, additive(r, 1, 10), 3, ties=0.2),
        "ratings, 46 prompts, 5 responses, 2 votes": lambda r: round_robin(r, additive(r, 46, 5), 2),
        "ranking, 5% errors, 10 items, 3 votes": lambda r: round_robin(r, additive(r, 1, 10, SURE), 3, flip=0.05),
        "ranking, 10% errors, 10 items, 10 votes": lambda r: round_robin(r, additive(r, 1, 10, SURE), 10, flip=0.1),
        "ranking, 20% errors, 10 items, 3 votes": lambda r: round_robin(r, additive(r, 1, 10, SURE), 3, flip=0.2),
        "ranking, 20% errors, 46 prompts of 5, 2 votes": lambda r: round_robin(
            r, additive(r, 46, 5, SURE), 2, flip=0.2
        ),
        "equal items, 8 items, 5 votes": lambda r: round_robin(r, np.zeros((1, 8, 8)), 5),
    }
    rows, numbers = [], {}
    for name, draw in cases.items():
        found = [cycle_test(draw(np.random.default_rng(run)), 200, seed=run) for run in range(options.runs)]
        cyclic = np.mean([one.is_cyclic for one in found])
        share, curl = (np.mean([getattr(one, what).p_value <= 0.05 for one in found]) for what in ("share", "curl"))
        numbers[name] = {"cyclic": float(cyclic), "share": float(share), "curl": float(curl), "runs": options.runs}
        rows.append([name, options.runs, f"{cyclic:.1%}", f"{share:.1%}", f"{curl:.1%}"])
        print(rows[-1], flush=True)
    print(markdown_table(["transitive votes", "runs", "called cyclic", "by the share", "not additive"], rows))
    return numbers


def orders(options):
    """Rates of p <= 0.05 of scores that were read in both orders; noise is the standard deviation in each."""

    def ranking(rng, groups, items):
        """Pairs of chi-squared strengths, many of them near to none, signed by a ranking."""
        upper = np.triu(rng.normal(size=(groups, items, items)) ** 2, 1)
        return np.sign(additive(rng, groups, items)) * (upper + upper.swapaxes(1, 2))

    cases = {
        "ratings, 1 prompt of 5, noise 1": lambda r: (additive(r, 1, 5), 1.0),
        "ratings, 30 prompts of 3, noise 1": lambda r: (additive(r, 30, 3), 1.0),
        "equal, 1 prompt of 4, noise 1": lambda r: (np.zeros((1, 4, 4)), 1.0),
        "equal, 30 prompts of 4, noise 1": lambda r: (np.zeros((30, 4, 4)), 1.0),
        "ranking, 1 prompt of 5, noise 0.3": lambda r: (ranking(r, 1, 5), 0.3),
        "ranking, 1 prompt of 12, noise 0.2": lambda r: (ranking(r, 1, 12), 0.2),
        "ranking, 30 prompts of 4, noise 0.2": lambda r: (ranking(r, 30, 4), 0.2),
        "ranking, 30 prompts of 4, noise 1": lambda r: (ranking(r, 30, 4), 1.0),
        "ranking, 46 prompts of 9, noise 0.2": lambda r: (ranking(r, 46, 9), 0.2),
        "cyclic, 1 prompt of 20, a block of 1, noise 0.5": lambda r: (additive(r, 1, 20) + rotated(r, 1, 20), 0.5),
        "cyclic, 46 prompts of 9, a block of 0.8, noise 0.5": lambda r: (
            additive(r, 46, 9) + 0.8 * rotated(r, 46, 9),
            0.5,
        ),
        "cyclic, 46 prompts of 9, a block of 1, noise 0.5": lambda r: (additive(r, 46, 9) + rotated(r, 46, 9), 0.5),
        "cyclic, 46 prompts of 4, a block of 2, noise 0.5": lambda r: (
            additive(r, 46, 4) + 2 * rotated(r, 46, 4),
            0.5,
        ),
    }
    rows, numbers = [], {}
    for name, draw in cases.items():
        shares, found, stated = [], [], []
        for run in range(options.runs):
            rng = np.random.default_rng(run)
            truth, noise = draw(rng)
            shares.append(true_share(truth) if truth.any() else 0.0)
            given = read_twice(rng, truth, noise, first=0.7)
            found.append(score_cycle_test(*given, 200, seed=run))
            if run < options.stated and shares[-1]:
                one = score_cycle_power(*given, 200, seed=run)
                stated.append(float(np.interp(shares[-1], one.shares, one.power)))
        cyclic, additive_p = (np.mean([getattr(one, p) <= 0.05 for one in found]) for p in ("p_value", "additive_p"))
        numbers[name] = {"share": np.mean(shares), "cyclic": cyclic, "not_additive": additive_p, "stated": stated}
        ends = f"{np.mean(stated):.0%} ({min(stated):.0%} to {max(stated):.0%})" if stated else ""
        rows.append([name, f"{np.mean(shares):.1%}", options.runs, f"{cyclic:.1%}", ends, f"{additive_p:.1%}"])
        print(rows[-1], flush=True)
    columns = ["true share", "runs", "called cyclic", "power that is stated", "not additive"]
    print(markdown_table(["scores in both orders", *columns], rows))
    return numbers


# Groups, items in each, votes on a pair, share of the triples.
PLANTED = [(*votes, share) for votes in ((1, 20, 20), (1, 40, 10), (46, 9, 2), (46, 9, 6)) for share in (0.05, 0.1)]
CASES = list(range(1, len(PLANTED) + 1))


def power(options):
    """How often cycles in 5% and 10% of the triples are found at level 0.05, beside what `cycle_power` states."""
    rows, numbers = [], {}
    for groups, items, repeats, wanted in (PLANTED[number - 1] for number in options.cases):
        strength = strength_of(groups, items, wanted)
        shares, found, stated = [], [], []
        for run in range(options.planted):
            rng = np.random.default_rng(run)
            truth = additive(rng, groups, items) + strength * rotated(rng, groups, items)
            votes = round_robin(rng, truth, repeats)
            shares.append(true_share(truth))
            found.append(cycle_test(votes, 200, seed=run).is_cyclic)
            if run < options.stated:
                one = cycle_power(votes, 200, run)
                stated.append(float(np.interp(shares[-1], one.shares, one.power)))
        name = f"{groups} x {items} items, {repeats} votes a pair"
        low, high = binomial_interval(sum(found), len(found))
        rate = f"{np.mean(found):.0%} ({low:.0%} to {high:.0%})"
        ends = f"{np.mean(stated):.0%} ({min(stated):.0%} to {max(stated):.0%})"
        rows.append([name, f"{np.mean(shares):.1%}", len(found), rate, ends])
        numbers[f"{name}, {wanted}"] = {"share": np.mean(shares), "found": np.mean(found), "stated": stated}
        print(rows[-1], flush=True)
    columns = ["true share", "runs", "found (95%)", "power that is stated (least to most)"]
    print(markdown_table(["planted cycles", *columns], rows))
    return numbers


def strength_of(groups, items, wanted):
    """Of the rotating block that makes a wanted share of triples cyclic on average, by halving."""
    low, high = 0.0, 8.0
    for _ in range(20):
        middle, rng = (low + high) / 2, np.random.default_rng(10**6)
        draws = (additive(rng, groups, items) + middle * rotated(rng, groups, items) for _ in range(300 // groups + 1))
        low, high = (middle, high) if np.mean([true_share(one) for one in draws]) < wanted else (low, middle)
    return (low + high) / 2


def binomial_interval(count, size):
    """95%, Clopper and Pearson's."""
    found = binomtest(count, size).proportion_ci()
    return found.low, found.high


def recovery(options):
    """200 items with 20 votes each, on random pairs."""
    rows, numbers = [], {}
    for name, strength in (("hybrid", 2.5), ("Bradley-Terry", 0.0)):
        results = []
        for seed in range(options.seeds):
            rng = np.random.default_rng(seed)
            truth = (additive(rng, 1, 200) + strength * rotated(rng, 1, 200))[0]
            i = rng.integers(0, 200, 2000)
            j = (i + rng.integers(1, 200, 2000)) % 200
            outcome = (rng.random(2000) < 1 / (1 + np.exp(-truth[i, j]))).astype(float)
            results.append(compare_models(count_votes(i.tolist(), j.tolist(), outcome), seed=seed))
            print(name, seed, {key: round(one.log_loss, 4) for key, one in results[-1].models.items()}, flush=True)
        losses = {key: np.array([one.models[key].log_loss for one in results]) for key in results[0].models}
        best = losses["hybrid"] < np.minimum(losses["bradley_terry"], losses["blocks"])
        worst = (losses["hybrid"] / losses["bradley_terry"]).max() - 1
        chosen = [one.best for one in results]
        means = [f"{losses[key].mean():.4f}" for key in ("bradley_terry", "hybrid", "blocks")]
        rows.append([name, len(results), *means, int(best.sum()), f"{worst:+.2%}", chosen.count("hybrid")])
        numbers[name] = {key: value.tolist() for key, value in losses.items()} | {"best": chosen}
    columns = ["seeds", "Bradley-Terry", "hybrid", "blocks", "hybrid best", "hybrid at worst", "hybrid chosen"]
    print(markdown_table(["planted", *columns], rows))
    return numbers


def speed(options):
    """Seconds from lists of names to ratings, the least of three, CPU and wall."""
    import evalica

    rng, items, count = np.random.default_rng(0), 1000, 1_000_000
    rating, angle = rng.normal(size=items), rng.uniform(0, 2 * np.pi, items)
    i = rng.integers(0, items, count)
    j = (i + rng.integers(1, items, count)) % items
    scores = rating[i] - rating[j] + np.sin(angle[i] - angle[j])
    outcome = (rng.random(count) < 1 / (1 + np.exp(-scores))).astype(float)
    a, b = [f"m{k}" for k in i], [f"m{k}" for k in j]
    winners = [evalica.Winner.X if value else evalica.Winner.Y for value in outcome]
    found: dict = {}

    def timed(name, run):
        for _ in range(3):
            wall, cpu = time.perf_counter(), time.process_time()
            result = run()
            times = time.perf_counter() - wall, time.process_time() - cpu
            found[name] = min(found.get(name, (np.inf, np.inf)), times, key=lambda pair: pair[1])
        return result

    theirs = timed("evalica, Bradley-Terry", lambda: evalica.bradley_terry(a, b, winners))
    ours = timed("Bradley-Terry", lambda: fit_bradley_terry(count_votes(a, b, outcome), ties="half"))
    timed("hybrid", lambda: fit_blocks(count_votes(a, b, outcome), 1, ties="half"))
    exact = evalica.bradley_terry(a, b, winners, tolerance=1e-12, limit=100_000)
    names = count_votes(a, b, outcome).items
    for label, scores in (("default", theirs.scores), ("tolerance 1e-12", exact.scores)):
        other = np.log(scores.loc[names].to_numpy())
        print(
            f"largest difference of ratings, evalica {label}: {np.abs(other - other.mean() - ours.rating).max():.2g}"
        )
    base = found["evalica, Bradley-Terry"]
    rows = [[name, f"{w:.2f}", f"{c:.2f}", f"{c / base[1]:.2f}"] for name, (w, c) in found.items()]
    print(markdown_table(["1,000 items, 1,000,000 votes", "seconds", "CPU seconds", "ratio (CPU)"], rows))
    return {name: {"wall": wall, "cpu": cpu} for name, (wall, cpu) in found.items()}


def judges(options):
    """Responses of one prompt compete; p of the test of cycles, of additivity; power."""
    if not options.judgments:
        raise SystemExit("judges: give --judgments FILE.")
    names = sorted({judge for _, row in vote_rows(options.judgments) for judge in row["judgments"]})
    rows, numbers = [], {}
    for judge in names:
        votes = read_votes(vote_rows(options.judgments), judge).within_prompts()
        found, power = cycle_test(votes, 1000), cycle_power(votes)
        null = found.share
        ends = [null.observed - end for end in reversed(null.excess_interval)]
        once = single_order_cycles(options.judgments, judge)
        flips = "" if found.flips is None else f"{found.flips:.1%}"
        detectable = "none" if power.detectable is None else f"{power.detectable:.1%}"
        cells = [f"{null.observed:.2%}", f"{null.expected:.2%} ({ends[0]:.2%} to {ends[1]:.2%})"]
        cells += [f"{found.p_value:.3f}", f"{found.curl.p_value:.3f}", flips, detectable]
        rows.append([judge, found.triples, *once, *cells])
        numbers[judge] = {**found.to_dict(), "detectable": power.detectable, "cycles_once": once[0]}
        print(rows[-1], flush=True)
    columns = ["triples", "cycles, judged once", "cycles, averaged", "share", "share of a ranking with the noise"]
    columns += ["p, cycles", "p, additive", "pairs that flip", "share found in 80%"]
    print(markdown_table(["judge", *columns], rows))
    return numbers


def single_order_cycles(path, judge):
    """Strict cycles of three when the first order alone is looked at, and when all votes are averaged."""
    counts = [0, 0]
    for _, row in vote_rows(path):
        once, both = {}, {}
        for judgment in row["judgments"].get(judge, []):
            a, b = judgment["a"], judgment["b"]
            orders = [float(np.mean(given)) for given in (judgment["ab"], judgment["ba"]) if given]
            for table, value in ((once, orders[0]), (both, float(np.mean(orders)))):
                table[a, b], table[b, a] = value > 0.5, value < 0.5
        for which, table in enumerate((once, both)):
            models = sorted({name for pair in table for name in pair})
            for x, y, z in combinations(models, 3):
                rings = ((x, y), (y, z), (z, x)), ((y, x), (z, y), (x, z))
                counts[which] += any(all(table.get(edge, False) for edge in ring) for ring in rings)
    return counts


PARTS = {
    "alarms": alarms,
    "orders": orders,
    "power": power,
    "recovery": recovery,
    "speed": speed,
    "judges": judges,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--runs", type=int, default=500, help="of each case of `alarms` and `orders`")
    parser.add_argument("--planted", type=int, default=100, help="runs of each case of `power`")
    parser.add_argument(
        "--cases", nargs="+", type=int, choices=CASES, default=CASES, metavar="1..8", help="of `power`, by number"
    )
    parser.add_argument(
        "--stated", type=int, default=5, help="runs of each case of `power` and `orders` that state it"
    )
    parser.add_argument("--seeds", type=int, default=20, help="of `recovery`")
    parser.add_argument("--judgments", help="the file of `judges`")
    parser.add_argument("--output", help="a JSON file for the numbers")
    options = parser.parse_args()
    numbers = {name: PARTS[name](options) for name in options.parts}
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:
            json.dump(numbers, file, indent=1)


if __name__ == "__main__":
    main()
