"""The relay between a raw socket and a raw socket, so that tests read like transcripts of the wire.

`Rig` runs the real Relay and Listener on a loopback port. On its left a `Client` sends bytes and sees bytes; on its
right `Engine` hands each connection of the relay to the test, which says what the engine says. What the relay would
have told the collector is in `rig.tap`. Nothing here waits for ever: every wait fails after PATIENCE_S.
"""

import asyncio
import contextlib
import itertools
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec

from inferwatch import tap
from inferwatch.config import Config
from inferwatch.relay.engine_probe import Engine as KnownEngine
from inferwatch.relay.identity import Identity
from inferwatch.relay.listener import Listener
from inferwatch.relay.observer import Observer
from inferwatch.relay.outbox import Outbox
from inferwatch.relay.server import Relay
from inferwatch.relay.worker import _pool
from inferwatch.tenants import read_table

# Long enough for a machine with a load of 20; a test that needs it has failed.
PATIENCE_S = 10.0

SECRET = b"sixteen bytes or more"


def wire(head: str, body: bytes = b"") -> bytes:
    r"""Return a head as it goes over the wire: lines end with \r\n. The empty line must be written."""
    return head.replace("\n", "\r\n").encode("latin-1", "surrogateescape") + body


def get(path: str = "/", *lines: str) -> bytes:
    """Return a plain GET."""
    return wire("\n".join([f"GET {path} HTTP/1.1", "Host: inferwatch", *lines, "", ""]))


def post(body: bytes | str, path: str = "/v1/completions", *lines: str) -> bytes:
    """Return a POST of JSON with a length."""
    data = body.encode() if isinstance(body, str) else body
    head = [f"POST {path} HTTP/1.1", "Host: inferwatch", "Content-Type: application/json"]
    return wire("\n".join([*head, *lines, f"Content-Length: {len(data)}", "", ""]), data)


def ok(body: bytes = b"fine", *lines: str) -> bytes:
    """Return a 200 with a length."""
    return wire("\n".join(["HTTP/1.1 200 OK", *lines, f"Content-Length: {len(body)}", "", ""]), body)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunked(*parts: bytes) -> bytes:
    return b"".join(map(chunk, parts)) + b"0\r\n\r\n"


def sse(*events: bytes, chunks: bool = True) -> bytes:
    """Return a complete stream in vLLM's way: one chunk per event."""
    head = wire("HTTP/1.1 200 OK\ncontent-type: text/event-stream; charset=utf-8\ntransfer-encoding: chunked\n\n")
    return head + (chunked(*events) if chunks else b"")


