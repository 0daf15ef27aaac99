"""upstream: the engine's side. Every reply ends in exactly one of complete, failed, stale or upgraded."""

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Engine, EngineSide, chunk, chunked, ok, until, wire
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.record import ErrorType
from inferwatch.relay.pool import ConnectError, Pool
from inferwatch.relay.upstream import Connection, Header

END = frozenset({"complete", "failed", "stale", "upgraded"})


class Listener:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.status = 0
        self.reason = b""
        self.headers: list[Header] = []
        self.has_body = False
        self.interim: list[int] = []
        self.data = b""
        self.reads: list[bytes] = []
        self.trailers: list[Header] = []
        self.error = ErrorType.NONE
        self.rest = b""

    def _say(self, call: str) -> None:
        assert not END & set(self.calls), f"{call} after {self.calls}"
        self.calls.append(call)

    def informational(self, status: int, reason: bytes, headers: list[Header]) -> None:
        self._say("informational")
        self.interim.append(status)

    def head(self, stamp_ns: int, status: int, reason: bytes, headers: list[Header], has_body: bool) -> None:
        assert "head" not in self.calls
        assert stamp_ns > 0
        self._say("head")
        self.status, self.reason, self.headers, self.has_body = status, reason, headers, has_body

    def read_done(self) -> None:
        self._say("read_done")

    def lane(self) -> None:
        assert "read_done" in self.calls

    def upgraded(self, stamp_ns: int, reason: bytes, headers: list[Header], rest: bytes) -> None:
        self._say("upgraded")
        self.rest = rest

    def body(self, stamp_ns: int, data: bytes) -> None:
        assert "head" in self.calls
        assert data
        self._say("body")
        self.data += data
        self.reads.append(data)

    def complete(self, trailers: list[Header]) -> None:
        self._say("complete")
        self.trailers = trailers

    def failed(self, error: ErrorType) -> None:
        self._say("failed")
        self.error = error

    def stale(self) -> None:
        self._say("stale")

    @property
    def end(self) -> str:
        return next((call for call in self.calls if call in END), "")

    async def ended(self) -> str:
        await until(lambda: bool(self.end))
        return self.end


def pool_for(port: int, **options: Any) -> Pool:
    settings = {"tls": None, "max_idle": 8, "idle_s": 4.0, "connect_timeout_s": 5.0} | options
    return Pool("127.0.0.1", port, **settings)


@pytest.fixture(name="engine")
async def _engine() -> AsyncIterator[Engine]:
    engine = Engine()
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture(name="pool")
async def _pool(engine: Engine) -> AsyncIterator[Pool]:
    pool = pool_for(engine.port)
    yield pool
    pool.close()


async def ask(pool: Pool, engine: Engine, **options: Any) -> tuple[Connection, EngineSide, Listener]:
    """A request on its way on a new connection, read by the engine."""
    connection = await pool.connect()
    side = await engine.accept()
    return connection, side, await again(connection, side, **options)


async def again(connection: Connection, side: EngineSide, **options: Any) -> Listener:
    listener = Listener()
    connection.begin(listener, **options)
    connection.write(b"GET / HTTP/1.1\r\nHost: e\r\n\r\n")
    await side.request()
    return listener


async def reply(pool: Pool, engine: Engine, data: bytes, *, then_close: bool = False, **options: Any) -> Listener:
    _, side, listener = await ask(pool, engine, **options)
    side.send(data)
    if then_close:
        side.close()
    await listener.ended()
    return listener


async def test_reply_with_a_length(pool: Pool, engine: Engine) -> None:
    """Head as it came, body, complete; the connection goes back to the pool."""
    data = wire(
        "HTTP/1.1 299 Odd Reason\nx-B: 1\nSet-Cookie: a\nX-b: \xff\nSet-Cookie: b\nContent-Length: 3\n\n", b"abc"
    )
    listener = await reply(pool, engine, data)
    assert (listener.end, listener.status, listener.reason, listener.data) == ("complete", 299, b"Odd Reason", b"abc")
    assert listener.headers == [
        (b"x-B", b"1"),
        (b"Set-Cookie", b"a"),
        (b"X-b", b"\xff"),
        (b"Set-Cookie", b"b"),
        (b"Content-Length", b"3"),
    ]
    assert pool.idle == 1


