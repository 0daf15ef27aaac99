"""Exact division: nothing is lost and nothing is made."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors.attribution.arithmetic import Carry, covered_ns, divide, spread

amounts = st.integers(0, 10**20)
spans = st.tuples(st.integers(-50, 150), st.integers(0, 80)).map(lambda each: (each[0], each[0] + each[1]))


@given(amounts, st.lists(st.integers(0, 10**15), min_size=1).filter(any))
def test_parts_sum_to_the_amount_and_are_fair_to_one_unit(amount: int, weights: list[int]) -> None:
    """Every part is within one unit of its exact share, and together they are the amount."""
    parts = divide(amount, weights)
    assert sum(parts) == amount
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - Fraction(amount * weight, sum(weights))) < 1
        assert part >= 0


def test_division_needs_a_weight() -> None:
    """With nobody to charge there is no division; the caller must book it as idle."""
    with pytest.raises(ZeroDivisionError):
        divide(5, [0, 0])


@given(amounts, st.integers(-(10**12), 10**12), st.integers(0, 10**11))
def test_spread_over_time_is_exact_and_even(amount: int, start: int, duration: int) -> None:
    """Parts sum to the amount, lie in the time's intervals alone, and are even to one unit."""
    interval = 10**9
    parts = list(spread(amount, start, start + duration, interval))
    assert sum(part for _, part in parts) == amount
    assert [index for index, _ in parts] == list(
        range(start // interval, max(start, start + duration - 1) // interval + 1)
    )
    for index, part in parts:
        inside = min(start + duration, (index + 1) * interval) - max(start, index * interval)
        if duration:
            assert abs(part - Fraction(amount * inside, duration)) < 1


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 10, [(0, 100)]),  # an interval to its last moment, and not into the next
        (5, 5, [(0, 100)]),  # no time at all
        (5, 15, [(0, 50), (1, 50)]),
        (-5, 15, [(-1, 25), (0, 50), (1, 25)]),  # before the clock's zero
        (9, 21, [(0, 8), (1, 83), (2, 9)]),
    ],
)
def test_spread_by_example(start: int, end: int, expected: list[tuple[int, int]]) -> None:
    """100 units over [start, end), in intervals of 10."""
    assert list(spread(100, start, end, 10)) == expected


@given(st.lists(spans))
def test_cover_is_that_of_the_union(given_spans: list[tuple[int, int]]) -> None:
    """What several cover counts once."""
    moments = sum(any(low <= moment < high for low, high in given_spans) for moment in range(100))
    assert covered_ns(given_spans, 0, 100) == moments


@given(st.lists(st.tuples(st.integers(0, 10**12), st.fractions(0, 1000))), st.fractions(0, Fraction(99, 100)))
def test_carried_amounts_are_the_floor_of_the_exact_sum(steps: list[tuple[int, Fraction]], rest: Fraction) -> None:
    """However the amounts are cut up, and however the rate changes between them, less than one unit is missing."""
    carry = Carry(rest)
    taken = sum(carry.take(amount, rate) for amount, rate in steps)
    exact = rest + sum(amount * rate for amount, rate in steps)
    assert taken == exact.numerator // exact.denominator
    assert taken + carry.rest == exact
