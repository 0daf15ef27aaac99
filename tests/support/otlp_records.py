"""The types of the fixtures `record` and `export` in tests/otlp."""

from collections.abc import Callable

from inferwatch.record import RequestRecord
from inferwatch_collectors.otlp.export import OtlpExport

Make = Callable[..., RequestRecord]
Export = Callable[..., OtlpExport]
