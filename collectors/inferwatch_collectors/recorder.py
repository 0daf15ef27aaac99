"""From what happened to what is counted. Pure: no clock, no I/O; whoever calls says when it is.

When something is counted:
* `finished` is called once per request, after the ledger has told that it does not know the request's id; its effects
  are committed with the record (see `metric_store`). So everything about finished requests is counted exactly once.
* `gaps` is called live, while answers stream: a dashboard that shows a stall after the request has ended is no use to
  somebody on call. Gaps may be lost or seen twice when the collector crashes.
* Requests in flight are a set of ids, not an up-and-down counter: hearing of the same opening twice, as after a
  reconnect, changes nothing, and the number cannot go below 0.
* What relays report about themselves is in `relay_recorder`.

The series of a combination of labels are looked up once and then kept at hand (`RequestSeries`): a request touches a
dozen of them.

A value that is not known is not counted: None adds nothing and creates no series.
"""

from collections.abc import Callable, Iterable, KeysView
from typing import Final

from inferwatch.record import ErrorType, LateCount, Outcome, RequestRecord, TokenClass, TokenSource
from inferwatch.tap import Open
from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import COMBINATION, OTHER, CardinalityGuard, RequestLabels
from inferwatch_collectors.cost.pricing import Pricing
from inferwatch_collectors.ledger.vote import Thumb
from inferwatch_collectors.metric_store import MetricStore, Restored, Row
from inferwatch_collectors.metrics import TokenType
from inferwatch_collectors.phase_recorder import PhaseRecorder
from inferwatch_collectors.relay_recorder import RelayRecorder
from inferwatch_collectors.request_series import RequestSeries

# The engines' and APIs' words for "the length limit was reached".
LENGTH_REASONS: Final = frozenset({"length", "max_tokens", "max_output_tokens"})

# Members of an enum at hand: before Python 3.12 each mention of one (`Outcome.OK`, `.value`) calls a descriptor.
_OK: Final = Outcome.OK
_NO_ERROR: Final = ErrorType.NONE
_PROMPT: Final = TokenType.PROMPT.value
_CACHED: Final = TokenType.CACHED.value
_COMPLETION: Final = TokenType.COMPLETION.value
_REASONING: Final = TokenType.REASONING.value
_REASONED: Final = TokenClass.REASONING
_NO_SOURCE: Final = TokenSource.NONE
_LATE_SOURCE: Final = TokenSource.ENGINE_COUNTERS.value


