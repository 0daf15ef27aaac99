"""How many attributes a span or a log record may have, and how long their texts: OTEL_…_LIMIT. Imports the SDK."""

from collections.abc import Mapping
from typing import Final

from opentelemetry.attributes import BoundedAttributes

from inferwatch_collectors.otlp import environment
from inferwatch_collectors.otlp.attributes import Value

# OpenTelemetry's default. Nothing here has half as many.
DEFAULT_COUNT: Final = 128


class Limits:
    """The limits of one kind: SPAN or LOGRECORD."""

    def __init__(self, kind: str) -> None:
        """Raises ConfigError: a limit is no whole number."""
        count = environment.limit("COUNT", kind)
        self._count = DEFAULT_COUNT if count is None else count
        self._length = environment.limit("VALUE_LENGTH", kind)

    def within(self, attributes: dict[str, Value]) -> Mapping[str, Value]:
        """Return them as they may be sent; what is left out is counted where OpenTelemetry looks for it."""
        if self._length is None and len(attributes) <= self._count:
            return attributes
        return BoundedAttributes(self._count, attributes, max_value_len=self._length)  # type: ignore[return-value]
