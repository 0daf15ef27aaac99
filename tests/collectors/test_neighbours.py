"""Whose long prompt was in prefill while others waited: by overlap, shared by size, bounded."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.record import Outcome, RequestRecord
from inferwatch.tap import Batch, Open
from inferwatch_collectors import metrics as m
from inferwatch_collectors.booking import Booking
from inferwatch_collectors.cardinality import CardinalityGuard
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.neighbours import (
    BYTES_PER_TOKEN,
    HEAVY_TOKENS,
    MAX_ENDED,
    MAX_SUSPECTS,
    MAX_UNDER_WAY,
    Blocked,
    Neighbours,
    Prompt,
    Span,
    divide,
    noted,
    stalled,
)
from inferwatch_collectors.open_requests import Link
from inferwatch_collectors.recorder import Recorder

MS = 1_000_000
S = 1_000_000_000
T0 = 1_000 * S


def opened(name: str, sent_ms: int, tokens: int = 10, **changes: Any) -> Open:
    """A request that was sent `sent_ms` after T0; its body has the bytes of `tokens` tokens."""
    fields: dict[str, Any] = {
        "id": 1, "request_id": name, "wall_ns": 5, "arrival_ns": T0 + sent_ms * MS, "sent_ns": T0 + sent_ms * MS,
        "method": "POST", "path": "/v1/chat/completions", "tenant": f"tenant-{name}", "model": "qwen", "stream": True,
        "asked_usage": True, "choices": 1, "headers": {}, "body": b"", "body_bytes": tokens * BYTES_PER_TOKEN,
    }  # fmt: skip
    return Open(**fields | changes)


def record(request: Open, duration_ms: int = 1_000, **changes: Any) -> RequestRecord:
    fields: dict[str, Any] = {
        "request_id": request.request_id, "wall_ns": 5, "tenant": request.tenant, "model": "qwen",
        "operation": "chat", "route": "/v1/chat/completions", "method": "POST", "stream": request.stream,
        "outcome": Outcome.OK, "status": 200, "duration_s": duration_ms / 1e3, "sent_s": 0.0,
    }  # fmt: skip
    return RequestRecord(**fields | changes)


class Scene:
    """Requests of one engine, told to `Neighbours` as a booking tells them."""

    def __init__(self) -> None:
        self.neighbours = Neighbours()
        self.prompts: dict[str, Prompt | None] = {}

    def open(self, request: Open) -> Open:
        self.prompts[request.request_id] = self.neighbours.opened(request, request.tenant)
        return request

    def first_token(self, request: Open, at_ms: int, tokens: int | None = None, cached: int | None = None) -> None:
        prompt = self.prompts[request.request_id]
        assert prompt is not None
        self.neighbours.first_token(prompt, T0 + at_ms * MS, tokens, cached)

    def close(self, request: Open, gap: tuple[int, int] | None = None, **changes: Any) -> Blocked | None:
        window = None if gap is None else (T0 + gap[0] * MS, T0 + gap[1] * MS)
        return self.neighbours.account(
            request, self.prompts[request.request_id], record(request, **changes), window
        )  # fmt: skip


def told(blocked: Blocked | None) -> tuple[float, dict[str, float]]:
    """Milliseconds in all, and by culprit."""
    assert blocked is not None
    shares = {prompt.request_id: round(share_ns / MS, 3) for prompt, share_ns in blocked.shares_ns.items()}
    return blocked.total_ns / MS, shares


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- who is named


def test_a_long_prompt_in_front_is_named(scene: Scene) -> None:
    """From when the small one was sent until the long one's first token, the long one stood in front."""
    long, small = scene.open(opened("long", 0, 100_000)), scene.open(opened("small", 200))
    scene.first_token(long, 900, 100_000)
    blocked = scene.close(small, ttft_s=0.750)
    assert told(blocked) == (700, {"long": 700})
    assert blocked is not None
    noted_record = noted(record(small), blocked)
    assert (noted_record.blocked_s, noted_record.blocked_by) == (0.7, "long")
    assert (noted_record.blocked_by_tenant, noted_record.blocked_by_tokens) == ("tenant-long", 100_000)


