"""The last hours: rings of fixed length, whatever the clock does."""

from typing import Any

import pytest

from inferwatch_collectors.live.history import COARSE_POINTS, COARSE_S, FINE_POINTS, FINE_S, History
from inferwatch_collectors.live.totals import read


def run(traffic: Any, seconds: int, history: History | None = None, start_s: int = 0) -> History:
    """One request each second, and a look whenever one is due."""
    history = history or History()
    for now_s in range(start_s, start_s + seconds + 1):
        if history.due(float(now_s)):
            history.take(read(traffic.store, float(now_s)), 1_700_000_000.0 + now_s)
        traffic.request()
    return history


def test_a_point_each_few_seconds(traffic: Any) -> None:
    """Each says what happened since the one before."""
    columns = run(traffic, 60).columns(15)
    assert columns["time"] == [1_700_000_000.0 + FINE_S * n for n in range(1, 13)]
    assert columns["requests"] == [1.0] * 12


def test_a_long_run_is_bounded(traffic: Any) -> None:
    """Fine for a quarter of an hour, coarse for hours, no more."""
    history = run(traffic, int(COARSE_S * (COARSE_POINTS + 20)))
    assert len(history.columns(15)["time"]) == FINE_POINTS
    assert len(history.columns(360)["time"]) == COARSE_POINTS
    assert history.columns(360)["requests"] == [1.0] * COARSE_POINTS


@pytest.mark.parametrize(("minutes", "points"), [(1, 12), (5, 60), (60, 59)])
def test_only_what_was_asked_for(traffic: Any, minutes: float, points: int) -> None:
    """Of an hour that is known the last minutes; every column has the same length."""
    columns = run(traffic, 3590).columns(minutes)
    assert {len(column) for column in columns.values()} == {points}


def test_time_that_was_slept_through_is_one_point(traffic: Any) -> None:
    """A host that slept for an hour has no points of it, and a rate over all of it."""
    history = run(traffic, 10)
    run(traffic, 5, history, start_s=3610)
    columns = history.columns(360 * 24)
    assert columns["requests"] == [pytest.approx(11 / 3610)]
    assert history.columns(15)["requests"] == [pytest.approx(1 / 3600), 1.0]