async def test_reply_in_chunks_with_trailers(pool: Pool, engine: Engine) -> None:
    """Chunk extensions are dropped, trailers kept."""
    head = wire("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n")
    listener = await reply(pool, engine, head + b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\nx-u: 2\r\n\r\n")
    assert (listener.end, listener.data) == ("complete", b"abcde")
    assert listener.trailers == [(b"X-T", b"1"), (b"x-u", b"2")]
    assert pool.idle == 1


async def test_one_read_is_one_call(pool: Pool, engine: Engine) -> None:
    """However many chunks it holds."""
    head = wire("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n")
    listener = await reply(pool, engine, head + chunked(b"a", b"b", b"c"))
    assert listener.reads == [b"abc"]


@pytest.mark.parametrize(
    ("head", "rest", "is_head"),
    [
        ("HTTP/1.1 204 No Content\n\n", b"", False),
        ("HTTP/1.1 304 Not Modified\nContent-Length: 5\n\n", b"", False),
        ("HTTP/1.1 200 OK\nContent-Length: 5\n\n", b"", True),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", b"", True),
        ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", b"", False),
    ],
)
async def test_reply_without_a_body_ends_with_its_head(
    pool: Pool, engine: Engine, head: str, rest: bytes, is_head: bool
) -> None:
    """HEAD, 204 and 304 have no body whatever their head says; the connection is used again."""
    connection, side, listener = await ask(pool, engine, is_head_request=is_head)
    side.send(wire(head, rest))
    assert await listener.ended() == "complete"
    assert pool.take() is connection
    second = await again(connection, side)
    side.send(ok(b"next"))
    assert await second.ended() == "complete"
    assert second.data == b"next"


async def test_reply_that_ends_with_the_connection(pool: Pool, engine: Engine) -> None:
    """HTTP/1.0 style: the end of the connection is the end of the body."""
    listener = await reply(pool, engine, wire("HTTP/1.1 200 OK\nx: y\n\n", b"all of it"), then_close=True)
    assert (listener.end, listener.data) == ("complete", b"all of it")
    assert pool.idle == 0


async def test_reply_that_ends_with_a_reset_is_no_reply(pool: Pool, engine: Engine) -> None:
    """Then nobody knows whether that was all."""
    _, side, listener = await ask(pool, engine)
    side.send(wire("HTTP/1.1 200 OK\n\n", b"part"))
    await until(lambda: listener.data == b"part")
    side.reset()
    assert await listener.ended() == "failed"


@pytest.mark.parametrize(
    "data",
    [
        wire("HTTP/1.1 200 OK\nContent-Length: 10\n\n", b"abc"),
        wire("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", b"3\r\nabc\r\n"),
        wire("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", b"3\r\nabc\r\n5\r\nde"),
        wire("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", b"3\r\nabc\r\n0\r\n"),
    ],
)
async def test_reply_that_breaks_off_fails(pool: Pool, engine: Engine, data: bytes) -> None:
    """What came is handed on first."""
    listener = await reply(pool, engine, data, then_close=True)
    assert (listener.end, listener.error) == ("failed", ErrorType.UPSTREAM_RESET)
    assert listener.data.startswith(b"abc")
    assert pool.idle == 0


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"garbage\r\n\r\n",
        b"HTTP/3.0 200 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nNo Colon Here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    ],
)
async def test_what_is_not_http_fails(pool: Pool, engine: Engine, data: bytes) -> None:
    """And costs the connection."""
    _, side, listener = await ask(pool, engine)
    side.send(data)
    assert await listener.ended() == "failed"
    assert listener.error is ErrorType.UPSTREAM_PROTOCOL
    await side.rest()
    assert pool.idle == 0


async def test_head_without_end_is_refused(pool: Pool, engine: Engine) -> None:
    """An engine that never finishes its head does not fill our memory."""
    _, side, listener = await ask(pool, engine)
    side.send(b"HTTP/1.1 200 OK\r\n")
    for number in range(200):
        side.send(b"x-%d: %b\r\n" % (number, b"v" * 10_000))
    assert await listener.ended() == "failed"
    assert listener.error is ErrorType.UPSTREAM_PROTOCOL


async def test_trailers_without_end_are_refused(pool: Pool, engine: Engine) -> None:
    """The same behind the body."""
    _, side, listener = await ask(pool, engine)
    side.send(wire("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", b"1\r\na\r\n0\r\n"))
    for number in range(400):
        side.send(b"x-%d: %b\r\n" % (number, b"v" * 10_000))
    assert await listener.ended() == "failed"


