"""What happened, and what is counted of it: known values once, unknown ones not at all."""

from typing import Any

import pytest

from inferwatch.record import ErrorType, LateCount, Outcome, RequestRecord, TokenClass, TokenSource
from inferwatch.tap import Open, Stats
from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import CardinalityGuard, Limits
from inferwatch_collectors.metric_store import MetricStore, Row
from inferwatch_collectors.metrics import TABLE, Kind, Metric
from inferwatch_collectors.recorder import Recorder, time_per_output_token, wasted

LABELS = ("llama", "team-a", "chat")


def a_recorder(limits: Limits | None = None) -> Recorder:
    return Recorder(MetricStore(), CardinalityGuard(limits))


def an_open(request_id: str = "r1", **changes: Any) -> Open:
    fields: dict[str, Any] = {
        "id": 1,
        "request_id": request_id,
        "wall_ns": 1_700_000_000_000_000_000,
        "arrival_ns": 0,
        "sent_ns": 0,
        "method": "POST",
        "path": "/v1/chat/completions",
        "tenant": "team-a",
        "model": "llama",
        "stream": True,
        "asked_usage": False,
        "choices": 1,
        "headers": {},
        "body": b"",
        "body_bytes": 0,
    }
    return Open(**fields | changes)


def a_record(request_id: str = "r1", **changes: Any) -> RequestRecord:
    """A streamed request of which everything is known: 2 s, first token after 0.5 s, 4 tokens."""
    fields: dict[str, Any] = {
        "request_id": request_id,
        "wall_ns": 1_700_000_000_000_000_000,
        "tenant": "team-a",
        "model": "llama",
        "operation": "chat",
        "route": "chat",
        "method": "POST",
        "stream": True,
        "outcome": Outcome.OK,
        "status": 200,
        "prompt_tokens": 100,
        "cached_tokens": 64,
        "completion_tokens": 4,
        "reasoning_tokens": 0,
        "token_source": TokenSource.FINAL_USAGE,
        "choices": 1,
        "finish_reasons": ("stop",),
        "duration_s": 2.0,
        "ttft_s": 0.5,
        "ttft_answer_s": 0.5,
        "first_token": TokenClass.ANSWER,
    }
    return RequestRecord(**fields | changes)


def a_stats(stamp_s: float = 1.0, **changes: int) -> Stats:
    fields = dict.fromkeys(Stats.__struct_fields__, 0) | {"stamp_ns": int(stamp_s * 1e9)}
    return Stats(**fields | changes)


def counters(recorder: Recorder, metric: Metric) -> dict[tuple[str, ...], float]:
    """The counters of `metric` that are not 0."""
    values = {labels: recorder.store.counter(metric, labels).value for labels in recorder.store.series(metric)}
    return {labels: value for labels, value in values.items() if value}


def gauges(recorder: Recorder, metric: Metric) -> dict[tuple[str, ...], float | None]:
    return {labels: recorder.store.gauge(metric, labels).value for labels in recorder.store.series(metric)}


def histogram(recorder: Recorder, metric: Metric) -> dict[tuple[str, ...], tuple[int, float]]:
    """(count, sum) of each series of `metric`."""
    found = {labels: recorder.store.histogram(metric, labels) for labels in recorder.store.series(metric)}
    return {labels: (series.count, series.sum) for labels, series in found.items()}


# --- finished requests ---


def test_a_known_request_is_counted_in_full() -> None:
    """Outcome, duration, first token, time per token, tokens by type and source, and sizes."""
    recorder = a_recorder()
    recorder.finished(a_record(), now_s=0)
    assert counters(recorder, m.REQUESTS) == {(*LABELS, "ok"): 1}
    assert histogram(recorder, m.REQUEST_DURATION) == {LABELS: (1, 2.0)}
    assert histogram(recorder, m.TIME_TO_FIRST_TOKEN) == {LABELS: (1, 0.5)}
    assert histogram(recorder, m.TIME_PER_OUTPUT_TOKEN) == {LABELS: (1, 0.5)}
    assert counters(recorder, m.TOKENS) == {
        (*LABELS, "prompt"): 100,
        (*LABELS, "cached"): 64,
        (*LABELS, "completion"): 4,
    }
    assert counters(recorder, m.TOKENS_BY_SOURCE) == {
        ("llama", "final_usage", "prompt"): 100,
        ("llama", "final_usage", "completion"): 4,
    }
    assert histogram(recorder, m.REQUEST_PROMPT_TOKENS) == {LABELS: (1, 100)}
    assert histogram(recorder, m.REQUEST_COMPLETION_TOKENS) == {LABELS: (1, 4)}


