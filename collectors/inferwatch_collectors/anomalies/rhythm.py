"""What a tenant usually spends in an hour of the week, learnt from its own past hour by hour.

A cell of the week (Tuesday, 14 to 15 o'clock UTC) is seen once a week, so one observation of it says little. It is
drawn towards the mean of its hour on all weekdays (or weekend days), and that one towards the mean of all hours. So
working hours are known after two days, and a job on Saturday night after two weekends. Old weeks are forgotten step by
step.

Pure. The sums are kept as 32-bit floats: a relative error of 1e-7 is nothing to an expectation, and there are hundreds
of them for each tenant. Amounts are in whatever unit the caller uses.
"""

from array import array
from collections import deque
from typing import Final

import msgspec

from inferwatch_collectors.anomalies.written import MAX_AMOUNT, Amount, Count, Weight
from inferwatch_collectors.wall_time import HOURS_OF_DAY, HOURS_OF_WEEK, hour_of_week

_WEEKDAYS: Final = 5
_DAY_HOURS: Final = 2 * HOURS_OF_DAY  # those of weekdays, then those of the weekend

# What one more observation leaves of those before: five weeks, and about as many for hours seen five times a week.
CELL_MEMORY: Final = 0.8
DAY_HOUR_MEMORY: Final = 0.96
# Of the level, for each hour: two weeks, which hold each day of the week twice.
LEVEL_MEMORY: Final = 1 - 1 / (2 * HOURS_OF_WEEK)

# Two days: an excess must not become its own expectation before there is evidence enough to tell of it.
DELAY_HOURS: Final = 2 * HOURS_OF_DAY

# As many observations is the mean of the wider group worth, in that of the narrower one.
CELL_PRIOR: Final = 2.0
DAY_HOUR_PRIOR: Final = 2.0

# So much earlier or later is no surprise: jobs start late or run longer, and clocks are changed twice a year.
BESIDE_HOURS: Final = 2

# Expect no less than this part of the mean hour. Nights and Sundays are a few requests: ten times next to nothing is no
# surprise to anybody who pays, and dividing by almost nothing would make one of each late request.
LEAST_SHARE: Final = 0.25


class RhythmState(msgspec.Struct, array_like=True):
    """What is written down: sums and weights, as 32-bit floats of this machine."""

    hours: Count
    level: tuple[Amount, Weight]
    cells: bytes
    day_hours: bytes
    waiting: list[tuple[int, Amount]]


class Rhythm:
    """Of one tenant. Amounts must not be negative."""

    __slots__ = ("_cells", "_day_hours", "_level", "_level_weight", "_waiting", "hours")

    def __init__(self) -> None:
        self.hours = 0  # learnt in all
        self._waiting: deque[tuple[int, float]] = deque()
        self._level = 0.0
        self._level_weight = 0.0
        self._cells = array("f", bytes(4 * 2 * HOURS_OF_WEEK))  # sum, weight, sum, weight, …
        self._day_hours = array("f", bytes(4 * 2 * _DAY_HOURS))

    @property
    def level(self) -> float:
        """The mean of an hour; 0 if nothing is known."""
        return self._level / self._level_weight if self._level_weight else 0.0

    def expected(self, hour: int) -> float:
        """Return the most to be expected of `hour`, counted since 1970, or of the hours beside it.

        At least LEAST_SHARE of the mean hour.
        """
        level = self.level
        cells, day_hours = self._cells, self._day_hours
        most = LEAST_SHARE * level
        for beside in range(hour - BESIDE_HOURS, hour + BESIDE_HOURS + 1):
            cell, day_hour = _places(beside)
            wide = _mean(day_hours, day_hour, DAY_HOUR_PRIOR, level)
            most = max(most, _mean(cells, cell, CELL_PRIOR, wide))
        return most

    def learn(self, hour: int, spent: float) -> None:
        """Take a whole hour. What it teaches counts from DELAY_HOURS later."""
        self._waiting.append((hour, spent))
        self.hours += 1
        if len(self._waiting) > DELAY_HOURS:
            self._learn(*self._waiting.popleft())

    def _learn(self, hour: int, spent: float) -> None:
        cell, day_hour = _places(hour)
        _add(self._cells, cell, CELL_MEMORY, spent)
        _add(self._day_hours, day_hour, DAY_HOUR_MEMORY, spent)
        self._level = self._level * LEVEL_MEMORY + spent
        self._level_weight = self._level_weight * LEVEL_MEMORY + 1.0

    def state(self) -> RhythmState:
        """Return it to be written down."""
        level = (self._level, self._level_weight)
        return RhythmState(self.hours, level, self._cells.tobytes(), self._day_hours.tobytes(), list(self._waiting))

    @classmethod
    def of(cls, state: RhythmState) -> "Rhythm":
        """Return the rhythm that was written down.

        Raises:
            ValueError: it was written by another version, or is damaged.
        """
        found = cls()
        sizes = (len(state.cells), len(state.day_hours))
        if sizes != (4 * 2 * HOURS_OF_WEEK, 4 * 2 * _DAY_HOURS):
            raise ValueError(f"sums of {sizes} bytes")
        found.hours = state.hours
        found._waiting.extend(state.waiting[-DELAY_HOURS:])
        found._level, found._level_weight = state.level
        found._cells = array("f", state.cells)
        found._day_hours = array("f", state.day_hours)
        if not all(0 <= each <= MAX_AMOUNT for sums in (found._cells, found._day_hours) for each in sums):
            raise ValueError("sums that are none")
        return found


def _places(hour: int) -> tuple[int, int]:
    """Return where the sums of `hour` are."""
    cell = hour_of_week(hour)
    day, hour_of_day = divmod(cell, HOURS_OF_DAY)
    return 2 * cell, 2 * (hour_of_day + (HOURS_OF_DAY if day >= _WEEKDAYS else 0))


def _mean(sums: "array[float]", place: int, prior_weight: float, prior: float) -> float:
    return (sums[place] + prior_weight * prior) / (sums[place + 1] + prior_weight)


def _add(sums: "array[float]", place: int, memory: float, amount: float) -> None:
    sums[place] = sums[place] * memory + amount
    sums[place + 1] = sums[place + 1] * memory + 1.0
