"""server: what the client gets of a reply. Transcripts: engine | relay | client."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from harness import Message, Rig, Start, chunk, chunked, get, ok, post, sse, wire

FIXTURES = Path(__file__).parents[1] / "fixtures" / "vllm"


async def relayed(rig: Rig, reply: bytes, request: bytes = get()) -> Message:
    """Let the engine answer with `reply`; return what the client got."""
    rig.engine.answer(reply)
    return await rig.ask(request, to_head=request.startswith(b"HEAD"))


HEADS = [
    "HTTP/1.1 200 OK\ndate: d\nserver: uvicorn\ncontent-type: text/plain\nContent-Length: 2\n\n",
    "HTTP/1.1 200 OK\nSet-Cookie: a=1\nX-b: 1\nset-cookie: b=2\nX-B: 2\nSET-COOKIE: c=3\nContent-Length: 2\n\n",
    "HTTP/1.1 299 Perfectly Fine \xe9\nx: \xff\xfe\ncontent-length: 2\n\n",
    "HTTP/1.1 404 Not Found\nContent-Length: 2\nEmpty:\nX-Long: " + "v" * 20_000 + "\n\n",
    "HTTP/1.1 503 \nContent-Length: 2\nRetry-After: 1\n\n",
    "HTTP/1.1 999 Odd\nContent-Length: 2\nVia: 1.1 other\n\n",
    "HTTP/1.1 500 x\nContent-Encoding: gzip\nContent-Length: 2\nTrailer: X\n\n",
]


@pytest.mark.parametrize("head", HEADS)
async def test_head_is_unchanged(rig: Rig, head: str) -> None:
    """Status, reason, order, case, repetition: the client cannot tell that we are here."""
    reply = await relayed(rig, wire(head, b"hi"))
    assert reply.head == wire(head).replace(b"Empty:\r\n", b"Empty: \r\n")
    assert reply.body == b"hi"
    close = await rig.tap.close()
    assert (close.status, close.response_bytes, close.outcome) == (reply.status, 2, "ok")


async def test_hop_by_hop_fields_end_here(rig: Rig) -> None:
    """The engine's Connection speaks to us."""
    fields = ["Connection: close, X-Hop", "Keep-Alive: timeout=5", "X-Hop: 1", "Proxy-Connection: x", "X-End: 2"]
    reply = await relayed(rig, ok(b"x", *fields))
    assert reply.lines == [b"X-End: 2", b"Content-Length: 1"]


async def test_chunks_are_written_anew(rig: Rig) -> None:
    """The body is the same; extensions are gone; a read is a chunk."""
    head = wire("HTTP/1.1 200 OK\nX-A: 1\ntransfer-encoding: chunked\nX-B: 2\n\n")
    reply = await relayed(rig, head + b"2;ext=1\r\nab\r\n1\r\nc\r\n0\r\n\r\n")
    assert (reply.body, reply.framing, reply.trailers) == (b"abc", "chunked", b"")
    assert reply.lines == [b"X-A: 1", b"X-B: 2", b"Transfer-Encoding: chunked"]


async def test_events_arrive_one_by_one(rig: Rig) -> None:
    """Each with the read it came in, none held back for the next."""
    client = await rig.connect()
    client.send(get())
    engine = await rig.engine.accept()
    await engine.request()
    engine.send(sse(chunks=False))
    await client.read_until(b"\r\n\r\n")
    for number in range(5):
        event = b"data: %d\n\n" % number
        engine.send(chunk(event))
        assert await client.read(len(chunk(event))) == chunk(event)
    engine.send(b"0\r\n\r\n")
    assert await client.read(5) == b"0\r\n\r\n"
    close = await rig.tap.close()
    assert (close.reads, close.response_bytes) == (5, 45)


async def test_head_is_not_held_back_for_the_body(rig: Rig) -> None:
    """vLLM sends it at once; a client may wait for it."""
    client = await rig.connect()
    client.send(get())
    engine = await rig.engine.accept()
    await engine.request()
    engine.send(wire("HTTP/1.1 200 OK\nContent-Length: 2\n\n"))
    assert await client.read_until(b"\r\n\r\n")
    engine.send(b"hi")
    assert await client.read(2) == b"hi"


