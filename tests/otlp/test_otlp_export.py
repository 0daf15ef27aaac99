"""All signals, to real receivers over HTTP and gRPC, and what happens when those are not well."""

import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import semconv
from otlp_receiver import Received, attributes, grpc_receiver, http_receiver
from otlp_records import Export, Make
from privacy_keys import KEY, OTHER_KEY

from inferwatch.config import Config
from inferwatch.record import Outcome
from inferwatch.settings.otlp import Otlp
from inferwatch.settings.privacy import Privacy
from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import CardinalityGuard
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.otlp.export import OtlpExport
from inferwatch_collectors.privacy import keys
from inferwatch_collectors.recorder import Recorder
from inferwatch_collectors.vitals import Vitals

# Of the conventions that follow v1.41, which OpenTelemetry's package does not have yet: docs/gen-ai/gen-ai-token-metrics.md
# in open-telemetry/semantic-conventions-genai. This model reports no reasoning.
NEWER = {
    "gen_ai.client.inference.operation.input_tokens",
    "gen_ai.client.inference.operation.output_tokens",
    "gen_ai.client.inference.usage.input_tokens",
    "gen_ai.client.inference.usage.output_tokens",
    "gen_ai.client.inference.usage.cache_read.input_tokens",
}


@pytest.fixture(params=["http/protobuf", "grpc"])
def receiver(request: pytest.FixtureRequest) -> Iterator[tuple[str, str, Received]]:
    """(protocol, URL, what came)."""
    with (grpc_receiver if request.param == "grpc" else http_receiver)() as (url, received):
        yield request.param, url, received


def test_spans_arrive(receiver: tuple[str, str, Received], export: Export, record: Make) -> None:
    """With who sent them."""
    protocol, url, received = receiver
    exported = export(traces=True, endpoint=url, protocol=protocol)

    for number in range(10):
        exported.record(record(request_id=f"r{number}"))

    spans = received.wait("spans", 10)
    assert [attributes(span)["inferwatch.request_id"] for span in spans] == [f"r{number}" for number in range(10)]
    (resource,) = {
        str(attributes(each.resource)["service.name"]) for each in received.requests["/v1/traces"][0].resource_spans
    }
    assert resource == "inferwatch"


def test_logs_arrive(receiver: tuple[str, str, Received], export: Export, record: Make) -> None:
    """One for each request, in its trace; and the lines of the operational log, but not what exporters say."""
    protocol, url, received = receiver
    exported = export(logs=True, endpoint=url, protocol=protocol)

    exported.record(record(outcome=Outcome.UPSTREAM_ERROR))
    logging.getLogger("inferwatch_collectors.app").warning("something_happened count=%d", 3)
    logging.getLogger("urllib3").warning("not ours")

    request, line = sorted(received.wait("logs", 2), key=lambda each: each.body.string_value)
    assert request.trace_id.hex() == record().trace_id
    assert (request.severity_text, request.event_name) == ("WARN", "inferwatch.request")
    assert attributes(request)["gen_ai.request.model"] == "qwen"
    assert line.body.string_value == "something_happened count=3"
    time.sleep(0.1)
    assert len(received.logs) == 2


@pytest.mark.parametrize("sampled", [True, False])
def test_a_log_record_says_whether_its_caller_samples(export: Export, record: Make, sampled: bool) -> None:
    """By the flag of its trace."""
    with http_receiver() as (url, received):
        export(logs=True, endpoint=url).record(record(trace_sampled=sampled))

        (log,) = received.wait("logs", 1)
        assert bool(log.flags & 1) is sampled


def test_metrics_arrive(receiver: tuple[str, str, Received], export: Export, record: Make) -> None:
    """Under OpenTelemetry's names where there is a twin, cumulative, with the values of the store."""
    protocol, url, received = receiver
    store = MetricStore()
    recorder = Recorder(store, CardinalityGuard())
    recorder.finished(record(), now_s=1.0)
    exported = export(store, metrics=True, endpoint=url, protocol=protocol)
    refreshed: list[bool] = []

    exported.tick(1.0, set, lambda: refreshed.append(True))

    due_s = time.monotonic() + 10
    while not received.metrics and time.monotonic() < due_s:
        time.sleep(0.02)
    assert refreshed == [True]
    assert not [name for name in received.metrics if not name.startswith("inferwatch.") and name not in semconv.METRICS]
    (ttft,) = received.metrics["gen_ai.server.time_to_first_token"].histogram.data_points
    assert (ttft.count, ttft.sum, sum(ttft.bucket_counts)) == (1, 0.25, 1)
    assert not ttft.HasField("min")
    assert list(ttft.explicit_bounds) == list(m.TIME_TO_FIRST_TOKEN.buckets.bounds)  # type: ignore[union-attr]
    assert attributes(ttft) == {
        "gen_ai.request.model": "qwen",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "inferwatch.tenant": "acme",
        "server.address": "engine.internal",
        "server.port": 8000,
    }
    usage = received.metrics["gen_ai.client.token.usage"].histogram.data_points
    assert {attributes(point)["gen_ai.token.type"]: point.sum for point in usage} == {"input": 7, "output": 3}
    requests = received.metrics["inferwatch.requests"].sum
    assert requests.is_monotonic
    assert {attributes(p)["inferwatch.outcome"]: p.as_int or p.as_double for p in requests.data_points}["ok"] == 1