@dataclass
class Message:
    """A request or reply as read from a socket."""

    head: bytes  # with the empty line
    body: bytes = b""
    trailers: bytes = b""
    pieces: list[bytes] = field(default_factory=list)  # the chunks
    complete: bool = True
    framing: str = "none"  # none, length, chunked, close
    interim: list[bytes] = field(default_factory=list)  # heads of 1xx replies before it

    @property
    def start(self) -> bytes:
        return self.head.partition(b"\r\n")[0]

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    @property
    def lines(self) -> list[bytes]:
        """The header fields, in order."""
        return self.head.removesuffix(b"\r\n\r\n").split(b"\r\n")[1:]

    def all(self, name: str) -> list[bytes]:
        wanted = name.lower().encode()
        pairs = [line.partition(b":") for line in self.lines]
        return [value.strip() for key, _, value in pairs if key.strip().lower() == wanted]

    def one(self, name: str) -> bytes | None:
        values = self.all(name)
        assert len(values) <= 1, (name, values)
        return values[0] if values else None

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Peer:
    """One end of a TCP connection: bytes out, messages in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> Self:
        self.writer.write(data)
        return self

    async def drip(self, data: bytes, size: int = 1) -> None:
        """Send in pieces that the other side reads one by one."""
        for start in range(0, len(data), size):
            self.writer.write(data[start : start + size])
            await self.writer.drain()
            await asyncio.sleep(0)

    async def read(self, size: int) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readexactly(size)

    async def read_until(self, end: bytes) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readuntil(end)

    async def read_some(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read(1 << 20)

    async def rest(self) -> bytes:
        """Read until the other side closes (or resets: then what came before it)."""
        parts = []
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE_S):
                while part := await self.reader.read(1 << 20):
                    parts.append(part)
        return b"".join(parts)

    async def is_closed(self) -> bool:
        """Wait for the other side to close without another byte."""
        return await self.rest() == b""

    async def stays_quiet(self, for_s: float = 0.1) -> bool:
        """Whether nothing comes for a while."""
        try:
            async with asyncio.timeout(for_s):
                return not await self.reader.read(1)
        except TimeoutError:
            return True

    def close(self) -> None:
        self.writer.close()

    def half_close(self) -> None:
        self.writer.write_eof()

    def reset(self) -> None:
        """Close with RST."""
        transport = self.writer.transport
        if transport.is_closing():
            return
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    async def message(self, *, is_reply: bool, head_only: bool = False) -> Message:
        message = Message(await self.read_until(b"\r\n\r\n"))
        encoding = b", ".join(message.all("transfer-encoding")).lower()
        length = message.all("content-length")
        if head_only or (is_reply and (message.status in (204, 304) or 100 <= message.status < 200)):
            return message
        try:
            if b"chunked" in encoding:
                message.framing = "chunked"
                await self._chunks(message)
            elif length:
                message.framing = "length"
                message.body = await self.read(int(length[0]))
            elif is_reply:
                message.framing = "close"
                message.body = await self.rest()
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            message.complete = False
            message.body += getattr(error, "partial", b"")
        return message

    async def _chunks(self, message: Message) -> None:
        while size := int(await self.read_until(b"\r\n"), 16):
            try:
                data = await self.read(size)
            except asyncio.IncompleteReadError as error:
                message.body += error.partial
                raise asyncio.IncompleteReadError(b"", size) from None
            message.body += data
            message.pieces.append(data)
            assert await self.read(2) == b"\r\n"
        while (line := await self.read_until(b"\r\n")) != b"\r\n":
            message.trailers += line


class Client(Peer):
    """Somebody who uses the relay."""

    async def reply(self, *, to_head: bool = False) -> Message:
        """Read the next reply, with the 1xx before it."""
        interim: list[bytes] = []
        while True:
            message = await self.message(is_reply=True, head_only=to_head)
            if message.status == 101 or not 100 <= message.status < 200:
                message.interim = interim
                return message
            interim.append(message.head)

    async def ask(self, data: bytes, *, to_head: bool = False) -> Message:
        return await self.send(data).reply(to_head=to_head)


class EngineSide(Peer):
    """The engine's end of one of the relay's connections."""

    async def request(self) -> Message:
        return await self.message(is_reply=False)


class Engine:
    """An engine that says what the test says. Connections are handed out by `accept`, or served by `answer`."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._accepted: asyncio.Queue[EngineSide] = asyncio.Queue()
        self._script: Callable[[EngineSide], Awaitable[None]] | None = None
        self._sides: list[EngineSide] = []
        self.port = 0
        self.requests: list[Message] = []  # those that `answer` has served

    @property
    def connections(self) -> int:
        return len(self._sides)

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", self.port, ssl=tls, limit=1 << 24, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for side in self._sides:
                side.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    await self._server.wait_closed()
            self._server = None

    def answer(self, *replies: bytes) -> None:
        """From now on serve every connection: the replies in turn, and again from the first."""
        turn = itertools.cycle(replies)

        async def serve(side: EngineSide) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    self.requests.append(await side.request())
                    side.send(next(turn))
            side.close()

        self._script = serve

    def run(self, script: Callable[[EngineSide], Awaitable[None]]) -> None:
        """From now on run `script` on every connection."""
        self._script = script

    async def accept(self) -> EngineSide:
        async with asyncio.timeout(PATIENCE_S):
            return await self._accepted.get()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        side = EngineSide(reader, writer)
        self._sides.append(side)
        if self._script is None:
            self._accepted.put_nowait(side)
            return
        with contextlib.suppress(TimeoutError):  # nobody asked within PATIENCE_S
            await self._script(side)