def test_unknown_is_absent() -> None:
    """A request of which nothing is known but that it ended makes no series of tokens or latency."""
    recorder = a_recorder()
    unknown = dict.fromkeys(("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens", "ttft_s"))
    record = a_record(**unknown, outcome=Outcome.CLIENT_ABORT, token_source=TokenSource.NONE, first_token=None)
    recorder.finished(record, now_s=0)
    made = {family.metric.name for family in recorder.store.families() if family.children}
    assert made == {m.REQUESTS.name, m.CARDINALITY_FOLDED.name}


def test_a_late_count_is_counted_beside_its_request() -> None:
    """What became known of a request that was hung up on: tokens, where they come from, and that they were wasted."""
    recorder = a_recorder()
    unknown = dict.fromkeys(("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens"))
    record = a_record(**unknown, outcome=Outcome.CLIENT_ABORT, token_source=TokenSource.NONE)
    recorder.finished(record, now_s=0)
    late = LateCount(
        request_id="r1",
        wall_ns=record.wall_ns,
        tenant="team-a",
        model="llama",
        operation="chat",
        outcome=Outcome.CLIENT_ABORT,
        prompt_tokens=30,
        completion_tokens=7,
    )
    assert recorder.late(late, now_s=1) == late
    assert counters(recorder, m.REQUESTS) == {(*LABELS, "client_abort"): 1}
    assert counters(recorder, m.TOKENS) == {(*LABELS, "prompt"): 30, (*LABELS, "completion"): 7}
    assert counters(recorder, m.TOKENS_BY_SOURCE) == {
        ("llama", "engine_counters", "prompt"): 30,
        ("llama", "engine_counters", "completion"): 7,
    }
    assert counters(recorder, m.WASTED_TOKENS) == {(*LABELS, "client_abort"): 7}
    assert histogram(recorder, m.REQUEST_PROMPT_TOKENS) == {}


def test_a_known_zero_is_shown() -> None:
    """No cached tokens, said by the engine, is a value."""
    recorder = a_recorder()
    recorder.finished(a_record(cached_tokens=0), now_s=0)
    assert (*LABELS, "cached") in recorder.store.series(m.TOKENS)


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.OK])
def test_failures_count_but_not_as_service(outcome: Outcome) -> None:
    """They have an outcome, an error, a first token and tokens, but no duration, no length; their tokens are waste."""
    recorder = a_recorder()
    recorder.finished(a_record(outcome=outcome, error=ErrorType.UPSTREAM_RESET), now_s=0)
    assert counters(recorder, m.REQUESTS) == {(*LABELS, outcome.value): 1}
    assert counters(recorder, m.REQUEST_ERRORS) == {("llama", "upstream_reset"): 1}
    assert histogram(recorder, m.REQUEST_DURATION) == {}
    assert histogram(recorder, m.REQUEST_COMPLETION_TOKENS) == {}
    assert histogram(recorder, m.TIME_PER_OUTPUT_TOKEN) == {}
    assert histogram(recorder, m.TIME_TO_FIRST_TOKEN) == {LABELS: (1, 0.5)}
    assert counters(recorder, m.WASTED_TOKENS) == {(*LABELS, outcome.value): 4}
    assert counters(recorder, m.TOKENS)[*LABELS, "completion"] == 4


