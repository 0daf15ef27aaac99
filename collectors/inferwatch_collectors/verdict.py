"""How a request ended: the transport's verdict, refined by what stands in the answer.

The transport's verdict stands, but it cannot see into the answer: an error inside a 200 and an end without a finish are
found here. Pure.
"""

from typing import Final

from inferwatch.record import ErrorType, Outcome, RequestRecord
from inferwatch_collectors.dialects.base import UNKNOWN_NS, Dialect, Observation

# A member at hand: before Python 3.12 each mention of one (`Outcome.OK`) calls a descriptor.
_OK: Final = Outcome.OK

_TIMEOUTS: Final = frozenset(
    {ErrorType.CONNECT_TIMEOUT, ErrorType.FIRST_BYTE_TIMEOUT, ErrorType.IDLE_TIMEOUT, ErrorType.TOTAL_TIMEOUT}
)

EMPTY: Final = "empty"

# Values of `RequestRecord.first_token_missing`; they become a label.
FIRST_TOKEN_MISSING_REASONS: Final = frozenset(
    {"client_abort", "upstream_error", "timeout", "error_event", "interrupted", "tap_gap", "unreadable", EMPTY}
)


def judged(
    seen: Observation, dialect: Dialect, outcome: Outcome, error: ErrorType, status: int, *, streamed: bool
) -> tuple[Outcome, ErrorType]:
    """Return the verdict. `streamed`: the answer came as a stream, or would have."""
    if outcome is _OK and status < 400 and not seen.error:
        return (Outcome.STREAM_ERROR, ErrorType.NO_FINISH) if _unfinished(seen, dialect, streamed) else (outcome, error)
    if outcome is Outcome.CLIENT_ABORT and seen.done:
        # It left after the end mark, without waiting for the end of the transfer.
        outcome, error = Outcome.OK, ErrorType.NONE
    if outcome is Outcome.OK and status >= 400:
        outcome = Outcome.UPSTREAM_ERROR if status >= 500 else Outcome.REJECTED
    if error is ErrorType.NONE and outcome in {Outcome.UPSTREAM_ERROR, Outcome.REJECTED} and status >= 400:
        error = ErrorType.ENGINE_5XX if status >= 500 else ErrorType.ENGINE_4XX
    if seen.error and outcome in {Outcome.OK, Outcome.CLIENT_ABORT, Outcome.STREAM_ERROR}:
        # Whatever happened to the connection afterwards, this is why.
        return Outcome.REJECTED if seen.refused else Outcome.STREAM_ERROR, ErrorType.ENGINE_EVENT
    if outcome is Outcome.OK and _unfinished(seen, dialect, streamed):
        return Outcome.STREAM_ERROR, ErrorType.NO_FINISH
    return outcome, error


def _unfinished(seen: Observation, dialect: Dialect, streamed: bool) -> bool:
    """Whether a generated stream, seen whole, ended before its choices did."""
    return streamed and not seen.lossy and dialect.generates and dialect.unfinished(seen)


def first_token_missing(
    seen: Observation, dialect: Dialect, outcome: Outcome, error: ErrorType, *, streamed: bool, unread: bool
) -> str:
    """Return why there is no first token, "" where there is one or none is to be expected.

    `streamed`: as above, or the client waited for a stream and got an engine's 503. `unread`: nobody can read it.
    """
    if not streamed or not dialect.generates or outcome is Outcome.REJECTED:
        return ""
    if seen.first_ns != UNKNOWN_NS:
        return ""
    if seen.first_token_missed:
        return "tap_gap"
    if error in _TIMEOUTS:
        return "timeout"
    if error is ErrorType.ENGINE_EVENT:
        return "error_event"
    if outcome in {Outcome.CLIENT_ABORT, Outcome.INTERRUPTED, Outcome.UPSTREAM_ERROR}:
        return outcome.value
    if outcome is Outcome.STREAM_ERROR and error is not ErrorType.NO_FINISH:
        return Outcome.UPSTREAM_ERROR.value
    if unread:
        return "unreadable"
    return "tap_gap" if seen.lossy else EMPTY


def is_empty(record: RequestRecord) -> bool:
    """Tell whether the record of a request shows that it was answered with nothing. Some engines count the token that
    ends an answer, so a stream in which nothing came is empty, whatever was counted."""
    return record.outcome is _OK and (record.completion_tokens == 0 or record.first_token_missing == EMPTY)
