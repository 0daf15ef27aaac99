"""server: what the engine gets of a request. Transcripts: client | relay | engine."""

import asyncio
import gzip
import json
import re

import pytest
from harness import Message, Rig, Start, chunk, chunked, get, ok, post, sse, until, wire

FIELDS = ["X-One: 1", "x-ONE: 2", "Accept: */*", "Cookie: a=1", "Cookie: b=2", "X-Odd: \xe9\xff"]


async def relayed(rig: Rig, data: bytes, reply: bytes = ok()) -> Message:
    """Send a request; return it as the engine got it."""
    rig.engine.answer(reply)
    await rig.ask(data)
    return rig.engine.requests[-1]


@pytest.mark.parametrize(
    "method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "REPORT", "QUERY", "M-SEARCH"]
)
async def test_any_method(rig: Rig, method: str) -> None:
    """We know of none that is not the engine's business, but for CONNECT."""
    got = await relayed(rig, wire(f"{method} /x HTTP/1.1\nHost: h\n\n"))
    assert got.head == wire(f"{method} /x HTTP/1.1\nHost: h\n\n")
    close = await rig.tap.close()
    assert (rig.tap.opens[0].method, close.outcome, close.status) == (method, "ok", 200)


@pytest.mark.parametrize(
    ("target", "seen", "path"),
    [
        ("/", "/", "/"),
        ("/a/b?x=1&y=%20#f", "/a/b?x=1&y=%20#f", "/a/b"),
        ("/%2e%2e/%00?", "/%2e%2e/%00?", "/../\0"),
        ("/v1/%6dodels?x=%79", "/v1/%6dodels?x=%79", "/v1/models"),
        ("//a//b/../c", "//a//b/../c", "//a//b/../c"),
        ("/" + "x" * 8000, "/" + "x" * 8000, "/" + "x" * 8000),
        ("http://other:99/v1?x", "/v1?x", "/v1"),
        ("/a?b=c?d=http://e", "/a?b=c?d=http://e", "/a"),
        ('/[{}|^`"<>]', '/[{}|^`"<>]', '/[{}|^`"<>]'),
    ],
)
async def test_any_target(rig: Rig, target: str, seen: str, path: str) -> None:
    """Byte for byte, but for an absolute one, which becomes a path. The books have it without the query, and
    without escapes, as engines route by it."""
    got = await relayed(rig, wire(f"GET {target} HTTP/1.1\nHost: h\n\n"))
    assert got.start == wire(f"GET {seen} HTTP/1.1")
    assert rig.tap.opens[0].path == path


async def test_asterisk(rig: Rig) -> None:
    """OPTIONS * is for the engine."""
    got = await relayed(rig, wire("OPTIONS * HTTP/1.1\nHost: h\n\n"))
    assert got.start == b"OPTIONS * HTTP/1.1"


async def test_fields_are_passed_as_they_came(rig: Rig) -> None:
    """Order, case, repetition and odd bytes; nothing added: no Via, no X-Forwarded-For."""
    got = await relayed(rig, get("/", *FIELDS))
    assert got.lines == [b"Host: inferwatch", *(field.encode("latin-1") for field in FIELDS)]


async def test_hop_by_hop_fields_end_here(rig: Rig) -> None:
    """Also those that Connection names."""
    fields = [
        "Connection: keep-alive, X-Hop",
        "X-Hop: 1",
        "Keep-Alive: timeout=9",
        "TE: trailers",
        "Proxy-Connection: x",
    ]
    got = await relayed(rig, get("/", *fields, "X-End: 2"))
    assert got.lines == [b"Host: inferwatch", b"X-End: 2"]


async def test_our_own_fields_end_here(rig: Rig) -> None:
    """And are in the books: the feature by its name, people as pseudonyms."""
    fields = ["X-Inferwatch-User: u", "x-inferwatch-feature: f", "X-INFERWATCH-SESSION: s", "x-inferwatch-tenant: boss"]
    got = await relayed(rig, get("/", *fields))
    assert got.lines == [b"Host: inferwatch"]
    (opened,) = rig.tap.opens
    assert (opened.feature, opened.tenant) == ("f", "anonymous")
    assert re.fullmatch("[0-9a-f]{16} [0-9a-f]{16}", f"{opened.user} {opened.session}")


async def test_trusted_peer_names_the_tenant(start: Start) -> None:
    """A gateway in front of us."""
    rig = await start(identity={"trusted_peers": ["127.0.0.0/8"]})
    await relayed(rig, get("/", "x-inferwatch-tenant: acme", "Authorization: Bearer k"))
    assert rig.tap.opens[0].tenant == "acme"


