"""forecast: the weekly rhythm is not overspending, the range holds what it says, and nothing known is no forecast."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors.budgets.forecast import forecast, profile_of
from inferwatch_collectors.wall_time import HOUR_S, HOURS_OF_WEEK, hour_of_week

MONDAY = 20_001 * 24 - 24 * ((20_001 + 3) % 7)  # an hour since 1970 that begins a Monday


def business(hour: int) -> float:
    """Nine to six on weekdays, next to nothing otherwise."""
    of_week = hour_of_week(hour)
    return (1.0 if 9 <= of_week % 24 < 18 else 0.05) * (1.0 if of_week < 120 else 0.1)


def spending(seed: int, weeks: int, days: int) -> dict[int, float]:
    """Hours of an office tenant, `weeks` before MONDAY and `days` after it, each day and hour with its own luck."""
    rng = random.Random(seed)
    hours = {}
    for day in range(-7 * weeks, days):
        luck = math.exp(rng.gauss(0, 0.25))
        for hour in range(MONDAY + day * 24, MONDAY + (day + 1) * 24):
            hours[hour] = business(hour) * luck * rng.expovariate(1)
    return hours


def test_hours_of_the_week_begin_on_monday() -> None:
    """1970-01-01, hour 0, was a Thursday."""
    assert hour_of_week(0) == 72
    assert hour_of_week(MONDAY) == 0


@given(st.dictionaries(st.integers(0, 1000), st.floats(0, 1e9), max_size=300), st.integers(0, 900), st.integers(1, 100))
def test_a_profile_is_a_whole_week(history: dict[int, float], first: int, length: int) -> None:
    """168 shares above 0 that sum to 168, whatever the history."""
    profile = profile_of(history, first, first + length)

    assert len(profile) == HOURS_OF_WEEK
    assert min(profile) > 0
    assert math.isclose(sum(profile), HOURS_OF_WEEK)


@given(
    st.dictionaries(st.integers(1000, 1400), st.floats(0, 1e12), max_size=100),
    st.floats(0, 1e12),
    st.floats(0, 800 * 3600),
    st.floats(0, 1e12),
)
def test_a_forecast_is_in_order(history: dict[int, float], spent: float, ahead_s: float, limit: float) -> None:
    """spent <= low <= expected <= high, and the limit is reached no later by the high course."""
    now_s = 1401 * 3600.0
    found = forecast(history, first_hour=1000, now_s=now_s, spent=spent, end_s=now_s + ahead_s, limit=limit)

    if found is None:
        assert not history
        return
    slack = 1e-6 * (spent + found.high + 1)
    assert spent <= found.low + slack
    assert found.low <= found.expected + slack
    assert found.expected <= found.high + slack
    if found.exhausted_s is not None:
        assert found.exhausted_early_s is not None
        assert now_s <= found.exhausted_early_s <= found.exhausted_s + 1e-3


def test_nothing_known_is_no_forecast() -> None:
    """Without one whole hour there is nothing to go by."""
    assert forecast({}, first_hour=1000, now_s=1000.5 * HOUR_S, spent=3, end_s=2000 * HOUR_S, limit=9) is None


def test_a_steady_course_is_continued() -> None:
    """One an hour for four weeks: as many more as hours are left, and the limit falls where it must."""
    now = MONDAY + 48
    history = dict.fromkeys(range(MONDAY - 4 * HOURS_OF_WEEK, now), 1.0)
    found = forecast(
        history, first_hour=min(history), now_s=now * HOUR_S, spent=48, end_s=(MONDAY + 168) * HOUR_S, limit=100
    )

    assert found is not None
    assert found.expected == pytest.approx(168)
    assert found.exhausted_s == pytest.approx((MONDAY + 100) * HOUR_S, abs=1)


def test_a_limit_already_passed_is_reached_now() -> None:
    """Not later, and not never."""
    history = dict.fromkeys(range(MONDAY, MONDAY + 10), 1.0)
    now_s = (MONDAY + 10) * HOUR_S
    found = forecast(history, first_hour=MONDAY, now_s=now_s, spent=10, end_s=now_s + HOUR_S, limit=9)

    assert found is not None
    assert found.exhausted_s == now_s


def test_a_friday_is_not_overspending() -> None:
    """After five working days a straight line sees an office tenant far over its week's budget; the profile does not."""
    history = {hour: business(hour) for hour in range(MONDAY - 4 * HOURS_OF_WEEK, MONDAY + 120)}
    spent = sum(value for hour, value in history.items() if hour >= MONDAY)
    limit = 1.1 * sum(business(hour) for hour in range(MONDAY, MONDAY + HOURS_OF_WEEK))
    found = forecast(
        history, first_hour=min(history), now_s=(MONDAY + 120) * HOUR_S, spent=spent, end_s=(MONDAY + 168) * HOUR_S,
        limit=limit,
    )  # fmt: skip

    assert spent / 120 * 168 > limit
    assert found is not None
    assert found.expected < limit
    assert found.exhausted_s is None


def test_the_lower_bound_seldom_cries_wolf_and_the_range_holds() -> None:
    """Of 200 office tenants that end their month under budget, few are called over; about four in five are in range."""
    called = held = 0
    for seed in range(200):
        hours = spending(seed, weeks=2, days=30)
        total = sum(value for hour, value in hours.items() if hour >= MONDAY)
        now = MONDAY + (3 + seed % 8) * 24
        history = {hour: value for hour, value in hours.items() if hour < now}
        spent = sum(value for hour, value in history.items() if hour >= MONDAY)
        limit = total * (1.05 + 0.4 * (seed % 10) / 10)
        found = forecast(
            history, first_hour=min(history), now_s=now * HOUR_S, spent=spent, end_s=(MONDAY + 720) * HOUR_S,
            limit=limit,
        )  # fmt: skip
        assert found is not None
        called += found.low > limit
        held += found.low <= total <= found.high

    assert called <= 6
    assert 140 <= held <= 190


def test_a_tenant_that_spends_ten_times_as_much_is_called_over_in_two_days() -> None:
    """The lower bound passes the limit while most of the month is still ahead."""
    history = spending(1, weeks=4, days=9)
    month = 30 / 7 * sum(value for hour, value in history.items() if hour < MONDAY) / 4
    runaway = {hour: value * (10 if hour >= MONDAY + 7 * 24 else 1) for hour, value in history.items()}
    now = MONDAY + 9 * 24
    spent = sum(value for hour, value in runaway.items() if hour >= MONDAY)
    found = forecast(
        runaway, first_hour=min(history), now_s=now * HOUR_S, spent=spent, end_s=(MONDAY + 720) * HOUR_S,
        limit=1.3 * month,
    )  # fmt: skip

    assert found is not None
    assert found.low > 1.3 * month
