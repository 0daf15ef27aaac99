"""Dividing a sum: nothing is lost, nobody gets more than its bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors.engine.dividing import beyond, divide, in_copies

PARTS = st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**6)), max_size=30)


@pytest.mark.parametrize(
    ("total", "weights", "bounds", "shares"),
    [
        pytest.param(7, [5], [100], [7], id="one alone has all"),
        pytest.param(100, [1, 3], [1000, 1000], [25, 75], id="by weight"),
        pytest.param(10, [1, 1, 1], [100, 100, 100], [4, 3, 3], id="what is left over to the earlier of equals"),
        pytest.param(100, [1, 1], [10, 1000], [10, 90], id="what a bound leaves goes to the others"),
        pytest.param(100, [1, 1], [10, 20], [10, 20], id="no more than all bounds"),
        pytest.param(10, [0, 0], [100, 100], [5, 5], id="without weights evenly"),
        pytest.param(10, [1, 1], [0, 100], [0, 10], id="a bound of nothing"),
        pytest.param(0, [1, 2], [5, 5], [0, 0], id="nothing"),
        pytest.param(5, [], [], [], id="nobody"),
    ],
)
def test_shares(total: int, weights: list[int], bounds: list[int], shares: list[int]) -> None:
    """In proportion to the weights, as far as the bounds allow."""
    assert divide(total, weights, bounds) == shares


@given(total=st.integers(0, 10**9), parts=PARTS)
def test_the_sum_is_kept(total: int, parts: list[tuple[int, int]]) -> None:
    """Whatever is divided among whomever, it adds up exactly, within every bound."""
    weights, bounds = [weight for weight, _ in parts], [bound for _, bound in parts]
    shares = divide(total, weights, bounds)
    assert sum(shares) == min(total, sum(bounds))
    assert all(0 <= share <= bound for share, bound in zip(shares, bounds, strict=True))


@given(total=st.integers(0, 10**6), weights=st.lists(st.integers(1, 10**6), min_size=1, max_size=20))
def test_it_is_fair(total: int, weights: list[int]) -> None:
    """Without bounds nobody is off its exact share by a token or more."""
    for share, weight in zip(divide(total, weights, [total] * len(weights)), weights, strict=True):
        assert abs(share * sum(weights) - total * weight) < sum(weights)


@pytest.mark.parametrize(
    ("shares", "copies", "bounds", "single"),
    [
        pytest.param([30], [3], [100], [10], id="a prompt for three answers"),
        pytest.param([7, 8], [1, 1], [100, 100], [7, 8], id="one answer each"),
        pytest.param([31, 9], [3, 1], [100, 100], [10, 10], id="what fits no multiple goes to another"),
        pytest.param([31, 9], [3, 1], [100, 9], [10, 9], id="if it has room"),
        pytest.param([5, 4], [3, 3], [90, 90], [2, 1], id="remainders of two may make one"),
    ],
)
def test_copies(shares: list[int], copies: list[int], bounds: list[int], single: list[int]) -> None:
    """What was counted n times for a request is counted once in its record."""
    assert in_copies(shares, copies, bounds) == single


@given(parts=st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 8), st.integers(0, 500)), max_size=20))
def test_copies_lose_next_to_nothing(parts: list[tuple[int, int, int]]) -> None:
    """The sum is never more, no bound is broken, and less than one copy of somebody with room is left."""
    shares, copies = [min(share, bound) for share, _, bound in parts], [times for _, times, _ in parts]
    bounds = [bound for _, _, bound in parts]
    single = in_copies(shares, copies, bounds)
    counted = [one * times for one, times in zip(single, copies, strict=True)]
    left = sum(shares) - sum(counted)
    assert all(0 <= count <= bound for count, bound in zip(counted, bounds, strict=True))
    assert left >= 0
    with_room = [times for count, times, bound in zip(counted, copies, bounds, strict=True) if count + times <= bound]
    assert not with_room or left < min(with_room)


@pytest.mark.parametrize(
    ("total", "weights", "known", "weighs"),
    [
        pytest.param(100, [1, 3], [0, 0], [1, 3], id="nothing is known: as they are"),
        pytest.param(100, [1, 1], [100, 0], [0, 200], id="who has had its part weighs nothing"),
        pytest.param(100, [1, 1], [20, 0], [80, 120], id="the rest of 60 each"),
        pytest.param(10, [1, 1], [90, 0], [0, 100], id="never less than nothing"),
        pytest.param(10, [0, 0], [5, 5], [0, 0], id="without weights"),
        pytest.param(0, [], [], [], id="nobody"),
    ],
)
def test_beside_what_is_known(total: int, weights: list[int], known: list[int], weighs: list[int]) -> None:
    """What was had before counts towards each one's part of the whole."""
    assert beyond(total, weights, known) == weighs
