"""What a scraper gets. The golden files are the contract: read their diff when one changes.

UPDATE_GOLDEN=1 writes them anew.
"""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from inferwatch.record import ErrorType, Outcome, RequestRecord, TokenClass, TokenSource
from inferwatch.tap import Open, Stats
from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import CardinalityGuard, Limits
from inferwatch_collectors.exposition import OPENMETRICS_TYPE, TEXT_TYPE, Exposition, encode, prefers_openmetrics
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.metrics import TABLE, Kind
from inferwatch_collectors.recorder import Recorder

GOLDEN = Path(__file__).parents[1] / "golden"

# What Prometheus 3 sends, without its protobuf preference.
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def a_record(request_id: str, **changes: Any) -> RequestRecord:
    fields: dict[str, Any] = {
        "request_id": request_id,
        "wall_ns": 1_700_000_000_000_000_000,
        "tenant": "team-a",
        "model": "llama",
        "operation": "chat",
        "route": "chat",
        "method": "POST",
        "stream": True,
        "outcome": Outcome.OK,
        "status": 200,
        "prompt_tokens": 100,
        "cached_tokens": 64,
        "completion_tokens": 5,
        "token_source": TokenSource.FINAL_USAGE,
        "choices": 1,
        "duration_s": 2.5,
        "ttft_s": 0.5,
        "ttft_answer_s": 0.5,
        "first_token": TokenClass.ANSWER,
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }
    return RequestRecord(**fields | changes)


def an_open(request_id: str) -> Open:
    return Open(
        id=1,
        request_id=request_id,
        wall_ns=1_700_000_000_000_000_000,
        arrival_ns=0,
        sent_ns=0,
        method="POST",
        path="/v1/chat/completions",
        tenant="team-a",
        model="llama",
        stream=True,
        asked_usage=False,
        choices=1,
        headers={},
        body=b"",
        body_bytes=0,
    )


def a_busy_store() -> MetricStore:
    """Every family of the table with at least one series, all from fixed figures."""
    store = MetricStore()
    recorder = Recorder(store, CardinalityGuard(Limits(tenants=2)))
    labels = recorder.opened(an_open("open"), "chat", now_s=0)
    recorder.gaps(labels, [(0.02, 1), (0.03, 3), (0.5, 1)])
    recorder.finished(a_record("1"), now_s=0)
    recorder.finished(a_record("2", first_token=TokenClass.REASONING, ttft_answer_s=1.5, reasoning_tokens=3), now_s=0)
    recorder.finished(
        a_record("3", tenant="team-b", outcome=Outcome.CLIENT_ABORT, stalled_s=0.75, dropped_bytes=4096), now_s=0
    )
    nothing: dict[str, Any] = dict.fromkeys(("prompt_tokens", "cached_tokens", "completion_tokens", "ttft_s"))
    recorder.finished(
        a_record(
            "4",
            **nothing,
            tenant="team-c",
            model='odd "model"\\',
            outcome=Outcome.UPSTREAM_ERROR,
            error=ErrorType.FIRST_BYTE_TIMEOUT,
            token_source=TokenSource.NONE,
            first_token=None,
            first_token_missing="timeout",
        ),
        now_s=0,
    )
    recorder.finished(a_record("5", **nothing, token_source=TokenSource.NONE, first_token=None), now_s=0)
    recorder.observer_error("dialect")
    recorder.relays.stats(
        0,
        "boot",
        Stats(
            stamp_ns=10**9,
            cpu_ns=1_250_000_000,
            loop_lag_max_ns=1_500_000,
            open_requests=1,
            client_connections=3,
            upstream_idle=2,
            upstream_connects=4,
            upstream_connect_errors=1,
            upstream_retries=1,
            tap_pending_bytes=2048,
            tap_dropped_bytes=4096,
            tap_dropped_reads=2,
            tap_spooled=1,
            tap_lost=0,
            observer_errors=0,
        ),
    )
    store.counter(m.LEDGER_COMMITS).add(4)
    store.counter(m.LEDGER_COMMIT_FAILURES)
    store.gauge(m.LEDGER_PENDING).set(0)
    store.gauge(m.LEDGER_DURABLE).set(1)
    store.gauge(m.UPSTREAM_UP, ("127.0.0.1:8000",)).set(1)
    store.gauge(m.CONFIG_RELOAD_SUCCESSFUL).set(1)
    store.gauge(m.CONFIG_RELOAD_TIMESTAMP).set(1_700_000_000.5)
    store.gauge(m.BUILD_INFO, ("0.0.0-test",)).set(1)
    store.gauge(m.START_TIME).set(1_700_000_000.25)
    store.gauge(m.DRAINING).set(0)
    store.gauge(m.COLLECTOR_LOOP_LAG).set(0.0025)
    store.counter(m.COLLECTOR_CUT, ("log_lines",)).add(3)
    fill_the_rest(store)
    return store


