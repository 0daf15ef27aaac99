"""reference: counts and prices that are safe whatever is learnt, and close to the truth where there is enough of it."""

import math
import random
from array import array
from bisect import bisect_left

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferwatch_collectors.drift.features import Direction, Feature, Kind
from inferwatch_collectors.drift.learning import EDGE_VOTES, Learning
from inferwatch_collectors.drift.profile import HOURS_OF_WEEK
from inferwatch_collectors.drift.reference import Pinned, Terms, is_steady
from inferwatch_collectors.drift.stream import Lesson

TERMS = Terms.of(540, risk=0.01, tolerance=0.0)


def learnt(values: list[float], kind: Kind = Kind.QUANTITY, hours: list[int] | None = None) -> Pinned:
    """Return the reference of these values."""
    feature = Feature("seen", Direction.PROMPT, kind, "what is seen")
    lesson = Lesson([feature])
    for place, value in enumerate(values):
        lesson.vote({"seen": value}, hours[place] if hours else place % HOURS_OF_WEEK)
    return lesson.pin(1)[feature]


@settings(max_examples=30)
@given(st.lists(st.one_of(st.just(0.0), st.floats(-1e6, 1e6)), min_size=EDGE_VOTES + 10, max_size=600))
def test_prices_are_positive_and_finite_at_every_hour(values: list[float]) -> None:
    """No reference makes a price that is no number."""
    pinned = learnt(values)
    for hour in (0, 50, 167):
        assert all(0 < price < math.inf for price in pinned.prices(hour, TERMS, steady=False))


def test_a_constant_feature_has_bins_below_and_above() -> None:
    """What never changed would be seen to change in either direction."""
    pinned = learnt([3.0] * 1_000)
    places = [bisect_left(pinned.edges, value) for value in (2.0, 3.0, 4.0)]
    assert places == sorted(set(places))


def test_prices_hold_for_another_sample_of_the_same(rng: random.Random) -> None:
    """A bet costs more than it brings on average, where nothing has changed: for all bets of 50 references."""
    too_low = 0
    for _ in range(50):
        pinned = learnt([rng.gauss(0, 1) for _ in range(2_000 + EDGE_VOTES)])
        fresh = [pinned.rows[bisect_left(pinned.edges, rng.gauss(0, 1))] for _ in range(20_000)]
        for bet, price in enumerate(pinned.prices(0, TERMS, steady=False)):
            too_low += sum(row[bet] for row in fresh) / len(fresh) > price
    assert too_low == 0


def test_where_nothing_has_a_rhythm_prices_are_lower_and_above_the_mean(rng: random.Random) -> None:
    """What chance alone does to a reference is paid for on average; with a rhythm the careful price stands."""
    flat = learnt([rng.gauss(0, 1) for _ in range(20_000)])
    careful, steady = (flat.prices(0, TERMS, steady=each) for each in (False, True))
    for bet, (low, high) in enumerate(zip(steady, careful, strict=True)):
        mean = sum(share * row[bet] for share, row in zip(flat.core, flat.rows, strict=True))
        assert mean < low < high
    hours = [rng.randrange(HOURS_OF_WEEK) for _ in range(20_000)]
    wave = learnt([math.sin(math.tau * hour / 24) + rng.gauss(0, 1) for hour in hours], hours=hours)
    assert wave.prices(3, TERMS, steady=True) == wave.prices(3, TERMS, steady=False)
    assert is_steady([flat] * 8 + [wave])
    assert not is_steady([flat] * 5 + [wave])


def test_a_flag_never_seen_is_no_alarm_at_its_first_time() -> None:
    """One in ten thousand may be chance: what has never been seen is not taken for impossible."""
    pinned = learnt([0.0] * 10_000, Kind.FLAG)
    for steady in (False, True):
        gains = [get / price for get, price in zip(pinned.rows[1], pinned.prices(0, TERMS, steady=steady), strict=True)]
        assert max(gains) < 40
    assert min(pinned.core) > 0


def test_what_is_rare_may_have_a_rhythm_only_where_something_has() -> None:
    """Too rare to see its own hours: it may come three times as often at some, unless nothing else has any either."""
    rare = learnt([0.0, 0.0, 0.0, 0.0, 1.0] * 4 + [0.0] * 10_000, Kind.FLAG)
    oftener = rare.rows[1].index(max(rare.rows[1]))
    share = rare.core[1]
    assert rare.prices(0, TERMS, steady=False)[oftener] > 1 + 2.5 * share * (rare.rows[1][oftener] - 1)
    assert 1 + share * (rare.rows[1][oftener] - 1) < rare.prices(0, TERMS, steady=True)[oftener]
    assert rare.prices(0, TERMS, steady=True)[oftener] < 1 + 2.5 * share * (rare.rows[1][oftener] - 1)


def test_a_daily_rhythm_is_learnt_and_noise_is_not(rng: random.Random) -> None:
    """What the hour explains is in the distribution of the hour; a reference without a rhythm has none."""
    hours = [rng.randrange(HOURS_OF_WEEK) for _ in range(20_000)]
    wave = learnt([math.sin(math.tau * hour / 24) + rng.gauss(0, 1) for hour in hours], hours=hours)
    flat = learnt([rng.gauss(0, 1) for _ in hours], hours=hours)
    assert not flat.has_profile
    assert wave.has_profile
    six, eighteen = (sum(a * b for a, b in zip(wave.shares(h), wave.scores, strict=True)) for h in (6, 18))
    assert six - eighteen == pytest.approx(2 / math.sqrt(1.5), abs=0.35)


def test_business_hours_are_a_rhythm_of_both_hour_and_day(rng: random.Random) -> None:
    """Work from 8 to 18 on five days: Saturday's noon is like Saturday's night."""
    hours = [rng.randrange(HOURS_OF_WEEK) for _ in range(40_000)]

    def at_work(hour: int) -> bool:
        return hour // 24 < 5 and 8 <= hour % 24 < 18

    pinned = learnt([(0.5 if at_work(hour) else -0.5) + rng.gauss(0, 1) for hour in hours], hours=hours)

    def mean(hour: int) -> float:
        return sum(a * b for a, b in zip(pinned.shares(hour), pinned.scores, strict=True))

    assert mean(12) - mean(2) == pytest.approx(0.9, abs=0.25)
    assert mean(24 * 5 + 12) - mean(24 * 5 + 2) == pytest.approx(0.0, abs=0.25)


def test_what_is_written_down_is_read_back(rng: random.Random) -> None:
    """A reference and one that is being learnt are the same after a restart."""
    values = [rng.gauss(0, 1) for _ in range(1_000)]
    pinned = learnt(values)
    again = Pinned.of(pinned.state(), Kind.QUANTITY)
    assert again.prices(5, TERMS, steady=False) == pinned.prices(5, TERMS, steady=False)
    learning = Learning.of_values(array("f", values[:EDGE_VOTES]), partial=True)
    for value in values[EDGE_VOTES:]:
        learning.take(value, 3)
    joint = [len(values) if hour == 3 else 0 for hour in range(HOURS_OF_WEEK)]
    other = Learning.of(learning.state(), Kind.QUANTITY, joint)
    for each in (learning, other):
        each.take(0.25, 4)
    assert other.state() == learning.state()
