"""spend: a tenant's own rhythm is no surprise, several times as much is, and what cannot be judged is not."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors.anomalies.rhythm import BESIDE_HOURS, DELAY_HOURS, LEAST_SHARE, Rhythm
from inferwatch_collectors.anomalies.spend import (
    BUCKETS_PER_HOUR,
    FIVE_MINUTES,
    HOUR,
    Spend,
    SpendState,
    Surprise,
    Terms,
)
from inferwatch_collectors.wall_time import HOURS_OF_WEEK, hour_of_week

MONDAY = 20_001 * 24 - 24 * ((20_001 + 3) % 7)
TERMS = Terms(tolerance=1.75, min_history_hours=336, bar_weeks=20)


def office(hour: int) -> int:
    """Nine to six on weekdays, little otherwise."""
    of_week = hour_of_week(hour)
    return 1200 if of_week < 120 and 9 <= of_week % 24 < 18 else 24


def feed(spend: Spend, hours: range, amount: object, terms: Terms = TERMS) -> list[tuple[int, Surprise]]:
    """Spend `amount(hour)` in twelve equal parts, hour by hour."""
    found = []
    for hour in hours:
        total = int(amount(hour))  # type: ignore[operator]
        for _ in range(BUCKETS_PER_HOUR):
            found.append((hour, spend.bucket(hour, total // BUCKETS_PER_HOUR, terms)))
        found.append((hour, spend.hour(hour, total, terms)))
    return [(hour, each) for hour, each in found if each is not None]


def weeks(count: float, start: int = MONDAY) -> range:
    return range(start, start + int(count * HOURS_OF_WEEK))


def test_a_weekly_rhythm_is_learnt() -> None:
    """After three weeks the working hours are expected as they are, and nights as no more than the least."""
    rhythm = Rhythm()
    for hour in weeks(3):
        rhythm.learn(hour, office(hour))
    noon, night = MONDAY + 3 * HOURS_OF_WEEK + 12, MONDAY + 3 * HOURS_OF_WEEK + 2
    assert rhythm.expected(noon) == pytest.approx(1200, rel=0.1)
    assert rhythm.expected(night) == pytest.approx(LEAST_SHARE * rhythm.level, rel=0.3)


def test_an_hour_early_is_expected() -> None:
    """The hours beside count: at seven o'clock, what is usual at nine."""
    rhythm = Rhythm()
    for hour in weeks(4):
        rhythm.learn(hour, office(hour))
    start = MONDAY + 4 * HOURS_OF_WEEK + 9
    assert rhythm.expected(start - BESIDE_HOURS) == pytest.approx(rhythm.expected(start))
    assert rhythm.expected(start - BESIDE_HOURS - 1) < rhythm.expected(start) / 2


def test_what_is_learnt_counts_two_days_later() -> None:
    """An excess of today is no expectation of today's next hours."""
    rhythm = Rhythm()
    for hour in weeks(2):
        rhythm.learn(hour, 100)
    before = rhythm.expected(MONDAY + 2 * HOURS_OF_WEEK)
    for hour in range(MONDAY + 2 * HOURS_OF_WEEK, MONDAY + 2 * HOURS_OF_WEEK + DELAY_HOURS):
        rhythm.learn(hour, 10_000)
    assert rhythm.expected(MONDAY + 2 * HOURS_OF_WEEK + 1) == pytest.approx(before)


@given(st.lists(st.integers(0, 10**18), max_size=400), st.integers(0, 10**6))
def test_expectations_are_numbers(spent: list[int], first: int) -> None:
    """Whatever integers come in, what is expected is finite and not negative."""
    rhythm = Rhythm()
    for hour, amount in enumerate(spent, first):
        rhythm.learn(hour, amount)
    assert 0 <= rhythm.expected(first + len(spent)) <= 10**19


def test_the_same_every_week_is_no_surprise() -> None:
    """Eight weeks of office hours: no signal."""
    assert feed(Spend(), weeks(8), office) == []


def test_nothing_is_judged_before_there_is_history() -> None:
    """A hundred times as much in the second week is not judged, nor is what was never seen."""
    spend = Spend()
    assert feed(spend, weeks(1), office) == []
    assert feed(spend, weeks(0.9, MONDAY + HOURS_OF_WEEK), lambda hour: 100 * office(hour)) == []
    assert not spend.judged(TERMS)


@pytest.mark.parametrize(("times", "within_hours"), [(3, 8), (10, 2), (100, 1)])
def test_more_is_found_the_sooner_the_more_it_is(times: int, within_hours: int) -> None:
    """A flat tenant that spends a multiple from one hour on; the signal says about how many times."""
    spend = Spend()
    feed(spend, weeks(4), lambda _: 1200)
    start = MONDAY + 4 * HOURS_OF_WEEK + 30
    feed(spend, range(MONDAY + 4 * HOURS_OF_WEEK, start), lambda _: 1200)
    found = feed(spend, range(start, start + within_hours + 1), lambda _: 1200 * times)
    assert found
    hour, surprise = found[0]
    assert hour - start <= within_hours
    assert surprise.kind == FIVE_MINUTES
    assert surprise.spent / surprise.expected == pytest.approx(times, rel=0.1)
    assert f"times={times}" in surprise.signal("tokens").facts


def test_one_signal_an_episode_and_another_for_the_next() -> None:
    """Eight hours of ten times as much are one signal of a kind; a week later the same is told again."""
    spend, told = Spend(), []
    feed(spend, weeks(4), lambda _: 1200)
    start = MONDAY + 4 * HOURS_OF_WEEK
    for begin in (start, start + 200):
        told += feed(spend, range(begin, begin + 8), lambda _: 12_000)
        assert spend.signalling
        told += feed(spend, range(begin + 8, begin + 200), lambda _: 1200)
        assert not spend.signalling
    assert sorted(each.kind for _, each in told if each.kind == FIVE_MINUTES) == [FIVE_MINUTES] * 2
    assert len([each for _, each in told if each.kind == HOUR]) <= 2


