"""What the transport alone knows of a request, when its answer was not read, or could not be."""

from typing import Final

from inferwatch.record import ErrorType, Outcome, RequestRecord
from inferwatch.tap import Close, Open
from inferwatch_collectors.cardinality import OTHER

NS_PER_S: Final = 1_000_000_000


def bare_record(opened: Open, close: Close) -> RequestRecord:
    """Return what the transport alone knows of a request: all but tokens and what is in the answer."""

    def since_arrival_s(stamp_ns: int) -> float | None:
        return max(0, stamp_ns - opened.arrival_ns) / NS_PER_S if stamp_ns > 0 else None

    known_outcome = close.outcome in set(Outcome)
    return RequestRecord(
        request_id=opened.request_id,
        wall_ns=opened.wall_ns,
        tenant=opened.tenant,
        model=opened.model,
        operation=OTHER,
        route=OTHER,
        method=opened.method,
        stream=opened.stream,
        outcome=Outcome(close.outcome) if known_outcome else Outcome.STREAM_ERROR,
        status=close.status,
        error=ErrorType(close.error) if close.error in set(ErrorType) else ErrorType.INTERNAL,
        duration_s=max(0, close.stamp_ns - opened.arrival_ns) / NS_PER_S,
        sent_s=since_arrival_s(opened.sent_ns),
        head_s=since_arrival_s(close.head_ns),
        stalled_s=close.stalled_ns / NS_PER_S,
        request_bytes=opened.body_bytes,
        response_bytes=close.response_bytes,
        dropped_bytes=close.dropped_bytes,
        retried=close.retried,
        trace_id=opened.trace_id,
        span_id=opened.span_id,
        parent_span_id=opened.parent_span_id,
        trace_sampled=opened.trace_sampled,
        user=opened.user,
        feature=opened.feature,
        session=opened.session,
    )


def death(number: int, stamp_ns: int) -> Close:
    """Return the `Close` that a relay would have sent, had it not died."""
    return Close(
        id=number, stamp_ns=stamp_ns, outcome=Outcome.INTERRUPTED.value, error=ErrorType.RELAY_DIED.value, status=0
    )
