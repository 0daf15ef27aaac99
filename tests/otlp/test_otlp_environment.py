"""OpenTelemetry's standard variables: each does what the specification says, or is named as one that does not."""

import asyncio
import logging
import os
import re
from pathlib import Path
from typing import Any

import opentelemetry.sdk.environment_variables
import pytest
from otlp_receiver import Received, attributes, grpc_receiver, http_receiver, listened_in
from otlp_records import Export, Make

from inferwatch import __version__
from inferwatch.config import Config, ConfigError
from inferwatch.settings.otlp import Otlp
from inferwatch_collectors import metrics as m
from inferwatch_collectors.engine.said import Said
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.otlp import environment, extras
from inferwatch_collectors.otlp.environment import HEEDED, UNHEEDED
from inferwatch_collectors.otlp.transport import resource
from inferwatch_collectors.parts import Parts, open_ledger
from inferwatch_collectors.start import CollectorSettings

PAGE = (Path(__file__).parents[2] / "docs/topics/traces.md").read_text("utf-8")
EVERYTHING = Otlp(traces=True, metrics=True, logs=True)

# What compressed data begins with.
MAGIC = {"gzip": b"\x1f\x8b\x08", "deflate": b"\x78\x9c"}

# Of the SDK for Python alone, and no standard.
_PYTHONS = ("OTEL_PYTHON_", "_OTEL_PYTHON_")


def test_every_standard_variable_is_known() -> None:
    """Those that OpenTelemetry's package names are heeded or not, and the page says which."""
    named = {
        value
        for name, value in vars(opentelemetry.sdk.environment_variables).items()
        if name.startswith(("OTEL_", "_OTEL_")) and isinstance(value, str) and not value.startswith(_PYTHONS)
    }
    assert named <= HEEDED | set(UNHEEDED), named - HEEDED - set(UNHEEDED)
    assert not HEEDED & set(UNHEEDED)
    for name in HEEDED | set(UNHEEDED):
        general = re.sub(r"OTLP_(TRACES|METRICS|LOGS)_(?!TEMPORALITY|DEFAULT)", "OTLP_", name)
        assert f"`{general}`" in PAGE, general


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_PROTOCOL is none of"),
        ({"OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "udp"}, "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL is none of"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "otlp.traces: OTEL_TRACES_EXPORTER is none of otlp, none"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "10s"}, "OTEL_EXPORTER_OTLP_TIMEOUT: expected a number above 0"),
        ({"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "-1"}, "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT: expected a number above 0"),
        ({"OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "zstd"}, "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION: is none of none"),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "collector"}, "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT: expected `http://host"),
        ({"OTEL_EXPORTER_OTLP_LOGS_HEADERS": "sk-secret"}, "OTEL_EXPORTER_OTLP_LOGS_HEADERS: expected `name=value`"),
        ({"OTEL_BSP_EXPORT_TIMEOUT": "nan"}, "OTEL_BSP_EXPORT_TIMEOUT: expected a number above 0"),
        ({"OTEL_EXPORTER_OTLP_COMPRESSION": "zstd"}, "OTEL_EXPORTER_OTLP_COMPRESSION: is none of none, gzip, deflate"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT: expected `http://host:port`"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "sk-secret"}, "OTEL_EXPORTER_OTLP_HEADERS: expected `name=value`"),
        ({"OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere"}, "OTEL_EXPORTER_OTLP_CERTIFICATE: cannot read the file"),
        ({"OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY": "/nowhere"}, "OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY: cannot read"),
        ({"OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY": os.devnull, "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "grpc"},
         "OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY: certificate and key are needed together"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "lots"}, "OTEL_BSP_MAX_QUEUE_SIZE: expected a whole number from 1 to 2147483647"),
        ({"OTEL_BSP_SCHEDULE_DELAY": "9" * 30}, "OTEL_BSP_SCHEDULE_DELAY: expected a whole number from 1"),
        ({"OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "0"}, "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE: expected a whole number from 1"),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "1.5"}, "OTEL_METRIC_EXPORT_INTERVAL: expected a whole number from 1"),
        ({"OTEL_TRACES_SAMPLER": "xray"}, "OTEL_TRACES_SAMPLER is none of"),
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many"}, "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT: expected a whole number"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_makes_no_sense_is_refused_at_the_start(environ: dict[str, str], reason: str) -> None:
    """In one line that names the variable and not its value, before anything is started."""
    with pytest.raises(ConfigError, match=reason) as caught:
        environment.check(EVERYTHING, environ)

    assert "secret" not in str(caught.value)
    if "SAMPLER" not in reason and "LIMIT" not in reason:
        environment.check(Otlp(), environ)  # nothing is exported: nobody is bothered


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, 10.0),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "5"}, 5.0),  # as the SDK for Python has it
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "5000"}, 5.0),  # as the specification has it
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "5", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "7"}, 7.0),
        ({"OTEL_BSP_EXPORT_TIMEOUT": "30000"}, 10.0),
        ({"OTEL_BSP_EXPORT_TIMEOUT": "2000"}, 2.0),
        ({"OTEL_BLRP_EXPORT_TIMEOUT": "2000"}, 10.0),
    ],
    ids=str,
)
def test_the_time_out_of_an_export(environ: dict[str, str], seconds: float) -> None:
    """In either of the units that are in use; the shorter one of exporter and batch."""
    assert environment.timeout_s("traces", environ) == seconds