def test_evidence_ends_with_the_signal() -> None:
    """When spending is as usual again, the gauge goes to next to nothing within minutes."""
    spend = Spend()
    feed(spend, weeks(3), lambda _: 1200)
    start = MONDAY + 3 * HOURS_OF_WEEK
    feed(spend, range(start, start + 4), lambda _: 12_000)
    assert spend.fast.evidence.weeks > 20
    feed(spend, range(start + 4, start + 5), lambda _: 1200)
    assert spend.fast.evidence.weeks < 0.1


def test_what_lasts_a_week_is_the_new_pattern() -> None:
    """Ten times as much for good: one episode, then two weeks of learning, then it is usual."""
    spend = Spend()
    feed(spend, weeks(3), lambda _: 1200)
    start = MONDAY + 3 * HOURS_OF_WEEK
    first = feed(spend, weeks(1.1, start), lambda _: 12_000)
    assert first
    assert not spend.judged(TERMS)
    assert feed(spend, weeks(4, start + int(1.1 * HOURS_OF_WEEK)), lambda _: 12_000) == []
    assert spend.judged(TERMS)


def test_what_does_not_matter_is_no_surprise() -> None:
    """Ten times the usual, but below what is expected of everybody at the least: no signal."""
    spend = Spend()
    feed(spend, weeks(3), lambda _: 1200)
    start = MONDAY + 3 * HOURS_OF_WEEK
    assert feed(spend, range(start, start + 24), lambda _: 12_000, TERMS._replace(least=12_000.0)) == []


@pytest.mark.parametrize("amount", [0, 1])
def test_a_tenant_of_one_request(amount: int) -> None:
    """One request and then nothing for weeks, or nothing at all: no signal, no error."""
    spend = Spend()
    assert feed(spend, weeks(6), lambda hour: amount * 10**9 * (hour == MONDAY + 5)) == []


def test_free_of_charge_is_no_division_by_nothing() -> None:
    """A tenant whose requests cost 0 is judged; the first that cost something count as far more than expected."""
    spend = Spend()
    feed(spend, weeks(3), lambda _: 0)
    found = feed(spend, range(MONDAY + 3 * HOURS_OF_WEEK, MONDAY + 3 * HOURS_OF_WEEK + 3), lambda _: 120_000)
    assert found


def test_the_first_amount_of_a_free_tenant_is_learnt() -> None:
    """Free for weeks, then a price: after some time that price is expected."""
    spend = Spend()
    feed(spend, weeks(3), lambda _: 0)
    feed(spend, weeks(5, MONDAY + 3 * HOURS_OF_WEEK), lambda _: 1200)
    assert spend.rhythm.level > 0
    assert not spend.signalling


def bursty(seed: int) -> object:
    """Bursts of some hours at random times, each of a size of its own."""
    rng = random.Random(seed)
    left, rate = 0, 0.0

    def amount(_: int) -> int:
        nonlocal left, rate
        if left <= 0 and rng.random() < 1 / 8:
            left, rate = 1 + int(rng.expovariate(1)), 10_000 * rng.lognormvariate(-0.3, 0.8)
        left -= 1
        return int((rate if left >= 0 else 50) * rng.lognormvariate(-0.1, 0.5))

    return amount


def noisy_office(seed: int) -> object:
    """Office hours with the luck of days and hours."""
    rng = random.Random(seed)
    day, luck = 0, 1.0

    def amount(hour: int) -> int:
        nonlocal day, luck
        if hour // 24 != day:
            day, luck = hour // 24, rng.lognormvariate(-0.03, 0.25)
        return int(office(hour) * luck * rng.lognormvariate(-0.1, 0.4))

    return amount


@pytest.mark.parametrize("make", [bursty, noisy_office])
def test_false_signals_come_no_oftener_than_stated(make: object) -> None:
    """Six tenants, 16 weeks each, 84 of them judged; two kinds, a bar of 20 weeks: at most 8.4, and here far fewer."""
    told = [each for seed in range(6) for each in feed(Spend(), weeks(16), make(seed))]  # type: ignore[operator]
    assert len(told) <= 2


@given(st.lists(st.integers(0, 10**16), min_size=1, max_size=300))
def test_any_course_of_spending_is_survived(amounts: list[int]) -> None:
    """Whatever is spent, evidence is finite, and what was written down is read back to the same course."""
    terms = Terms(1.75, 72, 20)
    spend = Spend()
    feed(spend, range(MONDAY, MONDAY + len(amounts)), lambda hour: amounts[hour - MONDAY], terms)
    packed = msgspec.msgpack.encode(spend.state())
    again = Spend.of(msgspec.msgpack.decode(packed, type=SpendState))
    again.missed()
    spend.missed()
    following = range(MONDAY + len(amounts), MONDAY + len(amounts) + 30)
    told = feed(spend, following, lambda _: 10**9, terms)
    assert told == feed(again, following, lambda _: 10**9, terms)
    assert spend.fast.evidence.weeks == again.fast.evidence.weeks
    assert 0 <= spend.hourly.evidence.weeks < 1e7


def test_another_version_is_refused() -> None:
    """Sums of other sizes are not taken for ours."""
    state = Spend().state()
    with pytest.raises(ValueError, match="sums of"):
        Rhythm.of(msgspec.structs.replace(state.rhythm, cells=b"1234"))
    with pytest.raises(ValueError, match="degrees"):
        Spend.of(msgspec.structs.replace(state, fast=msgspec.structs.replace(state.fast, followed=[1.0])))
