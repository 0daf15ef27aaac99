"""server: what is not well-formed HTTP. It gets a clear 400, is booked, and never becomes two requests at the engine."""

import asyncio

import pytest
from harness import EngineSide, Rig, Start, chunk, chunked, get, ok, until, wire

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"


async def said_no(rig: Rig, data: bytes, *, books: int = 1) -> None:
    """The client gets one 400 in the engine's shape and is shut out; the engine hears nothing of it."""
    rig.engine.answer(ok())
    client = await rig.connect()
    reply = await client.ask(data)
    assert (reply.status, reply.one("connection")) == (400, b"close")
    assert reply.json["error"]["code"] == 400
    assert await client.rest() == b""
    assert rig.engine.requests == []
    close = await rig.tap.close(books)
    assert (close.outcome, close.error, close.status) == ("rejected", "malformed_request", 400)


BAD_HEADS = {
    "no request line": "hello\n\n",
    "four words": "GET / x HTTP/1.1\nHost: h\n\n",
    "no version": "GET / HTTP\nHost: h\n\n",
    "version 3": "GET / HTTP/3.0\nHost: h\n\n",
    "lower-case version": "GET / http/1.1\nHost: h\n\n",
    "unknown method": "FROB / HTTP/1.1\nHost: h\n\n",
    "lower-case method": "get / HTTP/1.1\nHost: h\n\n",
    "blank before the method": " GET / HTTP/1.1\nHost: h\n\n",
    "8-bit target": "GET /\xff HTTP/1.1\nHost: h\n\n",
    "control in the target": "GET /\x01 HTTP/1.1\nHost: h\n\n",
    "no host": "GET / HTTP/1.1\n\n",
    "two hosts": "GET / HTTP/1.1\nHost: a\nHost: b\n\n",
    "no colon": "GET / HTTP/1.1\nHost: h\nx\n\n",
    "no name": "GET / HTTP/1.1\nHost: h\n: x\n\n",
    "blank before the colon": "GET / HTTP/1.1\nHost: h\nX : y\n\n",
    "blank before the colon of a length": "POST / HTTP/1.1\nHost: h\nContent-Length : 3\n\nabc",
    "blank in a name": "GET / HTTP/1.1\nHost: h\nX Y: z\n\n",
    "folded line": "GET / HTTP/1.1\nHost: h\nX: y\n z\n\n",
    "folded first line": "GET / HTTP/1.1\n X: y\nHost: h\n\n",
    "NUL in a value": "GET / HTTP/1.1\nHost: h\nX: a\0b\n\n",
    "control in a value": "GET / HTTP/1.1\nHost: h\nX: a\x01b\n\n",
    "8-bit name": "GET / HTTP/1.1\nHost: h\nX\xe9: a\n\n",
    "odd name": "GET / HTTP/1.1\nHost: h\nX(y): a\n\n",
    "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\x00" * 50 + "\n\n",
}


@pytest.mark.parametrize("case", BAD_HEADS)
async def test_head_that_is_none(rig: Rig, case: str) -> None:
    """Refused as a whole."""
    await said_no(rig, wire(BAD_HEADS[case]))


LENGTHS = [
    "-1",
    "+3",
    "0x3",
    "3 3",
    "3,3",
    "3, 4",
    "3;x",
    "",
    "abc",
    "3.0",
    "1e1",
    "99999999999999999999999",
    "３",
    "\t3 x",
]


@pytest.mark.parametrize("length", LENGTHS)
async def test_length_that_is_no_number(rig: Rig, length: str) -> None:
    """RFC 9112 6.3: nothing is guessed about where a body ends."""
    head = f"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n".encode()
    await said_no(rig, head + b"abc" + SMUGGLED)


