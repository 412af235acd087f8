"""Whether cycles, of a data set's own judgements or of a scorer's matrices, are more than noise."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gpm_hf.evaluation.reports.scored_groups import ScoredGroups
from gpm_hf.ratings import CycleTest, Power, UntestableVotes, cycle_power, cycle_test
from gpm_hf.ratings.order_noise import NoNoise, ScoreCycleTest, score_cycle_power, score_cycle_test
from gpm_hf.ratings.vote_rows import read_votes

_ONE_ORDER = "Its noise is not known: it read each pair in one order, or does not say by what its two orders disagree."


@dataclass(frozen=True)
class CycleOrNoise:
    """
    Attributes:
        test: against a ranking of each prompt's responses with the same noise; `None` where nothing can be told.
        power: what share of cycles would be found; `None` likewise.
        no_test: why there is no test.
    """

    test: CycleTest | ScoreCycleTest | None
    power: Power | None
    no_test: str | None

    def sentence(self) -> str:
        """In words."""
        if self.test is None or self.power is None:
            return f"Whether the cycles are more than noise was not tested. {self.no_test}"
        what = "scores" if isinstance(self.test, ScoreCycleTest) else "votes"
        return f"{self.test.verdict()} {self.power.sentence(what)}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "test": None if self.test is None else self.test.to_dict(),
            "power": None if self.power is None else asdict(self.power),
            "no_test": self.no_test,
        }


def data_cycles(rows: Iterable[tuple[str, Mapping[str, Any]]], judge: str | None = None) -> CycleOrNoise:
    """
    Tests the judgements of a data set, the responses to one prompt competing with each other.

    Args:
        rows: as [`gpm_hf.ratings.vote_rows.read_votes`] takes them: where each stands, and preference pairs or
            judgements, with their prompts.
        judge: whose judgements, where rows hold several judges'.

    Raises:
        ValueError: as [`read_votes`].
    """
    votes = read_votes(rows, judge)
    if not votes.group.any():
        votes = votes.within_prompts()
    try:
        return CycleOrNoise(cycle_test(votes), cycle_power(votes, 100), None)
    except UntestableVotes as reason:
        return CycleOrNoise(None, None, str(reason))


def scorer_cycles(scored: ScoredGroups) -> CycleOrNoise:
    """
    Tests the matrices of a scorer by what its two orders of presentation disagree by. One that reads a response at a
    time gives a pair the same score in both, whenever it is asked: nothing of it is noise, and there is no test.

    Raises:
        ValueError: no three responses to one prompt.
    """
    if scored.disagreements is None:
        return CycleOrNoise(None, None, _ONE_ORDER)
    try:
        test = score_cycle_test(scored.scores, scored.disagreements)
        return CycleOrNoise(test, score_cycle_power(scored.scores, scored.disagreements), None)
    except NoNoise as reason:
        return CycleOrNoise(None, None, str(reason))
