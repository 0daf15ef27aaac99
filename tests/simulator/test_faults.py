"""Faults on demand do what their table says."""

import asyncio
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferwatch_simulator import faults
from inferwatch_simulator.faults import FAULTS, parse
from inferwatch_simulator.sinks import big_event
from inferwatch_simulator.testing import Received, Serve

BODY: dict[str, Any] = {"prompt": "x", "max_tokens": 10, "ignore_eos": True}
STREAM = BODY | {"stream": True}


async def received(serve: Serve, fault: str, body: dict[str, Any] = STREAM) -> Received:
    client = await serve()
    async with asyncio.timeout(10):
        return await client.raw("/v1/completions", body, {faults.HEADER: fault})


def unframed(data: bytes) -> bytes:
    """The body of a chunked response, as far as it came."""
    body = b""
    while data:
        size, _, rest = data.partition(b"\r\n")
        if not size or int(size, 16) == 0:
            break
        body += rest[: int(size, 16)]
        data = rest[int(size, 16) + 2 :]
    return body


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_table_is_what_can_be_asked_for(fault: faults.Fault) -> None:
    """Each row can be requested, with its value or its default, and appears in the printed table."""
    asked = f"{fault.name}:7" if fault.value else fault.name
    assert parse(asked).get(fault.name) == (7 if fault.value else 0)
    if fault.default is not None:
        assert fault.name in parse(fault.name)
    assert fault.effect in faults.table()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("nonsense", "no fault 'nonsense', expected one of reset_before_head"),
        ("merge", "merge needs a value, merge:TOKENS"),
        ("status:teapot", "status takes a number, got 'teapot'"),
        ("slow_head:-1", "slow_head takes a number from 0"),
        ("slow_head:nan", "slow_head takes a number from 0"),
    ],
)
def test_mistakes_in_the_header_are_named(header: str, message: str) -> None:
    """A test that misspells its fault is told so."""
    with pytest.raises(ValueError, match=message):
        parse(header)


async def test_misspelt_fault_is_a_bad_request(serve: Serve) -> None:
    """And not a stream without faults."""
    answered = await (await serve()).complete(headers={faults.HEADER: "nonsense"})
    assert (answered.status, "no fault" in answered.json["detail"]) == (400, True)


@settings(deadline=None)
@given(st.text())
def test_any_header_is_read_or_refused(header: str) -> None:
    """Nothing but ValueError comes of nonsense."""
    with contextlib.suppress(ValueError):
        assert parse(header).values.keys() <= {fault.name for fault in FAULTS}


async def test_reset_before_head(serve: Serve) -> None:
    """A reset, and not one byte."""
    got = await received(serve, "reset_before_head")
    assert (got.data, got.was_reset) == (b"", True)


async def test_reset_mid_stream(serve: Serve) -> None:
    """So many whole events, then the reset."""
    got = await received(serve, "reset_mid_stream:4")
    assert got.was_reset
    assert unframed(got.body).count(b"data: ") == 4
    assert unframed(got.body).endswith(b"}\n\n")


async def test_reset_mid_event(serve: Serve) -> None:
    """The last event is cut off in its midst."""
    got = await received(serve, "reset_mid_event:2")
    assert got.was_reset
    assert got.body.count(b"data: ") == 3
    assert not got.body.endswith(b"\n")


async def test_cut_utf8(serve: Serve) -> None:
    """The stream breaks off within a character, without the last chunk."""
    got = await received(serve, "cut_utf8:1")
    body = unframed(got.body)
    with pytest.raises(UnicodeDecodeError, match="unexpected end of data"):
        body.decode()
    assert b"\r\n0\r\n" not in got.data


async def test_split_utf8(serve: Serve) -> None:
    """The halves of a character come apart, and make a whole."""
    got = await received(serve, "split_utf8:1")
    body = unframed(got.body).decode()
    assert got.reads > 2
    assert "🚀" in body
    assert body.endswith("data: [DONE]\n\n")
    assert body.count("data: ") == 11


async def test_no_done(serve: Serve) -> None:
    """Everything but the end mark, and a proper end of the response."""
    got = await received(serve, "no_done")
    assert b"[DONE]" not in got.data
    assert got.data.endswith(b"0\r\n\r\n")
    assert got.body.count(b"data: ") == 10


async def test_error_event(serve: Serve) -> None:
    """vLLM's failure in mid-stream, followed by the end mark; the engine has dropped the request."""
    client = await serve(speed=1.0, decode_step_ms_base=1.0)
    got = await client.raw("/v1/completions", STREAM | {"max_tokens": 5000}, {faults.HEADER: "error_event:2"})
    events = unframed(got.body).decode().split("\n\n")
    assert len(events) == 5
    assert json.loads(events[2][6:])["error"] == {
        "message": "Internal server error",
        "type": "InternalServerError",
        "param": None,
        "code": 500,
    }
    assert events[3] == "data: [DONE]"
    assert client.simulator.engine.scheduler.idle


