"""Bars of long work, which say what is done and, once that can be measured here, how long it will take."""

import logging
from time import monotonic
from typing import Any

from tqdm.auto import tqdm

logger = logging.getLogger(__name__)

# Seconds: an estimate takes so many of measuring, and is worth a sentence from so many on.
MEASURED, LONG = 5.0, 20.0


class TimedBar(tqdm):
    """
    A bar that also says in a sentence, once and in a log without bars too, how long this takes on this machine.

    What is measured begins with the first update: before that much is done once and not again, a prompt read, a
    kernel compiled.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.has_said = self.disable
        self._begin()

    def _begin(self) -> None:
        self.began = monotonic()
        self.first: tuple[float, float] | None = None

    def reset(self, total: float | None = None) -> None:
        super().reset(total)
        self._begin()

    def update(self, n: float | None = 1) -> bool | None:
        shown, now = super().update(n), monotonic()
        if self.first is None:
            self.first = (self.n, now)
        elif not self.has_said and self.total:
            done, seconds = self.n - self.first[0], now - self.first[1]
            if done > 0 and seconds >= MEASURED:
                self.has_said = True
                whole = now - self.began + seconds * (self.total - self.n) / done
                if whole >= LONG:
                    logger.info(f"{self.desc.removesuffix(': ')}: {in_words(whole)} on this machine.")
        return shown


def in_words(seconds: float) -> str:
    """A duration as one says it: "about 40 seconds", "about 3 minutes", "about 2 hours"."""
    for unit, size in (("hour", 3600.0), ("minute", 60.0)):
        if seconds >= 1.5 * size:
            return f"about {seconds / size:.0f} {unit}s"
    return f"about {max(1, round(seconds))} seconds"
