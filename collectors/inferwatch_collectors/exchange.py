"""One request from `Open` to its record: everything that the collector knows of it while it runs.

Strategy. The bytes go through a body reader (framing) and a dialect (meaning) into an `Observation`; an `Exchange` ties
that to the frames of the tap and, at the end, makes the one immutable record.

* Whole copies are the best source. When some are missing, the relay's own notes in `Close` fill in: its last usage of a
  choice where that is further along, its final usage, and how the answer finished from its tail.
* The transport's verdict stands, but it cannot see into the answer: an error inside a 200 and an end without a finish
  are found here.
* What may have been missed is unknown, never guessed: no first-token time after a hole before it, no gap across a hole.

Two thousand streams are open at once, so nothing here keeps request bodies or text of answers; a stream's state is a
few dozen words. The hot path is `read`.
"""

from typing import Final

from msgspec.structs import replace

from inferwatch.record import ErrorType, Outcome, RequestRecord
from inferwatch.tap import Close, Head, Open
from inferwatch_collectors.dialects.base import UNKNOWN_NS, Observation
from inferwatch_collectors.dialects.body import UNREAD, Body, EventStream, body_reader
from inferwatch_collectors.dialects.select import SSE, choose

# Gaps waiting for `drain_gaps`, called for each batch (100 ms). A stream at 10,000 tokens/s fills 1,000; the rest is
# room for a caller that fell behind. Above it samples are cut from the histogram and counted, the record still has
# them.
MAX_PENDING_GAPS: Final = 8_192

# A key of `Close.usages`: the usage of the whole answer.
FINAL_USAGE_KEY: Final = -1

_TIMEOUTS: Final = frozenset(
    {ErrorType.CONNECT_TIMEOUT, ErrorType.FIRST_BYTE_TIMEOUT, ErrorType.IDLE_TIMEOUT, ErrorType.TOTAL_TIMEOUT}
)

# Values of `RequestRecord.first_token_missing`; they become a label.
FIRST_TOKEN_MISSING_REASONS: Final = frozenset(
    {"client_abort", "upstream_error", "timeout", "error_event", "interrupted", "tap_gap", "unreadable", "empty"}
)