async def test_key_reaches_the_engine_but_not_the_books(rig: Rig) -> None:
    """The engine checks it; we keep a hash."""
    got = await relayed(rig, get("/", "Authorization: Bearer sk-secret"))
    assert got.one("authorization") == b"Bearer sk-secret"
    assert "sk-secret" not in repr((rig.tap.opens, rig.tap.heads, rig.tap.closes))
    assert rig.tap.opens[0].tenant.startswith("key-")


async def test_query_is_not_in_the_books(rig: Rig) -> None:
    """It may hold keys."""
    await relayed(rig, get("/v1?api_key=sk-secret"))
    assert "sk-secret" not in repr((rig.tap.opens, rig.tap.heads, rig.tap.closes))


# trace context

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


async def test_our_span_replaces_the_parent(rig: Rig) -> None:
    """Same trace, same flags, tracestate untouched."""
    got = await relayed(rig, get("/", f"Traceparent: 00-{TRACE}-{PARENT}-00", "tracestate: a=b,c=d"))
    found = re.fullmatch(rf"00-{TRACE}-([0-9a-f]{{16}})-00".encode(), got.one("traceparent") or b"")
    assert found
    assert found[1] != PARENT.encode()
    assert got.one("tracestate") == b"a=b,c=d"
    (opened,) = rig.tap.opens
    assert (opened.trace_id, opened.span_id, opened.parent_span_id) == (TRACE, found[1].decode(), PARENT)


