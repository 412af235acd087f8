"""RewardBench v1 with any scorer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from gpm_hf.evaluation.benchmarks.rewardbench_sections import (
    SECTIONS,
    SUBSETS,
    check_subsets,
    paper_average,
    section_scores,
)
from gpm_hf.evaluation.reports.pairs import PairResult, score_pairs
from gpm_hf.evaluation.statistics.bootstrap import interval_text
from gpm_hf.evaluation.statistics.stratified_bootstrap import Stratum, stratified_interval
from gpm_hf.scoring.scorer import Scorer
from gpm_hf.tables import markdown_table


class SectionResult(NamedTuple):
    """
    Attributes:
        accuracy: the mean of the subsets that are there, weighted by example counts, from 0 to 1.
        interval: its 95% bootstrap interval over the prompts within each subset; `None` where they are too few.
        rows: measured.
        lacking: subsets that do not have as many rows as the benchmark ("hep-go: 0 of 164"); empty for a whole
            section.
    """

    accuracy: float
    interval: tuple[float, float] | None
    rows: int
    lacking: list[str]

    @property
    def is_whole(self) -> bool:
        """Whether every row of the benchmark's section was measured."""
        return not self.lacking


@dataclass
class RewardBenchResult:
    """
    A scorer on RewardBench v1.

    Attributes:
        pairs: the counts, by subset with `pairs.by("subset")`.
    """

    pairs: PairResult

    @cached_property
    def sections(self) -> dict[str, SectionResult]:
        """By section, those of which there are rows."""
        places = self._places
        accuracies = {name: float(self.pairs.right[own].mean()) for name, own in places.items()}
        found = {}
        for section, accuracy in section_scores(accuracies).items():
            counts = {name: subset.rows for name, subset in SUBSETS.items() if subset.section == section}
            rows = {name: len(places.get(name, ())) for name in counts}
            found[section] = SectionResult(
                accuracy=accuracy,
                interval=stratified_interval([self._stratum(name) for name in counts if name in places]),
                rows=sum(rows.values()),
                lacking=[f"{name}: {rows[name]} of {count}" for name, count in counts.items() if rows[name] != count],
            )
        return found

    @property
    def is_whole(self) -> bool:
        """Whether the rows are as many as the benchmark's in every subset."""
        sections = self.sections
        return len(sections) == len(SECTIONS) and all(section.is_whole for section in sections.values())

    @property
    def average(self) -> float | None:
        """The paper's average of four sections; `None` unless the benchmark is whole."""
        if not self.is_whole:
            return None
        return paper_average({name: section.accuracy for name, section in self.sections.items()})

    @cached_property
    def average_interval(self) -> tuple[float, float] | None:
        """Its 95% bootstrap interval over the prompts within each subset."""
        if not self.is_whole:
            return None
        totals = dict.fromkeys(SECTIONS, 0)
        for subset in SUBSETS.values():
            totals[subset.section] += subset.weight
        # Each section counts the same in all.
        strata = [self._stratum(name) for name in SUBSETS]
        return stratified_interval(
            [
                stratum._replace(weight=subset.weight / totals[subset.section])
                for stratum, subset in zip(strata, SUBSETS.values())
            ]
        )

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        places: dict[str, list[int]] = {}
        for place, row in enumerate(self.pairs.rows):
            places.setdefault(row["subset"], []).append(place)
        return places

    def _stratum(self, name: str) -> Stratum:
        return Stratum(*self.pairs.clusters(self._places[name]), SUBSETS[name].weight)

    def to_dict(self) -> dict[str, Any]:
        """For JSON. `average` is null unless the benchmark is whole; each section says what it lacks."""
        return {
            "benchmark": "RewardBench",
            **self.pairs.to_dict(),
            "sections": {
                name: {**section._asdict(), "is_whole": section.is_whole} for name, section in self.sections.items()
            },
            "is_whole": self.is_whole,
            "average": self.average,
            "average_interval": self.average_interval,
        }


def evaluate_rewardbench(
    rows: Iterable[Mapping[str, Any]],
    scorer: Scorer,
    chunk_size: int = 64,
    store: str | Path | None = None,
    progress: bool = False,
) -> RewardBenchResult:
    """
    Measures a scorer on RewardBench v1, or on part of it. A pair is right where the log-odds of the chosen response
    are above 0; a tie counts 0, as in the benchmark.

    Args:
        rows: as [`gpm_hf.data.pair_files.read_pairs`] returns them; `subset` is one of RewardBench's.
        scorer, chunk_size, store, progress: see [`score_groups`].

    Raises:
        ValueError: no rows, subsets that RewardBench does not have, or a row that the scorer refuses, by name.
    """
    rows = list(rows)
    check_subsets([row["subset"] for row in rows])
    return RewardBenchResult(score_pairs(rows, scorer, chunk_size, store, progress))


def rewardbench_table(results: Sequence[RewardBenchResult]) -> str:
    """
    A Markdown table with a row per scorer: the sections with 95% intervals, the average, the cost. Sections that lack
    rows are marked, and what they lack is said below.
    """
    rows, notes = [], {}
    for result in results:
        sections, cells = result.sections, []
        for name in SECTIONS:
            if name not in sections:
                cells.append("-")
                continue
            section = sections[name]
            mark = "" if section.is_whole else " (partial)"
            cells.append(f"{section.accuracy:.2%}{interval_text(section.interval)}{mark}")
            if not section.is_whole:
                notes[f"{name} is partial: {'; '.join(section.lacking)}."] = True
        average = "-" if result.average is None else f"{result.average:.2%}"
        rows.append([result.pairs.scorer, *cells, average, result.pairs.forward_passes])
    table = markdown_table(["scorer", *SECTIONS, "average", "forward passes"], rows)
    return "\n\n".join([table, *notes])