def test_a_prompt_still_in_prefill_is_named(scene: Scene) -> None:
    """Also by those who give up before it is done: all that they waited was behind it."""
    scene.open(opened("long", 0, 100_000))
    small = scene.open(opened("small", 200))
    blocked = scene.close(small, duration_ms=300, outcome=Outcome.CLIENT_ABORT, first_token_missing="client_abort")
    assert told(blocked) == (300, {"long": 300})


def test_nobody_in_front_is_known_to_be_nobody(scene: Scene) -> None:
    """A wait that overlaps with no long prompt was held up for 0 s, which is not the same as not known."""
    small = scene.open(opened("small", 200))
    blocked = scene.close(small, ttft_s=0.05)
    assert told(blocked) == (0, {})
    assert blocked is not None
    assert noted(record(small), blocked).blocked_s == 0.0


@pytest.mark.parametrize(
    "fields",
    [{"stream": False}, {"first_token_missing": "tap_gap"}, {"first_token_missing": "unreadable"}],
    ids=str,
)
def test_a_wait_of_unknown_length_is_not_judged(scene: Scene, fields: dict[str, Any]) -> None:
    """A plain reply comes all at once, and a first token may have been missed: nothing is said of these."""
    scene.open(opened("long", 0, 100_000))
    assert scene.close(scene.open(opened("small", 200)), **fields) is None


def test_an_engines_own_queue_time_is_a_wait(scene: Scene) -> None:
    """Of a plain reply whose engine tells for how long it was queued."""
    scene.open(opened("long", 0, 100_000))
    assert told(scene.close(scene.open(opened("small", 200)), queue_s=0.4)) == (400, {"long": 400})


def test_what_was_sent_later_was_not_in_front(scene: Scene) -> None:
    """Engines begin with prompts in order of arrival."""
    small = scene.open(opened("small", 0))
    scene.open(opened("long", 10, 100_000))
    assert told(scene.close(small, ttft_s=0.5)) == (0, {})


def test_nobody_stands_in_front_of_itself(scene: Scene) -> None:
    """A long prompt that is alone waits for its own prefill, which is nobody's fault."""
    long = scene.open(opened("long", 0, 100_000))
    assert told(scene.close(long, ttft_s=0.9)) == (0, {})


def test_a_stall_in_mid_answer_is_named(scene: Scene) -> None:
    """A gap much larger than the others, while a long prompt that came later was in prefill."""
    small = scene.open(opened("small", 0))
    long = scene.open(opened("long", 500, 100_000))
    scene.first_token(long, 1_300, 100_000)
    usual = {"ttft_s": 0.02, "gap_count": 20, "duration_ms": 2_000}
    gap = (600, 1_250)
    assert told(scene.close(small, gap, gap_sum_s=1.0, gap_max_s=0.65, **usual)) == (650, {"long": 650})
    assert told(scene.close(small, gap, gap_sum_s=8.0, gap_max_s=0.65, **usual)) == (0, {})


def test_both_waits_of_a_request_are_added(scene: Scene) -> None:
    """Held up before its first token by one, in mid-answer by another: the larger part names the culprit."""
    first = scene.open(opened("first", 0, 50_000))
    small = scene.open(opened("small", 100))
    scene.first_token(first, 300, 50_000)
    second = scene.open(opened("second", 400, 90_000))
    scene.first_token(second, 1_000, 90_000)
    blocked = scene.close(small, (450, 950), ttft_s=0.25, gap_count=20, gap_sum_s=0.7, gap_max_s=0.5)
    assert told(blocked) == (700, {"first": 200, "second": 500})
    assert blocked is not None
    assert blocked.culprit is scene.prompts["second"]


def test_the_engines_own_prefill_time_narrows_it_down(scene: Scene) -> None:
    """Once the engine has told how long the prefill took, the time before it was a wait of its own."""
    long, small = scene.open(opened("long", 0, 100_000)), scene.open(opened("small", 200))
    scene.first_token(long, 900, 100_000)
    scene.close(long, ttft_s=0.9, prefill_s=0.3, duration_ms=1_000)
    assert told(scene.close(small, ttft_s=0.8)) == (300, {"long": 300})


# --- who is a suspect


