"""Wall time as people live by it: hours of the week, and a moment in words. All in UTC; pure."""

import datetime as dt
from typing import Final

HOUR_S: Final = 3600
HOURS_OF_DAY: Final = 24
HOURS_OF_WEEK: Final = 168

# 1970-01-01 was a Thursday: this many hours after a Monday's midnight.
EPOCH_HOUR_OF_WEEK: Final = 72


def hour_of_week(hour: int) -> int:
    """Return the hour of the week (0 is Monday, 0 to 1 o'clock) of `hour`, counted since 1970."""
    return (hour + EPOCH_HOUR_OF_WEEK) % HOURS_OF_WEEK


def utc(unix_s: float) -> str:
    """Return a moment to the minute, as `2026-01-31T08:05Z`."""
    return f"{dt.datetime.fromtimestamp(unix_s, dt.UTC):%Y-%m-%dT%H:%MZ}"
