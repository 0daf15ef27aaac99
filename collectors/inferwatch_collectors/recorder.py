"""From what happened to what is counted. Pure: no clock, no I/O; whoever calls says when it is.

When something is counted:
* `finished` is called once per request, after the ledger has told that it does not know the request's id; its effects
  are committed with the record (see `metric_store`). So everything about finished requests is counted exactly once.
* `gaps` is called live, while answers stream: a dashboard that shows a stall after the request has ended is no use to
  somebody on call. Gaps may be lost or seen twice when the collector crashes.
* Requests in flight are a set of ids, not an up-and-down counter: hearing of the same opening twice, as after a
  reconnect, changes nothing, and the number cannot go below 0.
* A relay reports sums since its own start. What is added is the growth since its last report, per life of a process
  ("boot"), and the last report is kept with the counters: neither side's restart counts anything twice.

A value that is not known is not counted: None adds nothing and creates no series.
"""

from collections import Counter as Tally
from collections import deque
from collections.abc import Iterable
from typing import Final

import msgspec

from inferwatch.record import ErrorType, Outcome, RequestRecord, TokenClass, TokenSource
from inferwatch.tap import Open, Stats
from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import COMBINATION, OTHER, CardinalityGuard, RequestLabels
from inferwatch_collectors.metric_store import Memo, MetricStore, Restored, Row
from inferwatch_collectors.metrics import TokenType

# The engines' and APIs' words for "the length limit was reached".
LENGTH_REASONS: Final = frozenset({"length", "max_tokens", "max_output_tokens"})


class Recorder:
    """Keeps the values of the table from what the collector reports."""

    def __init__(self, store: MetricStore, guard: CardinalityGuard) -> None:
        """`guard` reports its foldings to this recorder from now on."""
        self.store = store
        self.guard = guard
        self.relays = RelayRecorder(store)
        guard.on_fold = self._folded
        self._in_flight: dict[str, RequestLabels] = {}
        self._in_flight_by_labels: Tally[RequestLabels] = Tally()
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
        labels = self.guard.labels(opened.model, opened.tenant, operation, now_s=now_s)
        before = self._in_flight.get(opened.request_id)
        if before is not None:
            return before
        self._in_flight[opened.request_id] = labels
        if labels not in self._in_flight_by_labels:
            self._begin(labels)
        self._in_flight_by_labels[labels] += 1
        self._show_in_flight(labels)
        return labels

    def gaps(self, labels: RequestLabels, gaps: Iterable[tuple[float, int]]) -> None:
        """Observe (gap_s, tokens): so many tokens had a gap of `gap_s` seconds each to the one before."""
        histogram = None
        for gap_s, tokens in gaps:
            if tokens > 0:
                histogram = histogram or self.store.histogram(m.INTER_TOKEN_LATENCY, labels)
                histogram.observe(gap_s, tokens)

    def finished(self, record: RequestRecord, *, now_s: float) -> None:
        """Count a request that the ledger did not know."""
        self.closed(record.request_id)
        labels = self.guard.labels(record.model, record.tenant, record.operation, now_s=now_s, count=True)
        self.store.counter(m.REQUESTS, (*labels, record.outcome.value)).add()
        if record.error is not ErrorType.NONE:
            self.store.counter(m.REQUEST_ERRORS, (labels.model, record.error.value)).add()
        if record.stalled_s > 0:
            self.store.counter(m.CLIENT_STALL, (labels.tenant,)).add(record.stalled_s)
        if record.dropped_bytes:
            self.store.counter(m.CONTENT_DROPPED, (labels.model, labels.operation)).add()
        self._count_latency(record, labels)
        self._count_tokens(record, labels)

    def closed(self, request_id: str) -> None:
        """Take a request out of those in flight without counting it: one that was booked before."""
        labels = self._in_flight.pop(request_id, None)
        if labels is not None:
            self._in_flight_by_labels[labels] -= 1
            self._show_in_flight(labels)

    def observer_error(self, stage: str) -> None:
        """Count a fault caught in the collector. `stage` is a word from our own code."""
        self.store.counter(m.COLLECTOR_OBSERVER_ERRORS, (self.guard.internal("stage", stage),)).add()

    def tick(self, *, now_s: float) -> None:
        """Let go of what is idle. Every few seconds; `now_s` is CLOCK_MONOTONIC, as the relays' stamps are."""
        self.relays.tick(now_s)
        retired = self.guard.retire(now_s=now_s, busy=set(self._in_flight.values()))
        if retired.combinations:
            self.store.retire(m.REQUEST, retired.combinations)
            for labels in retired.combinations:
                del self._in_flight_by_labels[labels]
        if retired.models:
            self.store.retire(("model",), {(model,) for model in retired.models})
        if retired.tenants:
            self.store.retire(("tenant",), {(tenant,) for tenant in retired.tenants})

    def _begin(self, labels: RequestLabels) -> None:
        """Start at 0 what is known to be 0: then a ratio of outcomes has a value, and the first failure is a growth."""
        for outcome in Outcome:
            self.store.counter(m.REQUESTS, (*labels, outcome.value))
        for error in ErrorType:
            if error is not ErrorType.NONE:
                self.store.counter(m.REQUEST_ERRORS, (labels.model, error.value))

    def _show_in_flight(self, labels: RequestLabels) -> None:
        self.store.gauge(m.REQUESTS_IN_FLIGHT, labels).set(self._in_flight_by_labels[labels])

    def _count_latency(self, record: RequestRecord, labels: RequestLabels) -> None:
        exemplar = (record.trace_id, record.wall_ns / 1e9 + record.duration_s) if record.trace_id else None
        if record.outcome is Outcome.OK:
            self.store.histogram(m.REQUEST_DURATION, labels).observe(record.duration_s, 1, exemplar)
        if record.ttft_s is not None:
            self.store.histogram(m.TIME_TO_FIRST_TOKEN, labels).observe(record.ttft_s, 1, exemplar)
        elif record.first_token_missing:
            reason = self.guard.internal("reason", record.first_token_missing)
            self.store.counter(m.FIRST_TOKEN_MISSING, (*labels, reason)).add()
        if record.first_token is TokenClass.REASONING and record.ttft_answer_s is not None:
            self.store.histogram(m.TIME_TO_FIRST_ANSWER_TOKEN, labels).observe(record.ttft_answer_s, 1, exemplar)
        per_token_s = time_per_output_token(record)
        if per_token_s is not None:
            self.store.histogram(m.TIME_PER_OUTPUT_TOKEN, labels).observe(per_token_s, 1, exemplar)

    def _count_tokens(self, record: RequestRecord, labels: RequestLabels) -> None:
        store = self.store
        source = record.token_source.value
        for token_type, tokens in (
            (TokenType.PROMPT, record.prompt_tokens),
            (TokenType.CACHED, record.cached_tokens),
            (TokenType.COMPLETION, record.completion_tokens),
            (TokenType.REASONING, record.reasoning_tokens),
        ):
            if tokens is None:
                continue
            store.counter(m.TOKENS, (*labels, token_type.value)).add(tokens)
            if token_type in (TokenType.PROMPT, TokenType.COMPLETION):
                store.counter(m.TOKENS_BY_SOURCE, (labels.model, source, token_type.value)).add(tokens)
        if record.prompt_tokens is not None:
            store.histogram(m.REQUEST_PROMPT_TOKENS, labels).observe(record.prompt_tokens)
        if record.completion_tokens is not None and record.outcome is Outcome.OK:
            store.histogram(m.REQUEST_COMPLETION_TOKENS, labels).observe(record.completion_tokens)
        if record.completion_tokens and (waste := wasted(record)):
            store.counter(m.WASTED_TOKENS, (*labels, waste)).add(record.completion_tokens)
        if record.outcome is Outcome.OK and record.token_source is TokenSource.NONE and labels.operation != OTHER:
            store.counter(m.REQUESTS_WITHOUT_USAGE, (labels.model, labels.operation)).add()

    def _folded(self, label: str) -> None:
        self.store.counter(m.CARDINALITY_FOLDED, (label,)).add()


