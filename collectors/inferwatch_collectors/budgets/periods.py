"""Budget periods: from when to when, in the budget's own time zone.

Days, weeks (from Monday, ISO 8601) and months begin at local midnight, so a day may have 23 or 25 hours. Where midnight
does not exist (some zones change their clocks just then), the period begins with the first moment of that day. Hours
are hours of UTC: a local hour can happen twice, and a budget of an hour that does would be spent twice.
"""

import datetime as dt
import enum
from typing import NamedTuple
from zoneinfo import ZoneInfo

from inferwatch_collectors.wall_time import HOUR_S


class PeriodKind(enum.StrEnum):
    """How often a budget begins anew."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Period(NamedTuple):
    """From `start_s` (inclusive) to `end_s` (exclusive), Unix seconds."""

    start_s: int
    end_s: int

    def contains(self, wall_s: float) -> bool:
        return self.start_s <= wall_s < self.end_s


def period_at(kind: PeriodKind, wall_s: float, zone: ZoneInfo) -> Period:
    """Return the period that contains the Unix time `wall_s`."""
    if kind is PeriodKind.HOUR:
        start_s = int(wall_s // HOUR_S) * HOUR_S
        return Period(start_s, start_s + HOUR_S)
    first = _first_day(kind, dt.datetime.fromtimestamp(wall_s, zone).date())
    return Period(_begin_s(first, zone), _begin_s(_next(kind, first), zone))


def _first_day(kind: PeriodKind, day: dt.date) -> dt.date:
    if kind is PeriodKind.WEEK:
        return day - dt.timedelta(days=day.weekday())
    return day.replace(day=1) if kind is PeriodKind.MONTH else day


def _next(kind: PeriodKind, first: dt.date) -> dt.date:
    if kind is PeriodKind.MONTH:
        return (first + dt.timedelta(days=31)).replace(day=1)
    return first + dt.timedelta(days=7 if kind is PeriodKind.WEEK else 1)


def _begin_s(day: dt.date, zone: ZoneInfo) -> int:
    """Return the first second that is on `day` in `zone`."""
    midnight = dt.datetime.combine(day, dt.time(), zone)
    moment_s = int(midnight.timestamp())
    if dt.datetime.fromtimestamp(moment_s, zone).date() == day:
        return moment_s
    # Midnight was skipped, and Python took the offset from before the gap: the day begins where the gap ends.
    low_s, high_s = moment_s - 2 * HOUR_S, moment_s + 2 * HOUR_S
    while high_s - low_s > 1:
        middle_s = (low_s + high_s) // 2
        if dt.datetime.fromtimestamp(middle_s, zone).date() < day:
            low_s = middle_s
        else:
            high_s = middle_s
    return high_s
