"""How intransitive a scorer is on a set of prompts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpm_hf.evaluation.reports.cycle_or_noise import CycleOrNoise, scorer_cycles
from gpm_hf.evaluation.reports.scored_groups import ResponseGroup, score_groups
from gpm_hf.preference import decompose, find_cycles
from gpm_hf.scoring.scorer import Scorer
from gpm_hf.tables import markdown_table


class PromptIntransitivity(NamedTuple):
    """
    One prompt with K responses.

    Attributes:
        prompt: as given.
        triples: of its responses, K(K - 1)(K - 2) / 6.
        cycles: triples that are a cycle.
        cyclic_share: share of the squared norm of S that no rating explains, from 0 to 1.
        cyclic_size: root mean square of the cyclic part over pairs, log-odds.
        size: root mean square of S over pairs, log-odds.
    """

    prompt: Any
    triples: int
    cycles: int
    cyclic_share: float
    cyclic_size: float
    size: float


@dataclass
class Intransitivity:
    """
    Attributes:
        scorer: its name.
        prompts: one by one.
        asymmetry, forward_passes: see [`gpm_hf.evaluation.reports.scored_groups.ScoredGroups`].
        noise: whether the cycles are more than what its two orders of presentation disagree by.
    """

    scorer: str
    prompts: list[PromptIntransitivity]
    asymmetry: float | None
    forward_passes: int
    noise: CycleOrNoise

    @property
    def cyclic_triples(self) -> float:
        """Share of all triples that are a cycle: 0 for a ranking; 1/4 for duels decided by coin."""
        return sum(one.cycles for one in self.prompts) / sum(one.triples for one in self.prompts)

    @property
    def prompts_with_cycles(self) -> float:
        """Share of the prompts with at least one cycle."""
        return sum(one.cycles > 0 for one in self.prompts) / len(self.prompts)

    @property
    def cyclic_share(self) -> float:
        """Mean over prompts of the share of S that no rating explains, from 0 to 1."""
        return float(np.mean([one.cyclic_share for one in self.prompts]))

    @property
    def cyclic_size(self) -> float:
        """Mean over prompts of the size of the cyclic part, log-odds."""
        return float(np.mean([one.cyclic_size for one in self.prompts]))

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without the prompts' texts."""
        names = ("cyclic_triples", "prompts_with_cycles", "cyclic_share", "cyclic_size", "asymmetry", "forward_passes")
        counts = {
            "prompts": len(self.prompts),
            "triples": sum(one.triples for one in self.prompts),
            "cycles": sum(one.cycles for one in self.prompts),
        }
        numbers = {name: getattr(self, name) for name in names}
        return {"scorer": self.scorer, **counts, **numbers, "cycle_or_noise": self.noise.to_dict()}


def intransitivity_report(
    rows: Iterable[Mapping[str, Any]],
    scorer: Scorer,
    chunk_size: int = 16,
    store: str | Path | None = None,
    progress: bool = False,
) -> Intransitivity:
    """
    Measures the cycles that a scorer sees: how many triples of responses it prefers in a ring, and how much of its
    log-odds no scalar rating explains (`gpm_hf.preference.decompose`). A Bradley-Terry model has 0 of both. This says
    what the model believes, not whether it is right: compare with the data's own cycles, [`evaluate_cyclic`].

    Args:
        rows: `prompt` and at least three `responses`.
        scorer, chunk_size, store, progress: see [`score_groups`]. Where a scorer's two orders disagree, their average
            is looked at, so that position bias is not taken for cycles.

    Raises:
        ValueError: no rows, fewer than three responses in one, or a row that the scorer refuses.
    """
    groups = [
        ResponseGroup(f"row {number}", row["prompt"], list(row["responses"])) for number, row in enumerate(rows, 1)
    ]
    if not groups:
        raise ValueError("There are no prompts to look at.")
    for group in groups:
        if len(group.responses) < 3:
            raise ValueError(f"{group.name} has {len(group.responses)} responses; a cycle has at least three.")
    scored = score_groups(groups, scorer, chunk_size, store, progress)
    prompts = [_measure(group.prompt, scores) for group, scores in zip(groups, scored.scores)]
    return Intransitivity(scorer.name, prompts, scored.asymmetry, scored.forward_passes, scorer_cycles(scored))


def _measure(prompt: Any, scores: np.ndarray) -> PromptIntransitivity:
    parts = decompose(scores)
    return PromptIntransitivity(
        prompt=prompt,
        triples=comb(len(scores), 3),
        cycles=len(find_cycles(scores)),
        cyclic_share=float(parts.cyclic_share),
        cyclic_size=_size(parts.cyclic),
        size=_size(scores),
    )


def _size(matrix: np.ndarray) -> float:
    """Root mean square over pairs."""
    return float(np.sqrt(np.square(matrix[np.triu_indices(len(matrix), 1)]).mean()))


def intransitivity_table(results: Sequence[Intransitivity]) -> str:
    """A Markdown table with a row per scorer, and whether the cycles of each are more than noise."""
    rows = [
        [
            one.scorer,
            len(one.prompts),
            f"{one.cyclic_triples:.1%}",
            f"{one.prompts_with_cycles:.1%}",
            f"{one.cyclic_share:.1%}",
            f"{one.cyclic_size:.2f}",
        ]
        for one in results
    ]
    columns = ["prompts", "triples in a cycle", "prompts with one", "cyclic share of S", "cyclic part (log-odds)"]
    said: dict[str, list[str]] = {}  # what is true of several scorers is said once
    for one in results:
        said.setdefault(one.noise.sentence(), []).append(one.scorer)
    sentences = [f"{', '.join(names)}: {sentence}" for sentence, names in said.items()]
    return "\n\n".join([markdown_table(["scorer", *columns], rows), "\n".join(sentences)])