@pytest.mark.parametrize(("tokens", "cached"), [(HEAVY_TOKENS - 1, None), (100_000, 99_000)])
def test_a_prompt_that_turns_out_light_is_none(scene: Scene, tokens: int, cached: int | None) -> None:
    """Many bytes and few tokens, or nearly all of them cached: it cost the engine a step."""
    long, small = scene.open(opened("long", 0, 100_000)), scene.open(opened("small", 200))
    scene.first_token(long, 900, tokens, cached)
    assert told(scene.close(small, ttft_s=0.75)) == (0, {})


def test_light_and_unsent_requests_are_not_kept(scene: Scene) -> None:
    """A short prompt, and one that never reached the engine, hold up nobody."""
    assert scene.neighbours.opened(opened("a", 0, HEAVY_TOKENS - 1), "t") is None
    assert scene.neighbours.opened(opened("b", 0, HEAVY_TOKENS, sent_ns=0), "t") is None
    assert scene.neighbours.opened(opened("c", 0, HEAVY_TOKENS), "t") is not None


@pytest.mark.parametrize(
    ("fields", "expected_ms"),
    [
        ({"prefill_s": 0.4, "queue_s": 0.1}, 300),  # from 100 to 500 ms
        ({"prefill_s": 0.4}, 200),  # its queue is not known: from 0 to 400 ms
        ({}, 0),  # nothing to go by
    ],
    ids=str,
)
def test_a_plain_reply_by_the_engines_times(scene: Scene, fields: dict[str, float], expected_ms: float) -> None:
    """Its first token cannot be seen; the engine's own numbers tell when its prompt was in prefill."""
    long, small = scene.open(opened("long", 0, 100_000, stream=False)), scene.open(opened("small", 200))
    scene.close(long, prompt_tokens=100_000, duration_ms=5_000, **fields)
    assert told(scene.close(small, ttft_s=0.9))[0] == expected_ms


def test_a_plain_reply_by_the_pace_of_streams(scene: Scene) -> None:
    """Without them a prompt takes as long for each token as those of streams did: also while it is still open."""
    for number, rate in enumerate((8_000, 10_000, 12_000)):  # ns a token
        stream = scene.open(opened(f"s{number}", -9_000, 10_000))
        scene.first_token(stream, -9_000 + rate * 10_000 // MS, 10_000)
    plain, small = scene.open(opened("plain", 0, 50_000, stream=False)), scene.open(opened("small", 200))
    assert told(scene.close(small, ttft_s=0.9)) == (300, {"plain": 300})
    scene.close(plain, prompt_tokens=60_000, duration_ms=5_000)
    assert told(scene.close(small, ttft_s=0.9)) == (400, {"plain": 400})


def test_a_prompt_that_was_given_up_ends_with_its_request(scene: Scene) -> None:
    """Until its client left it was in the way."""
    long, small = scene.open(opened("long", 0, 100_000)), scene.open(opened("small", 200))
    scene.close(long, duration_ms=500, outcome=Outcome.CLIENT_ABORT, first_token_missing="client_abort")
    assert told(scene.close(small, ttft_s=0.9)) == (300, {"long": 300})


def test_overlapping_prompts_share_by_size(scene: Scene) -> None:
    """No moment counts twice: 30,000 and 10,000 tokens side by side are three quarters and one."""
    big, less = scene.open(opened("big", 0, 30_000)), scene.open(opened("less", 0, 10_000))
    small = scene.open(opened("small", 100))
    scene.first_token(less, 500, 10_000)
    scene.first_token(big, 900, 30_000)
    assert told(scene.close(small, ttft_s=1.0)) == (800, {"big": 700, "less": 100})


# --- arithmetic


def a_prompt(weight: int, number: int = 0) -> Prompt:
    prompt = Prompt(opened(f"p{number}", 0), "t")
    prompt.weight = weight
    return prompt


SPANS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 10**6), st.integers(1, 10**6)), max_size=12).map(
    lambda drawn: [Span(start, start + length, a_prompt(weight)) for start, length, weight in drawn]
)


