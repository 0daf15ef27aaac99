"""OpenTelemetry's standard variables: what is heeded, and whether it makes sense. Imports nothing of OpenTelemetry.

The exporters read some of them themselves, and end with an exception over a value that they do not understand. So
values are looked at before anything is started, and a mistake is one line that names the variable, never its value:
headers are secrets.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from inferwatch.config import ConfigError
from inferwatch.settings.otlp import Otlp
from inferwatch_collectors.otlp import sampling

SIGNALS: Final = ("traces", "metrics", "logs")
HTTP: Final = "http/protobuf"
GRPC: Final = "grpc"

# The specification counts milliseconds, OpenTelemetry's SDK for Python seconds, and both are found in the wild. Nobody
# waits for more than a minute, nor for less than a tenth of a second.
MAX_TIMEOUT_S: Final = 60.0
DEFAULT_TIMEOUT_S: Final = 10.0

# Where an exporter sends unless told otherwise: a collector beside us.
_DEFAULT_ENDPOINTS: Final = {HTTP: "http://localhost:4318", GRPC: "http://localhost:4317"}

COMPRESSIONS: Final = ("none", "gzip", "deflate")

# Of the exporters, each for all signals and, as OTEL_EXPORTER_OTLP_TRACES_…, for one.
_OF_EXPORTERS: Final = (
    *("ENDPOINT", "PROTOCOL", "HEADERS", "TIMEOUT", "COMPRESSION", "INSECURE"),
    *("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"),
)
FILES: Final = ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")

# In milliseconds; a time-out of one signal that is shorter than the exporter's wins.
_BATCH_TIMEOUTS: Final = {
    "traces": "OTEL_BSP_EXPORT_TIMEOUT",
    "metrics": "OTEL_METRIC_EXPORT_TIMEOUT",
    "logs": "OTEL_BLRP_EXPORT_TIMEOUT",
}

# Whole numbers with what they are unless set; times in milliseconds. The largest is what other SDKs have room for.
_NUMBERS: Final = {
    "traces": {
        "OTEL_BSP_MAX_QUEUE_SIZE": 2048,
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": 512,
        "OTEL_BSP_SCHEDULE_DELAY": 5000,
    },
    "metrics": {"OTEL_METRIC_EXPORT_INTERVAL": 60_000},
    "logs": {
        "OTEL_BLRP_MAX_QUEUE_SIZE": 2048,
        "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": 512,
        "OTEL_BLRP_SCHEDULE_DELAY": 1000,
    },
}
MAX_NUMBER: Final = 2**31 - 1

HEEDED: Final = frozenset(
    {
        *("OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_SEMCONV_STABILITY_OPT_IN"),
        *("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"),
        *("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"),
        *(name for numbers in _NUMBERS.values() for name in numbers),
        *_BATCH_TIMEOUTS.values(),
        *("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"),
        *("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"),
        *("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT"),
        *(
            f"OTEL_EXPORTER_OTLP_{signal}{what}"
            for signal in ("", "TRACES_", "METRICS_", "LOGS_")
            for what in _OF_EXPORTERS
        ),
    }
)

# Standard variables that change nothing here, each with the reason. Whoever sets one is told so in the log.
UNHEEDED: Final = {
    "OTEL_CONFIG_FILE": "the configuration is Inferwatch's own file",
    "OTEL_LOG_LEVEL": "log.level",
    "OTEL_PROPAGATORS": "W3C trace context, always; other headers are passed on as they came",
    "OTEL_SPAN_EVENT_COUNT_LIMIT": "a span has three events at most",
    "OTEL_SPAN_LINK_COUNT_LIMIT": "a span has one link at most",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "an event has one attribute at most",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": "a link has one attribute",
    "OTEL_METRICS_EXEMPLAR_FILTER": "exemplars are of the traces that are exported",
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "cumulative, as the books are",
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "explicit buckets, those of /metrics",
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_EXPORTER_PROMETHEUS_HOST": "admin",
    "OTEL_EXPORTER_PROMETHEUS_PORT": "admin",
    "OTEL_EXPORTER_ZIPKIN_ENDPOINT": "OTLP is the only exporter",
    "OTEL_EXPORTER_ZIPKIN_TIMEOUT": "OTLP is the only exporter",
}


class Variable(NamedTuple):
    """A variable and what it says; one that is empty is not set, as the specification has it."""

    name: str
    value: str


def of_exporter(signal: str, what: str, environ: Mapping[str, str] = os.environ) -> Variable:
    """Return OTEL_EXPORTER_OTLP_… for `signal`: its own if that is set, else that of all, which may have no value."""
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_{what}"
    name = own if environ.get(own, "").strip() else f"OTEL_EXPORTER_OTLP_{what}"
    return Variable(name, environ.get(name, "").strip())


def exports(settings: Otlp, signal: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether `signal` is exported: the configuration says so, and the environment does not switch it off.

    Raises:
        ConfigError: the environment names an exporter that there is not.
    """
    if not getattr(settings, signal):
        return False
    name = f"OTEL_{signal.upper()}_EXPORTER"
    chosen = {word.strip().lower() for word in environ.get(name, "").split(",")} - {""}
    if not chosen <= {"otlp", "none"}:
        raise ConfigError(f"otlp.{signal}: {name} is none of otlp, none")
    return chosen != {"none"} and environ.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"


