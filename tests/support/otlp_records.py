"""The type of the fixture `record` in tests/otlp."""

from collections.abc import Callable

from inferwatch.record import RequestRecord

Make = Callable[..., RequestRecord]
