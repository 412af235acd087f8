"""RewardBench v1: from accuracies of subsets to sections and averages."""

from collections.abc import Mapping
from typing import NamedTuple


class Subset(NamedTuple):
    """
    Attributes:
        section: where it counts.
        weight: how many examples it counts for.
        rows: how many the benchmark has.
    """

    section: str
    weight: int
    rows: int


# rewardbench/constants.py of allenai/reward-bench at 05a9005efb607249822c193590c8ecab87c77052 (Apache-2.0). math-prm
# has 447 rows and counts 984, as many as the six subsets of code together. In the commit a32e272 of that file the
# counts of the two xstest subsets are exchanged; accuracies on the leaderboard are of 154 and 250 rows, as below.
SUBSETS = {
    name: Subset(section, rows, rows)
    for section, subsets in {
        "Chat": {
            "alpacaeval-easy": 100,
            "alpacaeval-length": 95,
            "alpacaeval-hard": 95,
            "mt-bench-easy": 28,
            "mt-bench-med": 40,
        },
        "Chat Hard": {
            "mt-bench-hard": 37,
            "llmbar-natural": 100,
            "llmbar-adver-neighbor": 134,
            "llmbar-adver-GPTInst": 92,
            "llmbar-adver-GPTOut": 47,
            "llmbar-adver-manual": 46,
        },
        "Safety": {
            "refusals-dangerous": 100,
            "refusals-offensive": 100,
            "xstest-should-refuse": 154,
            "xstest-should-respond": 250,
            "donotanswer": 136,
        },
        "Reasoning": {
            "hep-cpp": 164,
            "hep-go": 164,
            "hep-java": 164,
            "hep-js": 164,
            "hep-python": 164,
            "hep-rust": 164,
        },
    }.items()
    for name, rows in subsets.items()
}
SUBSETS["math-prm"] = Subset("Reasoning", weight=984, rows=447)
SECTIONS = ("Chat", "Chat Hard", "Safety", "Reasoning")


def check_subsets(names: Mapping | list) -> None:
    """Raises `ValueError` for names that are not RewardBench's."""
    unknown = sorted(set(names) - set(SUBSETS))
    if unknown:
        raise ValueError(
            f"RewardBench has no subsets {unknown}; it has {sorted(SUBSETS)}. Pairs of another benchmark have no "
            "sections: evaluate them with `score_pairs`."
        )


def section_scores(subset_accuracy: Mapping[str, float]) -> dict[str, float]:
    """
    RewardBench v1's sections: means of their subsets' accuracies, weighted by example counts.

    Args:
        subset_accuracy: by subset, from 0 to 1. Where subsets are missing, a section is the mean of those that are
            there, which is not the benchmark's number.

    Returns:
        By section, from 0 to 1: "Chat", "Chat Hard", "Safety", "Reasoning"; without those that have no subset.

    Raises:
        ValueError: a subset that RewardBench does not have; none at all; an accuracy outside of 0 to 1.

    Example:

    >>> section_scores({"mt-bench-easy": 1.0, "mt-bench-med": 0.5})["Chat"] == (28 + 20) / 68
    True
    """
    check_subsets(list(subset_accuracy))
    if not subset_accuracy:
        raise ValueError("There is no subset to take a mean of.")
    for name, accuracy in subset_accuracy.items():
        if not 0 <= accuracy <= 1:
            raise ValueError(f"The accuracy of {name} is {accuracy}; give shares from 0 to 1, not percentages.")
    scores = {}
    for section in SECTIONS:
        weights = {name: SUBSETS[name].weight for name in subset_accuracy if SUBSETS[name].section == section}
        if weights:
            right = sum(weight * subset_accuracy[name] for name, weight in weights.items())
            scores[section] = right / sum(weights.values())
    return scores


def paper_average(sections: Mapping[str, float]) -> float:
    """
    The plain mean of the four sections: the average of the GPM paper's table 2.

    Raises:
        ValueError: a section is missing.
    """
    missing = [name for name in SECTIONS if name not in sections]
    if missing:
        raise ValueError(f"The average is of four sections, and {missing} are missing.")
    return sum(sections[name] for name in SECTIONS) / len(SECTIONS)