@given(SPANS)
def test_shares_sum_to_the_time_covered(spans: list[Span]) -> None:
    """The total is the union of the spans; each share lies within its span."""
    blocked = divide(spans)
    marks = sorted({stamp for span in spans for stamp in span[:2]})
    union = sum(
        later - earlier
        for earlier, later in zip(marks, marks[1:], strict=False)
        if any(span.start_ns <= earlier and later <= span.end_ns for span in spans)
    )
    assert blocked.total_ns == union
    assert sum(blocked.shares_ns.values()) == pytest.approx(union)
    for span in spans:
        assert blocked.shares_ns[span.prompt] <= (span.end_ns - span.start_ns) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("count", "sum_s", "max_s", "expected"),
    [(20, 1.0, 0.65, True), (20, 3.0, 0.4, False), (3, 1.0, 0.9, False), (20, 0.06, 0.04, False), (5, 0.5, 0.5, True)],
)
def test_what_is_a_stall(count: int, sum_s: float, max_s: float, expected: bool) -> None:
    """Four times the mean of the other gaps, above 50 ms, and with enough gaps to compare with."""
    assert stalled(record(opened("x", 0), gap_count=count, gap_sum_s=sum_s, gap_max_s=max_s)) is expected


# --- bounds


def test_memory_is_bounded() -> None:
    """Of prompts that ended the latest are kept; of those under way the first, and what is cut is counted."""
    neighbours = Neighbours()
    for number in range(3 * MAX_ENDED):
        prompt = neighbours.opened(opened(f"e{number}", number, 10_000), "t")
        assert prompt is not None
        neighbours.first_token(prompt, T0 + (number + 1) * MS, 10_000, None)
    kept = [prompt.request_id for prompt in neighbours._ended]
    assert MAX_ENDED <= len(kept) < 2 * MAX_ENDED
    assert kept[-1] == f"e{3 * MAX_ENDED - 1}"
    assert neighbours._under_way == {}
    for number in range(MAX_UNDER_WAY + 7):
        neighbours.opened(opened(f"u{number}", number, 10_000), "t")
    assert len(neighbours._under_way) == MAX_UNDER_WAY
    assert neighbours.cut == 7


@pytest.mark.parametrize("ended", [True, False])
def test_so_many_suspects_are_looked_at_and_no_more(scene: Scene, ended: bool) -> None:
    """The first in line stand for them all, and the cut is counted."""
    for number in range(MAX_SUSPECTS + 5):
        long = scene.open(opened(f"long{number:02}", number, 10_000))
        if ended:
            scene.first_token(long, 500 + number, 10_000)
    blocked = scene.close(scene.open(opened("small", 400)), ttft_s=0.9)
    assert blocked is not None
    assert len(blocked.shares_ns) == MAX_SUSPECTS
    assert scene.neighbours.cut == 1


def test_nothing_is_left_of_a_request_that_is_over(scene: Scene) -> None:
    """However it ends, it is under way no longer."""
    ends: list[Callable[[Open], object]] = [
        lambda request: scene.close(request, ttft_s=0.5),
        lambda request: scene.close(request, stream=False),
        lambda request: scene.close(request, first_token_missing="tap_gap"),
        lambda request: scene.neighbours.left(scene.prompts[request.request_id]),  # type: ignore[arg-type]
    ]
    for number, end in enumerate(ends):
        end(scene.open(opened(f"r{number}", 0, 100_000)))
    assert scene.neighbours._under_way == {}


# --- through the booking, frame by frame


class Books:
    """A booking with a real recorder."""

    def __init__(self, frames: Any) -> None:
        self.frames = frames
        self.records: dict[str, RequestRecord] = {}
        self.store = MetricStore()
        self.booking = Booking(Recorder(self.store, CardinalityGuard()), self._take)
        self.link: Link = self.booking.connect(frames.hello(), frames.base_ns)

    def _take(self, record: RequestRecord) -> None:
        self.records[record.tenant] = record

    def apply(self, batch: Batch) -> None:
        for _ in self.booking.apply(self.link, batch, set(), self.frames.base_ns):
            pass

    def open(self, number: int, tenant: str, sent_ms: int, body_bytes: int = 200) -> Batch:
        sent_ns = self.frames.base_ns + number * S + sent_ms * MS
        return self.frames.batch(
            opens=[self.frames.open(number, tenant=tenant, stream=True, sent_ns=sent_ns, body_bytes=body_bytes)],
            heads=[self.frames.head(number, "text/event-stream")],
        )

    def event(self, number: int, prompt_tokens: int, after_ms: int) -> Batch:
        """The first token of a request, with continuous usage."""
        _, stamp_ns, data = self.frames.event(number, "a", 1, after_ms)
        data = data.replace(b'"prompt_tokens":7', b'"prompt_tokens":%d' % prompt_tokens)
        return self.frames.batch(reads=[(number, stamp_ns, data)])

    def value(self, metric: Any, *labels: str) -> float:
        return self.store.counter(metric, labels).value


