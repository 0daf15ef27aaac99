"""request_parser: where a request begins and ends, whatever the reads; what llhttp lets through is refused here."""

from collections import deque

import pytest
from harness import chunk, chunked, get, wire
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.relay.client_request import Request
from inferwatch.relay.request_parser import PIECE_BYTES, SLICE_BYTES, MalformedError, RequestParser

MANY = 1 << 18


def parser(max_field_bytes: int = MANY, max_fields: int = 256) -> tuple[RequestParser, deque[Request]]:
    requests: deque[Request] = deque()
    return RequestParser(requests, max_field_bytes=max_field_bytes, max_fields=max_fields), requests


def parsed(data: bytes, cuts: list[int]) -> list[tuple[bytes, bytes, bytes, bool]]:
    """Feed in pieces, taking each request when it is whole: method, target, body, complete."""
    made, requests = parser()
    seen = []
    held = b""
    edges = [0, *sorted(cuts), len(data)]
    for start, end in zip(edges, edges[1:], strict=False):
        held += data[start:end]
        while held:
            held = made.feed(held)
            if not (requests and requests[0].complete):
                break
            while requests and requests[0].complete:
                request = requests.popleft()
                seen.append((request.method, request.head.target, request.take(), True))
    return seen + [(request.method, request.head.target, request.take(), False) for request in requests]


