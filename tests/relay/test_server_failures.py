"""server: engines that are down, slow or broken, and clients that leave."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from harness import Client, EngineSide, Rig, Start, chunk, configured, get, ok, post, sse, until, wire

from inferwatch.relay.pool import Pool
from inferwatch.relay.worker import _pool

STREAM = wire("HTTP/1.1 200 OK\nContent-Type: text/event-stream\nTransfer-Encoding: chunked\n\n")


async def open_request(rig: Rig, data: bytes = get()) -> tuple[Client, EngineSide]:
    """A request that the engine has read and not answered."""
    client = await rig.connect()
    client.send(data)
    engine = await rig.engine.accept()
    await engine.request()
    return client, engine


# an engine that is not there


async def test_engine_that_is_down(rig: Rig) -> None:
    """503 in its own shape; the client's connection goes on, and works when the engine is back."""
    await rig.engine.stop()
    client = await rig.connect()
    reply = await client.ask(post("{}", "/v1/chat/completions"))
    assert (reply.status, reply.one("connection"), reply.one("content-type")) == (503, None, b"application/json")
    assert reply.json["error"]["type"] == "ServiceUnavailableError"
    close = await rig.tap.close()
    assert (close.outcome, close.error, close.status) == ("upstream_error", "connect_failed", 503)
    rig.engine.answer(ok(b"back"))
    await rig.engine.start()
    assert (await client.ask(get())).body == b"back"


async def test_engine_that_is_down_with_an_upload_on_its_way(start: Start) -> None:
    """The client hears of it before its body is through."""
    rig = await start(limits={"buffer_request_bytes": 10})
    await rig.engine.stop()
    reply = await rig.ask(wire("POST /x HTTP/1.1\nHost: h\nContent-Length: 100000\n\n", b"x" * 100))
    assert (reply.status, reply.one("connection")) == (503, b"close")


async def test_error_of_ours_to_head(rig: Rig) -> None:
    """Has a length and no body."""
    await rig.engine.stop()
    client = await rig.connect()
    reply = await client.ask(wire("HEAD / HTTP/1.1\nHost: h\n\n"), to_head=True)
    assert reply.status == 503
    assert await client.stays_quiet(0.05)


async def test_error_of_ours_on_anthropics_route(rig: Rig) -> None:
    """In Anthropic's shape."""
    await rig.engine.stop()
    reply = await rig.ask(post("{}", "/v1/messages"))
    assert reply.json["type"] == "error"


