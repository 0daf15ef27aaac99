"""The week's rhythm of a feature: what each hour of the week adds to its mean score.

    hour of the day + day of the week + day x hour

Three parts, each believed only if it is more than noise makes, and drawn towards nothing by the noise that is in it
(James and Stein). The third is of rank one: one pattern over the day, stronger on some days than on others, as
business hours are. 168 free figures would cost more in noise than they tell.

Pure.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Final, NamedTuple

HOURS: Final = 24
DAYS: Final = 7
HOURS_OF_WEEK: Final = HOURS * DAYS

# A part is believed if its spread is above what noise makes by three standard errors of that.
SURE: Final = 3.0
ROUNDS: Final = 12

# With fewer the means of cells are too far from normal for what is said of noise here.
EVENTS_PER_CELL: Final = 10

# The largest singular value of a day x hour table of noise, squared, in units of a cell's variance; and half as much
# again.
_NOISE_OF_RANK_ONE: Final = (sqrt(HOURS) + sqrt(DAYS)) ** 2
_SURE_OF_RANK_ONE: Final = 1.5

# What is less sure is as good as unknown; prices are exponentials of it.
MAX_ERROR: Final = 100.0

# Kept in steps of a hundredth of a standard deviation, one byte an hour: of a flag that is up once in 500 times, a
# tenth of its rate.
STEP: Final = 0.01
_MIDDLE: Final = 128


class Profile(NamedTuple):
    """What each hour adds, and the standard error of that, in standard deviations. `FLAT` if nothing is to be seen."""

    steps: bytes  # by hour of the week; empty: nothing
    error: float

    def at(self, hour: int) -> float:
        """Return what this hour of the week adds to the mean score."""
        return (self.steps[hour] - _MIDDLE) * STEP if self.steps else 0.0


FLAT: Final = Profile(b"", 0.0)


def profile_of(sums: Sequence[float], votes: Sequence[int], mean: float, variance: float, events: int) -> Profile:
    """Return the profile that these sums of scores and votes show, by hour of the week, with the overall figures.

    `events`: votes that were not of the commonest bin. Of what is rare no rhythm can be told.
    """
    if variance <= 0 or events < EVENTS_PER_CELL * HOURS:
        return FLAT
    cells = [
        [
            sums[day * HOURS + hour] / count - mean if (count := votes[day * HOURS + hour]) else 0.0
            for hour in range(HOURS)
        ]
        for day in range(DAYS)
    ]
    counts = [list(votes[day * HOURS : (day + 1) * HOURS]) for day in range(DAYS)]
    hours, days = _additive(cells, counts)
    in_hour = [sum(counts[day][hour] for day in range(DAYS)) for hour in range(HOURS)]
    in_day = [sum(row) for row in counts]
    hours, hour_error = _shrunk(hours, in_hour, variance)
    days, day_error = _shrunk(days, in_day, variance)
    rest = [
        [cells[day][hour] - hours[hour] - days[day] if counts[day][hour] else 0.0 for hour in range(HOURS)]
        for day in range(DAYS)
    ]
    enough = events >= EVENTS_PER_CELL * HOURS_OF_WEEK
    both, both_error = _rank_one(rest, counts, variance) if enough else ([[0.0] * HOURS] * DAYS, 0.0)
    error = hour_error + day_error + both_error
    if error <= 0:
        return FLAT
    unit = sqrt(variance)
    steps = bytes(
        max(1, min(255, _MIDDLE + round((hours[hour] + days[day] + both[day][hour]) / (unit * STEP))))
        for day in range(DAYS)
        for hour in range(HOURS)
    )
    return Profile(steps, min(MAX_ERROR, sqrt(error) / unit))


def _additive(cells: list[list[float]], counts: list[list[int]]) -> tuple[list[float], list[float]]:
    """Return the effects of hours and days that fit best together: they are not seen equally often."""
    hours, days = [0.0] * HOURS, [0.0] * DAYS
    for _ in range(ROUNDS):
        for hour in range(HOURS):
            weight = sum(counts[day][hour] for day in range(DAYS))
            gap = sum(counts[day][hour] * (cells[day][hour] - days[day]) for day in range(DAYS))
            hours[hour] = gap / weight if weight else 0.0
        for day in range(DAYS):
            weight = sum(counts[day])
            gap = sum(counts[day][hour] * (cells[day][hour] - hours[hour]) for hour in range(HOURS))
            days[day] = gap / weight if weight else 0.0
    return hours, days


def _shrunk(effects: list[float], votes: Sequence[int], variance: float) -> tuple[list[float], float]:
    """Return the effects without what is noise in them, and the variance of what is left; none if all may be noise."""
    total = sum(votes)
    seen = sum(1 for count in votes if count)
    if seen < 2:
        return [0.0] * len(effects), 0.0
    noise = variance * seen / total  # each cell's variance / votes, weighted by its votes
    spread = sum(count * effect * effect for count, effect in zip(votes, effects, strict=True)) / total
    if spread <= noise * (1 + SURE * sqrt(2 / (seen - 1))):
        return [0.0] * len(effects), 0.0
    true = spread - noise
    parts = [true / (true + variance / count) if count else 0.0 for count in votes]
    left = sum(count * true * (1 - part) for count, part in zip(votes, parts, strict=True)) / total
    return [effect * part for effect, part in zip(effects, parts, strict=True)], left


def _rank_one(rest: list[list[float]], counts: list[list[int]], variance: float) -> tuple[list[list[float]], float]:
    """Return the pattern day x hour in what hours and days leave unexplained, and the variance of it."""
    nothing = [[0.0] * HOURS for _ in range(DAYS)]
    seen = [count for row in counts for count in row if count]
    if len(seen) < HOURS_OF_WEEK // 2:
        return nothing, 0.0
    # Cells with few votes say nothing, and would be the pattern.
    usual = sorted(seen)[len(seen) // 2]
    rest = [
        [each if 2 * count >= usual else 0.0 for each, count in zip(row, in_row, strict=True)]
        for row, in_row in zip(rest, counts, strict=True)
    ]
    noise = variance * sum(1 / max(count, usual / 2) for count in seen) / len(seen)  # of a cell
    pattern = max(rest, key=lambda row: sum(each * each for each in row))
    size, days = 0.0, [0.0] * DAYS
    for _ in range(ROUNDS):
        days = [sum(each * part for each, part in zip(row, pattern, strict=True)) for row in rest]
        length = sqrt(sum(each * each for each in days))
        if length <= 0:
            return nothing, 0.0
        days = [each / length for each in days]
        pattern = [sum(days[day] * rest[day][hour] for day in range(DAYS)) for hour in range(HOURS)]
        size = sum(each * each for each in pattern)
        # Without the division the pattern keeps its size, which is the singular value.
    least = noise * _NOISE_OF_RANK_ONE
    if size <= _SURE_OF_RANK_ONE * least:
        return nothing, 0.0
    part = 1 - least / size
    figures = HOURS + DAYS - 1
    return [[part * day * each for each in pattern] for day in days], noise * figures / HOURS_OF_WEEK * part