def test_time_to_first_answer_is_of_streams_that_reasoned() -> None:
    """A stream that answers at once is in the other family alone."""
    recorder = a_recorder()
    recorder.finished(a_record(), now_s=0)
    assert histogram(recorder, m.TIME_TO_FIRST_ANSWER_TOKEN) == {}
    recorder.finished(a_record(first_token=TokenClass.REASONING, ttft_answer_s=1.5), now_s=0)
    assert histogram(recorder, m.TIME_TO_FIRST_ANSWER_TOKEN) == {LABELS: (1, 1.5)}
    assert histogram(recorder, m.TIME_TO_FIRST_TOKEN) == {LABELS: (2, 1.0)}


def test_streams_without_a_first_token_are_counted_by_reason() -> None:
    """They are not observed as a latency of 0."""
    recorder = a_recorder()
    recorder.finished(a_record(ttft_s=None, first_token=None, first_token_missing="timeout"), now_s=0)
    assert counters(recorder, m.FIRST_TOKEN_MISSING) == {(*LABELS, "timeout"): 1}
    assert histogram(recorder, m.TIME_TO_FIRST_TOKEN) == {}


def test_requests_without_usage_are_counted() -> None:
    """Only where tokens could be expected: a good answer of an operation that has tokens."""
    recorder = a_recorder()
    nothing = {"prompt_tokens": None, "completion_tokens": None, "token_source": TokenSource.NONE}
    recorder.finished(a_record("1", **nothing), now_s=0)
    recorder.finished(a_record("2", **nothing, operation="other"), now_s=0)
    recorder.finished(a_record("3", **nothing, outcome=Outcome.UPSTREAM_ERROR), now_s=0)
    recorder.finished(a_record("4"), now_s=0)
    assert counters(recorder, m.REQUESTS_WITHOUT_USAGE) == {("llama", "chat"): 1}


def test_stalls_and_missing_copies_are_counted() -> None:
    """The client's slowness by tenant, incomplete copies by model and operation."""
    recorder = a_recorder()
    recorder.finished(a_record(stalled_s=1.25, dropped_bytes=10), now_s=0)
    recorder.finished(a_record(), now_s=0)
    assert counters(recorder, m.CLIENT_STALL) == {("team-a",): 1.25}
    assert counters(recorder, m.CONTENT_DROPPED) == {("llama", "chat"): 1}


def test_exemplars_name_the_trace() -> None:
    """With the Unix time at which the request ended; without a trace there is none."""
    recorder = a_recorder()
    recorder.finished(a_record(trace_id="ab" * 16, span_id="cd" * 8), now_s=0)
    recorder.finished(a_record(), now_s=0)
    recorder.finished(a_record(trace_id="ef" * 16, trace_sampled=False), now_s=0)  # nobody has that one
    (exemplar,) = recorder.store.histogram(m.TIME_TO_FIRST_TOKEN, LABELS).exemplars.values()
    assert exemplar == ("ab" * 16, 0.5, 1_700_000_002.0, "cd" * 8)


def test_exemplars_name_only_traces_that_are_exported() -> None:
    """On all histograms, those of the phases included."""
    recorder = a_recorder()
    recorder.traced = lambda record: record.trace_id.startswith("ab")
    for trace_id in ("ab" * 16, "cd" * 16):
        recorder.finished(a_record(trace_id=trace_id, sent_s=0.001), now_s=0)
    named = {
        exemplar.trace_id
        for metric in TABLE
        if metric.kind is Kind.HISTOGRAM
        for labels in recorder.store.series(metric)
        for exemplar in recorder.store.histogram(metric, labels).exemplars.values()
    }
    assert named == {"ab" * 16}
    assert any(
        recorder.store.histogram(m.REQUEST_PHASE, each).exemplars for each in recorder.store.series(m.REQUEST_PHASE)
    )