async def test_engine_that_does_not_accept(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """504 after the connect time-out."""
    rig = await start(upstream={"connect_timeout_s": 0.02})

    async def never(*_: Any, **__: Any) -> None:
        await asyncio.sleep(60)

    loop = asyncio.get_running_loop()

    class Deaf:
        create_connection = staticmethod(never)

        def __getattr__(self, name: str) -> Any:
            return getattr(loop, name)

    client = await rig.connect()
    monkeypatch.setattr("inferwatch.relay.upstream.asyncio.get_running_loop", Deaf)
    reply = await client.ask(get())
    monkeypatch.undo()
    assert reply.status == 504
    assert (await rig.tap.close()).error == "connect_timeout"


# an engine that breaks


GARBAGE = [
    b"SSH-2.0-x\r\n",
    b"garbage\r\n\r\n",
    b"\x00" * 100,
    b"HTTP/1.1 20x OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
]


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_engine_that_does_not_speak_http(rig: Rig, garbage: bytes) -> None:
    """502, the engine's connection is closed, the client's goes on."""
    client, engine = await open_request(rig)
    engine.send(garbage)
    reply = await client.reply()
    assert (reply.status, reply.one("connection")) == (502, None)
    close = await rig.tap.close()
    assert (close.outcome, close.error) == ("upstream_error", "upstream_protocol")
    await engine.rest()
    rig.engine.answer(ok(b"next"))
    assert (await client.ask(get())).body == b"next"


HALVES = [b"", b"H", b"HTTP/1.1 200 OK\r\nContent-", b"HTTP/1.1 103 Early Hints\r\n\r\n"]


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("half", HALVES)
async def test_engine_that_leaves_before_its_head_is_complete(rig: Rig, half: bytes, how: str) -> None:
    """502; it was at work on it, so it is not asked again."""
    client, engine = await open_request(rig)
    if half:
        engine.send(half)
        await asyncio.sleep(0.01)
    getattr(engine, how)()
    reply = await client.reply()
    assert reply.status == 502
    close = await rig.tap.close()
    assert (close.outcome, close.error, close.retried) == ("upstream_error", "upstream_reset", False)
    assert rig.engine.connections == 1


BREAKS = [
    wire("HTTP/1.1 200 OK\nContent-Length: 10\n\n", b"part"),
    wire("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", chunk(b"part")),
    wire("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", b"a\r\npart"),
    wire("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", chunk(b"part") + b"0\r\nX-T"),
]


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("data", BREAKS)
async def test_engine_that_leaves_in_mid_body(rig: Rig, data: bytes, how: str) -> None:
    """The client gets what there was, and sees that it is not all."""
    client, engine = await open_request(rig)
    engine.send(data)
    await until(lambda: bool(rig.tap.reads))
    getattr(engine, how)()
    reply = await client.reply()
    assert (reply.status, reply.body, reply.complete) == (200, b"part", False)
    close = await rig.tap.close()
    assert (close.outcome, close.error, close.status) == ("stream_error", "upstream_reset", 200)
    assert close.response_bytes == 4


async def test_engine_that_leaves_in_mid_body_of_http_10(rig: Rig) -> None:
    """An HTTP/1.0 client can only see it by the length."""
    client, engine = await open_request(rig, wire("GET / HTTP/1.0\n\n"))
    engine.send(BREAKS[0])
    await until(lambda: bool(rig.tap.reads))
    engine.reset()
    assert not (await client.reply()).complete


async def test_reset_behind_a_body_without_a_length(rig: Rig) -> None:
    """Nobody knows whether that was all: the client's chunks have no end either."""
    client, engine = await open_request(rig)
    engine.send(wire("HTTP/1.1 200 OK\n\n", b"part"))
    await until(lambda: bool(rig.tap.reads))
    engine.reset()
    reply = await client.reply()
    assert (reply.body, reply.complete) == (b"part", False)


@pytest.mark.parametrize("bad", [b"zz\r\n", b"-1\r\n", b"5\r\nhello!\r\n", b"99999999999999999\r\n"])
async def test_engine_whose_chunks_go_wrong(rig: Rig, bad: bytes) -> None:
    """What was good is passed on, then the reply breaks off."""
    client, engine = await open_request(rig)
    engine.send(STREAM + chunk(b"good") + bad)
    reply = await client.reply()
    assert (reply.body[:4], reply.complete) == (b"good", False)
    close = await rig.tap.close()
    assert (close.outcome, close.error) == ("stream_error", "upstream_protocol")


async def test_body_longer_than_its_length(rig: Rig) -> None:
    """The length counts; the rest is nobody's, also when it comes later."""
    client, engine = await open_request(rig)
    engine.send(ok(b"hello"))
    assert (await client.reply()).body == b"hello"
    engine.send(b" and more")
    await engine.rest()
    rig.engine.answer(ok(b"next"))
    assert (await client.ask(get())).body == b"next"


# pooled connections


async def test_pooled_connection_that_died_idle_is_retried_once(rig: Rig) -> None:
    """The engine closed it just as we took it: the request is sent again on a new one, and nobody notices."""
    client, engine = await open_request(rig)
    engine.send(ok(b"first"))
    await client.reply()
    client.send(post('{"again":1}', "/x"))
    got = await engine.request()
    engine.close()
    second = await rig.engine.accept()
    assert (await second.request()) == got
    second.send(ok(b"second"))
    assert (await client.reply()).body == b"second"
    close = await rig.tap.close(2)
    assert (close.outcome, close.retried) == ("ok", True)
    assert len(rig.tap.opens) == 2
    assert rig.relay.retries == 1


async def test_retry_is_made_once(rig: Rig) -> None:
    """A new connection that dies as well is an engine that is down."""
    client, engine = await open_request(rig)
    engine.send(ok())
    await client.reply()
    client.send(get())
    await engine.request()
    engine.close()
    second = await rig.engine.accept()
    await second.request()
    second.close()
    assert (await client.reply()).status == 502
    assert rig.engine.connections == 2
    assert (await rig.tap.close(2)).retried


async def test_retry_finds_the_engine_gone(rig: Rig) -> None:
    """503."""
    client, engine = await open_request(rig)
    engine.send(ok())
    await client.reply()
    client.send(get())
    await engine.request()
    await rig.engine.stop()
    assert (await client.reply()).status == 503
    assert (await rig.tap.close(2)).error == "connect_failed"


@pytest.mark.parametrize("half", HALVES[1:])
async def test_no_retry_after_a_byte_of_the_reply(rig: Rig, half: bytes) -> None:
    """The engine was at work: a second run would cost twice."""
    client, engine = await open_request(rig)
    engine.send(ok())
    await client.reply()
    client.send(get())
    await engine.request()
    engine.send(half)
    await asyncio.sleep(0.02)
    engine.close()
    reply = await client.reply()
    assert reply.status == 502
    assert rig.engine.connections == 1


async def test_many_pooled_connections_that_died(rig: Rig) -> None:
    """An engine restarts: each of its clients' next requests gets through."""
    asked = [await open_request(rig) for _ in range(10)]
    for client, engine in asked:
        engine.send(ok())
        await client.reply()
    assert rig.pool.idle == 10
    for _, engine in asked:
        engine.reset()
    rig.engine.answer(ok(b"new"))
    replies = await asyncio.gather(*[client.ask(get()) for client, _ in asked])
    assert {reply.body for reply in replies} == {b"new"}


async def test_upgrade_gets_a_connection_of_its_own(rig: Rig) -> None:
    """It will never come back to the pool."""
    client, engine = await open_request(rig)
    engine.send(ok())
    await client.reply()
    client.send(get("/", "Connection: upgrade", "Upgrade: websocket"))
    second = await rig.engine.accept()
    await second.request()
    assert rig.pool.idle == 1
    client.close()
    await second.rest()


# time-outs


async def test_engine_that_does_not_begin(start: Start) -> None:
    """504, and its connection is closed so that it stops."""
    rig = await start(upstream={"first_byte_timeout_s": 5.0})
    client, engine = await open_request(rig)
    rig.sweep(4.0)
    assert rig.relay.active
    rig.sweep(6.0)
    reply = await client.reply()
    assert (reply.status, reply.json["error"]["type"]) == (504, "GatewayTimeoutError")
    assert await engine.is_closed()
    close = await rig.tap.close()
    assert (close.outcome, close.error) == ("upstream_error", "first_byte_timeout")
    rig.engine.answer(ok())
    assert (await client.ask(get())).status == 200


async def test_engine_that_takes_nothing_of_an_upload(start: Start) -> None:
    """The client is not read from meanwhile; it may have left long ago."""
    rig = await start(limits={"buffer_request_bytes": 10}, upstream={"idle_timeout_s": 5.0})
    client = await rig.connect()
    size = 40 << 20
    client.send(wire(f"PUT / HTTP/1.1\nHost: h\nContent-Length: {size}\n\n", b"x" * size))
    engine = await rig.engine.accept()
    engine.writer.transport.pause_reading()  # type: ignore[attr-defined]
    (exchange,) = rig.relay.active
    await until(lambda: bool(exchange.offered_ns))
    rig.sweep(4.0)
    assert rig.relay.active

    def is_given_up() -> bool:
        rig.sweep(6.0)
        return not rig.relay.active

    await until(is_given_up)
    close = await rig.tap.close()
    assert (close.outcome, close.error, close.status) == ("upstream_error", "first_byte_timeout", 504)


async def test_engine_that_stops_in_mid_stream(start: Start) -> None:
    """The reply breaks off: nothing else can be said behind a head."""
    rig = await start(upstream={"idle_timeout_s": 5.0})
    client, engine = await open_request(rig)
    engine.send(STREAM + chunk(b"data: 1\n\n"))
    await until(lambda: bool(rig.tap.reads))
    rig.sweep(6.0)
    reply = await client.reply()
    assert (reply.body, reply.complete) == (b"data: 1\n\n", False)
    assert await engine.is_closed()
    assert (await rig.tap.close()).error == "idle_timeout"


async def test_request_that_takes_too_long(start: Start) -> None:
    """However busy it is."""
    rig = await start(upstream={"total_timeout_s": 5.0})
    client, engine = await open_request(rig)
    engine.send(STREAM + chunk(b"x"))
    await until(lambda: bool(rig.tap.reads))
    rig.sweep(6.0)
    assert not (await client.reply()).complete
    assert await engine.is_closed()
    close = await rig.tap.close()
    assert (close.outcome, close.error) == ("stream_error", "total_timeout")


async def test_idle_connections_are_closed_in_time(rig: Rig) -> None:
    """Before the engine does it under a request."""
    client, engine = await open_request(rig)
    engine.send(ok())
    await client.reply()
    rig.sweep(5.0)
    assert await engine.is_closed()
    assert rig.pool.idle == 0


async def test_client_connection_that_is_idle_is_closed(start: Start) -> None:
    """After client_idle_s; also one that never said a word, and one that stops in its head."""
    rig = await start(limits={"client_idle_s": 0.05})
    silent, half, polite = await rig.connect(), await rig.connect(), await rig.connect()
    half.send(b"GET / HTTP/1.1\r\nHost")
    rig.engine.answer(ok())
    await polite.ask(get())
    assert await silent.is_closed()
    await half.rest()
    assert await polite.is_closed()


# clients that leave


LEAVES: list[Callable[[Client], None]] = [Client.close, Client.reset]


@pytest.mark.parametrize("leave", LEAVES)
@pytest.mark.parametrize(
    "said", [b"", STREAM, STREAM + chunk(b"data: 1\n\n"), wire("HTTP/1.1 200 OK\nContent-Length: 9\n\n")]
)
async def test_client_that_leaves_stops_the_engine_at_once(
    rig: Rig, said: bytes, leave: Callable[[Client], None]
) -> None:
    """Queued, prefilling, streaming or plain: the engine's connection is closed with no byte more from either."""
    client, engine = await open_request(rig)
    if said:
        engine.send(said)
        await client.read_until(b"\r\n\r\n")
    leave(client)
    assert await engine.is_closed()
    close = await rig.tap.close()
    assert (close.outcome, close.error) == ("client_abort", "")
    assert close.status == (200 if said else 0)
    assert rig.pool.idle == 0


async def test_client_that_leaves_in_mid_stream_is_booked_with_its_usage(vllm: Rig) -> None:
    """The last continuous usage is in the Close."""
    client, engine = await open_request(vllm, post('{"stream":true}'))
    engine.send(sse(chunks=False))
    for number in range(3):
        engine.send(chunk(b'data: {"choices":[{"index":0}],"usage":{"completion_tokens":%d}}\n\n' % number))
        await client.read_until(b"}]}\n\n\r\n")
    client.close()
    assert await engine.is_closed()
    close = await vllm.tap.close()
    assert (close.outcome, close.usages) == ("client_abort", {0: b'{"completion_tokens":2}'})


async def test_client_that_leaves_while_uploading(start: Start) -> None:
    """The engine's half request is cut off."""
    rig = await start(limits={"buffer_request_bytes": 10})
    client = await rig.connect()
    client.send(wire("POST /x HTTP/1.1\nHost: h\nContent-Length: 1000\n\n", b"x" * 100))
    engine = await rig.engine.accept()
    await engine.read_until(b"\r\n\r\n")
    client.send(b"x" * 50)
    await engine.read_until(b"x" * 50 + b"\r\n")
    client.close()
    assert not (await engine.rest()).endswith(b"0\r\n\r\n")
    close = await rig.tap.close()
    assert (close.outcome, close.error) == ("client_abort", "")
    (opened,) = rig.tap.opens
    assert (opened.body_bytes, opened.sent_ns) == (150, 0)


async def test_client_that_leaves_before_its_body_is_complete(rig: Rig) -> None:
    """The engine never hears of it; the books do."""
    client = await rig.connect()
    client.send(wire("POST /x HTTP/1.1\nHost: h\nContent-Length: 1000\n\n", b"x" * 100))
    await until(lambda: bool(rig.relay.active))
    client.close()
    close = await rig.tap.close()
    assert (close.outcome, close.error) == ("client_abort", "")
    assert rig.engine.connections == 0


async def test_client_that_leaves_while_we_connect(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left behind."""
    connecting = asyncio.Event()

    async def slow(_: Pool) -> None:
        connecting.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(Pool, "connect", slow)
    client = await rig.connect()
    client.send(get())
    await connecting.wait()
    client.close()
    close = await rig.tap.close()
    assert (close.outcome, close.error) == ("client_abort", "")


async def test_clients_that_leave_under_a_full_stream_raise_nothing(rig: Rig) -> None:
    """Between the loss of a connection and the end of its handler the engine still speaks: nothing may come of it."""
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))

    async def flood(side: EngineSide) -> None:
        await side.request()
        side.send(STREAM)
        while not side.writer.is_closing():
            side.send(chunk(b"x" * 100))
            await asyncio.sleep(0)

    rig.engine.run(flood)

    async def leave() -> None:
        client = await rig.connect()
        client.send(get())
        await client.read(2000)
        client.reset()

    await asyncio.gather(*[leave() for _ in range(100)])
    closes = [await rig.tap.close(number) for number in range(1, 101)]
    assert {close.outcome for close in closes} == {"client_abort"}
    assert faults == []


async def test_client_that_leaves_with_pipelined_requests(rig: Rig) -> None:
    """The one at work is booked as left; the others never reach the engine."""
    client, engine = await open_request(rig, get("/1") + get("/2") + get("/3"))
    client.close()
    assert await engine.is_closed()
    assert (await rig.tap.close()).outcome == "client_abort"
    await rig.idle()
    assert rig.engine.connections == 1
    assert [frame.path for frame in rig.tap.opens] == ["/1"]


async def test_client_that_leaves_right_behind_the_reply(rig: Rig) -> None:
    """A finished reply is ok, whoever is there to read it; the engine's connection stays."""
    client, engine = await open_request(rig)
    engine.send(ok())
    await client.reply()
    client.close()
    assert (await rig.tap.close()).outcome == "ok"
    assert rig.pool.idle == 1


async def test_reload_changes_the_engine_for_new_requests_only(rig: Rig, start: Start) -> None:
    """A request under way stays with the engine that has it."""
    client, engine = await open_request(rig)
    other = await start()
    other.engine.answer(ok(b"new"))
    old, rig.relay.pool = (
        rig.relay.pool,
        _pool(configured(upstream={"url": f"http://127.0.0.1:{other.engine.port}"}).upstream),
    )
    old.close()
    assert (await rig.ask(get())).body == b"new"
    engine.send(ok(b"old"))
    assert (await client.reply()).body == b"old"
    assert await engine.is_closed()  # nobody would use it again, or close it when it has been idle for long
    rig.relay.pool.close()