@pytest.mark.parametrize("value", ["garbage", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01", ""])
async def test_invalid_trace_context_is_passed_untouched(rig: Rig, value: str) -> None:
    """It is not ours to repair."""
    got = await relayed(rig, get("/", f"TraceParent: {value}"))
    assert got.lines[1] == f"TraceParent: {value}".encode()
    assert rig.tap.opens[0].trace_id == ""


async def test_trace_is_minted_only_if_configured(start: Start) -> None:
    """And only for a request without any."""
    assert (await relayed(await start(), get())).one("traceparent") is None
    rig = await start(trace={"mint": True})
    got = await relayed(rig, get())
    (opened,) = rig.tap.opens
    assert got.one("traceparent") == f"00-{opened.trace_id}-{opened.span_id}-01".encode()
    assert (await relayed(rig, get("/", "traceparent: garbage"))).one("traceparent") == b"garbage"


# bodies


@pytest.mark.parametrize("size", [0, 1, 1000, 70_000, 1_000_000, 1_100_000, 3_000_000])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_any_body(rig: Rig, size: int, is_chunked: bool) -> None:
    """Buffered or streamed, with a length or in chunks: the same bytes."""
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    if is_chunked:
        pieces = [body[start : start + 50_001] for start in range(0, size, 50_001)]
        data = wire("POST /any HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n", chunked(*pieces))
    else:
        data = wire(f"POST /any HTTP/1.1\nHost: h\nContent-Length: {size}\n\n", body)
    got = await relayed(rig, data)
    assert got.body == body
    assert len(got.all("content-length") + got.all("transfer-encoding")) == 1
    (opened,) = rig.tap.opens
    assert opened.body == body[: len(opened.body)]


async def test_body_drop_by_drop(rig: Rig) -> None:
    """However slowly it comes."""
    rig.engine.answer(ok())
    client = await rig.connect()
    await client.drip(
        wire(
            "PUT /x HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n", b"5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nX: y\r\n\r\n"
        )
    )
    assert (await client.reply()).status == 200
    assert rig.engine.requests[0].body == b"hello!"


async def test_body_of_a_get(rig: Rig) -> None:
    """Odd, but the engine's business."""
    got = await relayed(rig, wire("GET /x HTTP/1.1\nHost: h\nContent-Length: 3\n\n", b"abc"))
    assert (got.body, got.one("content-length")) == (b"abc", b"3")


async def test_empty_post_says_so(rig: Rig) -> None:
    """A length of nought is passed on."""
    got = await relayed(rig, wire("POST /x HTTP/1.1\nHost: h\nContent-Length: 0\n\n"))
    assert got.one("content-length") == b"0"


async def test_empty_post_in_chunks_says_so_too(rig: Rig) -> None:
    """That a body was announced, and is empty, must not get lost."""
    got = await relayed(rig, wire("POST /x HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n", chunked()))
    assert got.one("content-length") == b"0"


async def test_host_that_is_named_by_connection_is_replaced(rig: Rig) -> None:
    """A request without one is no HTTP/1.1."""
    got = await relayed(rig, get("/", "Connection: close, HOST"))
    assert got.lines == [b"Host: 127.0.0.1:%d" % rig.engine.port]


async def test_large_body_is_streamed(start: Start) -> None:
    """The engine gets its beginning before its end has come; the books get the beginning, and what all of it says."""
    rig = await start(limits={"buffer_request_bytes": 1000})
    client = await rig.connect()
    body = json.dumps({"messages": "x" * 5000, "model": "m", "n": 2, "stream": True}).encode()
    client.send(wire(f"POST /v1/x HTTP/1.1\nHost: h\nContent-Length: {len(body)}\n\n", body[:2000]))
    engine = await rig.engine.accept()
    head = await engine.read_until(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked\r\n" in head
    assert b"content-length" not in head.lower()
    assert await engine.read(5) == b"7d0\r\n"
    assert await engine.read(2002) == body[:2000] + b"\r\n"
    assert not rig.tap.opens
    client.send(body[2000:])
    rest = await engine.read_until(b"0\r\n\r\n")
    assert body.endswith(rest.split(b"\r\n")[-4])
    engine.send(ok())
    assert (await client.reply()).status == 200
    close = await rig.tap.close()
    (opened,) = rig.tap.opens
    assert (opened.body_bytes, opened.body) == (len(body), body[:2000])
    assert (opened.model, opened.n, opened.choices, opened.stream) == ("m", 2, 2, True)
    assert opened.arrival_ns < opened.sent_ns < close.head_ns
    assert close.outcome == "ok"


async def test_streamed_body_leaves_both_connections_usable(start: Start) -> None:
    """Once it is through, keep-alive goes on as with any other."""
    rig = await start(limits={"buffer_request_bytes": 100})
    rig.engine.answer(ok(b"one"), ok(b"two"))
    client = await rig.connect()
    for reply in (b"one", b"two"):
        client.send(wire("POST /x HTTP/1.1\nHost: h\nContent-Length: 1000\n\n", b"x" * 500))
        await asyncio.sleep(0.02)
        got = await client.ask(b"y" * 500)
        assert (got.body, got.one("connection")) == (reply, None)
    await rig.pooled(2)


async def test_length_above_the_cap_is_refused_at_once(start: Start) -> None:
    """413 in the engine's shape, no 100 Continue, no byte for the engine, a Close in the books."""
    rig = await start(limits={"max_request_bytes": 1000})
    client = await rig.connect()
    reply = await client.ask(wire("POST /v1/x HTTP/1.1\nHost: h\nExpect: 100-continue\nContent-Length: 1001\n\n"))
    assert (reply.status, reply.interim, reply.one("connection")) == (413, [], b"close")
    assert reply.json["error"]["code"] == 413
    assert "1000" in reply.json["error"]["message"]
    assert rig.engine.connections == 0
    close = await rig.tap.close()
    assert (close.outcome, close.error, close.status) == ("rejected", "request_too_large", 413)


@pytest.mark.parametrize("buffered", [10, 500, 2000])
async def test_chunks_above_the_cap_are_refused(start: Start, buffered: int) -> None:
    """Whether buffered or already on the way: 413, and the engine's half request is cut off."""
    rig = await start(limits={"max_request_bytes": 1000, "buffer_request_bytes": buffered})
    client = await rig.connect()
    client.send(wire("POST /x HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n"))
    for _ in range(11):
        client.send(chunk(b"x" * 100))
        await asyncio.sleep(0.003)
    reply = await client.reply()
    assert (reply.status, reply.one("connection")) == (413, b"close")
    close = await rig.tap.close()
    assert (close.outcome, close.error) == ("rejected", "request_too_large")
    if rig.engine.connections:
        assert not (await (await rig.engine.accept()).rest()).endswith(b"0\r\n\r\n")
    assert rig.pool.idle == 0


async def test_body_at_the_cap_passes(start: Start) -> None:
    """The bound is the largest allowed."""
    rig = await start(limits={"max_request_bytes": 1000, "buffer_request_bytes": 100})
    got = await relayed(
        rig, wire("POST /x HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n", chunked(*[b"x" * 100] * 10))
    )
    assert len(got.body) == 1000


async def test_body_that_stops_coming(start: Start) -> None:
    """408, and nothing of the engine's time is spent."""
    rig = await start(limits={"client_idle_s": 0.05})
    reply = await rig.ask(wire("POST /x HTTP/1.1\nHost: h\nContent-Length: 10\n\n", b"abc"))
    assert (reply.status, reply.one("connection")) == (408, b"close")
    assert rig.engine.connections == 0
    assert (await rig.tap.close()).outcome == "rejected"


async def test_streamed_body_that_stops_coming(start: Start) -> None:
    """408, and the engine sees its half request cut off."""
    rig = await start(limits={"client_idle_s": 0.05, "buffer_request_bytes": 10})
    client = await rig.connect()
    client.send(wire("POST /x HTTP/1.1\nHost: h\nContent-Length: 1000\n\n", b"x" * 100))
    engine = await rig.engine.accept()
    assert (await client.reply()).status == 408
    assert not (await engine.rest()).endswith(b"0\r\n\r\n")
    assert (await rig.tap.close()).outcome == "rejected"


@pytest.mark.parametrize("early", [ok(b"early"), wire("HTTP/1.1 413 Too Large\nContent-Length: 0\n\n")])
async def test_engine_that_answers_before_the_body_is_through(start: Start, early: bytes) -> None:
    """The reply passes; both connections end, as the rest of the body is still to come on them."""
    rig = await start(limits={"buffer_request_bytes": 10})
    client = await rig.connect()
    client.send(wire("POST /x HTTP/1.1\nHost: h\nContent-Length: 100000\n\n", b"x" * 100))
    engine = await rig.engine.accept()
    await engine.read_until(b"\r\n\r\n")
    engine.send(early)
    reply = await client.reply()
    assert (reply.status, reply.one("connection")) == (int(early[9:12]), b"close")
    close = await rig.tap.close()
    (opened,) = rig.tap.opens  # told of before its head
    assert (opened.body, opened.sent_ns, close.status) == (b"x" * 100, 0, int(early[9:12]))
    await engine.rest()
    assert rig.pool.idle == 0
    client.send(b"x" * 99_900)
    await client.rest()


async def test_reply_that_began_before_our_question_is_not_edited(start: Start) -> None:
    """It has a length, and is what the engine says to anybody."""
    rig = await start(limits={"buffer_request_bytes": 100}, upstream={"engine": "vllm"})
    client = await rig.connect()
    data = post(json.dumps({"messages": "x" * 5000, "stream": True}))
    client.send(data[:3000])
    engine = await rig.engine.accept()
    await engine.read_until(b"x")
    body = b'data: {"choices":[],"usage":{"completion_tokens":7}}\n\n'
    head = f"HTTP/1.1 200 OK\ncontent-type: text/event-stream\ncontent-length: {len(body)}\n\n"
    engine.send(wire(head, body[:10]))
    await client.read_until(body[:10])
    client.send(data[3000:])
    await engine.read_until(b"0\r\n\r\n")
    engine.send(body[10:])
    assert await client.read(len(body) - 10) == body[10:]


async def test_engine_that_goes_away_during_the_upload(start: Start) -> None:
    """502 at once, not when the upload ends."""
    rig = await start(limits={"buffer_request_bytes": 10})
    client = await rig.connect()
    client.send(wire("POST /x HTTP/1.1\nHost: h\nContent-Length: 100000\n\n", b"x" * 100))
    engine = await rig.engine.accept()
    await engine.read_until(b"\r\n\r\n")
    engine.reset()
    reply = await client.reply()
    assert (reply.status, reply.one("connection")) == (502, b"close")
    close = await rig.tap.close()
    assert (close.outcome, close.error) == ("upstream_error", "upstream_reset")


# Expect


async def test_expect_is_answered_here(rig: Rig) -> None:
    """curl waits for it with a large body; the engine never hears of it."""
    rig.engine.answer(ok())
    client = await rig.connect()
    client.send(wire("POST /x HTTP/1.1\nHost: h\nExpect: 100-continue\nContent-Length: 3\n\n"))
    assert await client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert (await client.ask(b"abc")).status == 200
    (got,) = rig.engine.requests
    assert (got.body, got.one("expect")) == (b"abc", None)


async def test_expect_with_the_body_at_hand_needs_no_answer(rig: Rig) -> None:
    """RFC 9110 10.1.1: it may be left out once the body has come."""
    rig.engine.answer(ok())
    reply = await rig.ask(wire("POST /x HTTP/1.1\nHost: h\nExpect: 100-continue\nContent-Length: 3\n\n", b"abc"))
    assert (reply.status, reply.interim) == (200, [])


async def test_expect_of_a_streamed_upload(start: Start) -> None:
    """One 100, then the reply."""
    rig = await start(limits={"buffer_request_bytes": 10})
    rig.engine.answer(ok())
    client = await rig.connect()
    client.send(wire("PUT /x HTTP/1.1\nHost: h\nExpect: 100-continue\nContent-Length: 5000\n\n"))
    assert (await client.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    reply = await client.ask(b"x" * 5000)
    assert (reply.status, reply.interim) == (200, [])


async def test_engines_own_continue_is_not_passed_twice(rig: Rig) -> None:
    """We have sent it long ago."""
    reply = (await asyncio.gather(rig.ask(post("{}")), serve(rig, b"HTTP/1.1 100 Continue\r\n\r\n" + ok())))[0]
    assert (reply.status, reply.interim) == (200, [])


async def serve(rig: Rig, data: bytes) -> None:
    engine = await rig.engine.accept()
    await engine.request()
    engine.send(data)


# keep-alive and pipelining


async def test_requests_on_one_connection(rig: Rig) -> None:
    """Both sides keep theirs."""
    rig.engine.answer(ok(b"a"), ok(b"b"), ok(b"c"))
    client = await rig.connect()
    for number, body in enumerate((b"a", b"b", b"c"), 1):
        assert (await client.ask(get(f"/{number}"))).body == body
        await rig.pooled()
    assert [message.start for message in rig.engine.requests] == [
        b"GET /1 HTTP/1.1",
        b"GET /2 HTTP/1.1",
        b"GET /3 HTTP/1.1",
    ]
    assert rig.engine.connections == 1


@pytest.mark.parametrize("number", [2, 10, 40])
async def test_pipelined_requests_are_answered_in_order(rig: Rig, number: int) -> None:
    """One after the other, whatever their bodies."""
    bodies = [f"reply {index}".encode() for index in range(number)]
    rig.engine.answer(*[ok(body) for body in bodies])
    client = await rig.connect()
    for index in range(number):
        client.send(post(f'{{"n":{index}}}', f"/{index}"))
    assert [(await client.reply()).body for _ in range(number)] == bodies
    assert [message.json["n"] for message in rig.engine.requests] == list(range(number))
    await rig.tap.close(number)


async def test_requests_do_not_leak_into_each_other(rig: Rig) -> None:
    """Fields, trace, tenant, tail: each request has its own."""
    rig.engine.answer(ok(b"first", "X-First: 1", "Set-Cookie: s=1"), ok(b"2nd"))
    client = await rig.connect()
    fields = ("Authorization: Bearer a", f"traceparent: 00-{TRACE}-{PARENT}-01", "x-inferwatch-user: u", "Cookie: c=1")
    await client.ask(get("/first", *fields))
    reply = await client.ask(get("/second"))
    assert reply.lines == [b"Content-Length: 3"]
    assert rig.engine.requests[1].lines == [b"Host: inferwatch"]
    await rig.tap.close(2)
    one, two = rig.tap.opens
    assert (two.tenant, two.trace_id, two.user, two.headers) == ("anonymous", "", "", {})
    assert one.request_id != two.request_id
    assert rig.tap.closes[1].tail == b"2nd"


@pytest.mark.parametrize("line", ["Connection: close", "connection: Close, X-Hop"])
async def test_client_that_wants_to_close_is_let_go(rig: Rig, line: str) -> None:
    """We say so and do it; the engine's connection is ours and stays."""
    rig.engine.answer(ok())
    client = await rig.connect()
    reply = await client.ask(get("/", line))
    assert reply.one("connection") == b"close"
    assert await client.is_closed()
    await rig.pooled()


async def test_http_10(rig: Rig) -> None:
    """The end of the connection is the end of the body; the engine sees HTTP/1.1 with a Host."""
    rig.engine.answer(wire("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", chunked(b"ab", b"cd")))
    reply = await rig.ask(wire("GET /x HTTP/1.0\n\n"))
    assert (reply.body, reply.framing, reply.one("connection")) == (b"abcd", "close", b"close")
    (got,) = rig.engine.requests
    assert got.head == wire(f"GET /x HTTP/1.1\nHost: 127.0.0.1:{rig.engine.port}\n\n")


async def test_http_10_with_keep_alive(rig: Rig) -> None:
    """If the reply has a length it is kept, and told so."""
    rig.engine.answer(ok(b"one"), ok(b"two"))
    client = await rig.connect()
    for body in (b"one", b"two"):
        reply = await client.ask(wire("GET /x HTTP/1.0\nHost: h\nConnection: keep-alive\n\n"))
        assert (reply.body, reply.one("connection")) == (body, b"keep-alive")


# upgrade


WEBSOCKET = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13"]
SWITCH = wire("HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Accept: y\n\n")


async def test_websocket(rig: Rig) -> None:
    """Bytes both ways, from the first one behind the head, until one side leaves."""
    client = await rig.connect()
    client.send(get("/v1/realtime", *WEBSOCKET))
    engine = await rig.engine.accept()
    got = await engine.request()
    assert sorted(got.lines) == sorted([b"Host: inferwatch", *(line.encode() for line in WEBSOCKET)])
    engine.send(SWITCH + b"\x81\x02hi")
    reply = await client.reply()
    assert (reply.status, reply.one("sec-websocket-accept"), reply.one("upgrade")) == (101, b"y", b"websocket")
    assert await client.read(4) == b"\x81\x02hi"
    client.send(b"\x81\x82mask")
    assert await engine.read(6) == b"\x81\x82mask"
    engine.send(b"x" * 300_000)
    assert await client.read(300_000) == b"x" * 300_000
    client.send(b"y" * 300_000)
    assert await engine.read(300_000) == b"y" * 300_000
    client.close()
    await engine.rest()
    close = await rig.tap.close()
    assert (close.outcome, close.status) == ("ok", 101)
    assert rig.pool.idle == 0


async def test_websocket_with_frames_right_behind_the_request(rig: Rig) -> None:
    """An eager client's first frames are not lost."""
    client = await rig.connect()
    client.send(get("/", *WEBSOCKET) + b"\x81\x80eager")
    engine = await rig.engine.accept()
    await engine.request()
    await asyncio.sleep(0.02)
    client.send(b"more")
    await asyncio.sleep(0.02)
    engine.send(SWITCH)
    assert (await client.reply()).status == 101
    assert await engine.read(11) == b"\x81\x80eagermore"
    engine.close()
    assert await client.is_closed()
    assert (await rig.tap.close()).outcome == "ok"


async def test_websocket_the_engine_closes_at_once(rig: Rig) -> None:
    """What it said before is passed on, then the end."""
    client = await rig.connect()
    client.send(get("/", *WEBSOCKET))
    engine = await rig.engine.accept()
    await engine.request()
    engine.send(SWITCH + b"\x88\x00")
    engine.close()
    assert (await client.reply()).status == 101
    assert await client.rest() == b"\x88\x00"
    assert (await rig.tap.close()).outcome == "ok"


async def test_websocket_that_is_declined(rig: Rig) -> None:
    """The engine's answer is an answer like any other; the connection goes on."""
    rig.engine.answer(wire("HTTP/1.1 403 Forbidden\nContent-Length: 2\n\n", b"no"), ok(b"next"))
    client = await rig.connect()
    reply = await client.ask(get("/", *WEBSOCKET))
    assert (reply.status, reply.body) == (403, b"no")
    assert (await client.ask(get("/"))).body == b"next"


@pytest.mark.parametrize("size", [10, 3_000_000])
async def test_offer_of_http_2_is_ignored_and_its_body_is_not(rig: Rig, size: int) -> None:
    """Java's client offers h2c with its first POST."""
    body = json.dumps({"x": "y" * size})
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
    got = await relayed(rig, post(body, "/v1/x", *offer))
    assert got.body == body.encode()
    assert (got.one("upgrade"), got.one("connection"), got.one("http2-settings")) == (None, None, None)


async def test_http_2_preface_is_refused(rig: Rig) -> None:
    """Prior knowledge of what we are not."""
    reply = await rig.ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert reply.status in (400, 505)
    assert rig.engine.connections == 0


async def test_connect_is_refused(rig: Rig) -> None:
    """We are no forward proxy."""
    reply = await rig.ask(wire("CONNECT example.com:443 HTTP/1.1\nHost: example.com:443\n\n"))
    assert reply.status == 405
    assert rig.engine.connections == 0
    assert (await rig.tap.close()).outcome == "rejected"


# compression that is offered


@pytest.mark.parametrize(
    ("accepted", "offered"),
    [
        (["gzip, deflate, br, zstd"], [b"gzip, deflate"]),
        (["br"], [b"identity"]),
        (["gzip"], [b"gzip"]),
        (["gzip", "br"], [b"gzip"]),
        (["gzip", "deflate"], [b"gzip", b"deflate"]),
        ([], []),
    ],
)
async def test_only_compression_that_can_be_read_is_offered(
    rig: Rig, accepted: list[str], offered: list[bytes]
) -> None:
    """Where the answer may have tokens; the other fields are as they came."""
    got = await relayed(rig, post("{}", "/v1/embeddings", "X-A: 1", *[f"Accept-Encoding: {one}" for one in accepted]))
    assert got.all("accept-encoding") == offered
    assert got.one("x-a") == b"1"


@pytest.mark.parametrize(
    "asked", [get("/v1/models", "Accept-Encoding: br"), post("{}", "/tokenize", "Accept-Encoding: br")]
)
async def test_where_nothing_is_generated_any_compression_is_offered(rig: Rig, asked: bytes) -> None:
    """There is nothing in the answer to read."""
    assert (await relayed(rig, asked)).one("accept-encoding") == b"br"


# asking for usage


BOTH = {"include_usage": True, "continuous_usage_stats": True}


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/v1/completions",
        "/prefix/v1/completions?x=1",
        "/v1/chat/complet%69ons",
        "/v1%2Fcompletions",
    ],
)
async def test_stream_is_asked_for_usage(vllm: Rig, path: str) -> None:
    """One member is spliced in, the length is right, compression is not offered; the books have the client's body."""
    body = '{ "stream" : true,\n"model":"m" }'
    got = await relayed(vllm, post(body, path, "Accept-Encoding: gzip", "X-After: 1"))
    assert got.json == {"stream": True, "model": "m", "stream_options": BOTH}
    assert got.body.startswith(body[:-1].encode())
    assert got.one("accept-encoding") is None
    assert got.one("x-after") == b"1"
    assert got.start == f"POST {path} HTTP/1.1".encode()
    (opened,) = vllm.tap.opens
    assert (opened.body, opened.asked_usage, opened.stream, opened.model) == (body.encode(), True, True, "m")


@pytest.mark.parametrize(
    ("path", "body", "lines"),
    [
        ("/v1/completions", '{"model":"m"}', []),
        ("/v1/completions", '{"stream":false}', []),
        ("/v1/embeddings", '{"stream":true}', []),
        ("/v1/completions", '{"stream":true', []),
        ("/invocations", '{"stream":true}', []),
        (
            "/v1/completions",
            '{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}',
            [],
        ),
    ],
)
async def test_anything_else_is_not_edited(vllm: Rig, path: str, body: str, lines: list[str]) -> None:
    """Byte for byte, and compression stays on offer."""
    got = await relayed(vllm, post(body, path, "Accept-Encoding: gzip", *lines))
    assert got.body == body.encode()
    assert got.one("accept-encoding") == b"gzip"
    assert not vllm.tap.opens[0].asked_usage


@pytest.mark.parametrize("limit", [200, 1_000_000])
async def test_a_form_has_a_model(start: Start, limit: int) -> None:
    """Transcriptions: by what stands in its beginning, also where the file is too long to wait for."""
    rig = await start(limits={"buffer_request_bytes": limit}, upstream={"engine": "vllm"})
    parts = {"model": "whisper", "stream": "True", "max_completion_tokens": "7"}
    texts = [f'--b c\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{text}\r\n' for key, text in parts.items()]
    file = '--b c\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + "x" * 5000 + "\r\n--b c--\r\n"
    body = "".join([*texts, file])
    head = [
        "POST /v1/audio/transcriptions HTTP/1.1",
        "Host: h",
        'Content-Type: multipart/form-data; boundary="b c"',
        f"Content-Length: {len(body)}",
    ]
    rig.engine.answer(ok())
    client = await rig.connect()
    data = wire("\n".join([*head, "", ""]), body.encode())
    client.send(data[:1000])
    await asyncio.sleep(0.02)
    assert (await client.ask(data[1000:])).status == 200
    assert rig.engine.requests[0].body == body.encode()
    (opened,) = rig.tap.opens
    assert (opened.model, opened.stream, opened.max_tokens, opened.asked_usage) == ("whisper", True, 7, False)


@pytest.mark.parametrize("coding", ["identity", "utf-8", "gzip", "x, br"])
@pytest.mark.parametrize("limit", [10, 1000])
async def test_json_is_read_whatever_its_coding_says(start: Start, coding: str, limit: int) -> None:
    """Engines on uvicorn do not look at it; at hand or passed on as it comes."""
    rig = await start(limits={"buffer_request_bytes": limit}, upstream={"engine": "vllm"})
    body = '{"model":"m","stream":true}'
    rig.engine.answer(ok())
    client = await rig.connect()
    data = post(body, "/v1/completions", f"Content-Encoding: {coding}")
    client.send(data[:-5])
    await asyncio.sleep(0.02)
    assert (await client.ask(data[-5:])).status == 200
    (got,) = rig.engine.requests
    assert got.json == {"model": "m", "stream": True, "stream_options": BOTH}
    assert got.one("content-encoding") == coding.encode()
    assert (rig.tap.opens[0].model, rig.tap.opens[0].asked_usage) == ("m", True)


@pytest.mark.parametrize("limit", [10, 1000])
async def test_a_compressed_body_passes_as_it_is(start: Start, limit: int) -> None:
    """Nothing of it is known, and nothing spliced into it."""
    rig = await start(limits={"buffer_request_bytes": limit}, upstream={"engine": "vllm"})
    body = gzip.compress(b'{"model":"m","stream":true}')
    got = await relayed(rig, post(body, "/v1/completions", "Content-Encoding: gzip"))
    assert got.body == body
    assert (rig.tap.opens[0].model, rig.tap.opens[0].asked_usage) == ("", False)


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "Application/JSON", "text/plain"])
async def test_json_is_read_whatever_its_type_says(rig: Rig, kind: str) -> None:
    """As engines read it: what a request to `/api/generate` from curl costs has a model."""
    body = b'{"model":"m","n":3}'
    await relayed(
        rig, wire(f"POST /api/generate HTTP/1.1\nHost: h\nContent-Type: {kind}\nContent-Length: 19\n\n", body)
    )
    (opened,) = rig.tap.opens
    assert (opened.model, opened.n, opened.stream) == ("m", 3, True)


