"""The last hours, in memory: a point each few seconds for the last minutes, one a minute before that. Pure.

A point says what happened since the one before. Two rings, both of fixed length: some 100 kB, however long we run.
"""

from collections import deque
from typing import Final, NamedTuple

from inferwatch_collectors.live.totals import COLUMNS, Totals, between

FINE_S: Final = 5.0
FINE_POINTS: Final = 180  # a quarter of an hour
COARSE_S: Final = 60.0
COARSE_POINTS: Final = 360  # six hours

# Looks are taken by a timer that may be late; a point is due a little before its time.
EARLY_S: Final = 0.25


class Point(NamedTuple):
    """What happened until `unix_s`, in the order of COLUMNS."""

    unix_s: float
    values: tuple[float | None, ...]


class _Ring:
    """Points at one distance."""

    def __init__(self, step_s: float, length: int) -> None:
        self.step_s = step_s
        self.points: deque[Point] = deque(maxlen=length)
        self._last: Totals | None = None

    def due(self, at_s: float) -> bool:
        return self._last is None or at_s - self._last.at_s >= self.step_s - EARLY_S

    def take(self, totals: Totals, unix_s: float) -> None:
        if self._last is not None:
            told = between(self._last, totals)
            self.points.append(Point(unix_s, tuple(told[name] for name in COLUMNS)))
        self._last = totals


class History:
    """The rings."""

    def __init__(self) -> None:
        self._fine = _Ring(FINE_S, FINE_POINTS)
        self._coarse = _Ring(COARSE_S, COARSE_POINTS)

    def due(self, at_s: float) -> bool:
        """Whether a look is wanted now (CLOCK_MONOTONIC)."""
        return self._fine.due(at_s)

    def take(self, totals: Totals, unix_s: float) -> None:
        """Take a look at the store."""
        self._fine.take(totals, unix_s)
        if self._coarse.due(totals.at_s):
            self._coarse.take(totals, unix_s)

    def columns(self, minutes: float) -> dict[str, list[float | None]]:
        """Return what is known of the last `minutes`, a list for `time` (Unix, s) and one for each of COLUMNS."""
        fine = minutes * 60 <= FINE_S * FINE_POINTS
        ring = self._fine if fine else self._coarse
        points = list(ring.points)
        if points:
            points = [point for point in points if point.unix_s > points[-1].unix_s - minutes * 60]
        found: dict[str, list[float | None]] = {"time": [point.unix_s for point in points]}
        for place, name in enumerate(COLUMNS):
            found[name] = [point.values[place] for point in points]
        return found
