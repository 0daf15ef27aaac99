"""Export to an OpenTelemetry collector. Headers, certificates, time-outs are read from the standard variables."""

import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from inferwatch.settings.base import Ratio, Seconds

_KEY: Final = re.compile(r"[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}")


class TenantSampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One tenant's own share of traces."""

    tenant: Annotated[str, Meta(description="Its name. Required.")]
    sample_ratio: Annotated[Ratio, Meta(description="In place of `otlp.sample_ratio`.")] = 1.0


class Otlp(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Traces, metrics and logs by OTLP. Needs the extra `otlp` (HTTP) or `otlp-grpc`."""

    traces: Annotated[
        bool,
        Meta(
            description="A span for each sampled request. Requests without `traceparent` get one, as by `trace.mint`."
        ),
    ] = False
    metrics: Annotated[bool, Meta(description="All metrics, under OpenTelemetry's names where it has one.")] = False
    logs: Annotated[bool, Meta(description="A log record for each request, and the operational log.")] = False
    endpoint: Annotated[
        str,
        Meta(
            description="`http://host:4318`, or `http://host:4317` with gRPC; empty: OTEL_EXPORTER_OTLP_ENDPOINT and "
            "its like, which may also give headers, certificates and time-outs."
        ),
    ] = ""
    protocol: Annotated[
        Literal["", "http/protobuf", "grpc"],
        Meta(description="Empty: OTEL_EXPORTER_OTLP_PROTOCOL, else `http/protobuf`."),
    ] = ""
    sample_ratio: Annotated[
        Ratio | None,
        Meta(
            description="This share of all traces, chosen by trace id, so that others choose the same. Empty: "
            "OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG, else all that the caller samples.",
        ),
    ] = None
    tenants: Annotated[tuple[TenantSampling, ...], Meta(description="Tenants with a share of their own.")] = ()
    always_errors: Annotated[bool, Meta(description="Requests that failed are exported, sampled or not.")] = True
    always_slower_s: Annotated[
        float, Meta(ge=0, description="So are those that took longer; 0: not for that reason.")
    ] = 30.0
    stall_s: Annotated[Seconds, Meta(description="A gap between tokens from here on is an event of the span.")] = 1.0
    tracestate_keys: Annotated[
        tuple[str, ...],
        Meta(
            description="Members of the caller's `tracestate` that its span keeps, as `dd`: whatever their vendor puts "
            "there is exported as it came. Of `ot` nothing but OpenTelemetry's own numbers."
        ),
    ] = ("ot",)
    metrics_interval_s: Annotated[
        float, Meta(ge=0, le=3600, description="0: OTEL_METRIC_EXPORT_INTERVAL, else every 60 s.")
    ] = 0.0

    def exports(self) -> bool:
        """Tell whether anything is exported."""
        return self.traces or self.metrics or self.logs


def fault(otlp: Otlp) -> str:
    """Return what is wrong with `otlp`, beginning with the key, or ""."""
    return next(_faults(otlp), "")


def _faults(otlp: Otlp) -> Iterator[str]:
    if otlp.endpoint and not otlp.endpoint.startswith(("http://", "https://")):
        yield "otlp.endpoint: expected `http://host:port` or `https://host:port`"
    if "@" in otlp.endpoint:
        yield "otlp.endpoint: holds a user; put headers into OTEL_EXPORTER_OTLP_HEADERS"
    for index, key in enumerate(otlp.tracestate_keys):
        if not _KEY.fullmatch(key):
            yield f"otlp.tracestate_keys[{index}]: expected a key of `tracestate`, as `ot` or `tenant@vendor`"
    seen: set[str] = set()
    for index, own in enumerate(otlp.tenants):
        if not own.tenant or own.tenant in seen:
            yield f"otlp.tenants[{index}].tenant: {'written twice' if own.tenant else 'expected a name'}"
        seen.add(own.tenant)
