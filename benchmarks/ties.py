"""
Ties that people see, and judges' votes as scores of them: temperature and tie width on held-out prompts, and
RewardBench 2's number for Ties on rows made of people's votes, before and after.

    python benchmarks/ties.py --judgments allpairs.jsonl      # rows of `prompt`, `responses`, `judgments`

A row of Ties holds, of the responses that a judge compared, the largest set of two or more that people hold to be
equal, and those that lose to each of them; its partner with one correct answer (`ref`) has the first of the set alone.
The published subset has other questions there.
"""

import argparse
import json
from itertools import combinations

import numpy as np

from gpm_hf.evaluation.benchmarks.ties import ties_result
from gpm_hf.evaluation.statistics.tie_calibration import calibrate_ties, tie_calibration_table
from gpm_hf.ratings.vote_rows import vote_rows
from gpm_hf.tables import markdown_table


def votes_of(judgments):
    """{(a, b): votes for a} of both orders, either way around."""
    found = {(one["a"], one["b"]): one["ab"] + one["ba"] for one in judgments if one["ab"] + one["ba"]}
    return found | {(b, a): [1 - value for value in values] for (a, b), values in found.items()}


def score(votes):
    """Log-odds; half a vote for both keeps them finite."""
    return float(np.log((sum(votes) + 0.5) / (len(votes) - sum(votes) + 0.5)))


def tied_row(people):
    """Responses that are equal, and those that lose to each of them; the largest such sets, `None` where none is."""
    names, best = sorted({name for pair in people for name in pair}), None
    lead = {pair: np.mean(values) - 0.5 for pair, values in people.items()}
    for size in range(2, len(names)):
        for equal in combinations(names, size):
            if all(abs(lead.get(pair, 1)) < 1e-9 for pair in combinations(equal, 2)):
                losers = [name for name in names if all(lead.get((one, name), 0) > 1e-9 for one in equal)]
                if losers and (best is None or (size, len(losers)) > (len(best[0]), len(best[1]))):
                    best = list(equal), losers
    return best


def matrix(votes, names):
    """Log-odds of shape (K, K); 0 where a pair was not judged."""
    return np.array([[0.0 if a == b else score(votes.get((a, b), [0.5])) for b in names] for a in names])


def measure(rows, judge, people):
    """Calibration on each person's votes, and Ties before and after."""
    scores, targets, prompts, ties = [], [], [], []
    for number, row in enumerate(rows):
        said, seen = votes_of(row["judgments"][people]), votes_of(row["judgments"].get(judge, []))
        for one in row["judgments"].get(judge, []):
            for value in said.get((one["a"], one["b"]), []):
                scores.append(score(seen[one["a"], one["b"]]))
                targets.append(value)
                prompts.append(row["prompt"])
        found = tied_row({pair: values for pair, values in said.items() if pair in seen})
        if found is not None:
            correct, whole = len(found[0]), matrix(seen, found[0] + found[1])
            alone = [0, *range(correct, len(whole))]
            ties.append(({"id": f"tied:{number}", "correct": correct}, whole))
            ties.append(({"id": f"ref:{number}", "correct": 1}, whole[np.ix_(alone, alone)]))
    calibrated = calibrate_ties(scores, targets, prompts)
    names = [name for name, _ in ties]
    before, after = (
        ties_result(names, [given / divisor for _, given in ties]) for divisor in (1.0, calibrated.model.temperature)
    )
    return calibrated, before, after, len(ties) // 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judgments", required=True)
    parser.add_argument("--people", default="human (PRD)", help="the judge who is the truth")
    parser.add_argument("--output", help="a JSON file for the numbers")
    options = parser.parse_args()
    rows = [row for _, row in vote_rows(options.judgments)]
    judges = sorted({judge for row in rows for judge in row["judgments"]} - {options.people})
    found = {judge: measure(rows, judge, options.people) for judge in judges}
    print(tie_calibration_table({judge: calibrated for judge, (calibrated, *_) in found.items()}))
    cells = []
    for judge, (_, before, after, count) in found.items():
        shares = [before.tied_accuracy, before.ref_accuracy, before.preferred, before.preferred_hard]
        scored = [f"{one.score:.4f}" for one in (before, after)]
        cells.append([judge, count, *(f"{share:.1%}" for share in shares), *scored])
    columns = [
        "rows",
        "all equals first",
        "the one first",
        "gap above spread",
        "both gaps",
        "Ties",
        "Ties, calibrated",
    ]
    print(markdown_table(["scorer", *columns], cells))
    if options.output:
        numbers = {
            judge: {
                "calibration": calibrated.to_dict(),
                "ties": before.to_dict(),
                "ties_calibrated": after.to_dict(),
            }
            for judge, (calibrated, before, after, _) in found.items()
        }
        with open(options.output, "w", encoding="utf-8") as file:
            json.dump(numbers, file, indent=1)


if __name__ == "__main__":
    main()