@pytest.mark.parametrize(
    ("changes", "expected_s"),
    [
        ({}, 0.5),
        ({"completion_tokens": 2}, 1.5),
        ({"token_source": TokenSource.CONTINUOUS_USAGE}, 0.5),
        ({"choices": 0}, 0.5),
        ({"completion_tokens": 1}, None),
        ({"completion_tokens": 0}, None),
        ({"completion_tokens": None}, None),
        ({"ttft_s": None}, None),
        ({"stream": False}, None),
        ({"choices": 2}, None),
        ({"token_source": TokenSource.CHUNK_ESTIMATE}, None),
        ({"outcome": Outcome.CLIENT_ABORT}, None),
        ({"ttft_s": 2.5}, None),
    ],
)
def test_time_per_output_token(changes: dict[str, Any], expected_s: float | None) -> None:
    """(duration - ttft) / (tokens - 1) where all of it is known and means what it says, else nothing."""
    assert time_per_output_token(a_record(**changes)) == expected_s


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"finish_reasons": ("length",)}, ""),
        ({"outcome": Outcome.CLIENT_ABORT}, "client_abort"),
        ({"outcome": Outcome.INTERRUPTED}, "interrupted"),
        ({"finish_reasons": ("length",), "first_token": TokenClass.REASONING, "ttft_answer_s": None}, "no_answer"),
        ({"finish_reasons": ("max_tokens",), "first_token": TokenClass.REASONING, "ttft_answer_s": None}, "no_answer"),
        ({"finish_reasons": ("stop",), "first_token": TokenClass.REASONING, "ttft_answer_s": None}, ""),
        ({"finish_reasons": ("length", "stop"), "first_token": TokenClass.REASONING, "ttft_answer_s": None}, ""),
        ({"finish_reasons": ("length",), "first_token": TokenClass.REASONING, "ttft_answer_s": 1.0}, ""),
        (
            {
                "finish_reasons": ("length",),
                "first_token": TokenClass.REASONING,
                "ttft_answer_s": None,
                "dropped_bytes": 9,
            },
            "",
        ),
        ({"finish_reasons": ("length",), "stream": False, "reasoning_tokens": 4}, "no_answer"),
        ({"finish_reasons": ("length",), "stream": False, "reasoning_tokens": 3}, ""),
        ({"finish_reasons": ("length",), "stream": False, "reasoning_tokens": None}, ""),
        ({"finish_reasons": ("length",), "stream": False, "reasoning_tokens": 0, "completion_tokens": 0}, ""),
    ],
)
def test_waste(changes: dict[str, Any], reason: str) -> None:
    """Answers that did not arrive in full, and answers that were all reasoning; a cut answer is still an answer."""
    assert wasted(a_record(**changes)) == reason


# --- live ---


def test_gaps_are_observed_per_token() -> None:
    """So many tokens with a gap of so many seconds each; none makes no observation."""
    recorder = a_recorder()
    labels = recorder.opened(an_open(), "chat", now_s=0)
    recorder.gaps(labels, [(0.02, 1), (0.02, 3), (0.0, 1), (0.5, 0)])
    assert histogram(recorder, m.INTER_TOKEN_LATENCY) == {LABELS: (5, pytest.approx(0.08))}
    assert recorder.store.histogram(m.INTER_TOKEN_LATENCY, LABELS).counts[m.ITL_BUCKETS.bounds.index(0.02)] == 4


def test_no_gaps_make_no_series() -> None:
    """A request without gaps, an embedding say, has no inter-token latency."""
    recorder = a_recorder()
    recorder.gaps(recorder.opened(an_open(), "chat", now_s=0), [])
    assert recorder.store.series(m.INTER_TOKEN_LATENCY) == []


def test_in_flight_follows_openings_and_ends() -> None:
    """Up with an opening, down with the end, 0 and not absent in between requests."""
    recorder = a_recorder()
    recorder.opened(an_open("r1"), "chat", now_s=0)
    recorder.opened(an_open("r2"), "chat", now_s=0)
    assert gauges(recorder, m.REQUESTS_IN_FLIGHT) == {LABELS: 2}
    recorder.finished(a_record("r1"), now_s=0)
    recorder.finished(a_record("r2", outcome=Outcome.INTERRUPTED), now_s=0)
    assert gauges(recorder, m.REQUESTS_IN_FLIGHT) == {LABELS: 0}