def fill_the_rest(store: MetricStore) -> None:
    """What no request brings about: one series each, so that names, help, units and scales are in the golden files."""
    shown = {family.name for family in Exposition(store).collect()}
    for metric in TABLE:
        labels = tuple(f"a {label}" for label in metric.labels)
        if metric.family in shown or metric.name in shown:
            continue
        if metric.kind is Kind.COUNTER:
            store.counter(metric, labels).add(3 * (metric.scale or 1))
        elif metric.kind is Kind.GAUGE:
            store.gauge(metric, labels).set(0.5)
        else:
            store.histogram(metric, labels).observe(0.5)


@pytest.mark.parametrize(
    ("accept", "file", "content_type"),
    [("", "text.metrics", TEXT_TYPE), (OPENMETRICS, "openmetrics.metrics", OPENMETRICS_TYPE)],
)
def test_exposition_is_golden(accept: str, file: str, content_type: str) -> None:
    """Byte for byte: names, help, order, label order, bounds, numbers and exemplars."""
    body, given_type = Exposition(a_busy_store()).render(accept)
    if os.environ.get("UPDATE_GOLDEN"):
        (GOLDEN / file).write_bytes(body)
    assert body.decode() == (GOLDEN / file).read_text("utf-8")
    assert given_type == content_type


def test_golden_shows_every_metric() -> None:
    """A metric added to the table must be added to the busy store, and so to the golden files."""
    families = {family.name for family in Exposition(a_busy_store()).collect()}
    assert families == {metric.family for metric in TABLE}


def test_text_is_what_prometheus_reads() -> None:
    """prometheus_client's own parser finds the families, kinds and values that the store holds."""
    store = a_busy_store()
    families = {family.name: family for family in parse_text(Exposition(store).render()[0].decode())}
    assert {name: family.type for name, family in families.items()} == {each.family: each.kind for each in TABLE}
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
    }
    labels = (("model", "llama"), ("operation", "chat"), ("tenant", "team-a"))
    histogram = store.histogram(m.TIME_TO_FIRST_TOKEN, ("llama", "team-a", "chat"))
    assert samples["inferwatch_time_to_first_token_seconds_count", *labels] == histogram.count == 2
    assert samples["inferwatch_time_to_first_token_seconds_sum", *labels] == histogram.sum == 1.0
    assert samples["inferwatch_tokens_total", *labels, ("type", "prompt")] == 200


def test_openmetrics_is_what_prometheus_reads() -> None:
    """The strict parser accepts it: units, counters' names, bucket order, exemplars, the end mark."""
    families = list(parse_openmetrics(Exposition(a_busy_store()).render(OPENMETRICS)[0].decode()))
    assert {family.name: family.unit for family in families} == {each.family: each.exposed_unit for each in TABLE}
    traces = {
        (family.name, sample.exemplar.labels["trace_id"], float(sample.exemplar.timestamp))
        for family in families
        for sample in family.samples
        if sample.exemplar
    }
    trace = ("0af7651916cd43dd8448eb211c80319c", 1_700_000_002.5)
    assert traces == {
        (name, *trace)
        for name in (
            "inferwatch_request_duration_seconds",
            "inferwatch_time_to_first_token_seconds",
            "inferwatch_time_to_first_answer_token_seconds",
            "inferwatch_time_per_output_token_seconds",
        )
    }