def time_per_output_token(record: RequestRecord) -> float | None:
    """Return seconds per token after the first, or None if the record does not tell.

    Formula of OpenTelemetry's `gen_ai.server.time_per_output_token`: (duration - ttft) / (output tokens - 1), for
    successful requests. Choices are generated side by side, so with several of them it would be too small; an
    estimated count is a count of chunks, and makes it too large.
    """
    if record.outcome is not Outcome.OK or not record.stream or record.ttft_s is None or record.choices > 1:
        return None
    if record.completion_tokens is None or record.completion_tokens < 2:
        return None
    if record.token_source in (TokenSource.CHUNK_ESTIMATE, TokenSource.NONE) or record.duration_s < record.ttft_s:
        return None
    return (record.duration_s - record.ttft_s) / (record.completion_tokens - 1)


def wasted(record: RequestRecord) -> str:
    """Return why the completion tokens of `record` were of no use to anybody, or ""."""
    if record.outcome is not Outcome.OK:
        return record.outcome.value
    if not record.finish_reasons or not LENGTH_REASONS.issuperset(record.finish_reasons):
        return ""
    if record.stream:
        # With a part of the answer not seen, the first answer token may have been in that part.
        only_reasoned = record.first_token is TokenClass.REASONING and record.ttft_answer_s is None
        return "no_answer" if only_reasoned and not record.dropped_bytes else ""
    reasoning, completion = record.reasoning_tokens, record.completion_tokens
    return "no_answer" if reasoning is not None and completion is not None and 0 < completion <= reasoning else ""


# --- relays -----------------------------------------------------------------------------------------------------------

# A relay reports once a second; after ten missing reports its gauges are no longer known.
RELAY_SILENT_S: Final = 10.0

# Two of the usual scrapes of 15 s: each peak is in at least one of them.
LAG_WINDOW_S: Final = 30.0

# Lives remembered per worker. Two overlap during a replacement; the rest is margin for late reports.
MAX_BOOTS: Final = 8

