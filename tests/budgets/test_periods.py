"""periods: every moment is in exactly one period of each kind, whatever the clocks of the zone do."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors.budgets.periods import Period, PeriodKind, period_at

# New York and Berlin change at 2 o'clock, Santiago at midnight, Lord Howe by half an hour; Apia once skipped a day.
ZONES = [
    ZoneInfo(name)
    for name in ("UTC", "America/New_York", "Europe/Berlin", "America/Santiago", "Australia/Lord_Howe", "Asia/Kolkata",
                 "Pacific/Apia", "Africa/Cairo")
]  # fmt: skip
MOMENTS = st.integers(
    int(dt.datetime(2005, 1, 1, tzinfo=dt.UTC).timestamp()), int(dt.datetime(2037, 1, 1, tzinfo=dt.UTC).timestamp())
)


def at(text: str, zone: str = "UTC") -> int:
    return int(dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


@given(kind=st.sampled_from(PeriodKind), zone=st.sampled_from(ZONES), wall_s=MOMENTS)
def test_periods_follow_each_other(kind: PeriodKind, zone: ZoneInfo, wall_s: int) -> None:
    """A moment is in its period; the period's end is the next one's start, and its start belongs to it."""
    period = period_at(kind, wall_s, zone)

    assert period.contains(wall_s)
    assert period_at(kind, period.start_s, zone) == period
    assert period_at(kind, period.end_s - 1, zone) == period
    assert period_at(kind, period.end_s, zone).start_s == period.end_s


CASES = {
    "hour": ("hour", "UTC", "2026-03-04T05:59:59", "2026-03-04T05:00", "2026-03-04T06:00"),
    "day": ("day", "Europe/Berlin", "2026-03-04T23:59:59", "2026-03-04T00:00", "2026-03-05T00:00"),
    "week begins on Monday": ("week", "Europe/Berlin", "2026-11-22T12:00", "2026-11-16T00:00", "2026-11-23T00:00"),
    "month": ("month", "America/New_York", "2026-02-28T23:00", "2026-02-01T00:00", "2026-03-01T00:00"),
    "leap year": ("month", "UTC", "2028-02-29T00:00", "2028-02-01T00:00", "2028-03-01T00:00"),
    "end of the year": ("month", "UTC", "2026-12-31T23:59", "2026-12-01T00:00", "2027-01-01T00:00"),
}


@pytest.mark.parametrize("case", CASES)
def test_period_of_a_moment(case: str) -> None:
    """Boundaries are local midnights."""
    kind, zone, moment, start, end = CASES[case]

    assert period_at(PeriodKind(kind), at(moment, zone), ZoneInfo(zone)) == Period(at(start, zone), at(end, zone))


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)])
def test_a_day_on_which_the_clocks_change_is_shorter_or_longer(day: str, hours: int) -> None:
    """Berlin's day in spring has 23 hours, in autumn 25."""
    period = period_at(PeriodKind.DAY, at(f"{day}T12:00", "Europe/Berlin"), ZoneInfo("Europe/Berlin"))

    assert period.end_s - period.start_s == hours * 3600


def test_a_day_without_a_midnight_begins_at_one() -> None:
    """In Santiago the clocks go from 23:59:59 to 1:00."""
    zone = ZoneInfo("America/Santiago")
    period = period_at(PeriodKind.DAY, at("2024-09-08T12:00", "America/Santiago"), zone)

    assert dt.datetime.fromtimestamp(period.start_s, zone).isoformat() == "2024-09-08T01:00:00-03:00"


def test_a_repeated_hour_is_two_hours() -> None:
    """When the clocks go back, both hours called two o'clock have their own budget."""
    first = at("2026-10-25T00:30")  # 2:30 summer time in Berlin
    one, two = (period_at(PeriodKind.HOUR, first + shift_s, ZoneInfo("Europe/Berlin")) for shift_s in (0, 3600))

    assert one != two