async def test_informational_replies_come_first(pool: Pool, engine: Engine) -> None:
    """Each is told, but for 100: our own has been sent long ago."""
    early = wire("HTTP/1.1 103 Early Hints\nLink: </a>\n\n")
    data = wire("HTTP/1.1 100 Continue\n\n") + early + early + ok(b"fine")
    listener = await reply(pool, engine, data)
    assert (listener.interim, listener.status, listener.reason, listener.data) == ([103, 103], 200, b"OK", b"fine")
    assert (b"Link", b"</a>") not in listener.headers
    assert pool.idle == 1


EXCESS = [ok(b"second"), b"\r\n", b"garbage", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-"]


@pytest.mark.parametrize("excess", EXCESS)
@pytest.mark.parametrize(
    ("data", "is_head"),
    [
        (ok(b"first"), False),
        (wire("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", chunked(b"first")), False),
        (wire("HTTP/1.1 200 OK\nContent-Length: 9\n\n"), True),
        (wire("HTTP/1.1 204 No Content\n\n"), False),
        (wire("HTTP/1.1 304 Not Modified\nContent-Length: 9\n\n"), False),
    ],
)
async def test_what_follows_a_reply_is_dropped_with_its_connection(
    pool: Pool, engine: Engine, data: bytes, is_head: bool, excess: bytes
) -> None:
    """Nobody asked for it: it must reach neither this request nor the next."""
    listener = await reply(pool, engine, data + excess, is_head_request=is_head)
    assert listener.end == "complete"
    assert listener.data in (b"", b"first")
    assert listener.trailers == []
    if excess != b"\r\n":  # which RFC 9112 2.2 lets a careless peer send
        await until(lambda: pool.idle == 0)


async def test_body_behind_a_reply_to_head_is_dropped(pool: Pool, engine: Engine) -> None:
    """A broken engine sends it; the client must not see it."""
    listener = await reply(pool, engine, ok(b"unwanted"), is_head_request=True)
    assert (listener.end, listener.data) == ("complete", b"")
    assert pool.idle == 0


async def test_idle_connection_that_talks_is_closed(pool: Pool, engine: Engine) -> None:
    """It is out of step; the next request must not take its words for an answer."""
    connection, side, listener = await ask(pool, engine)
    side.send(ok(b"first"))
    await listener.ended()
    side.send(ok(b"late"))
    await side.rest()
    assert pool.idle == 0
    assert connection.transport.is_closing()


@pytest.mark.parametrize("head", ["HTTP/1.1 200 OK\nConnection: close", "HTTP/1.0 200 OK"])
async def test_connection_the_engine_wants_closed_is_not_kept(pool: Pool, engine: Engine, head: str) -> None:
    """Connection: close, and HTTP/1.0 without keep-alive."""
    listener = await reply(pool, engine, wire(f"{head}\nContent-Length: 1\n\n", b"x"))
    assert (listener.end, listener.data) == ("complete", b"x")
    assert pool.idle == 0


async def test_http_10_with_keep_alive_is_kept(pool: Pool, engine: Engine) -> None:
    """It says so itself."""
    await reply(pool, engine, wire("HTTP/1.0 200 OK\nConnection: keep-alive\nContent-Length: 1\n\n", b"x"))
    assert pool.idle == 1


async def test_reused_connection_that_dies_unheard_is_stale(pool: Pool, engine: Engine) -> None:
    """The request may be sent again: not a byte of a reply was seen."""
    connection, side, listener = await ask(pool, engine)
    side.send(ok())
    await listener.ended()
    assert pool.take() is connection
    second = await again(connection, side)
    side.close()
    assert await second.ended() == "stale"


@pytest.mark.parametrize("said", [b"H", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_reused_connection_that_dies_after_a_byte_has_failed(pool: Pool, engine: Engine, said: bytes) -> None:
    """Then the engine was at work on it."""
    connection, side, listener = await ask(pool, engine)
    side.send(ok())
    await listener.ended()
    pool.take()
    second = await again(connection, side)
    side.send(said)
    await asyncio.sleep(0.02)
    side.close()
    assert await second.ended() == "failed"
    assert second.error is ErrorType.UPSTREAM_RESET


async def test_new_connection_that_dies_has_failed(pool: Pool, engine: Engine) -> None:
    """An engine that takes a connection and drops it is down; asking again would do no good."""
    _, side, listener = await ask(pool, engine)
    side.close()
    assert await listener.ended() == "failed"


async def test_upgrade(pool: Pool, engine: Engine) -> None:
    """What came right behind the 101 belongs to whoever takes over."""
    data = wire("HTTP/1.1 101 Switching Protocols\nConnection: upgrade\nUpgrade: websocket\n\n", b"\x81\x02hi")
    listener = await reply(pool, engine, data, takes_upgrade=True)
    assert (listener.end, listener.rest) == ("upgraded", b"\x81\x02hi")


async def test_upgrade_nobody_asked_for_is_no_reply(pool: Pool, engine: Engine) -> None:
    """An engine must not turn a request into a tunnel."""
    data = wire("HTTP/1.1 101 Switching Protocols\nConnection: upgrade\nUpgrade: websocket\n\n")
    listener = await reply(pool, engine, data)
    assert (listener.end, listener.error) == ("failed", ErrorType.UPSTREAM_PROTOCOL)


async def test_abort_is_silent_and_at_once(pool: Pool, engine: Engine) -> None:
    """The engine sees the hang-up; the sink, who wanted it, hears nothing."""
    connection, side, listener = await ask(pool, engine)
    connection.abort()
    await side.rest()
    await asyncio.sleep(0.01)
    assert listener.calls == []


async def test_nothing_of_one_reply_is_left_for_the_next(pool: Pool, engine: Engine) -> None:
    """Reason, headers, trailers, HEAD-ness, end of body: all anew."""
    connection, side, listener = await ask(pool, engine, is_head_request=True)
    side.send(wire("HTTP/1.1 200 Long Reason\nX-Secret: 1\nContent-Length: 7\n\n"))
    await listener.ended()
    pool.take()
    second = await again(connection, side)
    side.send(wire("HTTP/1.1 201 \nTransfer-Encoding: chunked\n\n", b"1\r\nx\r\n0\r\nX-T: 1\r\n\r\n"))
    await second.ended()
    assert (second.status, second.reason, second.data) == (201, b"", b"x")
    assert second.headers == [(b"Transfer-Encoding", b"chunked")]
    pool.take()
    third = await again(connection, side)
    side.send(ok(b"y"))
    await third.ended()
    assert (third.trailers, third.data) == ([], b"y")


# the pool


async def idle_connections(pool: Pool, engine: Engine, count: int) -> None:
    asked = [await ask(pool, engine) for _ in range(count)]
    for _, side, listener in asked:
        side.send(ok())
        await listener.ended()


async def test_youngest_connection_is_taken_first(pool: Pool, engine: Engine) -> None:
    """So that the others grow idle and can be closed."""
    asked = [await ask(pool, engine) for _ in range(3)]
    for _, side, listener in asked:
        side.send(ok())
        await listener.ended()
    assert [pool.take() for _ in range(4)] == [asked[2][0], asked[1][0], asked[0][0], None]


async def test_no_more_than_max_idle_are_kept(engine: Engine) -> None:
    """The rest is closed."""
    pool = pool_for(engine.port, max_idle=2)
    await idle_connections(pool, engine, 4)
    assert pool.idle == 2
    pool.close()
    assert pool.idle == 0


async def test_sweep_closes_what_was_idle_too_long(pool: Pool, engine: Engine) -> None:
    """Before the engine does; the younger ones stay."""
    await idle_connections(pool, engine, 1)
    between_s = time.monotonic()
    await asyncio.sleep(0.01)
    await idle_connections(pool, engine, 1)
    pool.sweep(between_s + 4.0)
    assert pool.idle == 1
    pool.sweep(time.monotonic() + 4.1)
    assert pool.idle == 0


async def test_connection_that_dies_idle_leaves_the_pool(pool: Pool, engine: Engine) -> None:
    """uvicorn closes after five seconds."""
    _, side, listener = await ask(pool, engine)
    side.send(ok())
    await listener.ended()
    side.close()
    await until(lambda: pool.idle == 0)
    assert pool.take() is None


async def test_refused_connection_is_an_error_and_counted(free_port: Callable[[], int]) -> None:
    """Nobody listens there."""
    pool = pool_for(free_port())
    with pytest.raises(ConnectError) as failure:
        await pool.connect()
    assert failure.value.error is ErrorType.CONNECT_FAILED
    assert (pool.connects, pool.connect_errors) == (0, 1)


async def test_unknown_host_is_an_error() -> None:
    """A name that nobody knows (RFC 6761 reserves .invalid for this)."""
    pool = Pool("engine.invalid", 1, tls=None, max_idle=1, idle_s=1.0, connect_timeout_s=10.0)
    with pytest.raises(ConnectError) as failure:
        await pool.connect()
    assert failure.value.error in (ErrorType.CONNECT_FAILED, ErrorType.CONNECT_TIMEOUT)


async def test_out_of_descriptors_is_no_fault_of_the_engine(engine: Engine) -> None:
    """It is told apart, and does not count as a failed try for the engine."""
    pool = pool_for(engine.port)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Path("/dev/null").open() as lowest:  # each number below is taken
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest.fileno() + 1, hard))
        try:
            with pytest.raises(ConnectError) as failure:
                await pool.connect()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert failure.value.error is ErrorType.OUT_OF_FILES
    assert (pool.connects, pool.connect_errors) == (0, 0)


async def test_slow_connection_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that does not answer."""

    class Loop:
        async def create_connection(self, *_: Any, **__: Any) -> None:
            await asyncio.sleep(10)

    pool = pool_for(1, connect_timeout_s=0.01)
    monkeypatch.setattr("inferwatch.relay.upstream.asyncio.get_running_loop", Loop)
    with pytest.raises(ConnectError) as failure:
        await pool.connect()
    assert failure.value.error is ErrorType.CONNECT_TIMEOUT


# the parser, without a socket


class Wire:
    """A transport that goes nowhere."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed


def parsed(pieces: list[bytes], *, then_eof: bool, is_head: bool = False) -> tuple[Any, ...]:
    pool = pool_for(1)
    connection, listener = Connection(pool), Listener()
    connection.connection_made(Wire())  # type: ignore[arg-type]
    connection.begin(listener, is_head_request=is_head)
    for piece in pieces:
        if listener.end:
            break
        connection.data_received(piece)
    if then_eof:
        connection.connection_lost(None)
    kept = listener.end == "complete" and pool.idle == 1
    return listener.end, listener.status, listener.reason, listener.headers, listener.data, listener.trailers, kept


REPLIES = st.sampled_from(
    [
        ok(b"hello"),
        wire("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", chunked(b"ab", b"c" * 20)),
        wire("HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n", chunk(b"ab") + b"0\r\nX-T: v\r\n\r\n"),
        wire("HTTP/1.1 103 Early\nLink: x\n\nHTTP/1.1 200 OK\nContent-Length: 2\n\n", b"ok"),
        wire("HTTP/1.1 200 OK\n\n", b"until the end"),
        wire("HTTP/1.0 404 Not Found\nContent-Length: 1\n\n", b"x"),
        wire("HTTP/1.1 304 Not Modified\nContent-Length: 1\n\n"),
    ]
)


@given(REPLIES, st.lists(st.integers(0, 200), max_size=10))
def test_split_of_the_bytes_does_not_matter(data: bytes, cuts: list[int]) -> None:
    """The same reply comes out of any reads."""
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:end] for start, end in zip(edges, edges[1:], strict=False)]
    assert parsed(pieces, then_eof=True) == parsed([data], then_eof=True)


@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_crash_it(data: bytes, is_head: bool) -> None:
    """Whatever an engine says, there is one end, and at the latest when it hangs up."""
    for prefix in (b"", b"HTTP/1.1 200 OK\r\n", wire("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n")):
        assert parsed([prefix + data], then_eof=True, is_head=is_head)[0] in ("complete", "failed")


@given(REPLIES, st.binary(max_size=60))
def test_excess_never_reaches_anybody(data: bytes, excess: bytes) -> None:
    """A complete reply stays what it is, whatever follows it in the same read; such a connection is not kept."""
    end, *content, kept = parsed([data], then_eof=False)
    if end != "complete":
        return  # its end is the end of the connection
    again_end, *again_content, again_kept = parsed([data + excess], then_eof=False)
    assert (again_end, again_content) == (end, content)
    assert not again_kept or not excess.strip(b"\r\n") or not kept