@pytest.mark.parametrize(
    "lines",
    [
        "Content-Length: 3\nContent-Length: 4",
        "Content-Length: 3\nContent-Length: 3",
        "content-length: 3\nCONTENT-LENGTH: 5",
        "Content-Length: 3\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\nContent-Length: 3",
        "Content-Length: 3\nTransfer-Encoding: identity",
        "Content-Length: 3\ntransfer-encoding: CHUNKED",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: chunked\nTransfer-Encoding: gzip",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunkedx",
        'Transfer-Encoding: "chunked"',
        "Transfer-Encoding: chun ked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\n chunked",
        "Transfer-Encoding: chunked\x0b",
        "Transfer\0-Encoding: chunked",
        "Content-Length: 3\n Transfer-Encoding: chunked",
        "Content-Length:\n 3",
    ],
)
async def test_two_opinions_on_where_the_body_ends(rig: Rig, lines: str) -> None:
    """CL+TE, TE+CL, repeated, obfuscated: none may let a second request through to the engine."""
    head = wire(f"POST / HTTP/1.1\nHost: h\n{lines}\n\n")
    await said_no(rig, head + b"0\r\n\r\n" + SMUGGLED)


@pytest.mark.parametrize(
    "lines", ["Transfer-Encoding: chunked", "transfer-encoding:chunked", "Transfer-Encoding:  Chunked  "]
)
async def test_chunked_is_chunked(rig: Rig, lines: str) -> None:
    """In any case, with any blanks; a request behind it is one of its own."""
    rig.engine.answer(ok(b"one"), ok(b"two"))
    client = await rig.connect()
    client.send(wire(f"POST /a HTTP/1.1\nHost: h\n{lines}\n\n", chunked(b"abc")) + get("/b"))
    assert [(await client.reply()).body for _ in range(2)] == [b"one", b"two"]
    assert [(got.start, got.body) for got in rig.engine.requests] == [
        (b"POST /a HTTP/1.1", b"abc"),
        (b"GET /b HTTP/1.1", b""),
    ]


BAD_CHUNKS = {
    "no hex": b"zz\r\nabc\r\n0\r\n\r\n",
    "negative": b"-3\r\nabc\r\n0\r\n\r\n",
    "plus": b"+3\r\nabc\r\n0\r\n\r\n",
    "0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "empty size": b"\r\nabc\r\n0\r\n\r\n",
    "blank before": b" 3\r\nabc\r\n0\r\n\r\n",
    "underscore": b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n",
    "bare LF behind the size": b"3\nabc\r\n0\r\n\r\n",
    "bare CR behind the size": b"3\rabc\r\n0\r\n\r\n",
    "bare LF in an extension": b"3;a\nabc\r\n0\r\n\r\n",
    "no CRLF behind the data": b"3\r\nabcX\r\n0\r\n\r\n",
    "bare LF behind the data": b"3\r\nabc\n0\r\n\r\n",
    "too much data": b"3\r\nabcdef\r\n0\r\n\r\n",
    "overflow": b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "overflow to three": b"10000000000000003\r\nabc\r\n0\r\n\r\n",
    "bad trailer": b"3\r\nabc\r\n0\r\nno colon\r\n\r\n",
    "bare LF at the end": b"3\r\nabc\r\n0\r\n\n",
}


@pytest.mark.parametrize("case", BAD_CHUNKS)
async def test_chunks_that_are_none(rig: Rig, case: str) -> None:
    """In the same read as the head."""
    await said_no(rig, wire("POST / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n", BAD_CHUNKS[case]) + SMUGGLED)


@pytest.mark.parametrize("buffered", [10, 1_000_000])
@pytest.mark.parametrize("case", BAD_CHUNKS)
async def test_chunks_that_go_wrong_later(start: Start, case: str, buffered: int) -> None:
    """In a later read, before or after the engine got the beginning: refused at once, no hang, no second request."""
    rig = await start(limits={"buffer_request_bytes": buffered})
    seen: list[bytes] = []

    async def script(side: EngineSide) -> None:
        seen.append(await side.rest())

    rig.engine.run(script)
    client = await rig.connect()
    client.send(wire("POST / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n") + chunk(b"x" * 100))
    await until(lambda: bool(rig.relay.active))
    await asyncio.sleep(0.01)
    client.send(BAD_CHUNKS[case] + SMUGGLED)
    reply = await client.reply()
    assert (reply.status, reply.one("connection")) == (400, b"close")
    await client.rest()
    await rig.idle()
    close = await rig.tap.close()
    assert (close.outcome, close.error, close.status) == ("rejected", "malformed_request", 400)
    await until(lambda: len(seen) == rig.engine.connections)
    assert all(not data.endswith(b"0\r\n\r\n") and data.count(b"HTTP/1.1") == 1 for data in seen)
    assert rig.pool.idle == 0


