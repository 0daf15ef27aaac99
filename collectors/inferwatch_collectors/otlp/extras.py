"""Which transport is wanted, and whether it is installed. Imports nothing of OpenTelemetry."""

import importlib.util
import os
from collections.abc import Mapping
from typing import Final

from inferwatch.config import ConfigError
from inferwatch.settings.otlp import Otlp

HTTP: Final = "http/protobuf"
GRPC: Final = "grpc"

_MODULES: Final = {
    HTTP: ("opentelemetry.exporter.otlp.proto.http", "otlp"),
    GRPC: ("opentelemetry.exporter.otlp.proto.grpc", "otlp-grpc"),
}


def protocol(settings: Otlp, signal: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the protocol for `signal` (traces, metrics, logs): the configuration's, else the environment's.

    Raises:
        ConfigError: the environment names one that there is not.
    """
    names = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    found: str = settings.protocol or next((environ[name] for name in names if environ.get(name)), HTTP)
    if found not in _MODULES:
        raise ConfigError(f"otlp.protocol: OTEL_EXPORTER_OTLP_PROTOCOL is none of {HTTP}, {GRPC}")
    return found


def check(settings: Otlp) -> None:
    """See whether what is wanted is installed.

    Raises:
        ConfigError: it is not; says what to install.
    """
    for signal in ("traces", "metrics", "logs"):
        if getattr(settings, signal):
            module, extra = _MODULES[protocol(settings, signal)]
            try:
                found = importlib.util.find_spec(module)
            except ModuleNotFoundError:
                found = None
            if found is None:
                raise ConfigError(f"otlp.{signal}: needs the extra `{extra}`: pip install 'inferwatch[{extra}]'")
