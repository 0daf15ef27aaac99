"""The series of one combination of labels, kept at hand."""

from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import RequestLabels
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.request_series import RequestSeries

LABELS = RequestLabels("llama", "team-a", "chat")


def test_they_are_the_series_of_the_store() -> None:
    """Labels that are not the request's are given in their order, wherever the metric has the others."""
    store = MetricStore()
    series = RequestSeries(store, LABELS)
    assert series.counters[m.TOKENS.name, "prompt"] is store.counter(m.TOKENS, (*LABELS, "prompt"))
    by_source = series.counters[m.TOKENS_BY_SOURCE.name, "final_usage", "prompt"]
    assert by_source is store.counter(m.TOKENS_BY_SOURCE, ("llama", "final_usage", "prompt"))
    assert series.counters[m.CLIENT_STALL.name,] is store.counter(m.CLIENT_STALL, ("team-a",))
    assert series.histograms[m.REQUEST_DURATION.name] is store.histogram(m.REQUEST_DURATION, LABELS)


def test_nothing_begins_before_its_first_use() -> None:
    """A series without a value is not exported, so none is made in advance."""
    store = MetricStore()
    series = RequestSeries(store, LABELS)
    assert not series.begun
    assert [family.metric.name for family in store.families() if family.children] == []


def test_in_flight_goes_up_and_down() -> None:
    """The gauge follows the requests that entered and left."""
    store = MetricStore()
    series = RequestSeries(store, LABELS)
    series.enter()
    series.enter()
    series.leave()
    assert (series.in_flight, store.gauge(m.REQUESTS_IN_FLIGHT, LABELS).value) == (1, 1)
    assert series.begun