def test_a_signal_can_be_switched_off() -> None:
    """By its exporter, or all by OTEL_SDK_DISABLED; and not on: that is the configuration's."""
    off = {"OTEL_LOGS_EXPORTER": "none", "OTEL_TRACES_EXPORTER": "otlp"}

    assert [signal for signal in environment.SIGNALS if environment.exports(EVERYTHING, signal, off)] == [
        "traces",
        "metrics",
    ]
    assert not environment.exports(EVERYTHING, "traces", {"OTEL_SDK_DISABLED": "TRUE"})
    assert not environment.exports(Otlp(), "traces", {"OTEL_TRACES_EXPORTER": "otlp"})


@pytest.mark.parametrize(
    ("environ", "exported", "traced"),
    [
        ({}, True, True),
        ({"OTEL_TRACES_EXPORTER": "none"}, True, False),
        ({"OTEL_SDK_DISABLED": "true"}, False, False),
    ],
    ids=str,
)
async def test_what_is_switched_off_is_as_if_it_were_not_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], exported: bool, traced: bool
) -> None:
    """Nothing is made for it, and exemplars may name the caller's traces again."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    config = Config(otlp=EVERYTHING)
    settings = CollectorSettings(
        config=config, socket_path=str(tmp_path / "tap"), spool_dir=str(tmp_path), state_dir=""
    )
    ledger = await open_ledger(settings)

    # Nothing runs yet: it may block.
    parts = await asyncio.to_thread(
        Parts, settings, ledger, (), in_force=lambda: config, engine=lambda: "", said=Said, ask=lambda: None
    )
    await ledger.close()

    assert (parts.otlp is not None) is exported
    assert (parts.recorder.traced is not None) is traced
    if parts.otlp is not None:
        parts.otlp.close(0.0)


def test_what_is_switched_off_needs_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is needed for what is exported."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"^otlp.traces: needs the extra `otlp`"):
        extras.check(EVERYTHING)

    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    with pytest.raises(ConfigError, match=r"^otlp.metrics: needs the extra `otlp`"):
        extras.check(EVERYTHING)
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    extras.check(EVERYTHING)


def test_nothing_is_ignored_in_silence(
    export: Export, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever sets a variable that changes nothing is told so, and what does it instead."""
    monkeypatch.setenv("OTEL_PROPAGATORS", "b3")
    with caplog.at_level(logging.WARNING):
        export(traces=True, endpoint="http://127.0.0.1:9")

    assert "otlp_variable_unheeded name=OTEL_PROPAGATORS instead=W3C trace context" in caplog.text


@pytest.fixture(params=["http/protobuf", "grpc"], name="receiver")
def _receiver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A receiver that only the environment names."""
    with (grpc_receiver if request.param == "grpc" else http_receiver)() as (url, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", request.param)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        yield received


@pytest.mark.parametrize("compression", ["none", "gzip", "deflate"])
def test_address_headers_resource_and_compression(
    export: Export, record: Make, receiver: Received, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    """Without a word in the configuration, over both transports."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=ops,x-other=a%20b")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "edge")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod")

    with listened_in(os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]) as (url, heard):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        exported = export(traces=True)
        exported.record(record())
        receiver.wait("spans", 1)
        exported.close(5.0)
    headers = {name.lower(): value for name, value in receiver.headers[0].items()}
    assert (headers["x-tenant"], headers["x-other"]) == ("ops", "a b")
    assert (b"deployment.environment.name" in heard) is (compression == "none")
    assert MAGIC.get(compression, b"") in heard
    (about,) = (attributes(each.resource) for each in receiver.requests["/v1/traces"][0].resource_spans)
    assert (about["service.name"], about["deployment.environment.name"]) == ("edge", "prod")


