"""Whether votes determine ratings: Ford's condition, in words."""

from dataclasses import dataclass

import numpy as np

from .votes import Votes


@dataclass(frozen=True)
class Comparability:
    """
    Attributes:
        components: lists of items, the largest first: those of different lists were never compared, directly or
            through others, and no vote says anything about one list against another.
        undefeated: items that never lost (nor tied): by votes alone their rating is infinite.
        winless: items that never won (nor tied): minus infinity.
        one_way: whether, beyond those, some set of items never lost to the rest of its component.
    """

    components: list[list[str]]
    undefeated: list[str]
    winless: list[str]
    one_way: bool

    @property
    def is_bounded(self) -> bool:
        """Whether finite ratings without a ridge exist, which in each component are the only ones (Ford, 1957)."""
        return not (self.undefeated or self.winless or self.one_way)

    def sentences(self) -> list[str]:
        """What the votes do not determine; nothing where they determine all."""
        found = []
        if len(self.components) > 1:
            sizes = ", ".join(str(len(part)) for part in self.components[:5])
            more = ", ..." if len(self.components) > 5 else ""
            found.append(
                f"The items fall into {len(self.components)} parts (of {sizes}{more}) that no vote connects: ratings "
                f"of one part say nothing about another, such as of {self.components[0][0]!r} and "
                f"{self.components[1][0]!r}."
            )
        for names, what in ((self.undefeated, "never lost"), (self.winless, "never won")):
            if names:
                shown = ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
                found.append(
                    f"{shown} {what}: the votes alone put no bound on {'its' if len(names) == 1 else 'their'} rating."
                )
        if self.one_way and not found:
            found.append("Some items never lost to any of the others: the votes alone put no bound on their lead.")
        return found


def comparability(votes: Votes) -> Comparability:
    """How far the votes connect the items. A tie counts as a win of both; an item without votes is a part alone."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    size = len(votes.items)
    won, lost = votes.wins + votes.ties > 0, votes.losses + votes.ties > 0
    winners, losers = np.concatenate([votes.a[won], votes.b[lost]]), np.concatenate([votes.b[won], votes.a[lost]])
    beats = csr_matrix((np.ones(len(winners)), (winners, losers)), shape=(size, size))
    parts, part = connected_components(beats, connection="weak")
    strong = connected_components(beats, connection="strong")[0]
    wins, losses = np.bincount(winners, minlength=size) > 0, np.bincount(losers, minlength=size) > 0
    undefeated, winless = np.flatnonzero(wins & ~losses), np.flatnonzero(losses & ~wins)
    members = np.split(np.argsort(part, kind="stable"), np.cumsum(np.bincount(part, minlength=parts))[:-1])
    return Comparability(
        components=sorted(([votes.items[item] for item in one] for one in members), key=lambda one: -len(one)),
        undefeated=[votes.items[item] for item in undefeated],
        winless=[votes.items[item] for item in winless],
        one_way=strong > parts,
    )
