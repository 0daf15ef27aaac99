"""The collector about itself."""

import pytest

from inferwatch_collectors import metrics as m
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.metrics import COLLECTOR_CUT, COLLECTOR_LOOP_LAG, TABLE
from inferwatch_collectors.vitals import LAG_WINDOW_S, Vitals


@pytest.fixture
def store() -> MetricStore:
    return MetricStore(TABLE)


def test_counts_add_their_growth(store: MetricStore) -> None:
    """A count of this process adds to what earlier processes counted, each growth once."""
    store.counter(m.LEDGER_COMMITS).add(100)
    commits = 0
    vitals = Vitals(store)
    vitals.count(m.LEDGER_COMMITS, (), lambda: commits)
    for commits, expected in ((3, 103), (3, 103), (10, 110)):  # noqa: B007 - read by the lambda
        vitals.refresh()
        assert store.counter(m.LEDGER_COMMITS).value == expected


def test_what_was_never_cut_is_zero(store: MetricStore) -> None:
    """A bound that never cut anything is exported as 0, so that its first cut is a growth."""
    Vitals(store).cut("bad_peers", lambda: 0)
    assert store.series(COLLECTOR_CUT) == [("bad_peers",)]


def test_lag_is_the_worst_of_the_window(store: MetricStore) -> None:
    """A peak is shown for the window and then forgotten; a timer that is early is not late."""
    vitals = Vitals(store)
    gauge = store.gauge(COLLECTOR_LOOP_LAG)
    for now_s, lag_s, expected in (
        (0.0, 0.5, 0.5),
        (1.0, 0.1, 0.5),
        (LAG_WINDOW_S, -0.2, 0.5),
        (LAG_WINDOW_S + 0.5, 0.2, 0.2),
        (3 * LAG_WINDOW_S, -1.0, 0.0),
    ):
        vitals.lagged(now_s, lag_s)
        assert gauge.value == expected
