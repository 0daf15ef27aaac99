"""When will it be gone, and what will it be at the end: a forecast by the hour of the week, with a range.

A straight line through a period's first days says "over budget" of most tenants that work in business hours and end
well under it. So spending is taken as `level x profile[hour of week] x noise`:

* the profile is what share of a week's spending falls into each hour of it, learnt from the tenant's own history and
  drawn towards flat as long as there is little of that (PRIOR_WEEKS);
* the level is what the recent past spent for each unit of profile;
* the range comes from how far single days were from level x profile, so it is wide for a tenant whose days differ and
  widens with the time ahead. Days are the unit because the hours of one day rise and fall together.

Pure: history goes in as sums per hour, the answer comes out. Amounts are in the budget's unit, whatever it is.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from inferwatch_collectors.wall_time import HOUR_S, HOURS_OF_DAY, HOURS_OF_WEEK, hour_of_week

# A flat profile counts as much as this many weeks of history: the first week already shows nights and weekends.
PRIOR_WEEKS: Final = 0.15

# What was long ago says little of the level; two weeks hold each day of the week twice.
LEVEL_DAYS: Final = 14

# Days whose expected share is below this part of an average day (a quiet Sunday) say nothing of the level's noise:
# their ratio divides by almost nothing.
MIN_DAY_SHARE: Final = 0.2

# Less than this an hour is nothing in any unit, and dividing by it would overflow.
SMALLEST: Final = 1e-100

# Relative standard deviation of a day when there are no days to take it from: what new tenants showed at worst.
PRIOR_DEVIATION: Final = 0.5
# It counts as much as this many days seen.
PRIOR_DAYS: Final = 2.0

# The level comes from the same few days as the deviation, and days in a row are alike: more than 1 / days.
LEVEL_INFLATION: Final = 2.0

# Two-sided 80 %: one in ten lies below the lower bound. The quantile of the normal distribution.
Z_80: Final = 1.2816


class Forecast(NamedTuple):
    """Spending at the period's end, and when the limit is reached (Unix seconds; None: not within the period)."""

    low: float
    expected: float
    high: float
    exhausted_s: float | None  # by the expected course
    exhausted_early_s: float | None  # by the high one


def profile_of(history: Mapping[int, float], first_hour: int, last_hour: int) -> list[float]:
    """Return 168 shares that sum to 168 (a flat week is all ones).

    `history` holds spending by hour since 1970; a missing hour from `first_hour` to `last_hour` (exclusive) was 0.
    """
    sums = [0.0] * HOURS_OF_WEEK
    seen = [0] * HOURS_OF_WEEK
    total = 0.0
    for hour in range(first_hour, last_hour):
        spent = history.get(hour, 0.0)
        sums[hour_of_week(hour)] += spent
        seen[hour_of_week(hour)] += 1
        total += spent
    mean = total / max(1, last_hour - first_hour)
    if mean <= SMALLEST:
        return [1.0] * HOURS_OF_WEEK
    rates = [(s / mean + PRIOR_WEEKS) / (n + PRIOR_WEEKS) for s, n in zip(sums, seen, strict=True)]
    scale = HOURS_OF_WEEK / sum(rates)
    return [rate * scale for rate in rates]


def forecast(
    history: Mapping[int, float], *, first_hour: int, now_s: float, spent: float, end_s: float, limit: float
) -> Forecast | None:
    """Forecast a period that ends at `end_s` and in which `spent` is gone by `now_s`.

    `history` holds whole hours from `first_hour` up to the present one (exclusive), this period's included. None: not a
    single whole hour is known, so nothing can be said.
    """
    last_hour = int(now_s // HOUR_S)
    first_hour = max(first_hour, min(history, default=last_hour))
    if last_hour <= first_hour:
        return None
    profile = profile_of(history, first_hour, last_hour)
    level_from = max(first_hour, last_hour - LEVEL_DAYS * HOURS_OF_DAY)
    level = _level(history, profile, level_from, last_hour)
    deviation, days = _deviation(history, profile, level, level_from, last_hour)
    ahead = _hours_ahead(profile, now_s, end_s)
    rest = level * sum(share for _, share in ahead)
    unseen = _unseen(last_hour - first_hour, ahead, now_s)
    spread = Z_80 * rest * math.hypot(_noise(deviation, days, len(ahead)), unseen)
    return Forecast(
        low=spent + max(0.0, rest - spread),
        expected=spent + rest,
        high=spent + rest + spread,
        exhausted_s=_exhausted_s(ahead, level, limit - spent, now_s),
        exhausted_early_s=_exhausted_s(ahead, level + (spread * level / rest if rest else 0.0), limit - spent, now_s),
    )


def _level(history: Mapping[int, float], profile: Sequence[float], first_hour: int, last_hour: int) -> float:
    expected = sum(profile[hour_of_week(hour)] for hour in range(first_hour, last_hour))
    spent = sum(history.get(hour, 0.0) for hour in range(first_hour, last_hour))
    return spent / expected if expected > 0 else 0.0


def _deviation(
    history: Mapping[int, float], profile: Sequence[float], level: float, first_hour: int, last_hour: int
) -> tuple[float, int]:
    """Return the relative standard deviation of a day, and from how many days it comes."""
    squares, days = PRIOR_DAYS * PRIOR_DEVIATION**2, 0
    for start in range(last_hour - HOURS_OF_DAY, first_hour - 1, -HOURS_OF_DAY):
        hours = range(start, start + HOURS_OF_DAY)
        share = sum(profile[hour_of_week(hour)] for hour in hours)
        if level > 0 and share >= MIN_DAY_SHARE * HOURS_OF_DAY:
            squares += (sum(history.get(hour, 0.0) for hour in hours) / (level * share) - 1) ** 2
            days += 1
    return math.sqrt(squares / (PRIOR_DAYS + days)), days


def _hours_ahead(profile: Sequence[float], now_s: float, end_s: float) -> list[tuple[float, float]]:
    """Return (end of the hour, its share) up to `end_s`; the first and the last hour are parts of one."""
    ahead = []
    at_s = now_s
    while at_s < end_s:
        hour = int(at_s // HOUR_S)
        next_s = min(float((hour + 1) * HOUR_S), end_s)
        ahead.append((next_s, profile[hour_of_week(hour)] * (next_s - at_s) / HOUR_S))
        at_s = next_s
    return ahead


def _noise(deviation: float, days: int, hours_ahead: int) -> float:
    """Return the relative standard deviation of the rest: each day ahead has its own noise, all share the level's."""
    own = 1 / max(hours_ahead / HOURS_OF_DAY, 1.0)
    shared = LEVEL_INFLATION / (days + 1)
    return deviation * math.sqrt(own + shared)


def _unseen(hours_seen: int, ahead: Sequence[tuple[float, float]], now_s: float) -> float:
    """Return the share of the rest that falls into hours of the week of which nothing is known yet."""
    total = sum(share for _, share in ahead)
    if hours_seen >= HOURS_OF_WEEK or total <= 0:
        return 0.0
    first_hour = int(now_s // HOUR_S) - hours_seen
    unseen = sum(
        share for end_s, share in ahead if (int((end_s - 1) // HOUR_S) - first_hour) % HOURS_OF_WEEK >= hours_seen
    )
    return unseen / total


def _exhausted_s(ahead: Sequence[tuple[float, float]], level: float, left: float, now_s: float) -> float | None:
    if left <= 0:
        return now_s
    at_s = now_s
    for end_s, share in ahead:
        spent = level * share
        if spent >= left and spent > 0:
            return at_s + (end_s - at_s) * left / spent
        left -= spent
        at_s = end_s
    return None
