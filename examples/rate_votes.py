"""
Rates whatever competed by the votes on it, and says whether its cycles are more than noise.

    python examples/rate_votes.py examples/data/votes.jsonl
"""

import sys

from gpm_hf.ratings import cycle_test, fit_bradley_terry
from gpm_hf.ratings.vote_rows import read_votes, vote_rows

votes = read_votes(vote_rows(sys.argv[1]))
rating = fit_bradley_terry(votes)
for place in rating.rating.argsort()[::-1]:
    print(f"{rating.rating[place]:+.2f}  {votes.items[place]}")
print(cycle_test(votes).verdict())