def test_an_opening_heard_twice_counts_once() -> None:
    """After a reconnect a relay tells its open requests again."""
    recorder = a_recorder()
    recorder.opened(an_open(), "chat", now_s=0)
    recorder.opened(an_open(resumed=True), "chat", now_s=1)
    assert gauges(recorder, m.REQUESTS_IN_FLIGHT) == {LABELS: 1}


def test_in_flight_cannot_go_below_zero() -> None:
    """Ends of requests that were never opened, or ended before, take nothing away."""
    recorder = a_recorder()
    recorder.opened(an_open(), "chat", now_s=0)
    recorder.closed("never heard of")
    recorder.finished(a_record(), now_s=0)
    recorder.closed("r1")
    assert gauges(recorder, m.REQUESTS_IN_FLIGHT) == {LABELS: 0}


def test_a_request_booked_before_is_closed_without_being_counted() -> None:
    """The collector crashed between the commit and the acknowledgement: the relay sends the request again."""
    recorder = a_recorder()
    recorder.opened(an_open(resumed=True), "chat", now_s=0)
    recorder.closed("r1")
    assert gauges(recorder, m.REQUESTS_IN_FLIGHT) == {LABELS: 0}
    assert counters(recorder, m.REQUESTS) == {}


def test_in_flight_is_taken_back_where_it_was_added() -> None:
    """Also when the record knows the model better than the opening did."""
    recorder = a_recorder()
    recorder.opened(an_open(model=""), "chat", now_s=0)
    recorder.finished(a_record(), now_s=0)
    assert gauges(recorder, m.REQUESTS_IN_FLIGHT) == {("unknown", "team-a", "chat"): 0}


def test_outcomes_and_errors_start_at_zero() -> None:
    """With the first request of its labels: a first failure is then a growth, and a ratio has a value."""
    recorder = a_recorder()
    recorder.opened(an_open(), "chat", now_s=0)
    assert recorder.store.series(m.REQUESTS) == [(*LABELS, outcome.value) for outcome in Outcome]
    assert ("llama", "internal") in recorder.store.series(m.REQUEST_ERRORS)
    assert counters(recorder, m.REQUESTS) == counters(recorder, m.REQUEST_ERRORS) == {}


def test_faults_of_the_collector_are_counted_by_stage() -> None:
    """And cannot fill the memory, whatever the stage is called."""
    recorder = a_recorder()
    for n in range(100):
        recorder.observer_error(f"stage-{n % 50}")
    stages = counters(recorder, m.COLLECTOR_OBSERVER_ERRORS)
    assert len(stages) == 33
    assert sum(stages.values()) == 100


# --- bounds ---


def test_folded_requests_are_counted_once() -> None:
    """Opening, gaps and end of a request are one folding, and the sum over all labels stays right."""
    recorder = a_recorder(Limits(models=1))
    for n in range(3):
        labels = recorder.opened(an_open(f"r{n}", model=f"m{n}"), "chat", now_s=0)
        recorder.gaps(labels, [(0.1, 1)])
        recorder.finished(a_record(f"r{n}", model=f"m{n}"), now_s=0)
    assert counters(recorder, m.CARDINALITY_FOLDED) == {("model",): 2}
    assert counters(recorder, m.REQUESTS) == {
        ("m0", "team-a", "chat", "ok"): 1,
        ("other", "team-a", "chat", "ok"): 2,
    }


def test_votes_start_at_zero_where_users_may_vote() -> None:
    """So the first one, a while after the first request, is a growth. Where nobody may, there is nothing to show."""
    recorder = a_recorder()
    recorder.opened(an_open(), "chat", now_s=0.0)
    assert recorder.store.series(m.FEEDBACK_VOTES) == []
    recorder = a_recorder()
    recorder.votes = True
    recorder.opened(an_open(), "chat", now_s=0.0)
    recorder.opened(an_open("r2"), "chat", now_s=0.0)
    assert sorted(recorder.store.series(m.FEEDBACK_VOTES)) == [
        ("llama", "team-a", thumb) for thumb in ("down", "none", "up")
    ]
    assert counters(recorder, m.FEEDBACK_VOTES) == {}


