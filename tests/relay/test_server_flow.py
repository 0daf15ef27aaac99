"""server: back-pressure both ways, memory per stream, TLS on either side."""

import asyncio
import contextlib
import os
import ssl
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from harness import Client, EngineSide, Rig, Start, chunk, chunked, get, ok, until, wire

from inferwatch.relay.exchange import HIGH_WATER_BYTES

# What the kernel may hold between two sockets of one machine (its send and receive buffers grow to 4 and 6 MB).
KERNEL_BYTES = 24 << 20
# One read of the engine, as uvloop makes them.
READ_BYTES = 256 << 10

STREAM = wire("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n")


async def stalled(rig: Rig, *, receive_buffer: int = 4096) -> tuple[Client, EngineSide, asyncio.Task[int]]:
    """A client that does not read, and an engine that sends as fast as it may; the task counts what it could send."""
    client = await rig.connect(receive_buffer=receive_buffer)
    client.send(get())
    engine = await rig.engine.accept()
    await engine.request()
    engine.send(STREAM)

    async def flood() -> int:
        sent = 0
        piece = chunk(b"x" * 65_536)
        while sent < 4 * KERNEL_BYTES:
            engine.send(piece)
            sent += len(piece)
            try:
                async with asyncio.timeout(0.5):
                    await engine.writer.drain()
            except TimeoutError:
                break
        return sent

    return client, engine, asyncio.create_task(flood())


async def test_slow_client_pauses_the_engine(rig: Rig) -> None:
    """The engine can send no more than the kernel holds; we hold one read and the high-water mark."""
    client, engine, flood = await stalled(rig)
    most = 0
    while not flood.done():
        await asyncio.sleep(0.01)
        most = max([most, *[one.transport.get_write_buffer_size() for one in rig.relay.active]])
    assert await flood < KERNEL_BYTES
    assert HIGH_WATER_BYTES < most <= HIGH_WATER_BYTES + READ_BYTES + 100
    (exchange,) = rig.relay.active
    assert exchange.blocked
    engine.send(b"0\r\n\r\n")
    reply = await client.reply()
    assert reply.complete
    close = await rig.tap.close()
    assert (close.outcome, close.response_bytes) == ("ok", len(reply.body))
    assert close.stalled_ns > 0


async def test_slow_client_that_leaves_stops_the_engine(rig: Rig) -> None:
    """Also while the engine's socket is paused."""
    client, engine, flood = await stalled(rig)
    await flood
    client.reset()
    await until(lambda: not rig.relay.active)
    await engine.rest()
    assert (await rig.tap.close()).outcome == "client_abort"


async def test_client_that_never_reads_is_given_up(start: Start) -> None:
    """After as long as an engine may be silent; it frees the engine."""
    rig = await start(upstream={"idle_timeout_s": 30.0})
    _, engine, flood = await stalled(rig)
    await flood
    rig.sweep(20.0)
    assert rig.relay.active
    rig.sweep(40.0)
    await engine.rest()
    close = await rig.tap.close()
    assert close.outcome == "client_abort"


async def test_total_timeout_holds_for_a_client_that_never_reads(start: Start) -> None:
    """The handler does not sleep through it."""
    rig = await start(upstream={"total_timeout_s": 30.0})
    _, engine, flood = await stalled(rig)
    await flood
    rig.sweep(40.0)
    await engine.rest()
    assert (await rig.tap.close()).error == "total_timeout"


async def test_slow_engine_pauses_the_client(start: Start) -> None:
    """An upload that the engine does not take is not taken in either."""
    rig = await start()
    client = await rig.connect()
    size = 2 * KERNEL_BYTES
    sent = 2 << 20
    client.send(wire(f"POST /x HTTP/1.1\nHost: h\nContent-Length: {size}\n\n", b"x" * sent))
    engine = await rig.engine.accept()  # once more than the buffered part has come
    engine.writer.transport.pause_reading()  # type: ignore[attr-defined]
    while sent < size:
        client.send(b"x" * 65_536)
        sent += 65_536
        try:
            async with asyncio.timeout(0.5):
                await client.writer.drain()
        except TimeoutError:
            break
    assert sent < size
    (exchange,) = rig.relay.active
    assert exchange.connection is not None
    assert exchange.connection.transport.get_write_buffer_size() < 4 << 20
    engine.writer.transport.resume_reading()  # type: ignore[attr-defined]
    feeding = asyncio.create_task(drained(client, size - sent))
    got = await engine.message(is_reply=False)
    await feeding
    assert len(got.body) == size
    engine.send(ok())
    assert (await client.reply()).status == 200


async def drained(client: Client, size: int) -> None:
    while size > 0:
        client.send(b"x" * min(size, 1 << 20))
        size -= 1 << 20
        await client.writer.drain()


async def test_memory_does_not_grow_with_a_reply(rig: Rig) -> None:
    """Fifty megabytes through one stream leave nothing behind (but for the harness's own copies)."""
    rig.tap.read = lambda *_: None  # type: ignore[method-assign]
    client = await rig.connect(receive_buffer=65_536)
    client.send(get())
    engine = await rig.engine.accept()
    await engine.request()
    engine.send(STREAM)
    piece = chunk(b"y" * 50_000)
    received = 0

    async def receive() -> None:
        nonlocal received
        while data := await client.read_some():
            received += len(data)

    receiving = asyncio.create_task(receive())
    base = 0
    tracemalloc.start()
    try:
        for number in range(1000):
            engine.send(piece)
            await engine.writer.drain()
            if number == 100:
                await asyncio.sleep(0.05)
                tracemalloc.reset_peak()
                base = tracemalloc.get_traced_memory()[0]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - base < 4 << 20
    engine.send(b"0\r\n\r\n")
    engine.close()
    await rig.tap.close()
    client.writer.write_eof()
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)
    rig.tap.closes.clear()
    rig.tap.opens.clear()