class Recorder:
    """Keeps the values of the table from what the collector reports."""

    def __init__(self, store: MetricStore, guard: CardinalityGuard) -> None:
        """`guard` reports its foldings to this recorder from now on."""
        self.store = store
        self.guard = guard
        self.relays = RelayRecorder(store)
        self.phases = PhaseRecorder(store)
        self.pricing = Pricing(store)
        guard.on_fold = self._folded
        # Whether an exemplar may name the trace of a request: only one that somebody can look up. None: we export none,
        # but those whom the caller or the engine tells of it may.
        self.traced: Callable[[RequestRecord], bool] | None = None
        self.votes = False  # whether users may vote on answers
        self._in_flight: dict[str, RequestSeries] = {}
        self._series: dict[
            tuple[str, str, str], RequestSeries
        ] = {}  # by admitted labels: no more than the guard lets in
        for label in (*m.REQUEST, COMBINATION):
            store.counter(m.CARDINALITY_FOLDED, (label,))

    def restore(self, rows: Iterable[Row], *, now_s: float) -> Restored:
        """Take up the values of an earlier life. Once, before anything is recorded."""
        restored = self.store.restore(rows)
        self.guard.readmit(
            {RequestLabels(*each[:3]) for each in self.store.series(m.REQUESTS)},
            now_s=now_s,
        )
        self.relays.resume()
        return restored

    # --- requests ---

    def opened(self, opened: Open, operation: str, *, now_s: float) -> RequestLabels:
        """Count a request as in flight. Return the labels for its `gaps`."""
        series = self._of(opened.model, opened.tenant, operation, now_s=now_s, count=False)
        before = self._in_flight.get(opened.request_id)
        if before is not None:
            return before.labels
        self._in_flight[opened.request_id] = series
        if not series.begun:
            self._begin(series)
        series.enter()
        return series.labels

    def gaps(self, labels: RequestLabels, gaps: Iterable[tuple[float, int]]) -> None:
        """Observe (gap_s, tokens): so many tokens had a gap of `gap_s` seconds each to the one before."""
        known = [gap for gap in gaps if gap[1] > 0]
        if known:
            self.store.histogram(m.INTER_TOKEN_LATENCY, labels).observe_all(known)

    def finished(self, record: RequestRecord, *, now_s: float) -> None:
        """Count a request that the ledger did not know."""
        self.closed(record.request_id)
        series = self._of(record.model, record.tenant, record.operation, now_s=now_s, count=True)
        counters = series.counters
        counters[m.REQUESTS.name, record.outcome._value_].add()
        if record.error is not _NO_ERROR:
            counters[m.REQUEST_ERRORS.name, record.error._value_].add()
        if record.stalled_s > 0:
            counters[m.CLIENT_STALL.name,].add(record.stalled_s)
        if record.dropped_bytes:
            counters[m.CONTENT_DROPPED.name,].add()
        exemplar = self._exemplar(record)
        self._count_latency(record, series, exemplar)
        self.phases.finished(record, series.labels, exemplar)
        self._count_tokens(record, series)
        self.pricing.count(record, series.labels)

    def late(self, late: LateCount, *, now_s: float) -> LateCount:
        """Count what the engine had counted for a request that was counted without; return it with its price."""
        series = self._of(late.model, late.tenant, late.operation, now_s=now_s, count=False)
        counters = series.counters
        for kind, tokens in ((_PROMPT, late.prompt_tokens), (_COMPLETION, late.completion_tokens)):
            if tokens is not None:
                counters[m.TOKENS.name, kind].add(tokens)
                counters[m.TOKENS_BY_SOURCE.name, _LATE_SOURCE, kind].add(tokens)
        if late.completion_tokens:
            counters[m.WASTED_TOKENS.name, late.outcome.value].add(late.completion_tokens)
        return self.pricing.late(late, series.labels)

    def open_ids(self) -> KeysView[str]:
        """Return the ids of the requests in flight."""
        return self._in_flight.keys()

    def closed(self, request_id: str) -> None:
        """Take a request out of those in flight without counting it: one that was booked before."""
        series = self._in_flight.pop(request_id, None)
        if series is not None:
            series.leave()

    def observer_error(self, stage: str) -> None:
        """Count a fault caught in the collector. `stage` is a word from our own code."""
        self.store.counter(m.COLLECTOR_OBSERVER_ERRORS, (self.guard.internal("stage", stage),)).add()

    def tick(self, *, now_s: float) -> None:
        """Let go of what is idle. Every few seconds; `now_s` is CLOCK_MONOTONIC, as the relays' stamps are."""
        self.relays.tick(now_s)
        for series in self._series.values():
            self.guard.used(series.labels, now_s=series.used_s)
        retired = self.guard.retire(now_s=now_s, busy={each.labels for each in self._series.values() if each.in_flight})
        if retired.combinations:
            self.store.retire(m.REQUEST, retired.combinations)
            for labels in retired.combinations:
                self._series.pop(labels, None)
                self.phases.retired(labels)
        if retired.models:
            self.store.retire(("model",), {(model,) for model in retired.models})
        if retired.tenants:
            self.store.retire(("tenant",), {(tenant,) for tenant in retired.tenants})

    def _of(self, model: str, tenant: str, operation: str, *, now_s: float, count: bool) -> RequestSeries:
        """Return the series of a request with these names; `count`: count what is folded."""
        series = self._series.get((model, tenant, operation))  # a hit: these names were admitted as they are
        if series is None:
            labels = self.guard.labels(model, tenant, operation, now_s=now_s, count=count)
            series = self._series.get(labels)
            if series is None:
                series = self._series[labels] = RequestSeries(self.store, labels)
        series.used_s = now_s
        return series

    def _begin(self, series: RequestSeries) -> None:
        """Start at 0 what is known to be 0: then a ratio of outcomes has a value, and the first failure, or vote, is a
        growth.
        """
        for outcome in Outcome:
            self.store.counter(m.REQUESTS, (*series.labels, outcome.value))
        for error in ErrorType:
            if error is not ErrorType.NONE:
                self.store.counter(m.REQUEST_ERRORS, (series.labels.model, error.value))
        if self.votes:
            for thumb in Thumb:
                self.store.counter(m.FEEDBACK_VOTES, (series.labels.model, series.labels.tenant, thumb.value))

    def _exemplar(self, record: RequestRecord) -> tuple[str, float, str] | None:
        if not record.trace_id or not (record.trace_sampled if self.traced is None else self.traced(record)):
            return None
        return record.trace_id, record.wall_ns / 1e9 + record.duration_s, record.span_id

    def _count_latency(
        self, record: RequestRecord, series: RequestSeries, exemplar: tuple[str, float, str] | None
    ) -> None:
        histograms = series.histograms
        if record.outcome is _OK:
            histograms[m.REQUEST_DURATION.name].observe(record.duration_s, 1, exemplar)
        if record.ttft_s is not None:
            histograms[m.TIME_TO_FIRST_TOKEN.name].observe(record.ttft_s, 1, exemplar)
        elif record.first_token_missing:
            reason = self.guard.internal("reason", record.first_token_missing)
            series.counters[m.FIRST_TOKEN_MISSING.name, reason].add()
        if record.first_token is _REASONED and record.ttft_answer_s is not None:
            histograms[m.TIME_TO_FIRST_ANSWER_TOKEN.name].observe(record.ttft_answer_s, 1, exemplar)
        if record.stream:
            per_token_s = time_per_output_token(record)
            if per_token_s is not None:
                histograms[m.TIME_PER_OUTPUT_TOKEN.name].observe(per_token_s, 1, exemplar)

    def _count_tokens(self, record: RequestRecord, series: RequestSeries) -> None:
        counters, histograms = series.counters, series.histograms
        prompt, completion = record.prompt_tokens, record.completion_tokens
        if prompt is not None:
            counters[m.TOKENS.name, _PROMPT].add(prompt)
            counters[m.TOKENS_BY_SOURCE.name, record.token_source._value_, _PROMPT].add(prompt)
            histograms[m.REQUEST_PROMPT_TOKENS.name].observe(prompt)
        if record.cached_tokens is not None:
            counters[m.TOKENS.name, _CACHED].add(record.cached_tokens)
        if completion is not None:
            counters[m.TOKENS.name, _COMPLETION].add(completion)
            counters[m.TOKENS_BY_SOURCE.name, record.token_source._value_, _COMPLETION].add(completion)
            if record.outcome is _OK:
                histograms[m.REQUEST_COMPLETION_TOKENS.name].observe(completion)
            if completion and (waste := wasted(record)):
                counters[m.WASTED_TOKENS.name, waste].add(completion)
        if record.reasoning_tokens is not None:
            counters[m.TOKENS.name, _REASONING].add(record.reasoning_tokens)
        if record.outcome is _OK and record.token_source is _NO_SOURCE and series.labels.operation != OTHER:
            counters[m.REQUESTS_WITHOUT_USAGE.name,].add()

    def _folded(self, label: str) -> None:
        self.store.counter(m.CARDINALITY_FOLDED, (label,)).add()


