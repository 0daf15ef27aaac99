"""bins: edges that hold every value, and distributions over bins."""

import math
from array import array
from bisect import bisect_left
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors.drift.betting import FAR
from inferwatch_collectors.drift.bins import cut, psi, tilt, wasserstein
from inferwatch_collectors.drift.learning import EDGE_VOTES, Learning


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=300))
def test_edges_ascend_and_every_value_has_a_bin(values: list[float]) -> None:
    """Whatever the values, constant ones and ties among them."""
    edges, scores = cut(values)
    assert list(edges) == sorted(set(edges))
    assert len(scores) == len(edges) + 1
    assert all(0 < bisect_left(edges, value) < len(edges) for value in values), "a bin on either side is beyond all"


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=300))
def test_values_have_the_bins_that_they_made_when_rounded(values: list[float]) -> None:
    """Edges are made of 32-bit floats, whatever they were rounded from."""
    edges, _ = cut(array("f", values))
    assert all(0 < bisect_left(edges, value) < len(edges) for value in values)


@pytest.mark.parametrize("value", [4.7333, -4.7333, 1 / 3, -0.1, 0.7, 0.0, 1e-42, 12_345.678])
def test_what_is_constant_is_usual_and_a_move_either_way_is_far(value: float) -> None:
    """Not below or above all that there was, as its 32-bit neighbours are."""
    learning = Learning.of_values(array("f", [value] * EDGE_VOTES))
    for _ in range(1_000):
        learning.take(value, 0)
    assert list(learning.counts) == [0, 1_000, 0]
    step = max(abs(value) * 1e-6, 1e-44)
    for moved, place in ((value - step, 0), (value + step, 2)):
        seen = bisect_left(learning.edges, moved)
        assert seen == place
        assert abs(learning.scores[seen]) > FAR


@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=14), st.floats(-3, 3))
def test_a_tilt_has_the_mean_that_was_asked_for(weights: list[float], mean: float) -> None:
    """Or the nearest that the scores allow; it sums to 1 and has no hole."""
    shares = [weight / sum(weights) for weight in weights]
    scores = [place - len(shares) / 2 for place in range(len(shares))]
    tilted = tilt(shares, scores, mean)
    assert sum(tilted) == pytest.approx(1)
    assert all(share >= 0 for share in tilted)

    def off(of: Sequence[float]) -> float:
        wanted = max(scores[0], min(scores[-1], mean))
        return abs(sum(share * score for share, score in zip(of, scores, strict=True)) - wanted)

    assert off(tilted) <= off(shares) + 1e-2


def test_a_tilt_of_what_is_common_is_exact() -> None:
    """A standard deviation up and down."""
    shares, scores = (0.1, 0.2, 0.4, 0.2, 0.1), (-2.0, -1.0, 0.0, 1.0, 2.0)
    for mean in (-1.0, -0.1, 0.0, 0.5, 1.0):
        tilted = tilt(shares, scores, mean)
        assert sum(share * score for share, score in zip(tilted, scores, strict=True)) == pytest.approx(mean, abs=1e-5)


def test_effect_sizes_are_0_for_the_same_and_known_for_a_known_shift() -> None:
    """PSI of 50 and 50 against 60 and 40; Wasserstein of a tenth moved by two standard deviations."""
    assert psi((0.5, 0.5), (0.5, 0.5)) == 0
    assert psi((0.5, 0.5), (0.6, 0.4)) == pytest.approx(0.1 * math.log(1.5))
    assert wasserstein((0.5, 0.5), (0.4, 0.6), (-1.0, 1.0)) == pytest.approx(0.2)


def test_what_was_beyond_all_values_that_made_the_edges_is_far() -> None:
    """And nothing else is."""
    _, scores = cut([float(each) for each in range(EDGE_VOTES)])
    assert [abs(score) > FAR for score in scores] == [True] + [False] * (len(scores) - 2) + [True]
