"""Frames of the tap as a relay would send them, and records as an exchange would make them."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from inferwatch.record import Outcome, RequestRecord, TokenSource
from inferwatch.tap import Batch, Close, Head, Hello, Open, Stats
from inferwatch_collectors.booking import NS_PER_S

PLAIN_REPLY = (
    b'{"id":"cmpl-1","object":"chat.completion","model":"qwen","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"Hello there"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}'
)


class Frames:
    """Makes frames; keyword arguments change fields. Request number n arrives n seconds after `base_ns`."""

    boot = "b007"
    plain_reply = PLAIN_REPLY
    prompt_tokens = 7
    completion_tokens = 3

    def __init__(self) -> None:
        self.base_ns = time.monotonic_ns()

    def hello(self, **changes: Any) -> Hello:
        return Hello(**{"protocol": 1, "worker": 0, "pid": 4711, "boot": self.boot} | changes)

    def open(self, number: int, **changes: Any) -> Open:
        arrival_ns = self.base_ns + number * NS_PER_S
        fields: dict[str, Any] = {
            "id": number,
            "request_id": f"{self.boot}{number:08x}",
            "wall_ns": 1_700_000_000_000_000_000 + number,
            "arrival_ns": arrival_ns,
            "sent_ns": arrival_ns + 1_000_000,
            "method": "POST",
            "path": "/v1/chat/completions",
            "tenant": "acme",
            "model": "qwen",
            "stream": False,
            "asked_usage": False,
            "choices": 1,
            "headers": {},
            "body": b'{"model":"qwen","messages":[]}',
            "body_bytes": 30,
        }
        return Open(**fields | changes)

    def again(self, number: int, **changes: Any) -> Open:
        """The frame with which a relay introduces a request once more."""
        return self.open(number, **{"resumed": True, "body": b""} | changes)

    def head(self, number: int, content_type: str = "application/json", status: int = 200) -> Head:
        return Head(number, self.base_ns + number * NS_PER_S + 10_000_000, status, {"content-type": content_type})

    def read(self, number: int, data: bytes, after_ms: int = 20) -> tuple[int, int, bytes]:
        return (number, self.base_ns + number * NS_PER_S + after_ms * 1_000_000, data)

    def event(self, number: int, text: str, tokens: int, after_ms: int) -> tuple[int, int, bytes]:
        """One event of a stream with continuous usage."""
        data = (
            b'data: {"id":"c","object":"chat.completion.chunk","model":"qwen","choices":[{"index":0,'
            b'"delta":{"content":"%b"},"finish_reason":null}],"usage":{"prompt_tokens":7,"completion_tokens":%d,"total_tokens":%d}}\n\n'
        ) % (text.encode(), tokens, 7 + tokens)
        return self.read(number, data, after_ms)

    def close(self, number: int, **changes: Any) -> Close:
        fields: dict[str, Any] = {
            "id": number,
            "stamp_ns": self.base_ns + number * NS_PER_S + 500_000_000,
            "outcome": "ok",
            "error": "",
            "status": 200,
            "head_ns": self.base_ns + number * NS_PER_S + 10_000_000,
            "first_body_ns": self.base_ns + number * NS_PER_S + 20_000_000,
            "last_body_ns": self.base_ns + number * NS_PER_S + 20_000_000,
            "reads": 1,
            "response_bytes": len(PLAIN_REPLY),
            "usages": {-1: b'{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}'},
            "tail": PLAIN_REPLY,
        }
        return Close(**fields | changes)

    def whole(self, *numbers: int, seq: int = 0) -> Batch:
        """A batch with plain requests from beginning to end."""
        return Batch(
            seq,
            [self.open(number) for number in numbers],
            [self.head(number) for number in numbers],
            [self.read(number, PLAIN_REPLY) for number in numbers],
            [self.close(number) for number in numbers],
        )

    def told_again(self, *numbers: int, seq: int = 0) -> Batch:
        """A batch as it is sent after a reconnect, or written to a spool file."""
        return Batch(
            seq, [self.again(number) for number in numbers], [], [], [self.close(number) for number in numbers]
        )

    def batch(
        self,
        seq: int = 0,
        *,
        opens: list[Open] | None = None,
        heads: list[Head] | None = None,
        reads: list[tuple[int, int, bytes]] | None = None,
        closes: list[Close] | None = None,
        stats: Stats | None = None,
    ) -> Batch:
        return Batch(seq, opens or [], heads or [], reads or [], closes or [], stats)

    def stats(self, **changes: Any) -> Stats:
        fields = dict.fromkeys(Stats.__struct_fields__, 0) | {"stamp_ns": time.monotonic_ns()}
        return Stats(**fields | changes)

    def record(self, number: int, **changes: Any) -> RequestRecord:
        fields: dict[str, Any] = {
            "request_id": f"{self.boot}{number:08x}",
            "wall_ns": 1_700_000_000_000_000_000 + number,
            "tenant": "acme",
            "model": "qwen",
            "operation": "chat",
            "route": "/v1/chat/completions",
            "method": "POST",
            "stream": False,
            "outcome": Outcome.OK,
            "status": 200,
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "token_source": TokenSource.FINAL_USAGE,
            "duration_s": 0.5,
        }
        return RequestRecord(**fields | changes)


@pytest.fixture
def frames() -> Frames:
    return Frames()


@pytest.fixture
def nothing_blocks() -> Iterator[None]:
    """Any blocking call on the event loop's thread fails the test."""
    with blockbuster_ctx():
        yield
