"""The engine's own times, from its answer to the record."""

import json
from typing import Any

import pytest

from inferwatch.record import RequestRecord, TimingSource
from inferwatch.tap import Close, Head, Open
from inferwatch_collectors.exchange import Exchange

MS = 1_000_000
ARRIVAL = 1_000 * MS
METRICS = {"time_to_first_token_ms": 20.0, "generation_time_ms": 40.0, "queue_time_ms": 5.0, "mean_itl_ms": 20.0}
TIMINGS = {"prompt_n": 9, "prompt_ms": 20.0, "predicted_n": 3, "predicted_ms": 40.0}
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
SSE = {"content-type": "text/event-stream"}
JSON = {"content-type": "application/json"}


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps({"id": "c", "model": "tiny", **fields}).encode() + b"\n\n"


def choice(text: str, finish: str | None = None, index: int = 0) -> dict[str, Any]:
    return {"index": index, "delta": {"content": text}, "finish_reason": finish}


def played(*reads: bytes, headers: dict[str, str] = SSE, choices: int = 1, **close: Any) -> RequestRecord:
    opened = Open(
        id=1, request_id="r", wall_ns=5, arrival_ns=ARRIVAL, sent_ns=ARRIVAL + MS, method="POST",
        path="/v1/chat/completions", tenant="t", model="tiny", stream=headers is SSE, asked_usage=False,
        choices=choices, headers={}, body=b"{}", body_bytes=2,
    )  # fmt: skip
    exchange = Exchange(opened)
    exchange.head(Head(1, ARRIVAL + 2 * MS, 200, headers))
    for number, data in enumerate(reads, 1):
        exchange.read(ARRIVAL + 30 * number * MS, data)
    fields: dict[str, Any] = {"outcome": "ok", "error": "", "status": 200, **close}
    return exchange.close(Close(id=1, stamp_ns=ARRIVAL + 200 * MS, **fields))


def times(record: RequestRecord) -> tuple[TimingSource, float | None, float | None, float | None, float | None]:
    return record.timing_source, record.queue_s, record.prefill_s, record.decode_s, record.inference_s


VLLM = (TimingSource.ENGINE_BODY, 0.005, 0.02, 0.04, None)
LLAMA = (TimingSource.ENGINE_TIMINGS, None, 0.02, 0.04, None)
NOTHING = (TimingSource.NONE, None, None, None, None)
STREAM = (event(choices=[choice("a")]), event(choices=[choice("b", "stop")]))
DONE = b"data: [DONE]\n\n"


def plain(number: int = 1, **fields: Any) -> bytes:
    answers = [
        {"index": index, "message": {"content": "a"}, "finish_reason": "stop"} for index in range(number)
    ]  # fmt: skip
    return json.dumps({"id": "c", "model": "tiny", "choices": answers, "usage": USAGE, **fields}).encode()


CASES: dict[str, tuple[RequestRecord, tuple[Any, ...]]] = {
    "vLLM's usage event": (played(*STREAM, event(choices=[], usage=USAGE, metrics=METRICS), DONE), VLLM),
    "vLLM without the flag": (played(*STREAM, event(choices=[], usage=USAGE), DONE), NOTHING),
    "a plain reply of vLLM": (played(plain(metrics=METRICS, kv_transfer_params=None), headers=JSON), VLLM),
    "a plain reply of vLLM without the flag": (played(plain(metrics=None), headers=JSON), NOTHING),
    "llama.cpp's finish event": (
        played(STREAM[0], event(choices=[choice("", "stop")], timings=TIMINGS), DONE),
        LLAMA,
    ),
    "llama.cpp's usage event": (played(*STREAM, event(choices=[], usage=USAGE, timings=TIMINGS), DONE), LLAMA),
    "a plain reply of llama.cpp": (played(plain(timings=TIMINGS), headers=JSON), LLAMA),
    "times of one of several choices": (played(plain(2, timings=TIMINGS), headers=JSON, choices=2), NOTHING),
    "times of one of several choices of a stream": (
        played(
            event(choices=[choice("a")]),
            event(choices=[choice("", "stop")], timings=TIMINGS),
            event(choices=[choice("b", "stop", 1)], timings=TIMINGS),
            DONE,
            choices=2,
        ),
        NOTHING,
    ),
    "headers of TGI": (
        played(plain(), headers={**JSON, "x-queue-time": "7", "x-inference-time": "90"}),
        (TimingSource.ENGINE_HEADERS, 0.007, None, None, 0.09),
    ),
    "headers of TGI for several prompts": (
        played(plain(2), headers={**JSON, "x-queue-time": "7", "x-inference-time": "90"}, choices=2),
        NOTHING,
    ),
    "an event of which no copy came": (
        played(
            *STREAM,
            b"",
            dropped_bytes=300,
            tail=STREAM[1] + event(choices=[], usage=USAGE, metrics=METRICS) + DONE,
        ),
        VLLM,
    ),
}


@pytest.mark.parametrize(("record", "expected"), CASES.values(), ids=CASES.keys())
def test_times_of_the_engine(record: RequestRecord, expected: tuple[Any, ...]) -> None:
    """What the engine says of the whole request is in its record, with where it was said."""
    assert times(record) == expected


@pytest.mark.parametrize("nonsense", ["fast", [1], 3, {"queue_time_ms": "x"}, True])
def test_nonsense_costs_nothing_else(nonsense: Any) -> None:
    """Another engine's idea of `metrics` and `timings` leaves tokens and finish as they are."""
    record = played(*STREAM, event(choices=[], usage=USAGE, metrics=nonsense, timings=nonsense), DONE)
    assert times(record) == NOTHING
    assert (record.prompt_tokens, record.completion_tokens, record.finish_reasons) == (9, 3, ("stop",))


def test_the_largest_gap_is_known_by_its_stamps() -> None:
    """Where the longest pause between two tokens lay; None while there was none."""
    exchange = Exchange(
        Open(
            id=1,
            request_id="r",
            wall_ns=5,
            arrival_ns=ARRIVAL,
            sent_ns=ARRIVAL,
            method="POST",
            path="/v1/chat/completions",
            tenant="t",
            model="tiny",
            stream=True,
            asked_usage=False,
            choices=1,
            headers={},
            body=b"{}",
            body_bytes=2,
        )
    )
    exchange.head(Head(1, ARRIVAL, 200, SSE))
    assert (exchange.largest_gap, exchange.first_token_ns) == (None, -1)
    for at_ms in (10, 20, 75, 90):
        exchange.read(ARRIVAL + at_ms * MS, event(choices=[choice("a")], usage=None))
    assert exchange.largest_gap == (ARRIVAL + 20 * MS, ARRIVAL + 75 * MS)
    assert exchange.first_token_ns == ARRIVAL + 10 * MS