def test_foldings_start_at_zero() -> None:
    """That nothing was folded is known from the start."""
    assert set(a_recorder().store.series(m.CARDINALITY_FOLDED)) == {
        ("model",),
        ("tenant",),
        ("operation",),
        ("combination",),
    }


def test_idle_series_are_retired_everywhere() -> None:
    """Request-level families, and those of the model or tenant alone once nobody uses it; `other` parties stay."""
    recorder = a_recorder(Limits(idle_s=100))
    for tenant, model, now_s in (("team-a", "llama", 0), ("team-b", "qwen", 90)):
        recorder.opened(an_open(tenant, tenant=tenant, model=model), "chat", now_s=now_s)
        recorder.finished(a_record(tenant, tenant=tenant, model=model, stalled_s=1.0), now_s=now_s)
    recorder.tick(now_s=120)
    left = {
        value
        for family in recorder.store.families()
        for labels in family.children
        for name, value in zip(family.metric.labels, labels, strict=True)
        if name in ("model", "tenant")
    }
    assert left == {"qwen", "team-b"}


def test_open_requests_are_not_retired() -> None:
    """A stream that outlasts the idle time keeps its series, and its gauge comes down in the end."""
    recorder = a_recorder(Limits(idle_s=100))
    recorder.opened(an_open(), "chat", now_s=0)
    recorder.tick(now_s=1000)
    assert gauges(recorder, m.REQUESTS_IN_FLIGHT) == {LABELS: 1}
    recorder.finished(a_record(), now_s=1000)
    assert gauges(recorder, m.REQUESTS_IN_FLIGHT) == {LABELS: 0}


def test_retired_labels_that_return_start_anew() -> None:
    """From 0, with all outcomes, as if never seen."""
    recorder = a_recorder(Limits(idle_s=100))
    recorder.opened(an_open(), "chat", now_s=0)
    recorder.finished(a_record(), now_s=0)
    recorder.tick(now_s=200)
    recorder.opened(an_open("r2"), "chat", now_s=200)
    recorder.finished(a_record("r2"), now_s=200)
    assert counters(recorder, m.REQUESTS) == {(*LABELS, "ok"): 1}
    assert gauges(recorder, m.REQUESTS_IN_FLIGHT) == {LABELS: 0}


# --- restarts ---


def reborn(recorder: Recorder, rows: list[Row] | None = None, limits: Limits | None = None) -> Recorder:
    """A new collector with what the old one has written down."""
    after = a_recorder(limits)
    after.restore(recorder.store.take_dirty() if rows is None else rows, now_s=1000)
    return after


def test_counters_continue_after_a_crash_and_gauges_do_not() -> None:
    """Finished requests are there; what was in flight is known again when the relays have told."""
    before = a_recorder()
    before.opened(an_open("r0"), "chat", now_s=0)
    before.finished(a_record(), now_s=0)
    after = reborn(before)
    for family in after.store.families():
        if family.metric.kind is Kind.COUNTER:
            assert counters(after, family.metric) == counters(before, family.metric)
        elif family.metric.kind is Kind.HISTOGRAM:
            assert histogram(after, family.metric) == histogram(before, family.metric)
        else:
            assert family.children == {}


def test_restored_series_count_against_the_limits() -> None:
    """A crash loop with ever new names must not add up."""
    limits = Limits(models=1)
    before = a_recorder(limits)
    before.finished(a_record(), now_s=0)
    after = reborn(before, limits=limits)
    assert after.opened(an_open(model="new"), "chat", now_s=1000).model == "other"


def test_restored_series_can_be_retired() -> None:
    """Those that nobody uses any more go a day after the restart."""
    limits = Limits(idle_s=100)
    before = a_recorder(limits)
    before.finished(a_record(), now_s=0)
    after = reborn(before, limits=limits)
    after.tick(now_s=1200)
    assert after.store.series(m.REQUESTS) == []


# --- relays ---


