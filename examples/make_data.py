"""
Writes the small files of `examples/data/` that the README and the documents use. They are shipped, and this is how
they were made: `python examples/make_data.py examples/data`. All texts are the generator's.
"""

import json
import random
import sys
from pathlib import Path

from gpm_hf.data.generator import generate_rings, ring_pairs, split_topics

ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")


def write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def votes(count: int, seed: int) -> list[dict]:
    """As of an arena: rock beats scissors, scissors beat paper, paper beats rock, each in three games of four."""
    rng = random.Random(seed)
    beats = {("rock", "scissors"), ("scissors", "paper"), ("paper", "rock")}
    rows = []
    for _ in range(count):
        a, b = rng.sample(["rock", "paper", "scissors", "pebble"], 2)
        chance = 0.75 if (a, b) in beats else 0.25
        if "pebble" in (a, b):
            chance = 0.2 if a == "pebble" else 0.8
        drawn = rng.random()
        winner = "tie" if drawn > 0.95 else "model_a" if drawn < 0.95 * chance else "model_b"
        rows.append({"model_a": a, "model_b": b, "winner": winner})
    return rows


def judged(rings: list[dict], seed: int) -> list[dict]:
    """Each pair judged in both orders: on half of the prompts by the ring, on the others by what was read first."""
    rng = random.Random(seed)
    rows = []
    for row in rings:
        fair = rng.random() < 0.5
        judgments = [{"a": i, "b": (i + 1) % 3, "ab": 1.0, "ba": 1.0 if fair else 0.0} for i in range(3)]
        rows.append({"prompt": row["prompt"], "responses": row["responses"], "judgments": {"judge-1": judgments}})
    return rows


def rated(rings: list[dict], seed: int) -> list[dict]:
    """UltraFeedback's form: each response rated from 1 to 5 on four aspects."""
    rng = random.Random(seed)
    return [
        {
            "instruction": row["prompt"],
            "completions": [
                {
                    "response": response,
                    "annotations": {aspect: {"Rating": str(rng.randint(1, 5))} for aspect in ASPECTS},
                }
                for response in row["responses"]
            ],
        }
        for row in rings
    ]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    train, test = split_topics()
    rings = generate_rings(30, seed=11, topics=train)
    held_out = generate_rings(12, seed=12, topics=test)
    ranked = generate_rings(24, seed=13, topics=train, transitive_share=1.0)
    columns = ("prompt", "chosen", "rejected")
    write(folder / "pairs.jsonl", [{name: pair[name] for name in columns} for pair in ring_pairs(ranked)])
    write(folder / "rings.jsonl", [{name: row[name] for name in ("prompt", "responses", "ring")} for row in rings])
    write(folder / "groups.jsonl", [{name: row[name] for name in ("prompt", "responses")} for row in held_out])
    write(folder / "prompts.jsonl", [{"prompt": [{"role": "user", "content": row["prompt"]}]} for row in rings[:16]])
    write(folder / "votes.jsonl", votes(600, seed=14))
    write(folder / "judgments.jsonl", judged(held_out, seed=15))
    write(folder / "ratings.jsonl", rated(generate_rings(24, ring_size=4, seed=16), seed=17))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