class RecordingTap:
    """Stands where the Mirror stands, and remembers what it was told."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self.opens: list[tap.Open] = []
        self.heads: list[tap.Head] = []
        self.outbox = Outbox()
        self.closes: list[tap.Close] = []
        self.observer_errors = 0
        self.expected_faults = 0
        self._changed = asyncio.Event()

    def next_id(self) -> tuple[int, str]:
        number = next(self._ids)
        return number, f"test{number:08x}"

    def opened(self, observer: Observer, frame: tap.Open) -> None:
        self.opens.append(frame)

    def head(self, observer: Observer, frame: tap.Head) -> None:
        self.heads.append(frame)

    @property
    def reads(self) -> list[tap.Read]:
        return self.outbox.reads

    def make_room(self) -> bool:
        return True

    def read(self, observer: Observer, stamp_ns: int, data: bytes) -> None:
        self.outbox.reads.append((observer.id, stamp_ns, data))

    def closed(self, observer: Observer, frame: tap.Close) -> None:
        self.closes.append(frame)
        self._changed.set()

    async def close(self, number: int = 1) -> tap.Close:
        """Wait until `number` requests are over and return the Close of the last of them."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.closes) < number:
                self._changed.clear()
                await self._changed.wait()
        return self.closes[number - 1]

    def copy(self, number: int = 1) -> bytes:
        """Return the mirrored body of one request."""
        return b"".join(data for id_, _, data in self.reads if id_ == number)

    def check(self) -> None:
        """What must hold at the end of every test."""
        assert self.observer_errors == self.expected_faults, "a fault of the observing side"
        tap.encode(tap.Batch(1, self.opens, self.heads, self.reads, self.closes))
        assert sorted(frame.id for frame in self.opens) == sorted({frame.id for frame in self.opens})
        assert sorted(frame.id for frame in self.closes) == sorted(frame.id for frame in self.opens)
        for frame in self.closes:
            mirrored = sum(len(data) for id_, _, data in self.reads if id_ == frame.id)
            assert mirrored == frame.response_bytes, "every read is counted and mirrored"
            assert frame.error != "internal", "a fault of ours"


class Rig:
    """Client | relay | engine."""

    def __init__(self, config: Config, engine: Engine, client_tls: ssl.SSLContext | None = None) -> None:
        self.config = config
        self.engine = engine
        self.tap = RecordingTap()
        self.known = KnownEngine(config.upstream.engine)
        self.pool = _pool(config.upstream)
        self.relay = Relay(
            config,
            pool=self.pool,
            engine=self.known,
            identity=Identity(SECRET, config.identity.trusted_peers, read_table(config.tenants, SECRET)),
            mirror=self.tap,  # type: ignore[arg-type]
        )
        self.server = Listener(self.relay)
        self.port = 0
        self._client_tls = client_tls
        self._sweeping: asyncio.Task[None] | None = None
        self._clients: list[Client] = []

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = listener.getsockname()[1]
        await self.server.start(listener, tls)
        self._sweeping = asyncio.create_task(self._sweep_clients())

    async def _sweep_clients(self) -> None:
        """The clients' deadlines, as the worker does it once a second."""
        while True:
            await asyncio.sleep(0.02)
            self.server.sweep(time.monotonic())

    async def connect(self, *, receive_buffer: int = 0) -> Client:
        """Open a client connection. With `receive_buffer` it is a small one that is only read on demand."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE_S):
            await loop.sock_connect(sock, ("127.0.0.1", self.port))
            reader, writer = await asyncio.open_connection(
                sock=sock,
                ssl=self._client_tls,
                server_hostname="localhost" if self._client_tls else None,
                limit=receive_buffer or 1 << 24,
            )
        client = Client(reader, writer)
        self._clients.append(client)
        return client

    async def ask(self, data: bytes, *, to_head: bool = False) -> Message:
        """One request on a connection of its own."""
        client = await self.connect()
        return await client.ask(data, to_head=to_head)

    def sweep(self, later_s: float = 0.0) -> None:
        """What the worker does once a second, `later_s` from now."""
        self.relay.sweep(time.monotonic_ns() + int(later_s * 1e9))

    async def idle(self) -> None:
        """Wait until no request is open."""
        async with asyncio.timeout(PATIENCE_S):
            while self.relay.active:
                await asyncio.sleep(0.002)

    async def pooled(self, count: int = 1) -> None:
        """Wait until so many of the engine's connections are idle."""
        async with asyncio.timeout(PATIENCE_S):
            while self.pool.idle != count:
                await asyncio.sleep(0.002)

    async def stop(self) -> None:
        for client in self._clients:
            client.close()
        if self._sweeping is not None:
            self._sweeping.cancel()
        self.server.close()
        self.server.cut()
        await self.relay.tasks.close()
        self.pool.close()
        await self.engine.stop()
        await until(lambda: not self.server.connections)


# Starts a relay: see the fixture `start`.
Start = Callable[..., Awaitable[Rig]]


def configured(**sections: Any) -> Config:
    """Return a Config with these sections, given as mappings."""
    return msgspec.convert(sections, Config)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that another callback brings about."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.002)