def test_growth_since_the_last_report_is_added() -> None:
    """Sums since the relay's start become counters."""
    recorder = a_recorder()
    recorder.relays.stats(0, "boot-1", a_stats(1, cpu_ns=2_500_000_000, tap_dropped_bytes=100))
    recorder.relays.stats(0, "boot-1", a_stats(2, cpu_ns=3_000_000_000, tap_dropped_bytes=100))
    recorder.relays.stats(1, "boot-2", a_stats(2, cpu_ns=1_000_000_000))
    assert counters(recorder, m.RELAY_CPU) == {("0",): 3.0, ("1",): 1.0}
    assert counters(recorder, m.TAP_DROPPED_BYTES) == {("0",): 100}


def test_a_relay_that_restarts_goes_on() -> None:
    """Its sums begin at 0 again; the counters only grow, and the restart is counted."""
    recorder = a_recorder()
    recorder.relays.stats(0, "boot-1", a_stats(1, upstream_connects=10))
    recorder.relays.stats(0, "boot-2", a_stats(2, upstream_connects=3))
    assert counters(recorder, m.RELAY_UPSTREAM_CONNECTS) == {("0",): 13}
    assert counters(recorder, m.RELAY_RESTARTS) == {("0",): 1}


def test_a_collector_that_restarts_counts_nothing_twice() -> None:
    """The relay lives on, and its sums with it: only what grew in between is added."""
    before = a_recorder()
    before.relays.stats(0, "boot-1", a_stats(1, upstream_connects=10))
    after = reborn(before)
    after.relays.stats(0, "boot-1", a_stats(2, upstream_connects=12))
    assert counters(after, m.RELAY_UPSTREAM_CONNECTS) == {("0",): 12}
    assert counters(after, m.RELAY_RESTARTS) == {}


def test_a_lost_commit_loses_baseline_and_counter_together() -> None:
    """What the crash forgets is added again from the relay's own sums."""
    before = a_recorder()
    before.relays.stats(0, "boot-1", a_stats(1, upstream_connects=10))
    committed = before.store.take_dirty()
    before.relays.stats(0, "boot-1", a_stats(2, upstream_connects=15))
    after = reborn(before, committed)
    after.relays.stats(0, "boot-1", a_stats(3, upstream_connects=16))
    assert counters(after, m.RELAY_UPSTREAM_CONNECTS) == {("0",): 16}


def test_requests_that_passed_budgets_without_the_lock_are_counted() -> None:
    """Of all relays together, since it is a reason among others; nothing is shown where there was none."""
    recorder = a_recorder()
    recorder.relays.stats(0, "boot-1", a_stats(1))
    assert counters(recorder, m.BUDGET_UNCHECKED) == {}
    recorder.relays.stats(0, "boot-1", a_stats(2, budget_unsure=3))
    recorder.relays.stats(0, "boot-1", a_stats(3, budget_unsure=4))
    recorder.relays.stats(1, "boot-2", a_stats(3, budget_unsure=2))
    assert counters(recorder, m.BUDGET_UNCHECKED) == {("lock",): 6}


def test_an_old_report_takes_nothing_away() -> None:
    """Sent again after a reconnect: neither counters nor gauges go back."""
    recorder = a_recorder()
    recorder.relays.stats(0, "boot-1", a_stats(5, upstream_connects=10, open_requests=7))
    recorder.relays.stats(0, "boot-1", a_stats(4, upstream_connects=8, open_requests=3))
    recorder.relays.stats(0, "boot-1", a_stats(6, upstream_connects=11, open_requests=7))
    assert counters(recorder, m.RELAY_UPSTREAM_CONNECTS) == {("0",): 11}
    assert gauges(recorder, m.RELAY_OPEN_REQUESTS) == {("0",): 7}


