"""client_connection: one request at a time, deadlines, orderly ends, faults of our own."""

import asyncio
import time
from typing import Any

import pytest
from harness import Client, EngineSide, Rig, Start, chunk, chunked, get, ok, post, until, wire

from inferwatch.relay import endings, handling, heads
from inferwatch.relay.client_connection import MAX_HELD_BYTES, UPLOAD_LINGER_S, ClientConnection
from inferwatch.relay.pool import Pool
from inferwatch.relay.upstream import Connection

OFFER = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
CHUNKED = wire("POST /x HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n")


def connection(rig: Rig) -> ClientConnection:
    (only,) = rig.server.connections
    return only


# one at a time


@pytest.mark.parametrize(
    "first",
    [
        get("/1", *OFFER),
        post('{"a":1}', "/1", *OFFER),
        wire("\n".join(["POST /1 HTTP/1.1", "Host: h", *OFFER, "Transfer-Encoding: chunked", "", ""]), chunked(b"abc")),
        wire("POST /1 HTTP/1.1\nHost: h\nConnection: upgrade\nUpgrade: websocket\nContent-Length: 3\n\n", b"abc"),
    ],
)
async def test_bytes_behind_an_upgrade_that_is_ignored_are_served(rig: Rig, first: bytes) -> None:
    """In one read with it: the body is its body, the next request the next request."""
    rig.engine.answer(ok(b"one"), ok(b"two"), ok(b"three"))
    client = await rig.connect()
    client.send(first + get("/2") + get("/3"))
    assert [(await client.reply()).body for _ in range(3)] == [b"one", b"two", b"three"]
    assert [got.start.split(b" ")[1] for got in rig.engine.requests] == [b"/1", b"/2", b"/3"]
    assert all(got.one("upgrade") is None for got in rig.engine.requests)


async def test_bytes_behind_a_websocket_that_is_declined_are_served(rig: Rig) -> None:
    """They were HTTP after all."""
    rig.engine.answer(wire("HTTP/1.1 403 Forbidden\nContent-Length: 0\n\n"), ok(b"two"))
    client = await rig.connect()
    client.send(get("/1", "Connection: upgrade", "Upgrade: websocket") + get("/2"))
    assert [(await client.reply()).status for _ in range(2)] == [403, 200]


async def test_next_request_waits_for_the_reply(rig: Rig) -> None:
    """The engine gets it when the first is over, not before: a client's requests do not overtake each other."""
    client = await rig.connect()
    client.send(get("/1") + CHUNKED + chunk(b"abc"))
    engine = await rig.engine.accept()
    await engine.request()
    await asyncio.sleep(0.02)
    assert (rig.engine.connections, len(rig.relay.active)) == (1, 1)
    client.send(b"0\r\n\r\n")
    engine.send(ok(b"one"))
    assert (await client.reply()).body == b"one"
    got = await engine.request()
    assert got.body == b"abc"
    engine.send(ok(b"two"))
    assert (await client.reply()).body == b"two"


async def test_pipelined_bytes_are_bounded(rig: Rig) -> None:
    """Beyond the bound the socket is paused; nothing is lost."""
    client = await rig.connect()
    client.send(get("/first"))
    engine = await rig.engine.accept()
    await engine.request()
    number = 3000
    client.send(b"".join(get(f"/{index}", "X: " + "x" * 4000) for index in range(number)))
    await until(lambda: connection(rig)._paused)
    assert len(connection(rig)._held) <= 2 * MAX_HELD_BYTES + (256 << 10)

    async def serve() -> None:
        engine.send(ok(b"first"))
        for index in range(number):
            assert (await engine.request()).start == f"GET /{index} HTTP/1.1".encode()
            engine.send(ok(b"%d" % index))

    serving = asyncio.create_task(serve())
    bodies = [(await client.reply()).body for _ in range(number + 1)]
    await serving
    assert bodies == [b"first", *(b"%d" % index for index in range(number))]


async def test_many_refusals_in_one_read_do_not_pile_up_a_stack(start: Start) -> None:
    """Each is answered and followed by the next, on the same connection."""
    rig = await start(limits={"max_request_bytes": 1})
    client = await rig.connect()
    number = 400
    client.send((wire("PUT / HTTP/1.1\nHost: h\nContent-Length: 2\n\n", b"ab")) * number)
    assert [(await client.reply()).status for _ in range(number)] == [413] * number
    await rig.tap.close(number)


async def test_nothing_is_served_behind_a_fault(start: Start) -> None:
    """Whatever comes later: the first request gets its reply, then the 400, then the end."""
    rig = await start(limits={"max_headers": 5})
    client = await rig.connect()
    client.send(get("/1") + get("/2", *[f"X-{index}: 1" for index in range(9)])[:-2])
    engine = await rig.engine.accept()
    await engine.request()
    client.send(b"\r\n" + get("/3"))
    await asyncio.sleep(0.02)
    engine.send(ok(b"one"))
    assert (await client.reply()).body == b"one"
    assert (await client.reply()).status == 400
    assert await client.is_closed()
    assert [frame.path for frame in rig.tap.opens] == ["/1", ""]