BASELINE: Final = "relay_baseline"

NS_PER_S: Final = 1_000_000_000

# (field of Stats, counter, divisor)
_GROWING: Final = (
    ("cpu_ns", m.RELAY_CPU, NS_PER_S),
    ("upstream_connects", m.RELAY_UPSTREAM_CONNECTS, 1),
    ("upstream_connect_errors", m.RELAY_UPSTREAM_CONNECT_ERRORS, 1),
    ("upstream_retries", m.RELAY_UPSTREAM_RETRIES, 1),
    ("tap_dropped_bytes", m.TAP_DROPPED_BYTES, 1),
    ("tap_dropped_reads", m.TAP_DROPPED_READS, 1),
    ("tap_spooled", m.TAP_SPOOLED, 1),
    ("tap_lost", m.TAP_LOST, 1),
    ("observer_errors", m.RELAY_OBSERVER_ERRORS, 1),
)

# (field of Stats, gauge): summed over the processes that share a worker's place while one replaces the other.
_PRESENT: Final = (
    ("open_requests", m.RELAY_OPEN_REQUESTS),
    ("client_connections", m.RELAY_CLIENT_CONNECTIONS),
    ("upstream_idle", m.RELAY_UPSTREAM_IDLE),
    ("tap_pending_bytes", m.TAP_PENDING),
)

_encode: Final = msgspec.msgpack.Encoder().encode
# {boot: {field of Stats: value}}, oldest boot first. By name: a later version may count more.
_Baselines = dict[str, dict[str, int]]
_decode: Final = msgspec.msgpack.Decoder(_Baselines).decode


class _Life:
    """One relay process that reports at present."""

    def __init__(self) -> None:
        self.seen_s = 0.0
        self.last: Stats | None = None
        self.lags: deque[tuple[float, float]] = deque()  # (when, lag), both in seconds, within LAG_WINDOW_S


class RelayRecorder:
    """The relays about themselves."""

    def __init__(self, store: MetricStore) -> None:
        self._store = store
        self._baselines: dict[int, _Baselines] = {}
        self._alive: dict[int, dict[str, _Life]] = {}

    def resume(self) -> None:
        """Take up the last reports known to an earlier life of the collector, from the restored store."""
        for memo in self._store.memos(BASELINE):
            try:
                self._baselines[int(memo.labels[0])] = _decode(memo.data)
            except (msgspec.DecodeError, ValueError):
                # Then this worker's sums since its start are counted anew: a wrong rate once, rather than no start.
                memo.set(b"")

    def stats(self, worker: int, boot: str, stats: Stats) -> None:
        """Take one report of the process `boot` in the place `worker`."""
        boots = self._baselines.setdefault(worker, {})
        label = (str(worker),)
        restarts = self._store.counter(m.RELAY_RESTARTS, label)
        if boot not in boots:
            restarts.add(1 if boots else 0)
            boots[boot] = {}
            while len(boots) > MAX_BOOTS:
                del boots[next(iter(boots))]
        baseline = boots[boot]
        for field, metric, divisor in _GROWING:
            now: int = getattr(stats, field)
            growth = max(0, now - baseline.get(field, 0))  # a report sent again, after a reconnect, has none
            self._store.counter(metric, label).add(growth if divisor == 1 else growth / divisor)
            baseline[field] = max(now, baseline.get(field, 0))
        self._memo(worker).set(_encode(boots))
        self._report(worker, boot, stats)

    def gone(self, worker: int, boot: str) -> None:
        """The connection of this process has ended: what it holds at present is not known any more."""
        if self._alive.get(worker, {}).pop(boot, None) is not None:
            self._show(worker)

    def tick(self, now_s: float) -> None:
        """Forget the present state of processes that have been silent for RELAY_SILENT_S."""
        for worker, lives in self._alive.items():
            silent = [boot for boot, life in lives.items() if now_s - life.seen_s > RELAY_SILENT_S]
            for boot in silent:
                del lives[boot]
            if silent:
                self._show(worker)

    def _report(self, worker: int, boot: str, stats: Stats) -> None:
        life = self._alive.setdefault(worker, {}).setdefault(boot, _Life())
        now_s = stats.stamp_ns / NS_PER_S
        if now_s < life.seen_s:
            return
        life.seen_s, life.last = now_s, stats
        life.lags.append((now_s, stats.loop_lag_max_ns / NS_PER_S))
        while life.lags[0][0] < now_s - LAG_WINDOW_S:
            life.lags.popleft()
        self._show(worker)

    def _show(self, worker: int) -> None:
        lives = [life for life in self._alive[worker].values() if life.last is not None]
        label = (str(worker),)
        for field, metric in _PRESENT:
            values: list[int] = [getattr(life.last, field) for life in lives]
            self._store.gauge(metric, label).set(sum(values) if values else None)
        lags_s = [lag_s for life in lives for _, lag_s in life.lags]
        self._store.gauge(m.RELAY_LOOP_LAG, label).set(max(lags_s, default=None))

    def _memo(self, worker: int) -> Memo:
        return self._store.memo(BASELINE, (str(worker),))