async def test_trailers_are_passed_on(rig: Rig) -> None:
    """To a client that speaks HTTP/1.1."""
    head = wire("HTTP/1.1 200 OK\nTrailer: X-T\nTransfer-Encoding: chunked\n\n")
    data = head + b"1\r\na\r\n0\r\nX-T: 1\r\nx-u: 2\r\n\r\n"
    reply = await relayed(rig, data)
    assert (reply.body, reply.trailers) == (b"a", b"X-T: 1\r\nx-u: 2\r\n")
    assert reply.one("trailer") == b"X-T"
    reply = await relayed(rig, data, wire("GET / HTTP/1.0\n\n"))
    assert (reply.body, reply.framing) == (b"a", "close")


async def test_informational_replies_are_passed_on(rig: Rig) -> None:
    """103 Early Hints, before the reply."""
    early = wire("HTTP/1.1 103 Early Hints\nLink: </a>\n\n")
    reply = await relayed(rig, early + early + ok())
    assert (reply.interim, reply.status, reply.body) == ([early, early], 200, b"fine")
    reply = await relayed(rig, early + ok(), wire("GET / HTTP/1.0\n\n"))
    assert (reply.interim, reply.status) == ([], 200)


@pytest.mark.parametrize(
    ("request_line", "head"),
    [
        ("HEAD /x HTTP/1.1", "HTTP/1.1 200 OK\nContent-Length: 5\nX: 1\n\n"),
        ("HEAD /x HTTP/1.1", "HTTP/1.1 405 Method Not Allowed\nallow: GET\ncontent-length: 31\n\n"),
        ("GET /x HTTP/1.1", "HTTP/1.1 204 No Content\nX: 1\n\n"),
        ("GET /x HTTP/1.1", "HTTP/1.1 304 Not Modified\nETag: x\nContent-Length: 5\n\n"),
        ("GET /x HTTP/1.1", "HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
    ],
)
async def test_reply_without_a_body(rig: Rig, request_line: str, head: str) -> None:
    """It ends with its head, unchanged, and both connections go on."""
    rig.engine.answer(wire(head), ok(b"next"))
    client = await rig.connect()
    reply = await client.ask(wire(f"{request_line}\nHost: h\n\n"), to_head=True)
    assert reply.head == wire(head)
    assert (await client.ask(get())).body == b"next"
    assert rig.engine.connections == 1


async def test_chunked_reply_to_head(rig: Rig) -> None:
    """No body, and no end of one."""
    client = await rig.connect()
    rig.engine.answer(wire("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n"), ok(b"next"))
    await client.ask(wire("HEAD /x HTTP/1.1\nHost: h\n\n"), to_head=True)
    assert (await client.ask(get())).body == b"next"


@pytest.mark.parametrize(
    ("version", "field"), [("1.0", "X: 1"), ("1.1", "X: 1"), ("1.1", "Transfer-Encoding: identity")]
)
async def test_reply_that_ends_with_the_engines_connection(rig: Rig, version: str, field: str) -> None:
    """Becomes chunks for a client of HTTP/1.1, whose connection need not end with it."""

    async def script(side: Any) -> None:
        await side.request()
        side.send(wire(f"HTTP/{version} 200 OK\nX: 1\n\n", b"until the end"))
        side.close()

    rig.engine.run(script)
    client = await rig.connect()
    for _ in range(2):
        reply = await client.ask(get())
        assert (reply.body, reply.framing, reply.complete) == (b"until the end", "chunked", True)
    assert rig.engine.connections == 2


@pytest.mark.parametrize(
    ("reply", "to_head"),
    [
        (ok(b"hello"), False),
        (wire("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", chunked(b"he", b"llo")), False),
        (wire("HTTP/1.1 204 No Content\n\n"), False),
        (wire("HTTP/1.1 304 Not Modified\nContent-Length: 5\n\n"), False),
        (ok(b"hello"), True),
    ],
)
@pytest.mark.parametrize("excess", [ok(b"bad"), b"hello", b"HTTP/1.1 200 OK\r\nContent-Le", b"\x00", b"0\r\n\r\n"])
async def test_what_the_engine_says_behind_a_reply_reaches_nobody(
    rig: Rig, reply: bytes, to_head: bool, excess: bytes
) -> None:
    """Neither this client's next reply nor another's."""
    rig.engine.answer(reply + excess)
    method = "HEAD" if to_head else "GET"
    client = await rig.connect()
    first = await client.ask(wire(f"{method} /x HTTP/1.1\nHost: h\n\n"), to_head=to_head)
    assert first.head.split(b"\r\n")[0] == reply.split(b"\r\n")[0]
    assert first.body == (b"" if to_head or first.status != 200 else b"hello")
    await rig.idle()
    rig.engine.answer(ok(b"clean"))
    assert (await client.ask(get())).body == b"clean"
    assert (await rig.ask(get())).body == b"clean"


async def test_binary_body(rig: Rig) -> None:
    """Every byte value, in any framing."""
    body = bytes(range(256)) * 400
    assert (await relayed(rig, ok(body))).body == body
    head = wire("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n")
    assert (await relayed(rig, head + chunked(*[body[at : at + 999] for at in range(0, len(body), 999)]))).body == body


async def test_reply_drop_by_drop(rig: Rig) -> None:
    """One byte per read, head and body and end."""
    client = await rig.connect()
    client.send(get())
    engine = await rig.engine.accept()
    await engine.request()
    data = wire("HTTP/1.1 200 OK\nX: 1\nTransfer-Encoding: chunked\n\n", chunked(b"hello", b"world"))
    feeding = asyncio.gather(engine.drip(data), client.reply())
    reply = (await feeding)[1]
    assert (reply.body, reply.complete) == (b"helloworld", True)
    assert (await rig.tap.close()).response_bytes == 10


async def test_copies_are_the_engines_bytes(rig: Rig) -> None:
    """The collector gets body, head (without cookies) and stamps in order."""
    await relayed(rig, ok(b"body", "Content-Type: text/plain", "Set-Cookie: s=secret", "X-Other: 1"))
    close = await rig.tap.close()
    (opened,), (head,) = rig.tap.opens, rig.tap.heads
    assert rig.tap.copy() == b"body"
    assert head.headers == {"content-type": "text/plain", "x-other": "1", "content-length": "4"}
    stamps = [opened.arrival_ns, opened.sent_ns, close.head_ns, close.first_body_ns, close.last_body_ns, close.stamp_ns]
    assert stamps == sorted(stamps)
    assert min(stamps) > 0


# usage taken out again


def fixture(name: str) -> tuple[bytes, list[bytes], list[tuple[str, str]]]:
    record = json.loads((FIXTURES / f"{name}.json").read_text())
    chunks = [text.encode() for text in record["response"]["chunks"]]
    return record["request"]["body"].encode(), chunks, record["response"]["headers"]


def settled(body: bytes) -> bytes:
    return re.sub(rb'"created":\d+|chatcmpl-tool-[0-9a-f]+', b"", body)


def stream_of(chunks: list[bytes], headers: list[tuple[str, str]]) -> bytes:
    lines = "".join(f"{name}: {value}\n" for name, value in headers)
    return wire(f"HTTP/1.1 200 OK\n{lines}\n", chunked(*chunks))


@pytest.mark.parametrize("kind", ["chat", "completion", "chat_logprobs", "chat_tools_named", "completion_echo"])
@pytest.mark.parametrize("wish", ["bare", "usage"])
async def test_client_gets_the_stream_it_asked_for(vllm: Rig, kind: str, wish: str) -> None:
    """Engine: continuous usage. Client: what vLLM would have sent it without us. Books: the usage."""
    request, expected, _ = fixture(f"{kind}.{wish}")
    _, chunks, headers = fixture(f"{kind}.continuous")
    vllm.engine.answer(stream_of(chunks, headers))
    reply = await vllm.ask(post(request, "/v1/chat/completions"))
    assert settled(reply.body) == settled(b"".join(expected))
    assert [line.split(b":")[0].lower() for line in reply.lines] == [name.lower().encode() for name, _ in headers]
    (got,) = vllm.engine.requests
    assert got.json["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    close = await vllm.tap.close()
    assert vllm.tap.copy() == b"".join(chunks)
    assert json.loads(close.usages[-1])["completion_tokens"] == json.loads(close.usages[0])["completion_tokens"]
    assert b"[DONE]" in close.tail


async def test_client_that_asked_for_everything_gets_the_stream_untouched(vllm: Rig) -> None:
    """Nothing was asked on our account, so nothing is taken out."""
    request, chunks, headers = fixture("chat.continuous")
    vllm.engine.answer(stream_of(chunks, headers))
    reply = await vllm.ask(post(request, "/v1/chat/completions"))
    assert reply.body == b"".join(chunks)
    assert vllm.engine.requests[0].body == request


async def test_forced_usage_is_kept_when_nothing_is_asked(start: Start) -> None:
    """An engine with --enable-force-include-usage: `usage.ask: false`, and its clients get what they always got."""
    rig = await start(usage={"ask": False}, upstream={"engine": "vllm"})
    request, chunks, headers = fixture("forced_chat.bare")
    rig.engine.answer(stream_of(chunks, headers))
    reply = await rig.ask(post(request, "/v1/chat/completions"))
    assert reply.body == b"".join(chunks)


async def test_stream_with_a_length_loses_it(vllm: Rig) -> None:
    """The engine's length is not ours once something is taken out."""
    body = b'data: {"choices":[{"index":0}],"usage":{"a":1}}\n\n'
    reply = await relayed(vllm, ok(body, "Content-Type: text/event-stream"), post('{"stream":true}'))
    assert (reply.body, reply.framing) == (b'data: {"choices":[{"index":0}]}\n\n', "chunked")
    assert reply.all("content-length") == []


async def test_edited_stream_for_http_10(vllm: Rig) -> None:
    """Ends with the connection."""
    body = b'data: {"choices":[{"index":0}],"usage":{"a":1}}\n\n'
    request = wire("POST /v1/completions HTTP/1.0\nContent-Length: 15\n\n", b'{"stream":true}')
    reply = await relayed(vllm, sse(body), request)
    assert (reply.body, reply.framing) == (b'data: {"choices":[{"index":0}]}\n\n', "close")


@pytest.mark.parametrize(
    "reply",
    [
        ok(b'{"choices":[],"usage":{"prompt_tokens":1}}', "Content-Type: application/json"),
        ok(
            b'data: {"choices":[{"index":0}],"usage":{"a":1}}\n\n',
            "Content-Type: text/event-stream",
            "Content-Encoding: br",
        ),
        wire("HTTP/1.1 404 Not Found\nContent-Type: application/json\nContent-Length: 12\n\n", b'{"usage":{}}'),
    ],
)
async def test_reply_that_is_no_plain_stream_is_untouched(vllm: Rig, reply: bytes) -> None:
    """Whatever we asked for."""
    got = await relayed(vllm, reply, post('{"stream":true}'))
    assert got.head + got.body == reply


async def test_stream_that_breaks_off_gives_up_what_was_held(vllm: Rig) -> None:
    """A finish event that waited for its fingerprint, and half an event, come out before the cut."""
    client = await vllm.connect()
    client.send(post('{"stream":true}'))
    engine = await vllm.engine.accept()
    await engine.request()
    events = b'data: {"choices":[{"index":0,"finish_reason":"stop"}],"usage":{"completion_tokens":7}}\n\n'
    engine.send(sse(chunks=False) + chunk(events + b'data: {"half'))
    engine.close()
    reply = await client.reply()
    assert not reply.complete
    assert reply.body == b'data: {"choices":[{"index":0,"finish_reason":"stop"}]}\n\ndata: {"half'
    close = await vllm.tap.close()
    assert (close.outcome, close.error) == ("stream_error", "upstream_reset")
    assert close.usages == {0: b'{"completion_tokens":7}'}


@pytest.mark.parametrize("broken", ["opened", "head", "read", "closed"])
async def test_broken_tap_changes_nothing_for_the_client(vllm: Rig, broken: str) -> None:
    """Promise 1."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken tap")

    request, chunks, headers = fixture("chat.continuous")
    vllm.engine.answer(stream_of(chunks, headers))
    setattr(vllm.tap, broken, fail)
    reply = await vllm.ask(post('{"stream":true}'))
    await vllm.idle()
    assert vllm.tap.observer_errors >= 1
    without = re.compile(rb',"usage":\{[^}]*\}')
    _, bare, _ = fixture("chat.bare")
    texts = re.compile(rb'"content":"[^"]*"')
    assert texts.findall(reply.body) == texts.findall(b"".join(bare))
    assert len(without.findall(reply.body)) in (0, len(chunks) - 1)
    vllm.tap = type(vllm.tap)()  # its books are broken on purpose


@pytest.mark.parametrize(("path", "nothing"), [("/v1/completions", ',"usage":null'), ("/v1/chat/completions", "")])
async def test_an_engine_that_writes_null_is_seen_to(start: Start, path: str, nothing: str) -> None:
    """trtllm-serve's completions, where nobody has asked for usage."""
    rig = await start(upstream={"engine": "trtllm"})
    event = 'data: {"choices":[{"index":0,"finish_reason":%s}]%s}\n\n'
    told = [event % (reason, ',"usage":{"prompt_tokens":3}') for reason in ("null", "null", '"stop"')]
    seen = [event % (reason, nothing) for reason in ("null", "null", '"stop"')]
    rig.engine.answer(sse(*[one.encode() for one in told]))
    reply = await rig.ask(post('{"stream":true}', path))
    assert reply.body.decode() == "".join(seen)