def test_an_unreadable_baseline_does_not_stop_the_start() -> None:
    """The sums of that worker are counted anew; everything else is as it was."""
    before = a_recorder()
    before.store.memo("relay_baseline", ("0",)).set(b"\xc1")
    before.finished(a_record(), now_s=0)
    after = reborn(before)
    after.relays.stats(0, "boot-1", a_stats(1, upstream_connects=2))
    assert counters(after, m.RELAY_UPSTREAM_CONNECTS) == {("0",): 2}
    assert counters(after, m.REQUESTS) == {(*LABELS, "ok"): 1}


def test_what_must_stay_zero_is_shown_as_zero() -> None:
    """A relay that has reported is known to have lost nothing."""
    recorder = a_recorder()
    recorder.relays.stats(0, "boot-1", a_stats())
    assert recorder.store.series(m.TAP_LOST) == [("0",)]
    assert counters(recorder, m.TAP_LOST) == {}


def test_two_processes_in_one_place_are_added() -> None:
    """While a worker drains, its successor takes new requests: open are those of both."""
    recorder = a_recorder()
    recorder.relays.stats(0, "old", a_stats(1, open_requests=2, loop_lag_max_ns=5_000_000))
    recorder.relays.stats(0, "new", a_stats(1, open_requests=3, loop_lag_max_ns=1_000_000))
    assert gauges(recorder, m.RELAY_OPEN_REQUESTS) == {("0",): 5}
    assert gauges(recorder, m.RELAY_LOOP_LAG) == {("0",): 0.005}
    recorder.relays.gone(0, "old")
    assert gauges(recorder, m.RELAY_OPEN_REQUESTS) == {("0",): 3}


def test_gauges_of_a_relay_that_is_gone_are_absent() -> None:
    """Not 0, and not the last reading."""
    recorder = a_recorder()
    recorder.relays.stats(0, "boot-1", a_stats(1, open_requests=2))
    recorder.relays.gone(0, "boot-1")
    assert gauges(recorder, m.RELAY_OPEN_REQUESTS) == {("0",): None}
    assert gauges(recorder, m.RELAY_LOOP_LAG) == {("0",): None}
    recorder.relays.gone(7, "never seen")


def test_gauges_of_a_silent_relay_are_absent() -> None:
    """Ten seconds without a report: a hanging relay's state is not known, and known again when it speaks."""
    recorder = a_recorder()
    recorder.relays.stats(0, "boot-1", a_stats(1, open_requests=2))
    recorder.tick(now_s=11.0)
    assert gauges(recorder, m.RELAY_OPEN_REQUESTS) == {("0",): 2}
    recorder.tick(now_s=11.1)
    assert gauges(recorder, m.RELAY_OPEN_REQUESTS) == {("0",): None}
    recorder.relays.stats(0, "boot-1", a_stats(12, open_requests=4))
    assert gauges(recorder, m.RELAY_OPEN_REQUESTS) == {("0",): 4}


def test_lag_is_the_worst_of_thirty_seconds() -> None:
    """A peak is seen by the next two scrapes, and then forgotten."""
    recorder = a_recorder()
    recorder.relays.stats(0, "boot-1", a_stats(1, loop_lag_max_ns=80_000_000))
    for second in range(2, 32):
        recorder.relays.stats(0, "boot-1", a_stats(second, loop_lag_max_ns=1_000_000))
    assert gauges(recorder, m.RELAY_LOOP_LAG) == {("0",): 0.08}
    recorder.relays.stats(0, "boot-1", a_stats(32, loop_lag_max_ns=2_000_000))
    assert gauges(recorder, m.RELAY_LOOP_LAG) == {("0",): 0.002}


def test_lives_of_a_relay_are_bounded() -> None:
    """A relay in a crash loop does not fill the memory, and each of its lives is counted."""
    recorder = a_recorder()
    for n in range(50):
        recorder.relays.stats(0, f"boot-{n}", a_stats(n, upstream_connects=1))
        recorder.relays.gone(0, f"boot-{n}")
    (memo,) = recorder.store.memos("relay_baseline")
    assert len(memo.data) < 4096
    assert counters(recorder, m.RELAY_UPSTREAM_CONNECTS) == {("0",): 50}
    assert counters(recorder, m.RELAY_RESTARTS) == {("0",): 49}