@pytest.mark.parametrize(
    ("environ", "about"),
    [
        ({}, ("inferwatch", __version__, "i1")),
        ({"OTEL_SERVICE_NAME": "", "OTEL_RESOURCE_ATTRIBUTES": "service.name="}, ("inferwatch", __version__, "i1")),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=edge,service.instance.id=pod-7"}, ("edge", __version__, "pod-7")),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.version=2%2Bx", "OTEL_SERVICE_NAME": "e"}, ("e", "2+x", "i1")),
    ],
    ids=str,
)
def test_who_sends(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], about: tuple[str, ...]) -> None:
    """What the environment says of it wins, and what it leaves empty is ours."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    found = resource("i1").attributes

    assert tuple(found[f"service.{name}"] for name in ("name", "version", "instance.id")) == about


def test_an_empty_variable_is_not_set(
    export: Export, record: Make, receiver: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the specification has it, for each variable and over both transports; what is set for all signals counts."""
    address, protocol = os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"], os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"]
    for number, name in enumerate(sorted(HEEDED)):
        monkeypatch.setenv(name, " " * (number % 2))
    environment.check(EVERYTHING)
    assert environment.endpoint(Otlp(protocol="grpc"), "traces") == "http://localhost:4317"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    store = MetricStore()
    store.counter(m.LEDGER_COMMITS, ()).add()

    exported = export(store, traces=True, metrics=True, logs=True)
    exported.record(record())
    exported.tick(10.0, set, lambda: None)
    exported.close(10.0)

    for what in ("spans", "logs", "collections"):
        assert receiver.wait(what, 1)


def test_an_addresss_scheme_says_whether_there_is_tls(
    export: Export, record: Make, receiver: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTEL_EXPORTER_OTLP_INSECURE speaks of addresses without one."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "false")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "")
    export(traces=True).record(record())

    assert receiver.wait("spans", 1)
    assert not environment.is_insecure("traces", "https://collector:4317", {"OTEL_EXPORTER_OTLP_INSECURE": "true"})
    assert environment.is_insecure("traces", "dns:///collector:4317", {"OTEL_EXPORTER_OTLP_INSECURE": "true"})
    assert not environment.is_insecure("traces", "collector:4317", {})


def test_one_signal_has_an_address_of_its_own(export: Export, record: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken as it is; the others go where all go."""
    with http_receiver() as (one, mine), http_receiver() as (other, theirs):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", other)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{one}/v1/traces")
        export(traces=True, logs=True).record(record())

        assert mine.wait("spans", 1)
        assert theirs.wait("logs", 1)
        assert not mine.logs


def test_limits_of_attributes(
    export: Export, record: Make, receiver: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts are cut, attributes left out and counted, in spans and log records."""
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "3")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "5")
    export(traces=True, logs=True).record(record(tenant="acme-holding"))

    (span,) = receiver.wait("spans", 1)
    assert len(span.attributes) == 5
    assert span.dropped_attributes_count > 5
    (log,) = receiver.wait("logs", 1)
    assert attributes(log)["inferwatch.tenant"] == "acm"
    assert log.dropped_attributes_count == 0


def test_an_address_without_a_scheme(export: Export, record: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC's own way to write it; OTEL_EXPORTER_OTLP_INSECURE says that there is no TLS."""
    with grpc_receiver() as (url, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url.removeprefix("http://"))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "true")
        export(traces=True).record(record())

        assert received.wait("spans", 1)


def test_how_often_metrics_are_collected(export: Export, receiver: Received, monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_METRIC_EXPORT_INTERVAL, in milliseconds, unless the configuration says it."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "500")
    store = MetricStore()
    store.counter(m.LEDGER_COMMITS, ()).add()
    by_variable = export(store, metrics=True)
    by_configuration = export(store, metrics=True, metrics_interval_s=2.0)
    for now_s in (10.0, 10.4, 10.5, 10.9):
        by_variable.tick(now_s, set, lambda: None)
    receiver.wait("collections", 2)
    for now_s in (10.0, 10.5, 11.9, 12.0):
        by_configuration.tick(now_s, set, lambda: None)
    receiver.wait("collections", 4)
    for each in (by_variable, by_configuration):
        each.close(5.0)

    assert len(receiver.collections) == 4