def test_the_noisy_neighbour_is_booked(frames: Any) -> None:
    """A prompt of 100,000 tokens, three small ones behind it: each record names it, and its tenant is charged."""
    books = Books(frames)
    books.apply(books.open(1, "bulk", sent_ms=0, body_bytes=430_000))
    for number, tenant in ((2, "ada"), (3, "bob"), (4, "bulk-sister")):
        books.apply(books.open(number, tenant, sent_ms=0))
    # Request n arrives n seconds after the base: the long prompt is in prefill from 1 to 6 s.
    books.apply(books.event(1, 100_000, after_ms=5_000))
    for number, after_ms in ((2, 4_010), (3, 3_010), (4, 2_010)):
        books.apply(books.event(number, 12, after_ms))
        books.apply(frames.batch(closes=[frames.close(number, stamp_ns=frames.base_ns + 9 * S)]))
    for tenant, blocked_s in (("ada", 4.0), ("bob", 3.0), ("bulk-sister", 2.0)):
        record = books.records[tenant]
        assert (record.blocked_s, record.blocked_by) == (blocked_s, frames.open(1).request_id)
        assert (record.blocked_by_tenant, record.blocked_by_tokens) == ("bulk", 100_000)
        assert books.value(m.PREFILL_BLOCKED, "qwen", tenant) == blocked_s
    assert books.value(m.NEIGHBOUR_DELAY, "bulk", "others") == pytest.approx(9.0)
    assert books.value(m.NEIGHBOUR_DELAY, "bulk", "own") == 0


def test_a_tenant_can_stand_in_its_own_way(frames: Any) -> None:
    """The victims are told apart: a tenant's own, and others'."""
    books = Books(frames)
    books.apply(books.open(1, "bulk", sent_ms=0, body_bytes=430_000))
    books.apply(books.open(2, "bulk", sent_ms=0))
    books.apply(books.event(2, 12, after_ms=500))
    books.apply(frames.batch(closes=[frames.close(2)]))
    assert books.value(m.NEIGHBOUR_DELAY, "bulk", "own") == pytest.approx(0.5)


def test_what_is_told_twice_is_charged_once(frames: Any) -> None:
    """A close that comes again after a reconnect adds no delay, and leaves nothing under way."""
    books = Books(frames)
    books.apply(books.open(1, "bulk", sent_ms=0, body_bytes=430_000))
    books.apply(books.open(2, "ada", sent_ms=0))
    books.apply(books.event(2, 12, after_ms=500))
    for _ in range(2):
        books.apply(frames.batch(closes=[frames.close(2)]))
        books.apply(frames.told_again(2))
    assert books.value(m.NEIGHBOUR_DELAY, "bulk", "others") == pytest.approx(0.5)
    books.apply(frames.batch(closes=[frames.close(1)]))
    books.apply(frames.batch(opens=[frames.again(1, body_bytes=430_000)], closes=[frames.close(1)]))
    assert books.booking.neighbours._under_way == {}


def test_a_fault_in_here_costs_no_record(frames: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted under its stage; the request is booked with all that its answer told."""
    books = Books(frames)

    def fail(*_: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(books.booking.neighbours, "account", fail)
    monkeypatch.setattr(books.booking.neighbours, "first_token", fail)
    books.apply(books.open(1, "bulk", sent_ms=0, body_bytes=430_000))
    books.apply(books.event(1, 100_000, after_ms=500))
    books.apply(frames.batch(closes=[frames.close(1, usages={}, tail=b"", stamp_ns=frames.base_ns + 9 * S)]))
    record = books.records["bulk"]
    assert (record.prompt_tokens, record.ttft_s, record.blocked_s) == (100_000, 0.5, None)
    assert books.value(m.COLLECTOR_OBSERVER_ERRORS, "neighbours") == 2
