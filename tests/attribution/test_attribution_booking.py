"""The meter behind real booking: frames of a relay in, shares out."""

import json
from typing import Any

import pytest

from inferwatch.record import RequestRecord, Share
from inferwatch.settings.cost import Attribution
from inferwatch.settings.energy import Energy
from inferwatch.tap import Batch, Close, Head, Hello, Open
from inferwatch_collectors.attribution.meter import Meter
from inferwatch_collectors.booking import Booking
from inferwatch_collectors.cardinality import CardinalityGuard
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.recorder import Recorder

S = 10**9
BASE_NS = 7_000 * S
MILLION = 1_000_000  # nano-dollars of a second at 3.60 dollars an hour


class Collector:
    """A booking and a meter as the collector process has them."""

    def __init__(self, host: Any) -> None:
        self.shares: list[Share] = []
        store = MetricStore()
        recorder = Recorder(store, CardinalityGuard())
        self.meter = Meter(
            store, recorder.guard, self.shares.append,
            cost=host.rented(), attribution=Attribution(), energy=Energy(),
        )  # fmt: skip
        self.booking = Booking(recorder, self.sink)
        self.link = self.booking.connect(Hello(protocol=1, worker=0, pid=1, boot="b"), BASE_NS)
        self.meter.restore(BASE_NS, 0)
        self.records: list[RequestRecord] = []
        self.sequence = 0

    def sink(self, record: RequestRecord) -> None:
        self.records.append(record)
        self.meter.closed(record)

    def tell(self, at_s: float, **frames: Any) -> None:
        self.sequence += 1
        fields: dict[str, Any] = {"opens": [], "heads": [], "reads": [], "closes": []} | frames
        for _ in self.booking.apply(self.link, Batch(self.sequence, **fields), set(), BASE_NS + int(at_s * S)):
            pass

    def tick(self, at_s: float) -> None:
        self.meter.tick(BASE_NS + int(at_s * S), int(at_s * S), [self.link])


def opened(number: int, at_s: float, *, stream: bool, **changes: Any) -> Open:
    at_ns = BASE_NS + int(at_s * S)
    fields: dict[str, Any] = {
        "id": number, "request_id": f"r{number}", "wall_ns": int(at_s * S), "arrival_ns": at_ns, "sent_ns": at_ns,
        "method": "POST", "path": "/v1/chat/completions", "tenant": "acme", "model": "qwen", "stream": stream,
        "asked_usage": True, "choices": 1, "headers": {}, "body": b"{}", "body_bytes": 2,
    }  # fmt: skip
    return Open(**fields | changes)


def event(prompt: int, completion: int) -> bytes:
    chunk = {
        "id": "c", "object": "chat.completion.chunk", "model": "qwen",
        "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
    }  # fmt: skip
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def reply(prompt: int, completion: int) -> bytes:
    return json.dumps(
        {
            "id": "c", "object": "chat.completion", "model": "qwen",
            "choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
        }
    ).encode()  # fmt: skip


def closed(number: int, at_s: float, size: int = 0) -> Close:
    return Close(id=number, stamp_ns=BASE_NS + int(at_s * S), outcome="ok", error="", status=200, response_bytes=size)


@pytest.fixture
def collector(host: Any) -> Collector:
    return Collector(host)


def test_a_stream_is_charged_while_it_runs(collector: Collector) -> None:
    """One token each tenth of a second, a plain reply with three times its tokens a second beside it for two seconds."""
    collector.tell(0, opens=[opened(1, 0, stream=True)])
    collector.tell(0.1, heads=[Head(1, BASE_NS + S // 10, 200, {"content-type": "text/event-stream"})])
    tokens = 0
    for second in range(10):
        reads = []
        for tenth in range(10):
            tokens += 1
            reads.append((1, BASE_NS + second * S + (tenth + 1) * S // 10, event(0, tokens)))
        collector.tell(second + 1, reads=reads)
        if second == 4:
            body = reply(0, 60)
            collector.tell(
                5, opens=[opened(2, 3, stream=False)], reads=[(2, BASE_NS + 5 * S, body)],
                heads=[Head(2, BASE_NS + 5 * S, 200, {"content-type": "application/json"})],
                closes=[closed(2, 5, len(body))],
            )  # fmt: skip
        collector.tick(second + 1)
    collector.tell(10, closes=[closed(1, 10)])
    for second in range(11, 20):
        collector.tick(second)
    by_name = {share.request_id: share.gpu_nanodollars for share in collector.shares}
    assert by_name["r2"] == pytest.approx(1.5 * MILLION, rel=0.02)
    assert by_name["r1"] == pytest.approx(8.5 * MILLION, rel=0.02)
    assert sum(value or 0 for value in by_name.values()) == 10 * MILLION


def test_a_request_booked_before_is_not_charged_again(collector: Collector) -> None:
    """A relay that reconnects tells an ended request once more; its account is closed."""
    body = reply(10, 10)
    frames = {
        "opens": [opened(1, 0, stream=False)],
        "heads": [Head(1, BASE_NS + S, 200, {"content-type": "application/json"})],
        "reads": [(1, BASE_NS + S, body)],
        "closes": [closed(1, 1, len(body))],
    }
    collector.tell(1, **frames)
    for second in range(1, 10):
        collector.tick(second)
    collector.tell(10, **frames | {"opens": [opened(1, 0, stream=False, resumed=True)]})
    for second in range(10, 20):
        collector.tick(second)
    assert [share.request_id for share in collector.shares] == ["r1"]
    assert len(collector.records) == 1


def test_an_answer_given_up_after_a_fault_is_still_charged(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parser's bug costs the token counts, not the conservation: the request pays by its time, once."""
    collector.tell(0, opens=[opened(1, 0, stream=True)])
    collector.tick(1)
    next(iter(collector.link.entries.values())).exchange = None
    for second in range(2, 140):
        collector.tick(second)
    collector.tell(140, closes=[closed(1, 140)])
    for second in range(140, 160):
        collector.tick(second)
    shares = [share for share in collector.shares if share.request_id]
    assert [share.request_id for share in shares] == ["r1"]
    assert shares[0].gpu_nanodollars == 140 * MILLION