@pytest.mark.parametrize("sections", [{"usage": {"ask": False}, "upstream": {"engine": "vllm"}}, {}])
async def test_engine_that_is_not_to_be_asked_gets_the_clients_body(start: Start, sections: dict[str, object]) -> None:
    """By configuration, or because nobody knows what it would say."""
    got = await relayed(await start(**sections), post('{"stream":true}'))
    assert got.body == b'{"stream":true}'


async def test_streamed_body_is_asked_for_usage_too(start: Start) -> None:
    """Its last brace waits for it."""
    rig = await start(limits={"buffer_request_bytes": 100}, upstream={"engine": "vllm"})
    rig.engine.answer(ok())
    client = await rig.connect()
    body = json.dumps({"stream": True, "model": "m", "messages": "x" * 5000})
    data = post(body)
    client.send(data[:3000])
    await asyncio.sleep(0.02)
    assert (await client.ask(data[3000:])).status == 200
    (got,) = rig.engine.requests
    assert got.json == {**json.loads(body), "stream_options": BOTH}
    assert rig.tap.opens[0].asked_usage


async def test_number_of_choices_behind_a_long_prompt_counts(start: Start) -> None:
    """Each choice of a stream that is cut keeps its own usage."""
    rig = await start(limits={"buffer_request_bytes": 100}, upstream={"engine": "vllm"})
    client = await rig.connect()
    data = post(json.dumps({"messages": "x" * 5000, "stream": True, "n": 2}))
    client.send(data[:3000])
    engine = await rig.engine.accept()
    await engine.read_until(b"x")
    client.send(data[3000:])
    await engine.read_until(b"0\r\n\r\n")
    engine.send(sse(chunks=False))
    for number in range(2):
        event = b'data: {"choices":[{"index":%d}],"usage":{"completion_tokens":7}}\n\n' % number
        engine.send(chunk(event))
        await client.read_until(b"}]}\n\n\r\n")
    client.close()
    close = await rig.tap.close()
    assert close.usages == {0: b'{"completion_tokens":7}', 1: b'{"completion_tokens":7}'}