# trailers


async def test_trailers_of_a_request_end_here(rig: Rig) -> None:
    """RFC 9110 6.5.1 lets us drop them; they are fields of no request, least of all of the next one."""
    rig.engine.answer(ok(b"one"), ok(b"two"))
    client = await rig.connect()
    trailers = b"0\r\nAuthorization: Bearer x\r\nHost: other\r\nX-Inferwatch-User: u\r\n\r\n"
    client.send(CHUNKED + chunk(b"abc") + trailers + get("/2"))
    assert [(await client.reply()).body for _ in range(2)] == [b"one", b"two"]
    first, second = rig.engine.requests
    assert (first.body, first.trailers) == (b"abc", b"")
    assert [line.split(b":")[0] for line in first.lines + second.lines] == [b"Host", b"Content-Length", b"Host"]
    assert [(frame.tenant, frame.user) for frame in rig.tap.opens] == [("anonymous", "")] * 2


@pytest.mark.parametrize("buffered", [10, 1_000_000])
async def test_malformed_trailers_in_a_later_read_are_refused(start: Start, buffered: int) -> None:
    """The body is not over before they are."""
    rig = await start(limits={"buffer_request_bytes": buffered})
    client = await rig.connect()
    client.send(CHUNKED + chunk(b"x" * 100))
    await until(lambda: bool(rig.relay.active))
    client.send(b"0\r\nno colon\r\n\r\n")
    assert (await client.reply()).status == 400
    close = await rig.tap.close()
    assert (close.outcome, close.error) == ("rejected", "malformed_request")


# deadlines


async def test_dripping_a_head_does_not_extend_its_time(start: Start) -> None:
    """A byte now and then keeps nobody's connection: the head as a whole has client_idle_s."""
    rig = await start(limits={"client_idle_s": 0.3})
    client = await rig.connect()
    for byte in get("/", "X: " + "x" * 5000):
        client.send(bytes([byte]))
        await asyncio.sleep(0.01)
        if not rig.server.connections:
            break
    else:
        pytest.fail("the head was taken to its last byte")
    assert not rig.relay.active
    assert rig.tap.opens == []


async def test_body_that_keeps_coming_is_not_idle(start: Start) -> None:
    """Its time runs between two reads."""
    rig = await start(limits={"client_idle_s": 60.0})
    rig.engine.answer(ok())
    client = await rig.connect()
    client.send(wire("PUT / HTTP/1.1\nHost: h\nContent-Length: 10\n\n"))
    await until(lambda: bool(rig.relay.active))
    made = connection(rig)
    for _ in range(10):
        before_s = made._deadline_s
        client.send(b"x")
        await until(lambda: made._deadline_s != before_s)  # noqa: B023 - it is awaited here
        assert made._deadline_s > before_s
    assert (await client.reply()).status == 200


async def test_client_we_do_not_read_from_is_not_idle(start: Start) -> None:
    """While the engine takes nothing of an upload, its time does not run; nor while it waits for a reply."""
    rig = await start(limits={"buffer_request_bytes": 10})
    client = await rig.connect()
    size = 40 << 20
    client.send(wire(f"PUT / HTTP/1.1\nHost: h\nContent-Length: {size}\n\n", b"x" * size))
    engine = await rig.engine.accept()
    engine.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await until(lambda: connection(rig)._paused)
    rig.server.sweep(time.monotonic() + 1000.0)
    assert rig.relay.active
    engine.writer.transport.resume_reading()  # type: ignore[attr-defined]
    assert len((await engine.message(is_reply=False)).body) == size
    rig.server.sweep(time.monotonic() + 1000.0)
    engine.send(ok())
    assert (await client.reply()).status == 200


