"""Whether the cycles that a data set's own judgements show are more than noise."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gpm_hf.ratings import CycleTest, Power, UntestableVotes, cycle_power, cycle_test
from gpm_hf.ratings.vote_rows import read_votes


@dataclass(frozen=True)
class DataCycles:
    """
    Attributes:
        test: against a ranking of each prompt's responses with the same votes, ties and noise; `None` where nothing
            can be told.
        power: what share of cycles these votes would show; `None` likewise.
        no_test: why there is no test.
    """

    test: CycleTest | None
    power: Power | None
    no_test: str | None

    def sentence(self) -> str:
        """In words."""
        if self.test is None or self.power is None:
            return f"Whether the cycles of the data are more than noise was not tested. {self.no_test}"
        return f"{self.test.verdict()} {self.power.sentence()}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "test": None if self.test is None else self.test.to_dict(),
            "power": None if self.power is None else asdict(self.power),
            "no_test": self.no_test,
        }


def data_cycles(rows: Iterable[tuple[str, Mapping[str, Any]]], judge: str | None = None) -> DataCycles:
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
        return DataCycles(cycle_test(votes), cycle_power(votes, 100), None)
    except UntestableVotes as reason:
        return DataCycles(None, None, str(reason))