@pytest.mark.parametrize("fault", ["hang_before_head", "hang_mid_stream:2"])
async def test_hang(serve: Serve, fault: str) -> None:
    """Silence until the client leaves, and nothing left behind then."""
    client = await serve()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await client.complete("x", {faults.HEADER: fault}, max_tokens=10, stream=True)
    async with asyncio.timeout(5):
        while not client.simulator.engine.scheduler.idle:
            await asyncio.sleep(0.01)


async def test_garbage_head(serve: Serve) -> None:
    """Bytes that are no response."""
    got = await received(serve, "garbage_head")
    assert got.data
    assert not got.data.startswith(b"HTTP/")


async def test_slow_head(serve: Serve) -> None:
    """The head waits that long, and so does the engine."""
    client = await serve()
    async with asyncio.TaskGroup() as tasks:
        request = tasks.create_task(client.complete("x", {faults.HEADER: "slow_head:0.2"}, max_tokens=1))
        await asyncio.sleep(0.05)
        assert client.simulator.engine.unfinished == 0
        assert not request.done()
    assert request.result().status == 200


async def test_comments(serve: Serve) -> None:
    """That many comments are the first bytes of the body."""
    got = await received(serve, "comments:3")
    assert unframed(got.body).startswith(b": keep-alive\n\n" * 3 + b"data: {")


async def test_merge(serve: Serve) -> None:
    """Several tokens in a chunk after the first one, and no token lost."""
    client = await serve()
    options = {"include_usage": True, "continuous_usage_stats": True}
    answered = await client.post("/v1/completions", STREAM | {"stream_options": options}, {faults.HEADER: "merge:4"})
    assert [chunk["usage"]["completion_tokens"] for chunk in answered.chunks] == [1, 5, 9, 10, 10]


@pytest.mark.parametrize("code", [400, 429, 500, 503])
async def test_status(serve: Serve, code: int) -> None:
    """A refusal in the engine's envelope."""
    answered = await (await serve()).complete("x", {faults.HEADER: f"status:{code}"}, stream=True)
    assert (answered.status, answered.json["error"]["code"]) == (code, code)


async def test_one_byte_writes(serve: Serve) -> None:
    """Every byte of the body is a chunk of its own; together they are the stream."""
    got = await received(serve, "one_byte_writes")
    body = unframed(got.body)
    assert got.body.count(b"1\r\n") >= len(body)
    assert body.count(b"data: ") == 11
    assert got.reads > 100


async def test_one_byte_writes_of_a_plain_reply(serve: Serve) -> None:
    """A plain body dribbles, too, and is complete."""
    got = await received(serve, "one_byte_writes", BODY)
    assert json.loads(got.body)["usage"]["completion_tokens"] == 10
    assert got.reads > 100


async def test_big_event(serve: Serve) -> None:
    """The second event is as big as asked for, and still JSON; the others are as ever."""
    client = await serve()
    answered = await client.chat(headers={faults.HEADER: "big_event:300000"}, max_tokens=5, stream=True)
    sizes = [len(event) for event in answered.events]
    assert [size > 290_000 for size in sizes] == [False, True] + [False] * (len(sizes) - 2)
    assert len(answered.chunks[1]["choices"][0]["logprobs"]["content"]) > 1000


def test_big_event_without_room_for_it_gets_some() -> None:
    """An event without log-probabilities is given some."""
    event = b'data: {"choices":[{"index":0,"delta":{}}]}\n\n'
    assert "logprobs" in json.loads(big_event(event, 500)[6:])["choices"][0]


@pytest.mark.parametrize("fault", ["reset_mid_stream", "reset_mid_event", "cut_utf8"])
async def test_plain_reply_is_cut_in_half(serve: Serve, fault: str) -> None:
    """Without a stream the body breaks off halfway."""
    got = await received(serve, fault, BODY)
    assert got.was_reset
    length = int(got.data.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    assert 0 < len(got.body) < length


async def test_faults_combine(serve: Serve) -> None:
    """Several faults of one request act together."""
    got = await received(serve, "comments:1, merge:5, no_done")
    body = unframed(got.body)
    assert body.startswith(b": keep-alive\n\n")
    assert body.count(b"data: ") == 3
    assert b"[DONE]" not in body


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_repeats_itself(serve: Serve, stream: bool) -> None:
    """Its first tokens, again and again, as many as were asked for."""
    client = await serve()
    body = BODY | {"max_tokens": 40, "stream": stream}
    async with asyncio.timeout(10):
        data = (await client.raw("/v1/completions", body, {faults.HEADER: "loop:4"})).body
    text = said(data, stream=stream)
    period = text[: len(text) // 10]
    assert text == period * 10


async def test_an_answer_that_refuses(serve: Serve) -> None:
    """It begins as refusals do."""
    client = await serve()
    async with asyncio.timeout(10):
        received = await client.raw("/v1/completions", STREAM | {"max_tokens": 40}, {faults.HEADER: "refuse"})
    assert said(received.body, stream=True).startswith("I'm sorry, but I can't help")


def said(data: bytes, *, stream: bool) -> str:
    """The text of an answer, framed or not."""
    if not stream:
        text: str = json.loads(data)["choices"][0]["text"]
        return text
    events = [line[6:] for line in unframed(data).split(b"\n\n") if line.startswith(b"data: {")]
    return "".join(choice["text"] for event in events for choice in json.loads(event)["choices"])
