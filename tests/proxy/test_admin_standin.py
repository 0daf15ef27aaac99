"""The stand-in on the admin port: tells whether the data path lives, whatever the collector does."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from typing import NamedTuple

import msgspec
import pytest

from inferwatch import admin_standin
from inferwatch.admin_standin import StandIn


class Port(NamedTuple):
    """A stand-in on a free port, and the switch that makes its data path live."""

    standin: StandIn
    listener: socket.socket
    alive: list[bool]

    async def ask(self, *parts: bytes) -> bytes:
        """Send raw bytes and return all that comes back."""
        reader, writer = await asyncio.open_connection(*self.listener.getsockname())
        try:
            for part in parts:
                writer.write(part)
                await asyncio.sleep(0)
            async with asyncio.timeout(5):
                return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()


@pytest.fixture(name="port")
async def _port() -> AsyncIterator[Port]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    alive = [True]
    standin = StandIn(listener, lambda: alive[0])
    await standin.start()
    yield Port(standin, listener, alive)
    await standin.stop()
    listener.close()
    await asyncio.sleep(0)


def status(reply: bytes) -> int:
    return int(reply.split(b" ")[1])


async def test_healthz_is_200_while_the_data_path_lives(port: Port) -> None:
    """The collector's absence is told, but is no reason to restart the container."""
    reply = await port.ask(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    head, _, body = reply.partition(b"\r\n\r\n")

    assert status(reply) == 200
    assert msgspec.json.decode(body) == {"status": "ok", "collector": "restarting"}
    assert f"content-length: {len(body)}".encode() in head
    assert b"connection: close" in head


async def test_healthz_is_503_when_the_data_path_is_dead(port: Port) -> None:
    """Liveness follows the relays, at each question anew."""
    port.alive[0] = False
    dead = await port.ask(b"GET /healthz HTTP/1.1\r\n\r\n")
    port.alive[0] = True
    living = await port.ask(b"GET /healthz HTTP/1.1\r\n\r\n")

    assert (status(dead), status(living)) == (503, 200)


@pytest.mark.parametrize("path", [b"/readyz", b"/metrics", b"/config", b"/", b"/healthzz", b"/HEALTHZ", b"//healthz"])
async def test_everything_else_is_503(port: Port, path: bytes) -> None:
    """What only the collector knows is unavailable, rather than empty or old."""
    reply = await port.ask(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n")

    assert status(reply) == 503


async def test_a_query_string_does_not_matter(port: Port) -> None:
    """Probes add things."""
    assert status(await port.ask(b"GET /healthz?verbose=1 HTTP/1.1\r\n\r\n")) == 200


async def test_a_request_may_come_in_pieces(port: Port) -> None:
    """A slow network is not a bad request."""
    assert status(await port.ask(b"GET /hea", b"lthz HTTP/1.1\r\nHost", b": a\r\n\r", b"\n")) == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"\r\n\r\n", id="empty"),
        pytest.param(b"GET\r\n\r\n", id="no path"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", id="TLS"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nX: " + b"x" * admin_standin.MAX_REQUEST_BYTES + b"\r\n\r\n", id="long"),
        pytest.param(b"x" * 100_000, id="endless"),
    ],
)
async def test_what_is_no_request_is_hung_up_on(port: Port, request_bytes: bytes) -> None:
    """No answer, no fault; the next probe gets its own."""
    assert await port.ask(request_bytes) == b""
    assert status(await port.ask(b"GET /healthz HTTP/1.1\r\n\r\n")) == 200


async def test_a_client_that_sends_nothing_is_let_go(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow-loris keeps its connection no longer than the time limit."""
    monkeypatch.setattr(admin_standin, "READ_TIMEOUT_S", 0.05)

    assert await port.ask(b"GET /healthz HTTP/1.1\r\n") == b""


async def test_no_more_connections_are_kept_than_the_limit(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above it one is closed at once; when the slow ones are gone there is room again."""
    monkeypatch.setattr(admin_standin, "MAX_OPEN", 3)
    slow = [await asyncio.open_connection(*port.listener.getsockname()) for _ in range(3)]
    await asyncio.sleep(0.05)

    assert await port.ask(b"GET /healthz HTTP/1.1\r\n\r\n") == b""

    for _, writer in slow:
        writer.close()
        await writer.wait_closed()
    await asyncio.sleep(0.05)
    assert status(await port.ask(b"GET /healthz HTTP/1.1\r\n\r\n")) == 200


async def test_after_stop_the_socket_is_the_collectors(port: Port) -> None:
    """Stopping leaves the listening socket open: connections wait in it for whoever accepts next."""
    await port.standin.stop()
    task = asyncio.ensure_future(port.ask(b"GET /healthz HTTP/1.1\r\n\r\n"))

    connection, _ = await asyncio.get_running_loop().sock_accept(port.listener)
    with connection:
        await asyncio.get_running_loop().sock_sendall(connection, b"the collector's own answer")

    assert await task == b"the collector's own answer"


async def test_whoever_was_accepted_just_before_the_stop_is_answered(port: Port) -> None:
    """A connection between the accept and the server's knowledge of it is not dropped without a word."""
    for turns in range(8):  # the moment of the stop, in turns of the loop after the connection
        await port.standin.start()
        client = socket.socket()
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        assert client.connect_ex(port.listener.getsockname()) in (0, errno.EINPROGRESS)  # at once, on loopback
        for _ in range(turns):
            await asyncio.sleep(0)
        await port.standin.stop()
        await loop.sock_sendall(client, b"GET /healthz HTTP/1.1\r\n\r\n")
        try:
            port.listener.setblocking(False)
            taken, _ = port.listener.accept()  # it is still in the queue: the collector's
            taken.close()
        except BlockingIOError:
            async with asyncio.timeout(5):
                assert b"HTTP/1.1" in await loop.sock_recv(client, 100)
        client.close()


async def test_it_can_stand_in_again(port: Port) -> None:
    """The collector may go more than once; starting twice, or stopping twice, changes nothing."""
    await port.standin.stop()
    await port.standin.stop()
    await port.standin.start()
    await port.standin.start()

    assert status(await port.ask(b"GET /healthz HTTP/1.1\r\n\r\n")) == 200
