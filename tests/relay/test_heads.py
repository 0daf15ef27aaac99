"""heads: what of a request and a reply is passed on, and how it is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.relay import heads
from inferwatch.relay.heads import RequestHead

TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_", min_size=1, max_size=20).map(str.encode)
VALUE = st.text([chr(code) for code in range(0x21, 0xFF) if code != 0x7F], max_size=30).map(
    lambda text: text.encode("latin-1")
)


def names(head: RequestHead) -> list[bytes]:
    return [name for name, _ in head.forwarded]


@pytest.mark.parametrize(
    "name",
    [
        "Connection",
        "content-length",
        "EXPECT",
        "HTTP2-Settings",
        "Keep-Alive",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
    ],
)
def test_hop_by_hop_request_field_ends_here(name: str) -> None:
    """RFC 9110 7.6.1: the field is for us, in any case."""
    head = RequestHead(b"/", [(b"Accept", b"*/*"), (name.encode(), b"x")])
    assert names(head) == [b"Accept"]


def test_field_named_by_connection_ends_here() -> None:
    """`Connection: close, X-Hop` makes X-Hop hop-by-hop, each time it occurs, and nothing else."""
    fields = [(b"X-Hop", b"1"), (b"Connection", b"close, X-Hop"), (b"x-hop", b"2"), (b"X-Hope", b"3")]
    assert RequestHead(b"/", fields).forwarded == [(b"X-Hope", b"3")]


def test_several_connection_fields_count_together() -> None:
    """A list may be spread over several fields."""
    fields = [(b"A", b"1"), (b"B", b"2"), (b"C", b"3"), (b"Connection", b"a"), (b"connection", b" B ")]
    assert RequestHead(b"/", fields).forwarded == [(b"C", b"3")]


def test_end_to_end_fields_named_by_connection_still_end_here() -> None:
    """Even Authorization, if the client says it is for this hop (RFC 9110 has no exception)."""
    fields = [(b"Authorization", b"Bearer k"), (b"Connection", b"authorization")]
    assert RequestHead(b"/", fields).forwarded == []


def test_order_case_and_repetition_are_kept() -> None:
    """What is passed on is passed on as it came."""
    fields = [(b"X-b", b"1"), (b"x-A", b"2"), (b"X-B", b"3"), (b"COOKIE", b"a=1"), (b"Cookie", b"b=2")]
    assert RequestHead(b"/", fields).forwarded == fields


def test_our_own_fields_are_taken_out() -> None:
    """x-inferwatch-… is for us; the engine never sees it."""
    head = RequestHead(b"/", [(b"X-Inferwatch-User", b"u1"), (b"x-inferwatch-session", b"s"), (b"X-Other", b"o")])
    assert names(head) == [b"X-Other"]
    assert head.ours == {b"user": b"u1", b"session": b"s"}


@pytest.mark.parametrize("name", [b"Authorization", b"x-api-key", b"Cookie", b"Proxy-Authorization", b"X-Anything"])
def test_secrets_are_not_mirrored(name: bytes) -> None:
    """Only what is on the list is copied to the collector."""
    head = RequestHead(b"/", [(name, b"secret"), (b"User-Agent", b"curl")])
    assert head.mirrored == {"user-agent": "curl"}
    assert (name, b"secret") in head.forwarded


def test_the_state_of_a_trace_is_mirrored_in_one_piece() -> None:
    """W3C lets it come in several fields, which are one list; the engine gets them as they came."""
    fields = [(b"tracestate", b"a=1,b=2"), (b"User-Agent", b"curl"), (b"TraceState", b"c=3"), (b"User-Agent", b"x")]
    head = RequestHead(b"/", fields)

    assert head.mirrored == {"tracestate": "a=1,b=2,c=3", "user-agent": "curl"}
    assert head.forwarded == fields


def test_one_field_stands_for_several() -> None:
    """What is accepted may come in pieces; what is sent in its place is one field, where the first stood."""
    fields = [(b"A", b"1"), (b"Accept-Encoding", b"gzip"), (b"B", b"2"), (b"ACCEPT-encoding", b"br")]
    head = RequestHead(b"/", fields)
    assert (head.named[b"accept-encoding"], head.forwarded) == (b"gzip, br", fields)
    head.instead(b"accept-encoding", b"gzip")
    assert head.forwarded == [(b"A", b"1"), (b"Accept-Encoding", b"gzip"), (b"B", b"2")]
    assert head.named[b"accept-encoding"] == b"gzip"


@pytest.mark.parametrize("value", [b"100-continue", b"100-Continue", b" 100-continue "])
def test_expect_continue_is_understood(value: bytes) -> None:
    """In any case, with any blanks."""
    assert RequestHead(b"/", [(b"Expect", value)]).expects_continue


@pytest.mark.parametrize(
    ("fields", "upgrade"),
    [
        ([(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")], b"websocket"),
        ([(b"Upgrade", b"WebSocket"), (b"Connection", b"keep-alive, upgrade")], b"WebSocket"),
        ([(b"Upgrade", b"websocket")], b""),
        ([(b"Connection", b"Upgrade")], b""),
        ([(b"Connection", b"Upgrade, HTTP2-Settings"), (b"Upgrade", b"h2c"), (b"HTTP2-Settings", b"AAM")], b"h2c"),
    ],
)
def test_upgrade_needs_both_fields(fields: list[heads.Header], upgrade: bytes) -> None:
    """And is no field of the message that is passed on."""
    assert RequestHead(b"/", fields).upgrade == upgrade
    assert RequestHead(b"/", fields).forwarded == []


def test_request_is_written_as_it_came() -> None:
    """Request line, fields in order, our lines last."""
    head = RequestHead(b"/", [(b"Host", b"a"), (b"x-Y", b"\xe9 z")])
    written = heads.request(
        b"POST",
        b"/v1?x=1",
        head,
        host=b"engine:8000",
        replace_host=False,
        without=frozenset(),
        extra=b"Content-Length: 3\r\n",
    )
    assert written == b"POST /v1?x=1 HTTP/1.1\r\nHost: a\r\nx-Y: \xe9 z\r\nContent-Length: 3\r\n\r\n"


def test_host_is_replaced_where_it_stood() -> None:
    """A TLS engine wants its own name; the place and the case of the field stay."""
    head = RequestHead(b"/", [(b"A", b"1"), (b"hOST", b"proxy:8080"), (b"B", b"2")])
    written = heads.request(
        b"GET", b"/", head, host=b"engine.example", replace_host=True, without=frozenset(), extra=b""
    )
    assert written == b"GET / HTTP/1.1\r\nA: 1\r\nhOST: engine.example\r\nB: 2\r\n\r\n"


def test_missing_host_is_added() -> None:
    """HTTP/1.0 needs none, HTTP/1.1 does (RFC 9112 3.2)."""
    written = heads.request(
        b"GET", b"/", RequestHead(b"/", []), host=b"engine:8000", replace_host=False, without=frozenset(), extra=b""
    )
    assert written == b"GET / HTTP/1.1\r\nHost: engine:8000\r\n\r\n"


REPLY = [
    (b"date", b"d"),
    (b"Set-Cookie", b"a=1"),
    (b"x-Odd", b"\xff"),
    (b"Set-Cookie", b"b=2"),
    (b"Content-Length", b"3"),
]


def test_reply_is_written_as_it_came() -> None:
    """Order, case, repetition and reason phrase stay; nothing is added."""
    written = heads.reply(299, b"Fine By Me", REPLY, drop_length=False, extra=b"")
    lines = b"".join(b"%b: %b\r\n" % field for field in REPLY)
    assert written == b"HTTP/1.1 299 Fine By Me\r\n" + lines + b"\r\n"


def test_length_of_an_edited_reply_is_dropped() -> None:
    """The engine's length is not ours once something is taken out."""
    written = heads.reply(200, b"OK", REPLY, drop_length=True, extra=b"Transfer-Encoding: chunked\r\n")
    assert b"content-length" not in written.lower()
    assert written.endswith(b"Set-Cookie: b=2\r\nTransfer-Encoding: chunked\r\n\r\n")


