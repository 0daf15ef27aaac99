"""Log records: one for each request, with its metadata, and the lines of the operational log."""

import logging
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from inferwatch.record import RequestRecord
from inferwatch_collectors.otlp import attributes as plain
from inferwatch_collectors.otlp.limits import Limits

# What the exporters themselves say must not go out through them.
_NOT_OURS: Final = ("opentelemetry", "urllib3", "requests", "grpc", "inferwatch_collectors.otlp")

_SEVERITIES: Final = {
    logging.DEBUG: SeverityNumber.DEBUG,
    logging.INFO: SeverityNumber.INFO,
    logging.WARNING: SeverityNumber.WARN,
    logging.ERROR: SeverityNumber.ERROR,
    logging.CRITICAL: SeverityNumber.FATAL,
}


class Line(NamedTuple):
    """A line of the operational log."""

    wall_ns: int
    level: int
    logger: str
    text: str


class LogMaker:
    """Makes log records of one service."""

    def __init__(
        self,
        resource: Resource,
        scope: InstrumentationScope,
        attributes: Callable[[RequestRecord], dict[str, plain.Value]],
    ) -> None:
        self._resource = resource
        self._scope = scope
        self._attributes = attributes
        self._limits = Limits("LOGRECORD")

    def request(self, record: RequestRecord) -> ReadableLogRecord:
        """Return the log record of a finished request."""
        failed = plain.error_type(record)
        return self._made(
            LogRecord(
                timestamp=record.wall_ns + round(record.duration_s * 1e9),
                observed_timestamp=time.time_ns(),
                context=_context(record),
                severity_number=SeverityNumber.WARN if failed else SeverityNumber.INFO,
                severity_text="WARN" if failed else "INFO",
                body="request",
                event_name="inferwatch.request",
                attributes=self._limits.within(self._attributes(record)),
            )
        )

    def line(self, line: Line) -> ReadableLogRecord:
        """Return the log record of a line."""
        return self._made(
            LogRecord(
                timestamp=line.wall_ns,
                observed_timestamp=line.wall_ns,
                context=Context(),
                severity_number=_SEVERITIES.get(line.level, SeverityNumber.INFO),
                severity_text=logging.getLevelName(line.level),
                body=line.text,
                attributes={"inferwatch.logger": line.logger},
            )
        )

    def _made(self, record: LogRecord) -> ReadableLogRecord:
        return ReadableLogRecord(record, self._resource, self._scope)


def _context(record: RequestRecord) -> Context:
    if not record.trace_id or not record.span_id:
        return Context()
    flags = TraceFlags(TraceFlags.SAMPLED if record.trace_sampled else TraceFlags.DEFAULT)
    ids = int(record.trace_id, 16), int(record.span_id, 16)
    return set_span_in_context(NonRecordingSpan(SpanContext(*ids, is_remote=False, trace_flags=flags)), Context())


class LineHandler(logging.Handler):
    """Hands on what this process logs."""

    def __init__(self, put: Callable[[Line, int], object]) -> None:
        super().__init__()
        self._put = put

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one line. A message is what the text log has, without a traceback."""
        if not record.name.startswith(_NOT_OURS):
            text = record.getMessage()
            self._put(Line(int(record.created * 1e9), record.levelno, record.name, text), 200 + len(text))