def time_per_output_token(record: RequestRecord) -> float | None:
    """Return seconds per token after the first, or None if the record does not tell.

    Formula of OpenTelemetry's `gen_ai.server.time_per_output_token`: (duration - ttft) / (output tokens - 1), for
    successful requests. Choices are generated side by side, so with several of them it would be too small; an
    estimated count is a count of chunks, and makes it too large.
    """
    if record.outcome is not _OK or not record.stream or record.ttft_s is None or record.choices > 1:
        return None
    if record.completion_tokens is None or record.completion_tokens < 2:
        return None
    if record.token_source in (TokenSource.CHUNK_ESTIMATE, TokenSource.NONE) or record.duration_s < record.ttft_s:
        return None
    return (record.duration_s - record.ttft_s) / (record.completion_tokens - 1)


def wasted(record: RequestRecord) -> str:
    """Return why the completion tokens of `record` were of no use to anybody, or ""."""
    if record.outcome is not _OK:
        return record.outcome.value
    if not record.finish_reasons or not LENGTH_REASONS.issuperset(record.finish_reasons):
        return ""
    if record.stream:
        # With a part of the answer not seen, the first answer token may have been in that part.
        only_reasoned = record.first_token is TokenClass.REASONING and record.ttft_answer_s is None
        return "no_answer" if only_reasoned and not record.dropped_bytes else ""
    reasoning, completion = record.reasoning_tokens, record.completion_tokens
    return "no_answer" if reasoning is not None and completion is not None and 0 < completion <= reasoning else ""
