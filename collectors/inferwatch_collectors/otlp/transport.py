"""OpenTelemetry's exporters by protocol, and what all signals say about themselves. Imports the SDK."""

import logging
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.util.re import parse_env_headers

from inferwatch import __version__
from inferwatch.settings.otlp import Otlp
from inferwatch_collectors.otlp import environment
from inferwatch_collectors.otlp.environment import HTTP

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.41.0"

# Logs are where the SDK still has an underscore: stable on the wire, not yet in Python.
_CLASSES: Final = {
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "metrics": ("metric_exporter", "OTLPMetricExporter"),
    "logs": ("_log_exporter", "OTLPLogExporter"),
}


def exporter(settings: Otlp, signal: str) -> Any:
    """Return the exporter of `signal`; addresses, headers, certificates are the environment's unless configured.

    It is told everything: what it would read itself, it reads otherwise than the specification says.

    Raises:
        ConfigError: a variable of the environment makes no sense.
    """
    # What they log names addresses and quotes answers; failures are counted and logged by us.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    chosen = environment.protocol(settings, signal)
    folder, name = _CLASSES[signal]
    module = import_module(f"opentelemetry.exporter.otlp.proto.{'http' if chosen == HTTP else 'grpc'}.{folder}")
    options: dict[str, Any] = {
        "endpoint": environment.endpoint(settings, signal),
        "headers": dict(parse_env_headers(environment.of_exporter(signal, "HEADERS").value, liberal=True)),
        "timeout": environment.timeout_s(signal),
    }
    options |= _of_http(signal) if chosen == HTTP else _of_grpc(signal, options["endpoint"])
    # Over gRPC a time-out is read as a number even where it was told, and an empty text is none.
    for variable in environment.empty():
        del os.environ[variable]
    return getattr(module, name)(**options)


def _files(signal: str) -> tuple[str, str, str]:
    """Return paths: whom to trust, who we are, and the key of that; "" where there is none."""
    trusted, certificate, key = (environment.of_exporter(signal, what).value for what in environment.FILES)
    return trusted, certificate, key


def _of_http(signal: str) -> dict[str, Any]:
    trusted, certificate, key = _files(signal)
    compressions = import_module("opentelemetry.exporter.otlp.proto.http").Compression
    return {
        "certificate_file": trusted or None,
        "client_certificate_file": certificate or None,
        "client_key_file": key or None,
        "compression": compressions(environment.compression(signal)),
        "session": _session(trusted),
    }


def _of_grpc(signal: str, address: str) -> dict[str, Any]:
    grpc = import_module("grpc")
    kinds = grpc.Compression
    compressions = {"none": kinds.NoCompression, "gzip": kinds.Gzip, "deflate": kinds.Deflate}
    options = {
        "compression": compressions[environment.compression(signal)],
        "insecure": environment.is_insecure(signal, address),
    }
    if not options["insecure"]:
        trusted, certificate, key = (Path(path).read_bytes() if path else None for path in _files(signal))
        options["credentials"] = grpc.ssl_channel_credentials(trusted, key, certificate)
    return options


def _session(authority: str) -> Any:
    """Return what sends over HTTP. It trusts `authority`, if there is one, also where REQUESTS_CA_BUNDLE is set: that
    would win over what a session says, and does not win over what a request says."""
    session = import_module("requests").Session()
    merge = session.merge_environment_settings

    def merged(url: str, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        return merge(url, proxies, stream, authority if verify is None else verify, cert)

    if authority:
        session.merge_environment_settings = merged
    return session


def resource(instance: str) -> Resource:
    """Return who sends: OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say more or otherwise."""
    ours = {"service.name": "inferwatch", "service.version": __version__, "service.instance.id": instance}
    theirs = {name: value for name, value in OTELResourceDetector().detect().attributes.items() if value}
    return Resource.create({**ours, **theirs})


def scope(*, latest: bool = False) -> InstrumentationScope:
    """Return what made it. The newest conventions have no schema yet."""
    return InstrumentationScope("inferwatch", __version__, None if latest else SCHEMA_URL)


def delivered(export: Callable[[Any], Any]) -> Callable[[Any], bool]:
    """Return `export` with its answer as a truth: each signal has an enum of its own, of which SUCCESS is 0."""

    def send(batch: Any) -> bool:
        return bool(export(batch).name == "SUCCESS")

    return send
