"""From a record to OpenTelemetry's span. In the exporting thread.

The span exists only when the request is over, with its true times: nothing is started, and no context is carried around
in the process.
"""

import secrets

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from inferwatch.record import RequestRecord
from inferwatch_collectors.otlp import attributes as plain
from inferwatch_collectors.otlp.limits import Limits
from inferwatch_collectors.otlp.retries import Failed
from inferwatch_collectors.otlp.trace_state import Members


class SpanMaker:
    """Makes spans of one service."""

    def __init__(self, resource: Resource, scope: InstrumentationScope, stall_s: float) -> None:
        self._resource = resource
        self._scope = scope
        self._stall_s = stall_s
        self._limits = Limits("SPAN")

    def span(
        self,
        record: RequestRecord,
        attributes: dict[str, plain.Value],
        retried: Failed | None = None,
        state: Members = (),
    ) -> ReadableSpan:
        """Return the span of `record`.

        `retried` is the failure that it tries to make good, `state` what is kept of the caller's `tracestate`.
        """
        trace_id = record.trace_id or secrets.token_hex(16)
        context = _context(trace_id, record.span_id or secrets.token_hex(8), remote=False, state=state)
        failed = plain.error_type(record) and record.outcome.value != "client_abort"
        links: tuple[Link, ...] = ()
        if retried is not None:
            about = {"inferwatch.link": "retry_of"}
            links = (Link(_context(retried.trace_id, retried.span_id, remote=False), about),)
        return ReadableSpan(
            plain.span_name(record),
            context=context,
            parent=_context(trace_id, record.parent_span_id, remote=True) if record.parent_span_id else None,
            resource=self._resource,
            attributes=self._limits.within(attributes),
            events=[
                Event(event.name, event.attributes, event.wall_ns) for event in plain.events(record, self._stall_s)
            ],
            links=links,
            kind=SpanKind.CLIENT,
            status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
            start_time=record.wall_ns,
            end_time=record.wall_ns + round(record.duration_s * 1e9),
            instrumentation_scope=self._scope,
        )


def _context(trace_id: str, span_id: str, *, remote: bool, state: Members = ()) -> SpanContext:
    flags, members = TraceFlags(TraceFlags.SAMPLED), TraceState(state) if state else None
    return SpanContext(int(trace_id, 16), int(span_id, 16), remote, flags, members)