def exports_any(settings: Otlp, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether any signal is exported. Raises ConfigError, as above."""
    return any(exports(settings, signal, environ) for signal in SIGNALS)


def protocol(settings: Otlp, signal: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the protocol for `signal`: the configuration's, else the environment's.

    Raises:
        ConfigError: the environment names one that there is not.
    """
    name, value = of_exporter(signal, "PROTOCOL", environ)
    found: str = settings.protocol or value or HTTP
    if found not in (HTTP, GRPC):
        raise ConfigError(f"otlp.protocol: {name} is none of {HTTP}, {GRPC}")
    return found


def endpoint(settings: Otlp, signal: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return where `signal` goes: over HTTP the whole URL, over gRPC as it is written. Raises ConfigError, as above."""
    chosen = protocol(settings, signal, environ)
    name, value = of_exporter(signal, "ENDPOINT", environ)
    if chosen == HTTP and not settings.endpoint and value and name != "OTEL_EXPORTER_OTLP_ENDPOINT":
        return value  # that of one signal is taken as it is
    base = settings.endpoint or value or _DEFAULT_ENDPOINTS[chosen]
    return f"{base.rstrip('/')}/v1/{signal}" if chosen == HTTP else base.rstrip("/")


def is_insecure(signal: str, address: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether gRPC goes to `address` without TLS: its scheme says so, and where it has none the environment."""
    scheme, _, rest = address.lower().partition("://")
    if rest and scheme in ("http", "https"):
        return scheme == "http"
    return of_exporter(signal, "INSECURE", environ).value.lower() == "true"


def timeout_s(signal: str, environ: Mapping[str, str] = os.environ) -> float:
    """Return how long an export may take, retries included.

    Raises:
        ConfigError: it is no number, or not above 0.
    """
    found = _positive(*of_exporter(signal, "TIMEOUT", environ), DEFAULT_TIMEOUT_S)
    if found > MAX_TIMEOUT_S:
        found /= 1000
    batch = _BATCH_TIMEOUTS[signal]
    return min(found, _positive(batch, environ.get(batch, "").strip(), found * 1000) / 1000)


def compression(signal: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return one of COMPRESSIONS.

    Raises:
        ConfigError: it is none of them.
    """
    name, value = of_exporter(signal, "COMPRESSION", environ)
    found = value.lower() or "none"
    if found not in COMPRESSIONS:
        raise ConfigError(f"environment {name}: is none of {', '.join(COMPRESSIONS)}")
    return found


def number(signal: str, name: str, environ: Mapping[str, str] = os.environ) -> int:
    """Return one of the whole numbers of `signal`, its default unless the environment says it.

    Raises:
        ConfigError: it is none from 1 to MAX_NUMBER.
    """
    text = environ.get(name, "").strip() or str(_NUMBERS[signal][name])
    found = int(text) if text.isdecimal() and len(text) <= len(str(MAX_NUMBER)) else 0
    if not 1 <= found <= MAX_NUMBER:
        raise ConfigError(f"environment {name}: expected a whole number from 1 to {MAX_NUMBER}")
    return found


def limit(name: str, kind: str, environ: Mapping[str, str] = os.environ) -> int | None:
    """Return OTEL_{kind}_ATTRIBUTE_{name}_LIMIT, else OTEL_ATTRIBUTE_{name}_LIMIT; None: not set.

    Raises:
        ConfigError: it is no whole number of 0 or more.
    """
    for variable in (f"OTEL_{kind}_ATTRIBUTE_{name}_LIMIT", f"OTEL_ATTRIBUTE_{name}_LIMIT"):
        if text := environ.get(variable, "").strip():
            if not text.isdecimal():
                raise ConfigError(f"environment {variable}: expected a whole number of 0 or more")
            return int(text)
    return None


def check(settings: Otlp, environ: Mapping[str, str] = os.environ) -> None:
    """Look at everything that will be needed.

    Raises:
        ConfigError: something makes no sense; names the variable.
    """
    for signal in SIGNALS:
        if exports(settings, signal, environ):
            chosen = protocol(settings, signal, environ)
            timeout_s(signal, environ)
            compression(signal, environ)
            for name in _NUMBERS[signal]:
                number(signal, name, environ)
            for fault in _faults(settings, signal, chosen, environ):
                raise ConfigError(f"environment {fault}")
    if exports(settings, "traces", environ):
        sampling.head(settings, environ)
    for kind in ("SPAN", "LOGRECORD"):
        limit("COUNT", kind, environ)
        limit("VALUE_LENGTH", kind, environ)


def empty(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the heeded variables that are there and say nothing, which is as if they were not set."""
    return sorted(name for name in HEEDED if not environ.get(name, "set").strip())


def unheeded(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the standard variables that are set and change nothing."""
    return sorted(name for name in UNHEEDED if environ.get(name, "").strip())


def _faults(settings: Otlp, signal: str, chosen: str, environ: Mapping[str, str]) -> Iterator[str]:
    name, address = of_exporter(signal, "ENDPOINT", environ)
    is_url = address.startswith(("http://", "https://"))
    if not settings.endpoint and address and chosen == HTTP and not is_url:
        yield f"{name}: expected `http://host:port` or `https://host:port`"
    name, headers = of_exporter(signal, "HEADERS", environ)
    if any(pair.strip() and "=" not in pair for pair in headers.split(",")):
        yield f"{name}: expected `name=value`, several with commas between them"
    for what in FILES:
        name, path = of_exporter(signal, what, environ)
        if path and not os.access(path, os.R_OK):
            yield f"{name}: cannot read the file"
    certificate, key = (of_exporter(signal, what, environ) for what in ("CLIENT_CERTIFICATE", "CLIENT_KEY"))
    if chosen == GRPC and bool(certificate.value) != bool(key.value):
        yield f"{(certificate if certificate.value else key).name}: certificate and key are needed together"


def _positive(name: str, text: str, default: float) -> float:
    if not text:
        return default
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise ConfigError(f"environment {name}: expected a number above 0")
    return found
