"""Cohere's chat: plain and streamed, whatever the split of its bytes and wherever it ends."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from inferwatch.record import Outcome, RequestRecord, TokenClass, TokenSource
from inferwatch.tap import Close, Head, Open
from inferwatch_collectors.dialects.base import ANSWER, REASONING, TOOL_CALL, Observation, RequestFacts
from inferwatch_collectors.dialects.cohere import COHERE_CHAT
from inferwatch_collectors.dialects.content import Piece, Source
from inferwatch_collectors.exchange import Exchange

SSE = "text/event-stream"
USAGE = {
    "billed_units": {"input_tokens": 400.0, "output_tokens": 40.0},
    "tokens": {"input_tokens": 500.0, "output_tokens": 43.0},
    "cached_tokens": 16.0,
}
REPLY = {
    "id": "x",
    "finish_reason": "COMPLETE",
    "message": {
        "role": "assistant",
        "tool_plan": "look it up",
        "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": '{"a":"b"}'}}],
        "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "hi"}],
    },
    "usage": USAGE,
}


def said(**message: Any) -> dict[str, Any]:
    return {"type": "content-delta", "index": 0, "delta": {"message": message}}


def ended(reason: str = "COMPLETE", **delta: Any) -> dict[str, Any]:
    return {"type": "message-end", "id": "x", "delta": {"finish_reason": reason, **delta}}


STREAM = (
    {"type": "message-start", "id": "x", "delta": {"message": {"role": "assistant"}}},
    {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "thinking", "thinking": ""}}}},
    said(content={"thinking": "hm"}),
    {"type": "content-end", "index": 0},
    {"type": "content-start", "index": 1, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
    said(content={"text": "a"}),
    said(content={"text": "b"}),
    {"type": "citation-start", "index": 0, "delta": {"message": {"citations": {"start": 0, "text": "a"}}}},
    ended(usage=USAGE),
)


def wire(events: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n"


def play(reads: Iterable[bytes], content_type: str = SSE, *, tail: bytes = b"") -> RequestRecord:
    """Return what is booked of a reply in these reads; an empty one is a hole."""
    frame = Open(
        id=1, request_id="r", wall_ns=1, arrival_ns=1, sent_ns=2, method="POST", path="/cohere/v2/chat", tenant="t",
        model="m", stream=content_type == SSE, asked_usage=False, choices=1, headers={}, body=b"{}", body_bytes=2,
    )  # fmt: skip
    exchange = Exchange(frame)
    exchange.head(Head(1, 3, 200, {"content-type": content_type}))
    for data in reads:
        exchange.read(5, data)
    return exchange.close(
        Close(id=1, stamp_ns=9, outcome="ok", error="", status=200, response_bytes=9_999, head_ns=3, tail=tail)
    )


def counts(record: RequestRecord) -> tuple[int | None, int | None, int | None, TokenSource]:
    return record.prompt_tokens, record.cached_tokens, record.completion_tokens, record.token_source


COUNTED = (500, 16, 43, TokenSource.FINAL_USAGE)


def test_a_plain_reply() -> None:
    """Its tokens, not those that are billed; how it ended, in the words of others."""
    body = json.dumps(REPLY).encode()
    record = play([body], "application/json")
    assert counts(record) == COUNTED
    assert (record.operation, record.engine_id, record.finish_reasons) == ("chat", "x", ("complete",))
    assert counts(play([b""], "application/json", tail=body[8:])) == COUNTED


def test_a_stream() -> None:
    """Thinking is reasoning, starts and citations are no tokens; whatever the split, it is the same."""
    body = wire(STREAM)
    whole = play([body])
    assert counts(whole) == COUNTED
    assert (whole.first_token, whole.gap_count, whole.outcome) == (TokenClass.REASONING, 2, Outcome.OK)
    assert play([body[at : at + 1] for at in range(len(body))]) == whole
    for at in range(1, len(body)):
        assert play([body[:at], body[at:]]) == whole


def test_a_stream_that_breaks_off() -> None:
    """Its events are an estimate, and that its end never came is seen."""
    record = play([wire(STREAM[:6]).removesuffix(b"data: [DONE]\n\n")])
    assert counts(record) == (None, None, 2, TokenSource.CHUNK_ESTIMATE)
    assert record.outcome is Outcome.STREAM_ERROR


@pytest.mark.parametrize("end", [ended("ERROR", error="x"), ended("ERROR"), ended(error="x")])
def test_an_error_in_mid_stream(end: dict[str, Any]) -> None:
    """It stands in the event that ends the stream."""
    assert play([wire([*STREAM[:6], end])]).outcome is Outcome.STREAM_ERROR


@pytest.mark.parametrize(
    ("message", "first"),
    [
        ({"tool_plan": "look"}, TokenClass.REASONING),
        ({"tool_calls": {"function": {"name": "f", "arguments": ""}}}, TokenClass.TOOL_CALL),
        ({"tool_calls": {"function": {"arguments": "{"}}}, TokenClass.TOOL_CALL),
        ({"tool_calls": {"id": "t"}}, None),
        ({"content": {"text": 7}}, None),
    ],
)
def test_what_is_generated(message: dict[str, Any], first: TokenClass | None) -> None:
    """Plans and calls are; what has neither name nor arguments is not."""
    assert play([wire([said(**message), ended()])]).first_token is first


class Heard:
    """Who listens."""

    def __init__(self) -> None:
        self.texts: list[tuple[int, str]] = []

    def text(self, stamp_ns: int, choice: int, classes: int, text: str) -> None:
        self.texts.append((classes, text))


def test_what_is_told() -> None:
    """The texts by class; of a call its arguments."""
    seen = Observation(RequestFacts())
    seen.listener = heard = Heard()  # type: ignore[assignment]
    for event in (*STREAM, said(tool_calls={"function": {"name": "f", "arguments": "{}"}})):
        COHERE_CHAT.read_event(seen, 1, b"", json.dumps(event).encode())
    assert heard.texts == [(REASONING, "hm"), (ANSWER, "a"), (ANSWER, "b"), (TOOL_CALL, "{}")]
    heard.texts.clear()
    COHERE_CHAT.tell_reply(seen, 1, json.dumps(REPLY).encode())
    assert heard.texts == [(REASONING, "hm"), (ANSWER, "hi"), (REASONING, "look it up"), (TOOL_CALL, '{"a":"b"}')]


def test_what_was_asked() -> None:
    """Messages, documents and stop sequences."""
    asked = {"messages": [{"role": "user", "content": "q"}], "documents": ["d"], "stop_sequences": ["s"]}
    pieces = list(COHERE_CHAT.prompt(json.dumps(asked).encode()))
    assert pieces == [Piece(Source.USER, "q"), Piece(Source.USER, "d"), Piece(Source.SETTING, "s")]


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"message":7}', b'{"message":{"content":7,"tool_calls":[7]}}'])
def test_garbage(body: bytes) -> None:
    """Nothing is raised on what is none."""
    seen = Observation(RequestFacts())
    COHERE_CHAT.read_reply(seen, body)
    COHERE_CHAT.read_event(seen, 1, b"", body)
    COHERE_CHAT.tell_reply(seen, 1, body)
    assert COHERE_CHAT.totals(seen, 1).completion is None
