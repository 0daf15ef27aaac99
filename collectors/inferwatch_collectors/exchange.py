"""One request from `Open` to its record: everything that the collector knows of it while it runs.

Strategy. The bytes go through a body reader (framing) and a dialect (meaning) into an `Observation`; an `Exchange` ties
that to the frames of the tap and, at the end, makes the one immutable record.

* Whole copies are the best source. When some are missing, the relay's own notes in `Close` fill in: its last usage of a
  choice where that is further along, its final usage, and how the answer finished from its tail.
* How it ended is the transport's verdict, refined by what stands in the answer (`verdict`).
* What may have been missed is unknown, never guessed: no first-token time after a hole before it, no gap across a hole.

Two thousand streams are open at once, so nothing here keeps request bodies or text of answers; a stream's state is a
few dozen words. The hot path is `read`.
"""

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from inferwatch.record import ErrorType, Outcome, RequestRecord
from inferwatch.tap import Close, Head, Open
from inferwatch_collectors import kept_end
from inferwatch_collectors.dialects.base import CUT_GAPS, UNKNOWN_NS, Dialect, Observation
from inferwatch_collectors.dialects.body import UNREAD, Body, body_reader
from inferwatch_collectors.dialects.content import Ear
from inferwatch_collectors.dialects.select import STREAMED, choose
from inferwatch_collectors.dialects.timings import NO_TIMINGS, from_headers
from inferwatch_collectors.verdict import first_token_missing, judged

# Gaps waiting for `drain_gaps`, called for each batch (100 ms). A stream at 10,000 tokens/s fills 1,000; the rest is
# room for a caller that fell behind. Above it samples are cut from the histogram and counted, the record still has
# them.
MAX_PENDING_GAPS: Final = 8_192

# A limit like that bounds nothing, and times the choices it would not fit into the ledger's 64 bits.
NO_BOUND_TOKENS: Final = 1_000_000_000

# Members at hand: before Python 3.12 each mention of one (`Outcome.OK`) calls a descriptor, each `Outcome(text)` three
# functions.
_OK: Final = Outcome.OK
_NO_ERROR: Final = ErrorType.NONE
_OUTCOMES: Final = {outcome.value: outcome for outcome in Outcome}
_ERRORS: Final = {error.value: error for error in ErrorType}