@pytest.mark.parametrize("status", ["400 Bad Request", "422 Unprocessable Entity"])
@pytest.mark.parametrize("tail", ["", "one", "two", "broken"])
async def test_refusal_of_the_edited_body_is_not_shown(vllm: Rig, status: str, tail: str) -> None:
    """The client's own body is sent, and the answer to that is its answer, whatever the pieces of the first one."""
    client = await vllm.connect()
    client.send(post('{"stream":true}'))
    engine = await vllm.engine.accept()
    assert (await engine.request()).json == {"stream": True, "stream_options": BOTH}
    refusal = wire(
        f"HTTP/1.1 {status}\nContent-Type: application/json\nX-Ours: 1\nContent-Length: 22\n\n",
        b"stream_options:\n\nwrong",
    )
    if tail == "two":
        engine.send(refusal[:-10])
        await asyncio.sleep(0.02)
    elif tail == "broken":
        engine.send(wire(f"HTTP/1.1 {status}\nTransfer-Encoding: chunked\n\n", chunk(b"wrong\n\n") + b"zz\r\n"))
    elif tail == "one":
        engine.send(refusal[:-22])
    else:
        engine.send(refusal)
    second = await vllm.engine.accept()
    assert (await second.request()).body == b'{"stream":true}'
    await engine.rest()
    second.send(wire("HTTP/1.1 400 Bad Request\nContent-Length: 5\n\n", b"yours"))
    reply = await client.reply()
    assert (reply.status, reply.body, reply.lines) == (400, b"yours", [b"Content-Length: 5"])
    assert await client.stays_quiet(0.02)
    close = await vllm.tap.close()
    assert (close.response_bytes, vllm.tap.copy()) == (5, b"yours")


async def test_refusal_of_an_unedited_body_is_passed_on(vllm: Rig) -> None:
    """It is the client's."""
    vllm.engine.answer(wire("HTTP/1.1 400 Bad Request\nContent-Length: 2\n\n", b"no"))
    reply = await vllm.ask(post('{"stream":false}'))
    assert (reply.status, reply.body) == (400, b"no")
    assert len(vllm.engine.requests) == 1


async def test_first_request_waits_for_the_probe(start: Start) -> None:
    """And goes on without it when the engine is slow to say who it is."""
    rig = await start(upstream={"engine": "auto"})
    got = await relayed(rig, post('{"stream":true}'))
    assert got.body == b'{"stream":true}'
    await until(lambda: len(rig.tap.closes) == 1)