async def test_client_that_pipelines_behind_an_upload_is_not_late(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its request is whole; that we pause it, and read on, changes nothing."""
    rig = await start(limits={"buffer_request_bytes": 10})
    may_connect = asyncio.Event()
    connect = Pool.connect

    async def slow(pool: Pool) -> Connection:
        await may_connect.wait()
        return await connect(pool)

    monkeypatch.setattr(Pool, "connect", slow)
    client = await rig.connect()
    client.send(wire("PUT / HTTP/1.1\nHost: h\nContent-Length: 100000\n\n", b"x" * 1000))
    await until(lambda: bool(rig.relay.active))
    enough = MAX_HELD_BYTES // 4000 + 4  # to be paused with the last of them
    client.send(b"x" * 99_000 + get("/next", "X: " + "x" * 4000) * enough)
    await until(lambda: connection(rig)._paused)
    may_connect.set()
    engine = await rig.engine.accept()
    assert len((await engine.request()).body) == 100_000
    rig.server.sweep(time.monotonic() + 1000.0)
    engine.send(ok())
    assert (await client.reply()).status == 200


async def test_client_that_stays_after_a_refusal_is_closed(rig: Rig) -> None:
    """What it still sends is dropped, for a while."""
    client = await rig.connect()
    reply = await client.ask(b"garbage\r\n\r\n")
    assert reply.status == 400
    made = connection(rig)
    client.send(b"x" * 100_000)
    assert made._lingers
    made.sweep(time.monotonic() + UPLOAD_LINGER_S)
    await until(lambda: not rig.server.connections)


async def test_client_that_does_not_take_its_last_bytes_is_cut(rig: Rig) -> None:
    """A close waits for them; not for ever."""
    client = await rig.connect(receive_buffer=4096)
    client.send(get("/", "Connection: close"))
    engine = await rig.engine.accept()
    await engine.request()
    engine.send(ok(b"x" * (8 << 20)))
    engine.close()
    await until(lambda: bool(rig.tap.reads))
    made = connection(rig)
    made._close()
    assert rig.server.connections
    made.sweep(time.monotonic() + 1000.0)
    await until(lambda: not rig.server.connections)
    await rig.tap.close()


# draining


async def test_drain_closes_what_is_idle_and_lets_the_rest_finish(rig: Rig) -> None:
    """Idle keep-alive connections at once, half a head with them; a pipelined request is left to be sent elsewhere."""
    rig.engine.answer(ok())
    idle, half, busy = [await rig.connect() for _ in range(3)]
    await idle.ask(get())
    half.send(b"GET / HTTP/1.1\r\n")
    await until(lambda: len(rig.server.connections) == 3)
    rig.engine.run(_silent)
    rig.pool.close()
    busy.send(get("/1") + get("/2"))
    await until(lambda: bool(rig.relay.active))
    rig.server.drain()
    assert await idle.is_closed()
    assert await half.is_closed()
    (exchange,) = rig.relay.active
    await until(lambda: exchange.connection is not None)
    exchange.give_up(handling.ErrorType.FIRST_BYTE_TIMEOUT)
    reply = await busy.reply()
    assert (reply.status, reply.one("connection")) == (504, b"close")
    assert await busy.rest() == b""
    assert [frame.path for frame in rig.tap.opens] == ["/", "/1"]


async def _silent(side: EngineSide) -> None:
    await side.rest()


# hanging up


@pytest.mark.parametrize("leave", [Client.close, Client.reset, Client.half_close])
async def test_engine_is_let_go_in_the_same_turn(rig: Rig, leave: Any) -> None:
    """No task has to run first: half a connection counts as none."""
    client = await rig.connect()
    client.send(get())
    engine = await rig.engine.accept()
    await engine.request()
    leave(client)
    assert await engine.is_closed()
    assert (await rig.tap.close()).outcome == "client_abort"
    await until(lambda: not rig.server.connections)


async def test_no_task_is_made_for_what_is_at_hand(rig: Rig) -> None:
    """A pooled connection and a whole body: the request is sent in the call that received it."""
    rig.engine.answer(ok(b"one"), ok(b"two"))
    client = await rig.connect()
    await client.ask(get())
    await rig.pooled()
    started: list[str] = []
    rig.relay.tasks.start = lambda wait, name: started.append(name)  # type: ignore[assignment,method-assign,return-value]
    assert (await client.ask(post("{}"))).body == b"two"
    assert started == []


# faults of our own


async def test_fault_while_a_request_is_received_ends_its_connection(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Booked as ours; the relay goes on."""
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    rig.engine.answer(ok())
    await rig.ask(get())
    await rig.pooled()

    def fail(*_: Any, **__: Any) -> bytes:
        raise RuntimeError("fault")

    with monkeypatch.context() as broken:
        broken.setattr(heads, "request", fail)
        client = await rig.connect()
        assert await client.send(get()).is_closed()
    close = await rig.tap.close(2)
    assert (close.outcome, close.error) == ("interrupted", "internal")
    assert len(faults) == 1
    assert (await rig.ask(get())).status == 200
    rig.tap.closes[1:2] = []
    rig.tap.opens[1:2] = []


@pytest.mark.parametrize("where", ["connect", "reply"])
async def test_fault_on_the_engines_side_ends_the_client(rig: Rig, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """In a task, or in the call that ends the request: nobody waits for ever."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)

    async def refuse(_: Pool) -> None:
        raise RuntimeError("fault")

    def fail(*_: Any, **__: Any) -> bytes:
        raise RuntimeError("fault")

    if where == "connect":
        monkeypatch.setattr(Pool, "connect", refuse)
    else:
        monkeypatch.setattr(endings.errors, "reply", fail)
        await rig.engine.stop()
    client = await rig.connect()
    assert await client.send(get()).rest() == b""
    close = await rig.tap.close()
    assert (close.outcome, close.error) == ("interrupted", "internal")
    assert not rig.relay.active
    rig.tap.closes.clear()
    rig.tap.opens.clear()