STREAM = (
    get("/1")
    + wire("POST /2 HTTP/1.1\nHost: h\nContent-Length: 5\n\n", b"hello")
    + wire(
        "PUT /3 HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n", chunk(b"wor") + b"2;x=y\r\nld\r\n0\r\nT: 1\r\n\r\n"
    )
    + wire("POST /4 HTTP/1.1\nHost: h\nConnection: Upgrade\nUpgrade: h2c\nContent-Length: 3\n\n", b"abc")
    + wire("POST /5 HTTP/1.1\nHost: h\nUpgrade: x\nConnection: upgrade\nTransfer-Encoding: chunked\n\n", chunked(b"de"))
    + get("/6", "Connection: Upgrade", "Upgrade: h2c")
    + wire("HEAD /7 HTTP/1.0\nConnection: keep-alive\n\n")
)
REQUESTS = [
    (b"GET", b"/1", b"", True),
    (b"POST", b"/2", b"hello", True),
    (b"PUT", b"/3", b"world", True),
    (b"POST", b"/4", b"abc", True),
    (b"POST", b"/5", b"de", True),
    (b"GET", b"/6", b"", True),
    (b"HEAD", b"/7", b"", True),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_any_reads_give_the_same_requests(cuts: list[int]) -> None:
    """Also in the middle of a number, of an offer to upgrade, of an end of line."""
    assert parsed(STREAM, cuts) == REQUESTS


def test_byte_by_byte() -> None:
    """The smallest reads there are."""
    assert parsed(STREAM, list(range(len(STREAM)))) == REQUESTS


def test_little_is_parsed_ahead() -> None:
    """Behind a whole request no more than a slice becomes objects."""
    made, requests = parser()
    data = get("/") * 10_000
    rest = made.feed(data)
    assert len(data) - len(rest) == SLICE_BYTES
    assert len(requests) <= SLICE_BYTES // len(get("/")) + 1


@pytest.mark.parametrize(
    ("head", "stands"),
    [
        ("GET / HTTP/1.1\nHost: h\nConnection: upgrade\nUpgrade: websocket\n\n", True),
        ("GET / HTTP/1.1\nHost: h\nConnection: Upgrade\nUpgrade: WebSocket\nContent-Length: 0\n\n", True),
        ("CONNECT a:1 HTTP/1.1\nHost: a\n\n", True),
        ("GET / HTTP/1.1\nHost: h\nUpgrade: websocket\n\n", False),
        ("GET / HTTP/1.1\nHost: h\nConnection: upgrade\nUpgrade: h2c\n\n", False),
        ("GET / HTTP/1.1\nHost: h\nConnection: upgrade\nUpgrade: websocket\nContent-Length: 1\n\nx", False),
    ],
)
def test_what_follows_an_upgrade(head: str, stands: bool) -> None:
    """Is left alone if it may not be HTTP; else it is the body, or the next request."""
    made, requests = parser()
    rest = made.feed(wire(head) + get("/next"))
    assert (rest, len(requests)) == ((get("/next"), 1) if stands else (b"", 2))
    assert bool(requests[0].head.upgrade) == (stands and requests[0].method == b"GET")


def test_bytes_behind_a_declined_upgrade_can_be_parsed() -> None:
    """The engine said no: the connection speaks HTTP as before."""
    made, requests = parser()
    rest = made.feed(get("/ws", "Connection: Upgrade", "Upgrade: websocket") + get("/next"))
    requests.popleft()
    assert made.feed(rest) == b""
    assert requests[0].head.target == b"/next"


@pytest.mark.parametrize(
    "head",
    [
        "GET /\n\n",
        "GET / HTTP/2.0\nHost: h\n\n",
        "GET / HTTP/0.9\nHost: h\n\n",
        "DESCRIBE / RTSP/1.0\nHost: h\n\n",
        "GET / HTTP/1.1\n\n",
        "GET / HTTP/1.0\nHost: a\nHost: a\n\n",
        "POST / HTTP/1.1\nHost: h\nTransfer-Encoding: gzip, chunked\n\n",
        "POST / HTTP/1.1\nHost: h\nTransfer-Encoding: gzip\nTransfer-Encoding: chunked\n\n",
        "POST / HTTP/1.0\nTransfer-Encoding: chunked\n\n",
        "POST / HTTP/1.1\nHost: h\nConnection: upgrade\nUpgrade: x\nTransfer-Encoding: identity\n\n",
        "POST / HTTP/1.1\nHost: h\nConnection: upgrade\nUpgrade: x\nTransfer-Encoding: chunked\nContent-Length: 3\n\n",
        "POST / HTTP/1.1\nHost: h\nConnection: upgrade\nUpgrade: x\nContent-Length: 3\nContent-Length: 3\n\n",
    ],
)
def test_what_llhttp_lets_through(head: str) -> None:
    """And what it might, where an offer to upgrade makes it look away."""
    made, requests = parser()
    with pytest.raises(MalformedError):
        made.feed(wire(head))
    assert not requests


def test_requests_before_a_fault_are_kept() -> None:
    """They were good."""
    made, requests = parser()
    with pytest.raises(MalformedError):
        made.feed(get("/1") + get("/2") + b"garbage\r\n\r\n")
    assert [(request.head.target, request.complete) for request in requests] == [(b"/1", True), (b"/2", True)]


ENDLESS = {
    "line of the target": b"GET /" + b"x" * MANY,
    "field": b"GET / HTTP/1.1\r\nX: " + b"x" * MANY,
    "field name": b"GET / HTTP/1.1\r\n" + b"x" * MANY,
    "fields": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000,
    "chunk extension": wire("PUT / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n") + b"5;" + b"x" * MANY,
    "trailer": wire("PUT / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n") + b"0\r\nX: " + b"x" * MANY,
    "trailers": wire("PUT / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n") + b"0\r\n" + b"X: y\r\n" * 20_000,
}


@pytest.mark.parametrize("size", [1000, SLICE_BYTES, 1 << 20])
@pytest.mark.parametrize("case", ENDLESS)
def test_what_never_ends(case: str, size: int) -> None:
    """Is given up at the limit and a slice, not when memory is full."""
    made, _ = parser(10_000, 50)
    data = ENDLESS[case]

    def feed() -> None:
        for start in range(0, min(len(data), 10_000 + 3 * SLICE_BYTES), size):
            made.feed(data[start : start + size])

    with pytest.raises(MalformedError):
        feed()


def test_chunks_of_a_byte_take_no_object_each() -> None:
    """A megabyte of them took thirty."""
    reader, requests = parser()
    body = bytes(range(256)) * 100
    reader.feed(wire("POST / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n"))
    for byte in body:
        reader.feed(chunk(bytes([byte])))
    (request,) = requests
    assert len(request.parts) <= 1 + 2 * len(body) // PIECE_BYTES
    assert request.take() == body


def test_small_chunks_are_no_endless_framing() -> None:
    """A body of one-byte chunks is mostly framing, and well-formed."""
    made, requests = parser(1000)
    body = chunked(*[b"x"] * 50_000)
    made.feed(wire("PUT / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n"))
    for start in range(0, len(body), 100):
        made.feed(body[start : start + 100])
    assert (requests[0].complete, requests[0].body_bytes) == (True, 50_000)


@pytest.mark.parametrize(
    ("lines", "keeps"), [("1.1\nHost: h", True), ("1.1\nHost: h\nConnection: close", False), ("1.0", False)]
)
def test_keep_alive(lines: str, keeps: bool) -> None:
    """As the client wishes; bytes behind its last request are not another."""
    made, requests = parser()
    made.feed(wire(f"GET / HTTP/{lines}\n\n"))
    assert requests[0].keep_alive == keeps