# What libraries make: nobody is called like that.
_MADE_ID: Final = re.compile(r"[0-9a-f]{32}|[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def chosen_id(request_id: str) -> str:
    """Return an X-Request-Id that a client chose, "" for one that a library made.

    vLLM builds its own id of it: whatever a client writes there, a name or a number, would come back with the answer.
    """
    return "" if not request_id or _MADE_ID.fullmatch(request_id) else request_id


class Progress(NamedTuple):
    """How far an open stream is. Tokens are sums so far; None is unknown."""

    first_ns: int | None  # its first token
    last_ns: int  # its last read; its arrival before any
    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None


# Who listens to a request, None: nobody. It is asked while the request's body is there.
Listen = Callable[[Open, Dialect], Ear | None]


class Exchange:
    """A request under way. One `close` or `interrupted` ends it."""

    __slots__ = (
        "_body",
        "_chosen_id",
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

    def __init__(self, opened: Open, listen: Listen | None = None) -> None:
        """`listen` chooses who hears what is said."""
        self._selection = choose(opened.method, opened.path, "", opened.stream)
        facts = self._selection.dialect.facts(opened.body, opened.choices)
        if opened.choices > 1:
            # Where the body was dropped: the relay had seen it.
            n = max(1, opened.n)
            facts = facts._replace(
                choices=opened.choices,
                choices_per_prompt=facts.choices_per_prompt or n,
                prompts=facts.prompts or opened.choices // n,
            )
        self._seen = Observation(facts)
        if listen is not None:
            self._seen.listener = listen(opened, self._selection.dialect)
        self._chosen_id = chosen_id(opened.headers.get("x-request-id", ""))
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
    def listener(self) -> Ear | None:
        """Who hears what is said, and waits for the record."""
        return self._seen.listener

    @property
    def operation(self) -> str:
        """OpenTelemetry's gen_ai.operation.name, or "other"."""
        return self._selection.dialect.operation

    @property
    def route(self) -> str:
        """Canonical path from a closed set, "other" for the rest."""
        return self._selection.route

    @property
    def first_token_ns(self) -> int:
        """When the first token came; negative until then."""
        return self._seen.first_ns

    @property
    def prompt_counts(self) -> tuple[int | None, int | None]:
        """Tokens of the prompt, and those of them that were cached, as far as the engine has told."""
        totals = self._selection.dialect.totals(self._seen, self.opened.choices)
        return totals.prompt, totals.cached

    @property
    def largest_gap(self) -> tuple[int, int] | None:
        """The stamps between which the largest gap lay."""
        seen = self._seen
        return None if seen.stall_to_ns == UNKNOWN_NS else (seen.stall_from_ns, seen.stall_to_ns)

    @property
    def progress(self) -> Progress:
        """How far it is, for whoever charges it while it runs."""
        totals = self._selection.dialect.totals(self._seen, self.opened.choices)
        first_ns = None if self._seen.first_ns == UNKNOWN_NS else self._seen.first_ns
        return Progress(first_ns, self._last_ns, totals.prompt, totals.cached, totals.completion)

    @property
    def cuts(self) -> frozenset[str]:
        """What bounds have cut off of the answer: some of `dialects.base.CUT_REASONS`."""
        return self._seen.cuts

    @property
    def malformed_events(self) -> int:
        """Events, or a body, that were no JSON object."""
        return self._seen.malformed

    def head(self, head: Head) -> None:
        """Take the response head."""
        self._status = head.status
        self._head_ns = head.stamp_ns
        if self.opened.choices <= 1:  # for several prompts TGI adds up what went on side by side
            self._seen.timings = from_headers(head.headers) or self._seen.timings
        if self._body is None:
            self._encoding = head.headers.get("content-encoding", "")
            self._begin(head.headers.get("content-type", ""))
        if self._selection.dialect.reads_head:
            self._selection.dialect.read_head(self._seen, head.headers)

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
            self._seen.cut(CUT_GAPS)

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
        # An outcome that this version does not know (an upgrade under way) is a fault of ours.
        outcome = _OUTCOMES.get(close.outcome, Outcome.STREAM_ERROR)
        self._finish_body(cut=outcome is not _OK)
        if seen.lossy and self._selection.dialect.reads and self._status < 400:
            self._fill_in(close)
        error = _ERRORS.get(close.error, ErrorType.INTERNAL)
        status, streamed = self._status or close.status, self._streamed()
        verdict = judged(seen, self._selection.dialect, outcome, error, status, streamed=streamed)
        return self._record(*verdict, close)

    def interrupted(self, stamp_ns: int) -> RequestRecord:
        """End it because its relay died, with what was seen so far."""
        self._finish_body(cut=True)
        seen_of_it = Close(
            id=self.opened.id,
            stamp_ns=stamp_ns,
            outcome=Outcome.INTERRUPTED.value,
            error=ErrorType.RELAY_DIED.value,
            status=self._status,
            response_bytes=self._read_bytes,
        )
        return self._record(Outcome.INTERRUPTED, ErrorType.RELAY_DIED, seen_of_it)

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
        if self._seen.listener is not None:
            self._seen.listener.ended()

    # --- what the relay noted, where copies are missing

    def _fill_in(self, close: Close) -> None:
        kept_end.take_usages(self._seen, self._selection.dialect, close.usages)
        if close.tail and not self._encoding:
            kept_end.take_end(
                self._seen, self._selection, close, streamed=self._streamed(), untold=not self._read_bytes
            )

    def _streamed(self) -> bool:
        """Whether the answer came as a stream; before any head, whether one was asked for."""
        if self._body is None:
            return self.opened.stream
        return self._selection.framing in STREAMED

    def _first_token_missing(self, outcome: Outcome, error: ErrorType) -> str:
        # An engine's 503 is plain JSON, also where the client waits for a stream.
        streamed = self._streamed() or (self.opened.stream and outcome is Outcome.UPSTREAM_ERROR)
        dialect, unread = self._selection.dialect, self._body is UNREAD
        return first_token_missing(self._seen, dialect, outcome, error, streamed=streamed, unread=unread)

    # --- the record

    def _record(self, outcome: Outcome, error: ErrorType, close: Close) -> RequestRecord:
        opened, seen, selection = self.opened, self._seen, self._selection
        arrival_ns = opened.arrival_ns
        totals = selection.dialect.totals(seen, opened.choices)
        # In steps: a call with more than 15 keywords makes CPython pack them into a dict first, which costs as much
        # again as both of these.
        record = RequestRecord(
            request_id=opened.request_id,
            wall_ns=opened.wall_ns,
            tenant=opened.tenant,
            model=opened.model,
            operation=selection.dialect.operation,
            route=selection.route,
            method=opened.method,
            stream=opened.stream or self._streamed(),
            outcome=outcome,
            status=close.status,
            error=error,
            duration_s=max(0, close.stamp_ns - arrival_ns) / 1e9,
            n=opened.n,
            request_bytes=opened.body_bytes,
            response_bytes=close.response_bytes,
        )
        record = replace(
            record,
            prompt_tokens=totals.prompt,
            cached_tokens=totals.cached,
            completion_tokens=totals.completion,
            reasoning_tokens=totals.reasoning,
            token_source=totals.source,
            choices=len(seen.choices),
            finish_reasons=seen.finish_reasons(),
            sent_s=self._since_arrival(opened.sent_ns),
            head_s=self._since_arrival(close.head_ns or self._head_ns),
            events=seen.events,
            engine_id="" if self._chosen_id and self._chosen_id in seen.engine_id else seen.engine_id,
            engine_model=seen.engine_model,
        )
        more = self._more(outcome, error, close)
        return replace(record, **more) if more else record

    def _more(self, outcome: Outcome, error: ErrorType, close: Close) -> dict[str, Any]:
        """Return the fields of the record that an ordinary plain reply leaves at their defaults: each costs."""
        opened, seen = self.opened, self._seen
        more: dict[str, Any] = {}
        if seen.first_class is not None:
            more["first_token"] = seen.first_class
            more["ttft_s"] = self._since_arrival(seen.first_ns)
            more["ttft_answer_s"] = self._since_arrival(seen.answer_ns)
        elif missing := self._first_token_missing(outcome, error):
            more["first_token_missing"] = missing
        if seen.gap_count:
            more["gap_count"] = seen.gap_count
            more["gap_sum_s"] = seen.gap_sum_ns / 1e9
            more["gap_max_s"] = seen.gap_max_s
            more["gap_max_at_s"] = self._since_arrival(seen.stall_from_ns)
        if close.stalled_ns or close.dropped_bytes or close.retried:
            more["stalled_s"] = close.stalled_ns / 1e9
            more["dropped_bytes"] = close.dropped_bytes
            more["retried"] = close.retried
        if outcome is not _OK and 0 < opened.max_tokens < NO_BOUND_TOKENS and opened.choices:
            more["max_tokens"] = opened.max_tokens * opened.choices
        if (timings := seen.timings) is not NO_TIMINGS:
            more["timing_source"] = timings.source
            more["queue_s"] = timings.queue_s
            more["prefill_s"] = timings.prefill_s
            more["decode_s"] = timings.decode_s
            more["inference_s"] = timings.inference_s
        if opened.trace_id or opened.span_id:
            more["trace_id"] = opened.trace_id
            more["span_id"] = opened.span_id
            more["parent_span_id"] = opened.parent_span_id
            more["trace_sampled"] = opened.trace_sampled
        if opened.user or opened.feature or opened.session:
            more["user"] = opened.user
            more["feature"] = opened.feature
            more["session"] = opened.session
        return more

    def _since_arrival(self, stamp_ns: int) -> float | None:
        """Return seconds from arrival; None for a stamp that is not known (0 or UNKNOWN_NS)."""
        return max(0, stamp_ns - self.opened.arrival_ns) / 1e9 if stamp_ns > 0 else None