@pytest.mark.parametrize("name", [b"Connection", b"Keep-Alive", b"PROXY-CONNECTION", b"transfer-encoding", b"Upgrade"])
def test_hop_by_hop_reply_field_ends_here(name: bytes) -> None:
    """Framing is written anew on each side."""
    assert heads.reply(200, b"OK", [(name, b"x")], drop_length=False, extra=b"") == b"HTTP/1.1 200 OK\r\n\r\n"


def test_reply_field_named_by_connection_ends_here() -> None:
    """The engine's Connection field speaks to us, not to the client."""
    fields = [(b"X-Hop", b"1"), (b"Connection", b"close, X-Hop"), (b"X-End", b"2")]
    assert heads.reply(200, b"OK", fields, drop_length=False, extra=b"") == b"HTTP/1.1 200 OK\r\nX-End: 2\r\n\r\n"


@given(st.lists(st.tuples(TOKEN, VALUE), max_size=12))
def test_any_fields_survive_but_for_those_that_end_here(fields: list[heads.Header]) -> None:
    """What is forwarded is a subsequence of what came, and what is missing is on the list."""
    head = RequestHead(b"/", fields)
    rest = iter(fields)
    assert all(field in rest for field in head.forwarded)
    gone = [name.lower() for name, _ in fields if (name.lower() not in {n.lower() for n in names(head)})]
    assert all(name in heads._REQUEST_ENDS_HERE or name.startswith(heads.OURS) for name in gone)


