"""All names that OpenTelemetry's own package has: what is not ours must be one of them."""

import importlib
import pkgutil
from types import ModuleType

import opentelemetry.semconv._incubating.attributes
import opentelemetry.semconv._incubating.metrics
import opentelemetry.semconv.attributes
import opentelemetry.semconv.metrics


def _names(package: ModuleType) -> set[str]:
    found: set[str] = set()
    for each in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        module = importlib.import_module(each.name)
        found |= {value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)}
    return found


ATTRIBUTES = _names(opentelemetry.semconv._incubating.attributes) | _names(opentelemetry.semconv.attributes)
METRICS = _names(opentelemetry.semconv._incubating.metrics) | _names(opentelemetry.semconv.metrics)
