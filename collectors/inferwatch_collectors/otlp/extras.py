"""Whether what is wanted is installed, and makes sense. Imports nothing of OpenTelemetry."""

import importlib.util
from typing import Final

from inferwatch.config import ConfigError
from inferwatch.settings.otlp import Otlp
from inferwatch_collectors.otlp import environment
from inferwatch_collectors.otlp.environment import GRPC, HTTP, SIGNALS

_MODULES: Final = {
    HTTP: ("opentelemetry.exporter.otlp.proto.http", "otlp"),
    GRPC: ("opentelemetry.exporter.otlp.proto.grpc", "otlp-grpc"),
}


def check(settings: Otlp) -> None:
    """Look before anything is started.

    Raises:
        ConfigError: something is not installed, and says what to install; or a variable of the environment makes no
            sense.
    """
    environment.check(settings)
    for signal in SIGNALS:
        if environment.exports(settings, signal):
            module, extra = _MODULES[environment.protocol(settings, signal)]
            try:
                found = importlib.util.find_spec(module)
            except ModuleNotFoundError:
                found = None
            if found is None:
                raise ConfigError(f"otlp.{signal}: needs the extra `{extra}`: pip install 'inferwatch[{extra}]'")