async def test_garbage_behind_a_good_request(rig: Rig) -> None:
    """The good one is answered, then the 400."""
    rig.engine.answer(ok(b"good"))
    client = await rig.connect()
    assert (await client.ask(get("/good"))).body == b"good"
    assert (await client.ask(b"garbage\r\n\r\n")).status == 400
    assert await client.is_closed()
    await rig.tap.close(2)
    assert [close.outcome for close in rig.tap.closes] == ["ok", "rejected"]


@pytest.mark.parametrize(
    "data",
    [get("/good") + b"garbage\r\n\r\n", wire("POST / HTTP/1.1\nHost: h\nContent-Length: 3\n\n", b"abcdef\r\n\r\n")],
)
async def test_garbage_in_one_read_with_a_good_request(rig: Rig, data: bytes) -> None:
    """All that is certain: the last word is 400, and the garbage is no request."""
    rig.engine.answer(ok(b"good"))
    client = await rig.connect()
    said = await client.send(data).rest()
    assert said.split(b"HTTP/1.1 ")[-1].startswith(b"400")
    assert [got.body for got in rig.engine.requests] in ([], [b""], [b"abc"])


@pytest.mark.parametrize("line_end", [b"\n", b"\r"])
async def test_bare_line_ends(rig: Rig, line_end: bytes) -> None:
    """A head of bare LFs or CRs is not a head."""
    client = await rig.connect()
    client.send(b"GET / HTTP/1.1" + line_end + b"Host: h" + line_end + line_end + b"\r\n\r\n")
    reply = await client.reply()
    assert reply.status == 400
    assert rig.engine.connections == 0


async def test_bare_line_end_does_not_hide_a_field(rig: Rig) -> None:
    r"""`X: a\nContent-Length: 3` is not two fields to us and one to the engine."""
    data = b"POST / HTTP/1.1\r\nHost: h\r\nX: a\nContent-Length: 34\r\n\r\n" + SMUGGLED
    await said_no(rig, data)


async def test_empty_lines_before_a_request(rig: Rig) -> None:
    """RFC 9112 2.2: ignored."""
    rig.engine.answer(ok())
    assert (await rig.ask(b"\r\n\r\n" + get())).status == 200
    assert len(rig.engine.requests) == 1


# limits


async def test_fields_up_to_the_limits_pass(start: Start) -> None:
    """Long tokens, many cookies."""
    rig = await start(limits={"max_header_bytes": 10_000, "max_headers": 50})
    rig.engine.answer(ok())
    many = [f"X-{number}: 1" for number in range(48)]
    assert (await rig.ask(get("/" + "x" * 9_000, *many))).status == 200
    assert (await rig.ask(get("/", "Authorization: Bearer " + "x" * 9_000))).status == 200


@pytest.mark.parametrize(
    "data",
    [
        get("/" + "x" * 20_000),
        get("/", "X: " + "x" * 20_000),
        get("/", "x" * 20_000 + ": y"),
        get("/", *[f"X-{number}: 1" for number in range(60)]),
    ],
)
async def test_oversized_head(start: Start, data: bytes) -> None:
    """Refused, and booked."""
    rig = await start(limits={"max_header_bytes": 10_000, "max_headers": 50})
    await said_no(rig, data)


async def test_head_that_never_ends(start: Start) -> None:
    """Refused as soon as it is too long, not when memory is full."""
    rig = await start(limits={"max_header_bytes": 10_000, "max_headers": 50})
    client = await rig.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 100_000)
    reply = await client.reply()
    assert reply.status == 400
    await client.rest()


async def test_books_of_what_was_malformed(rig: Rig) -> None:
    """It has no method and no path, because nobody knows them."""
    await said_no(rig, b"garbage\r\n\r\n")
    (opened,) = rig.tap.opens
    assert (opened.method, opened.path, opened.tenant, opened.body) == ("", "", "anonymous", b"")