def test_mirrored_reply_has_no_cookies_and_is_bounded() -> None:
    """Cookies are somebody's secrets; a runaway head is cut."""
    assert heads.mirrored_reply([*REPLY, (b"Content-Type", b"a/b")]) == {
        "x-odd": "\xff",
        "content-length": "3",
        "content-type": "a/b",
    }
    many = [(b"x-%d" % number, b"v" * 100) for number in range(1000)]
    assert len(heads.mirrored_reply(many)) < 100


def test_of_a_field_too_long_to_mirror_its_end_is_mirrored() -> None:
    """vLLM's `metadata` of many vectors has the usage there, and the content type behind it."""
    long = b'{"data": [' + b"0," * 50_000 + b'0], "usage": {"prompt_tokens": 3}}'
    seen = heads.mirrored_reply([(b"metadata", long), (b"content-type", b"application/octet-stream")])
    assert seen["metadata"] == long[-heads.MIRRORED_END_BYTES :].decode()
    assert seen["content-type"] == "application/octet-stream"
    endless = heads.mirrored_reply([(b"x-%d" % number, b"v" * 9000) for number in range(1000)])
    assert sum(map(len, endless.values())) <= heads.MAX_MIRRORED_HEAD_BYTES + heads.MIRRORED_END_BYTES


@pytest.mark.parametrize(
    ("target", "origin"),
    [
        (b"/v1/chat?x=%2F#f", b"/v1/chat?x=%2F#f"),
        (b"//double", b"//double"),
        (b"*", b"*"),
        (b"http://host:8000/v1?x=1", b"/v1?x=1"),
        (b"HTTPS://host", b"/"),
        (b"http://host?x=1", b"/?x=1"),
        (b"http://host?x=/a", b"/?x=/a"),
        (b"http://host/a?x=/b", b"/a?x=/b"),
        (b"http://u:p@host/", b"/"),
        (b"/with/http://inside", b"/with/http://inside"),
        (b"no-slash", b"/no-slash"),
    ],
)
def test_absolute_target_becomes_a_path(target: bytes, origin: bytes) -> None:
    """RFC 9112 3.2.2: scheme and authority are for us; a path is never touched."""
    assert heads.origin_form(target) == origin


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/v1/x?key=secret", "/v1/x"),
        (b"/v1/x", "/v1/x"),
        (b"http://h/v1/x?y", "/v1/x"),
        (b"*", "*"),
        (b"/?a=/b", "/"),
        (b"http://h?x=/a", "/"),
        (b"/caf\xff", "/caf\ufffd"),
        (b"/v1/chat/complet%69ons", "/v1/chat/completions"),
        (b"/v1%2Fchat%2fcompletions?a=%62", "/v1/chat/completions"),
        (b"http://h/v1/%63ompletions", "/v1/completions"),
        (b"/v1/complet%2569ons", "/v1/complet%69ons"),
        (b"/v1/chat/completions#x", "/v1/chat/completions"),
        (b"/a%3Fb%23c", "/a?b#c"),
        (b"/%ff%ED%A0%80", "/\ufffd\ufffd\ufffd\ufffd"),
        (b"/100%/%zz/%", "/100%/%zz/%"),
        (b"/\xff%41%00", "/\ufffdA\x00"),
    ],
)
def test_path_is_without_query_and_can_be_encoded(target: bytes, path: str) -> None:
    """A query may hold secrets; bytes that are not UTF-8 must not break the tap's encoder. Escapes are decoded once, as
    uvicorn does it: an escaped path is the same route."""
    assert heads.path_of(target) == path
    heads.path_of(target).encode()


@given(st.binary(max_size=60))
def test_any_target_has_a_path_that_can_be_encoded(rest: bytes) -> None:
    """Whatever is escaped in it."""
    for target in (rest, b"/" + rest, b"/%" + rest):
        heads.path_of(target).encode()