class Exchange:
    """A request under way. One `close` or `interrupted` ends it."""

    __slots__ = (
        "_body",
        "_encoding",
        "_head_ns",
        "_last_ns",
        "_read_bytes",
        "_seen",
        "_selection",
        "_status",
        "gaps_cut",
        "opened",
    )

    def __init__(self, opened: Open) -> None:
        self._selection = choose(opened.method, opened.path, "", opened.stream)
        facts = self._selection.dialect.facts(opened.body, opened.choices)
        if facts.choices_per_prompt is None:  # the body was dropped; the relay had seen it
            facts = facts._replace(choices_per_prompt=opened.n)
        self._seen = Observation(facts)
        # They may be megabytes, and this lives as long as the stream.
        self.opened = replace(opened, body=b"", headers={})
        self.gaps_cut = 0  # token gaps that `drain_gaps` will never return
        self._body: Body | None = None  # None: not known yet how to read it
        self._encoding = ""
        self._head_ns = UNKNOWN_NS
        self._last_ns = opened.arrival_ns
        self._status = 0
        self._read_bytes = 0
        if opened.resumed:
            self._seen.bytes_missing()

    @property
    def operation(self) -> str:
        """OpenTelemetry's gen_ai.operation.name, or "other"."""
        return self._selection.dialect.operation

    @property
    def route(self) -> str:
        """Canonical path from a closed set, "other" for the rest."""
        return self._selection.route

    @property
    def malformed_events(self) -> int:
        """Events, or a body, that were no JSON object."""
        return self._seen.malformed

    def head(self, head: Head) -> None:
        """Take the response head."""
        self._status = head.status
        self._head_ns = head.stamp_ns
        if self._body is None:
            self._encoding = head.headers.get("content-encoding", "")
            self._begin(head.headers.get("content-type", ""))

    def read(self, stamp_ns: int, data: bytes) -> None:
        """Take one read of the answer's body; empty data marks the place where copies are missing."""
        body = self._body
        if body is None:
            body = self._begin("")  # a resumed request: its head went by before we were there
        if not data:
            self._seen.bytes_missing()
            body.gap()
            return
        self._read_bytes += len(data)
        self._last_ns = stamp_ns
        body.feed(stamp_ns, data)
        if len(self._seen.gaps) > MAX_PENDING_GAPS:
            self.gaps_cut += sum(tokens for _, tokens in self._seen.gaps[MAX_PENDING_GAPS:])
            del self._seen.gaps[MAX_PENDING_GAPS:]

    def drain_gaps(self) -> list[tuple[float, int]]:
        """Return the (gap_s, tokens) since the last call: `tokens` tokens came with a gap of `gap_s` seconds each."""
        drained = self._seen.gaps
        if drained:
            self._seen.gaps = []
        return drained

    def close(self, close: Close) -> RequestRecord:
        """End it by the relay's account."""
        seen = self._seen
        if close.dropped_bytes:
            seen.lossy = True
        self._finish_body(cut=close.outcome != Outcome.OK)
        if seen.lossy and self._selection.dialect.reads and self._status < 400:
            self._fill_in(close)
        outcome, error = self._judge(_outcome(close.outcome), _error(close.error), close.status)
        return self._record(
            outcome=outcome,
            error=error,
            status=close.status,
            end_ns=close.stamp_ns,
            head_ns=close.head_ns or self._head_ns,
            response_bytes=close.response_bytes,
            dropped_bytes=close.dropped_bytes,
            stalled_ns=close.stalled_ns,
            retried=close.retried,
        )

    def interrupted(self, stamp_ns: int) -> RequestRecord:
        """End it because its relay died, with what was seen so far."""
        self._finish_body(cut=True)
        return self._record(
            outcome=Outcome.INTERRUPTED,
            error=ErrorType.RELAY_DIED,
            status=self._status,
            end_ns=stamp_ns,
            head_ns=self._head_ns,
            response_bytes=self._read_bytes,
            dropped_bytes=0,
            stalled_ns=0,
            retried=False,
        )

    def _begin(self, content_type: str) -> Body:
        """Decide how to read the body."""
        opened = self.opened
        self._selection = choose(opened.method, opened.path, content_type, opened.stream)
        framing = self._selection.framing if self._status < 400 else ""  # an error's body holds no tokens
        body = body_reader(self._selection.dialect, self._seen, framing, self._encoding)
        if body is None:
            self._seen.lossy = True
            body = UNREAD
        self._body = body
        if opened.resumed:
            body.gap()
        return body

    def _finish_body(self, *, cut: bool) -> None:
        """Read what waits for the end. Where the answer was `cut`, half a document is nobody's fault."""
        if self._body is not None:
            malformed = self._seen.malformed
            self._body.finish(self._last_ns)
            if cut:
                self._seen.malformed = malformed

    # --- what the relay noted, where copies are missing

    def _fill_in(self, close: Close) -> None:
        seen = self._seen
        dialect = self._selection.dialect
        for index, raw in close.usages.items():
            usage = dialect.read_usage(raw)
            if usage is None or usage.blank():
                continue
            if index == FINAL_USAGE_KEY:
                seen.final = usage if usage.further_than(seen.final) else seen.final
            elif (choice := seen.choice(index)) is not None and usage.further_than(choice.usage):
                choice.usage = usage
                choice.counted = True
        if close.tail and not self._encoding:
            self._read_tail(close)

    def _read_tail(self, close: Close) -> None:
        """Take from the end of the body how it ended; its tokens may have been seen, so they are not counted again."""
        dialect, seen = self._selection.dialect, self._seen
        last = Observation(seen.facts)
        if self._streamed():
            events = EventStream(dialect, last)
            events.gap()  # it begins anywhere
            events.feed(close.stamp_ns, close.tail)
            events.finish(close.stamp_ns)
        elif len(close.tail) >= close.response_bytes:
            dialect.read_reply(last, close.tail)
        else:
            dialect.read_reply_tail(last, close.tail)
        for index, choice in last.choices.items():
            if choice.finish and (ours := seen.choice(index)) is not None:
                ours.finish = ours.finish or choice.finish
        seen.final = seen.final or last.final
        seen.done |= last.done
        seen.error |= last.error
        seen.engine_id = seen.engine_id or last.engine_id
        seen.engine_model = seen.engine_model or last.engine_model

    # --- verdicts

    def _streamed(self) -> bool:
        """Whether the answer came as a stream; before any head, whether one was asked for."""
        if self._body is None:
            return self.opened.stream
        return self._selection.framing == SSE

    def _judge(self, outcome: Outcome, error: ErrorType, sent_status: int) -> tuple[Outcome, ErrorType]:
        """Refine the transport's verdict by what stands in the answer."""
        seen = self._seen
        status = self._status or sent_status
        if outcome is Outcome.CLIENT_ABORT and seen.done:
            # It left after the end mark, without waiting for the end of the transfer.
            outcome, error = Outcome.OK, ErrorType.NONE
        if outcome is Outcome.OK and status >= 400:
            outcome = Outcome.UPSTREAM_ERROR if status >= 500 else Outcome.REJECTED
        if error is ErrorType.NONE and outcome in {Outcome.UPSTREAM_ERROR, Outcome.REJECTED} and status >= 400:
            error = ErrorType.ENGINE_5XX if status >= 500 else ErrorType.ENGINE_4XX
        if seen.error and outcome in {Outcome.OK, Outcome.CLIENT_ABORT, Outcome.STREAM_ERROR}:
            # Whatever happened to the connection afterwards, this is why.
            return Outcome.STREAM_ERROR, ErrorType.ENGINE_EVENT
        if outcome is Outcome.OK and self._unfinished():
            return Outcome.STREAM_ERROR, ErrorType.NO_FINISH
        return outcome, error

    def _unfinished(self) -> bool:
        """Whether a generated stream, seen whole, ended before its choices did."""
        seen = self._seen
        if seen.lossy or not self._selection.dialect.generates or not self._streamed():
            return False
        return not seen.choices or not all(choice.finish for choice in seen.choices.values())

    def _first_token_missing(self, outcome: Outcome, error: ErrorType) -> str:
        """Return why there is no first token, "" where there is one or none is to be expected."""
        seen = self._seen
        # An engine's 503 is plain JSON, also where the client waits for a stream.
        streamed = self._streamed() or (self.opened.stream and outcome is Outcome.UPSTREAM_ERROR)
        if not streamed or not self._selection.dialect.generates or outcome is Outcome.REJECTED:
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
        if self._body is UNREAD:
            return "unreadable"
        return "tap_gap" if seen.lossy else "empty"

    # --- the record

    def _record(
        self,
        *,
        outcome: Outcome,
        error: ErrorType,
        status: int,
        end_ns: int,
        head_ns: int,
        response_bytes: int,
        dropped_bytes: int,
        stalled_ns: int,
        retried: bool,
    ) -> RequestRecord:
        opened, seen = self.opened, self._seen
        totals = self._selection.dialect.totals(seen, opened.choices)
        return RequestRecord(
            request_id=opened.request_id,
            wall_ns=opened.wall_ns,
            tenant=opened.tenant,
            model=opened.model,
            operation=self.operation,
            route=self.route,
            method=opened.method,
            stream=opened.stream or self._streamed(),
            outcome=outcome,
            status=status,
            error=error,
            prompt_tokens=totals.prompt,
            cached_tokens=totals.cached,
            completion_tokens=totals.completion,
            reasoning_tokens=totals.reasoning,
            token_source=totals.source,
            choices=len(seen.choices),
            n=opened.n,
            finish_reasons=tuple(choice.finish for _, choice in sorted(seen.choices.items()) if choice.finish),
            duration_s=max(0, end_ns - opened.arrival_ns) / 1e9,
            sent_s=self._since_arrival(opened.sent_ns),
            head_s=self._since_arrival(head_ns),
            ttft_s=self._since_arrival(seen.first_ns),
            ttft_answer_s=self._since_arrival(seen.answer_ns),
            first_token=seen.first_class,
            first_token_missing=self._first_token_missing(outcome, error),
            gap_count=seen.gap_count,
            gap_sum_s=seen.gap_sum_ns / 1e9,
            gap_max_s=seen.gap_max_s,
            stalled_s=stalled_ns / 1e9,
            events=seen.events,
            request_bytes=opened.body_bytes,
            response_bytes=response_bytes,
            dropped_bytes=dropped_bytes,
            retried=retried,
            engine_id=seen.engine_id,
            engine_model=seen.engine_model,
            trace_id=opened.trace_id,
            span_id=opened.span_id,
            parent_span_id=opened.parent_span_id,
            user=opened.user,
            feature=opened.feature,
            session=opened.session,
        )

    def _since_arrival(self, stamp_ns: int) -> float | None:
        """Return seconds from arrival; None for a stamp that is not known (0 or UNKNOWN_NS)."""
        return max(0, stamp_ns - self.opened.arrival_ns) / 1e9 if stamp_ns > 0 else None


def _outcome(value: str) -> Outcome:
    """Return the relay's outcome; one that this version does not know (an upgrade under way) is a fault of ours."""
    try:
        return Outcome(value)
    except ValueError:
        return Outcome.STREAM_ERROR


def _error(value: str) -> ErrorType:
    try:
        return ErrorType(value)
    except ValueError:
        return ErrorType.INTERNAL
