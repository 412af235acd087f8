"""
Scores responses against each other, and says who wins and whether there is a cycle.

    python examples/score.py runs/demo/gpm
"""

import sys

from transformers import AutoModel, AutoTokenizer

from gpm_hf import decompose, find_cycles, von_neumann_winner

folder = sys.argv[1]
model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)

prompt = "How do I keep basil alive on a windowsill?"
responses = ["Water it when the soil feels dry.", "Turn the pot twice a week.", "Which way does your window face?"]
scores = model.preference_scores(tokenizer, prompt, responses)  # log-odds, 3 x 3, skew-symmetric

print("P(row is preferred to column):")
for row, response in zip(scores.sigmoid().tolist(), responses):
    print("  ", *(f"{probability:6.1%}" for probability in row), "", response)
print("Best first:", model.rank(tokenizer, prompt, responses))
print("Cycles:", [cycle.members for cycle in find_cycles(scores)])
print("The mixture that no response beats:", [round(share, 3) for share in von_neumann_winner(scores).tolist()])
ranked, cyclic = decompose(scores)
print(f"{float(cyclic.square().sum() / scores.square().sum()):.0%} of the squared log-odds is no ranking.")