def test_exemplars_lead_from_a_histogram_to_the_span(export: Export, record: Make) -> None:
    """By both ids, and each once."""
    with http_receiver() as (url, received):
        store = MetricStore()
        recorder = Recorder(store, CardinalityGuard())
        recorder.finished(record(), now_s=1.0)
        exported = export(store, metrics=True, endpoint=url, metrics_interval_s=1.0)
        exported.tick(1.0, set, lambda: None)
        exported.tick(2.0, set, lambda: None)

        first, second = received.wait("collections", 2)
        (exemplar,) = first["gen_ai.server.time_to_first_token"].histogram.data_points[0].exemplars
        assert (exemplar.trace_id.hex(), exemplar.span_id.hex()) == (record().trace_id, record().span_id)
        assert exemplar.as_double == 0.25
        assert first["inferwatch.request_phase_seconds"].histogram.data_points[0].exemplars
        assert not any(
            point.exemplars
            for metric in second.values()
            if metric.HasField("histogram")
            for point in metric.histogram.data_points
        )


def test_newer_names_by_the_standard_variable(
    receiver: tuple[str, str, Received], export: Export, record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only if it asks for them."""
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http/dup, gen_ai_latest_experimental")
    protocol, url, received = receiver
    store = MetricStore()
    Recorder(store, CardinalityGuard()).finished(record(), now_s=1.0)

    export(store, metrics=True, endpoint=url, protocol=protocol).tick(1.0, set, lambda: None)

    due_s = time.monotonic() + 10
    while not received.metrics and time.monotonic() < due_s:
        time.sleep(0.02)
    theirs = [name for name in received.metrics if name.startswith("gen_ai.")]
    assert set(theirs) - set(semconv.METRICS) == NEWER
    assert "gen_ai.client.token.usage" not in theirs
    (prompts,) = received.metrics["gen_ai.client.inference.operation.input_tokens"].histogram.data_points
    assert prompts.sum == 7
    assert "gen_ai.token.type" not in attributes(prompts)
    for kind, count in {"input": 7, "cache_read.input": 4, "output": 3}.items():
        metric = received.metrics[f"gen_ai.client.inference.usage.{kind}_tokens"]
        assert metric.sum.is_monotonic
        assert metric.unit == "{token}"
        values = {attributes(point)["gen_ai.token.modality"]: point.as_int for point in metric.sum.data_points}
        assert values == {"unknown": count}
    (scope,) = received.requests["/v1/metrics"][0].resource_metrics[0].scope_metrics
    assert scope.schema_url == ""


def test_the_standard_variables_name_the_endpoint(
    export: Export, record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Address, headers, compression, service and resource."""
    with http_receiver() as (url, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=ops")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "edge")
        export(traces=True).record(record())

        received.wait("spans", 1)
        assert received.headers[0]["x-tenant"] == "ops"
        assert received.headers[0]["Content-Encoding"] == "gzip"
        (about,) = (attributes(each.resource) for each in received.requests["/v1/traces"][0].resource_spans)
        assert about["service.name"] == "edge"


def test_the_sdk_can_be_disabled(export: Export, record: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_SDK_DISABLED=true: nothing is sent, nothing is sampled."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    exported = export(traces=True, logs=True, metrics=True)

    exported.record(record())

    assert not exported.takes(record())


def test_health_checks_are_no_traces(export: Export, record: Make) -> None:
    """Unless they fail, or a caller traces them."""
    exported = export(traces=True, endpoint="http://127.0.0.1:9")
    probe = {"operation": "other", "route": "other", "method": "GET"}

    assert not exported.takes(record(**probe, parent_span_id=""))
    assert exported.takes(record(**probe))
    assert exported.takes(record(**probe, parent_span_id="", outcome=Outcome.UPSTREAM_ERROR))


def test_a_key_that_was_rotated_without_a_restart_shows(
    receiver: tuple[str, str, Received], record: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a reading, after the next spans."""
    protocol, url, received = receiver
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    monkeypatch.setattr(keys, "LOOK_INTERVAL_S", 0.0)
    path, store = tmp_path / "keys", MetricStore()
    path.write_text(f"k1 {KEY.hex()}\n")
    config = Config(
        otlp=Otlp(traces=True, endpoint=url, protocol=protocol),  # type: ignore[arg-type]
        privacy=Privacy(content="fingerprint", key_file=str(path)),
    )
    exported = OtlpExport(lambda: config, store, lambda: "vllm", instance="i1")
    exported.start()
    readings = []
    for number in (1, 2):
        exported.record(record())
        received.wait("spans", number)
        exported.refresh(Vitals(store))
        readings.append(store.gauge(m.PRIVACY_KEY, ()).value)
        path.write_text(f"k1 {OTHER_KEY.hex()}\n")
    exported.close(5.0)

    assert readings == [1, 0]


def test_traces_without_content_need_no_scanner() -> None:
    """Who installs the extra `otlp` alone gets a collector that starts: nothing of `privacy`'s libraries is imported."""
    without = "import sys; sys.modules.update(dict.fromkeys(('re2', 'phonenumbers', 'stdnum'))); "
    code = f"{without}import inferwatch_collectors.otlp.export"
    subprocess.run([sys.executable, "-c", code], check=True)