async def test_many_streams_at_once(rig: Rig) -> None:
    """Two hundred, interleaved, each with its own bytes."""

    async def script(side: EngineSide) -> None:
        while not side.reader.at_eof():
            with contextlib.suppress(asyncio.IncompleteReadError):
                name = (await side.request()).start.split(b" ")[1]
                side.send(STREAM)
                for number in range(10):
                    side.send(chunk(b"%b:%d\n" % (name, number)))
                    await asyncio.sleep(0)
                side.send(b"0\r\n\r\n")

    rig.engine.run(script)
    replies = await asyncio.gather(*[rig.ask(get(f"/{number}")) for number in range(200)])
    for number, reply in enumerate(replies):
        assert reply.body == b"".join(b"/%d:%d\n" % (number, line) for line in range(10))
    await rig.tap.close(200)


# TLS


@pytest.fixture(name="authority", scope="module")
def _authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(name="server_tls")
def _server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture(name="client_tls")
def _client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(name="ca_file")
def _ca_file(authority: trustme.CA, tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    yield str(path)


async def test_tls_towards_the_client(start: Start, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """Bodies both ways, keep-alive, events one by one."""
    rig = await start(tls=server_tls, client_tls=client_tls)
    rig.engine.answer(ok(b"y" * 500_000), STREAM + chunked(b"a", b"b"))
    client = await rig.connect()
    reply = await client.ask(wire("POST /x HTTP/1.1\nHost: h\nContent-Length: 2000000\n\n", b"x" * 2_000_000))
    assert reply.body == b"y" * 500_000
    assert rig.engine.requests[0].body == b"x" * 2_000_000
    assert (await client.ask(get())).body == b"ab"


async def test_tls_towards_the_engine(start: Start, server_tls: ssl.SSLContext, ca_file: str) -> None:
    """With its certificate checked; Host is the engine's name and port."""
    rig = await start(engine_tls=server_tls, upstream={"tls_ca_file": ca_file})
    rig.engine.answer(ok(b"one"), ok(b"two"))
    client = await rig.connect()
    assert [(await client.ask(get())).body for _ in range(2)] == [b"one", b"two"]
    assert rig.engine.connections == 1
    assert rig.engine.requests[0].one("host") == f"localhost:{rig.engine.port}".encode()


async def test_engine_with_a_certificate_nobody_knows(start: Start, server_tls: ssl.SSLContext) -> None:
    """Is not trusted: 503; unless told so."""
    rig = await start(engine_tls=server_tls)
    rig.engine.answer(ok())
    rig.engine._server.get_loop().set_exception_handler(lambda *_: None)  # type: ignore[union-attr]
    assert (await rig.ask(get())).status == 503
    lax = await start(engine_tls=server_tls, upstream={"tls_verify": False})
    lax.engine.answer(ok())
    assert (await lax.ask(get())).status == 200


async def test_client_that_leaves_over_tls(
    start: Start, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, ca_file: str
) -> None:
    """Stops the engine as well, TLS on both sides."""
    rig = await start(tls=server_tls, client_tls=client_tls, engine_tls=server_tls, upstream={"tls_ca_file": ca_file})
    client = await rig.connect()
    client.send(get())
    engine = await rig.engine.accept()
    await engine.request()
    engine.send(STREAM + chunk(b"x"))
    await client.read_until(b"\r\n\r\n")
    client.close()
    await engine.rest()
    assert (await rig.tap.close()).outcome == "client_abort"


async def test_plain_client_on_a_tls_port(start: Start, server_tls: ssl.SSLContext) -> None:
    """Is dropped without a word, and harms nobody."""
    rig = await start(tls=server_tls)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    client = await rig.connect()
    client.send(get())
    await client.rest()
    assert rig.engine.connections == 0


@pytest.mark.parametrize("is_tls", [False, True])
async def test_waiting_for_a_slow_client_is_no_polling(
    start: Start, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, is_tls: bool
) -> None:
    """TLS has buffers of its own, with marks of their own: waiting on them must not become a busy loop either."""
    rig = await start(tls=server_tls, client_tls=client_tls) if is_tls else await start()
    client, engine, flood = await stalled(rig)
    assert await flood < KERNEL_BYTES + (4 << 20)
    (exchange,) = rig.relay.active
    assert exchange.blocked
    original = exchange.transport
    looks = 0

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(original, name)

        def get_write_buffer_size(self) -> int:
            nonlocal looks
            looks += 1
            return original.get_write_buffer_size()

    exchange.transport = Counting()  # type: ignore[assignment]
    await asyncio.sleep(0.2)
    exchange.transport = original
    assert looks < 100
    engine.send(b"0\r\n\r\n")
    assert (await client.reply()).complete


async def test_file_descriptors_are_given_back(rig: Rig) -> None:
    """Whatever way requests end."""

    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    rig.engine.answer(ok())
    await rig.ask(get())
    await rig.idle()
    before = open_files()
    for number in range(40):
        client = await rig.connect()
        client.send(get("/", *(["Connection: close"] if number % 2 else [])))
        if number % 3:
            await client.reply()
        client.close()
    await rig.idle()
    rig.sweep(100.0)
    await asyncio.sleep(0.1)
    assert open_files() <= before + 2