def test_buckets_are_cumulative_and_end_with_all() -> None:
    """`le` grows, counts never fall, and +Inf is the count."""
    families = parse_text(Exposition(a_busy_store()).render()[0].decode())
    for family in families:
        if family.type != Kind.HISTOGRAM:
            continue
        series: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
        for sample in family.samples:
            key = tuple(sorted((name, value) for name, value in sample.labels.items() if name != "le"))
            if sample.name.endswith("_bucket"):
                series.setdefault(key, []).append((float(sample.labels["le"]), sample.value))
            elif sample.name.endswith("_count"):
                assert series[key][-1] == (float("inf"), sample.value)
        for buckets in series.values():
            assert buckets == sorted(buckets)
            assert [count for _, count in buckets] == sorted(count for _, count in buckets)


def test_an_empty_store_shows_nothing() -> None:
    """No series, no family; both formats are still well-formed."""
    exposition = Exposition(MetricStore())
    assert exposition.render() == (b"", TEXT_TYPE)
    assert exposition.render(OPENMETRICS) == (b"# EOF\n", OPENMETRICS_TYPE)


def test_an_unknown_gauge_is_absent() -> None:
    """Neither 0 nor the last reading."""
    store = MetricStore()
    store.gauge(m.UPSTREAM_UP, ("a:1",)).set(1)
    store.gauge(m.UPSTREAM_UP, ("b:2",)).set(0)
    store.gauge(m.UPSTREAM_UP, ("a:1",)).set(None)
    body = Exposition(store).render()[0].decode()
    assert [line for line in body.splitlines() if line[0] != "#"] == ['inferwatch_upstream_up{upstream="b:2"} 0.0']


def test_order_does_not_depend_on_history() -> None:
    """Series come in the order of their label values, however they came into being."""

    def body(*tenants: str) -> bytes:
        store = MetricStore()
        for tenant in tenants:
            store.counter(m.CLIENT_STALL, (tenant,)).add(1)
        return Exposition(store).render()[0]

    assert body("c", "a", "b") == body("a", "b", "c")


def test_families_may_be_encoded_later() -> None:
    """What was collected is a copy: values that change meanwhile do not tear the text."""
    store = a_busy_store()
    exposition = Exposition(store)
    expected = exposition.render(OPENMETRICS)
    families = list(exposition.collect())
    store.counter(m.LEDGER_COMMITS).add(1)
    store.histogram(m.TIME_TO_FIRST_TOKEN, ("llama", "team-a", "chat")).observe(1)
    assert encode(families, OPENMETRICS) == expected


@given(st.text(st.characters(), min_size=1, max_size=60), st.text(st.characters(), min_size=1, max_size=60))
def test_no_name_breaks_the_text(model: str, tenant: str) -> None:
    """Whatever a client calls its model: both formats are parsed, and give back the label as it was admitted."""
    store = MetricStore()
    recorder = Recorder(store, CardinalityGuard())
    recorder.finished(a_record("1", model=model, tenant=tenant), now_s=0)
    (admitted,) = store.series(m.REQUEST_DURATION)
    for accept, parse in (("", parse_text), (OPENMETRICS, parse_openmetrics)):
        families = list(parse(Exposition(store).render(accept)[0].decode()))
        found = {
            (sample.labels["model"], sample.labels["tenant"])
            for family in families
            for sample in family.samples
            if sample.name == "inferwatch_request_duration_seconds_count"
        }
        assert found == {admitted[:2]}


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
        ("text/plain", False),
        ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", False),
        ("application/openmetrics-text", True),
        (OPENMETRICS, True),
        (PROMETHEUS_3, True),
        (PROMETHEUS_3.upper(), True),
        ("application/openmetrics-text;version=0.0.1", False),
        ("application/openmetrics-text;version=7.0.0", False),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.9", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=much", False),
        (";;,,q=,application/openmetrics-text;=;q=1", True),
        ("x" * 5000 + ",application/openmetrics-text", False),
    ],
)
def test_the_scraper_chooses_the_format(accept: str, openmetrics: bool) -> None:
    """By the qualities it gives; what we do not speak, or cannot read, gets plain text."""
    assert prefers_openmetrics(accept) == openmetrics


@given(st.text(max_size=200))
def test_no_accept_header_raises(accept: str) -> None:
    """The header comes from outside: any text gives one format or the other."""
    assert Exposition(MetricStore()).render(accept)[1] in (TEXT_TYPE, OPENMETRICS_TYPE)
