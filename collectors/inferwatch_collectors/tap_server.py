"""The collector's end of the tap: a Unix socket on which each relay process keeps one connection.

An `Ack` goes out only for what is durable: each batch notes the journal's position after it was applied, and is
acknowledged when the journal has committed up to there. A batch is digested before the next bytes are read: a collector
that is behind stops reading, the socket fills, and the relay drops copies by its own bound. Nobody queues here.
A peer that does not speak the protocol is disconnected and counted.
"""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections import deque
from pathlib import Path
from typing import Final

from inferwatch import tap
from inferwatch.record import ErrorType
from inferwatch.tap import Ack, Batch, Bye, Cut, FrameError, Hello
from inferwatch_collectors.booking import Booking
from inferwatch_collectors.ledger.journal import Journal
from inferwatch_collectors.open_requests import Link
from inferwatch_collectors.turns import Turn

_log: Final = logging.getLogger(__name__)

# A relay says hello with its first bytes.
HELLO_TIMEOUT_S: Final = 5.0

# One read. Larger than most batches, so that they are decoded in one go; the stream buffers twice as much at most.
READ_BYTES: Final = 256 * 1024

# An Ack has ten bytes, a Cut three for each stream: a relay that leaves this many lying has stopped reading.
MAX_UNREAD_ACK_BYTES: Final = 512 * 1024

# One per relay process and some that are being replaced.
MAX_CONNECTIONS: Final = 1024

# A peer that is wrong is wrong each time it reconnects.
LOG_INTERVAL_S: Final = 60.0


class _Connection:
    """Acknowledgements owed to one relay."""

    def __init__(self, writer: asyncio.StreamWriter, journal: Journal, task: asyncio.Task[None]) -> None:
        self.task = task
        self.boot = ""  # from its Hello on
        self.link: Link | None = None
        self._writer = writer
        self._journal = journal
        self._owed: deque[tuple[int, int]] = deque()  # (position, seq), one entry per position
        self._last_seq = 0

    def check(self, batch: Batch) -> None:
        """Raise FrameError if `batch` is out of order, or the peer does not read what it is told."""
        if batch.seq <= self._last_seq:
            raise FrameError(f"batch {batch.seq} after batch {self._last_seq}")
        if self._writer.transport.get_write_buffer_size() > MAX_UNREAD_ACK_BYTES:
            raise FrameError("acknowledgements are not read")

    def applied(self, seq: int) -> None:
        """Batch `seq` is in the journal."""
        self._last_seq = seq
        position = self._journal.position
        if self._owed and self._owed[-1][0] == position:
            self._owed.pop()
        self._owed.append((position, seq))
        self.acknowledge()

    def acknowledge(self) -> None:
        """Send an Ack for what has become durable."""
        seq = 0
        while self._owed and self._owed[0][0] <= self._journal.committed:
            _, seq = self._owed.popleft()
        if seq:
            self.say(Ack(seq))

    def say(self, message: tap.ToRelay) -> None:
        """Tell the relay."""
        if not self._writer.is_closing():
            self._writer.write(tap.encode(message))


class TapServer:
    """Listens, and feeds what relays send to the booking."""

    def __init__(self, path: Path, booking: Booking, journal: Journal) -> None:
        self._path = path
        self._booking = booking
        self._journal = journal
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._all_gone = asyncio.Event()
        self._all_gone.set()
        self._logged_at_s = -LOG_INTERVAL_S
        self.bad_peers = 0

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the path cannot be bound; `filename` tells it.
        """
        sock = await asyncio.to_thread(_bind, self._path)
        self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=READ_BYTES)
        self._journal.listeners.append(self._acknowledge)

    def links(self) -> list[Link]:
        """Return the relays that are connected."""
        return [connection.link for connection in self._connections if connection.link is not None]

    def cut(self, link: Link, ids: tuple[int, ...]) -> None:
        """Tell a relay which of its requests a budget ends; one that is gone will be told when it is back."""
        self._cut(link, Cut(ids))

    def cut_loop(self, request_id: str, number: int) -> None:
        """Tell the relay that has it open, as `number`, to end a request whose answer is a loop.

        Nobody has it open if its relay is gone, or if what was read of it comes from a spool file.
        """
        for link in self.links():
            entry = link.entries.get(number)
            if entry is not None and entry.opened.request_id == request_id:
                self._cut(link, Cut((number,), ErrorType.LOOP.value))

    def _cut(self, link: Link, message: Cut) -> None:
        for connection in self._connections:
            if connection.link is link:
                connection.say(message)

    async def drain(self, timeout_s: float) -> None:
        """Take no new connections, and wait for the relays to leave."""
        if self._server is not None:
            self._server.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._all_gone.wait()

    async def disconnect(self) -> None:
        """Send away who is still there. Their open requests stay theirs: they tell the next collector about them."""
        await _end([connection.task for connection in self._connections])

    def _acknowledge(self) -> None:
        for connection in self._connections:
            connection.acknowledge()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection = _Connection(writer, self._journal, task)
        self._connections.add(connection)
        self._all_gone.clear()
        said_bye = False
        try:
            said_bye = await self._converse(connection, reader)
        except FrameError as error:
            self._bad_peer(str(error))
        except TimeoutError:
            self._bad_peer("no Hello")
        except ConnectionError:
            pass  # a relay that was killed
        except asyncio.CancelledError:
            pass  # by us: replaced by a newer connection of the same relay, or the end of the collector
        finally:
            self._connections.discard(connection)
            if connection.link is not None:
                leave = self._booking.left if said_bye else self._booking.lost
                leave(connection.link, time.monotonic_ns())
            writer.close()
            if not self._connections:
                self._all_gone.set()

    async def _converse(self, connection: _Connection, reader: asyncio.StreamReader) -> bool:
        """Take all that a relay says; return whether it said goodbye."""
        if len(self._connections) > MAX_CONNECTIONS:
            raise FrameError(f"{len(self._connections)} connections, expected no more than {MAX_CONNECTIONS}")
        frames = tap.collector_side()
        while True:
            async with asyncio.timeout(HELLO_TIMEOUT_S if connection.link is None else None):
                data = await reader.read(READ_BYTES)
            if not data:
                return False
            for message in frames.feed(data):
                if isinstance(message, Hello):
                    await self._greet(connection, message)
                elif connection.link is None:
                    raise FrameError(f"{type(message).__name__} before Hello")
                elif isinstance(message, Batch):
                    connection.check(message)
                    await digest(self._booking, self._journal, connection.link, message)
                    connection.applied(message.seq)
                elif isinstance(message, Bye):
                    return True

    async def _greet(self, connection: _Connection, hello: Hello) -> None:
        if connection.link is not None:
            raise FrameError("a second Hello")
        if hello.protocol != tap.PROTOCOL_VERSION:
            raise FrameError(f"protocol {hello.protocol}, expected {tap.PROTOCOL_VERSION}")
        # A relay that comes again before we noticed that its last connection broke. Of several the last one counts.
        connection.boot = hello.boot
        await _end([each.task for each in self._connections - {connection} if each.boot == hello.boot])
        connection.link = self._booking.connect(hello, time.monotonic_ns())

    def _bad_peer(self, reason: str) -> None:
        self.bad_peers += 1
        now_s = time.monotonic()
        if now_s - self._logged_at_s >= LOG_INTERVAL_S:
            self._logged_at_s = now_s
            _log.error("tap_peer_rejected reason=%s", reason)


async def digest(booking: Booking, journal: Journal, link: Link, batch: Batch) -> None:
    """Apply one batch, letting the loop breathe.

    Raises:
        FrameError: see `Booking.apply`.
    """
    booked = await journal.seen(booking.suspects(link, batch))
    turn = Turn()
    for breath in booking.apply(link, batch, booked, time.monotonic_ns()):
        if breath:
            os.sched_yield()  # to a relay that wants this core: its token is late, ours is not
        await turn.over()
    await asyncio.sleep(0)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _bind(path: Path) -> socket.socket:
    """Return a bound socket that only our own user may connect to. What a killed predecessor left is replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        sock.bind(str(path))
        # Nobody can connect before `listen`, so there is no moment at which others could.
        os.chmod(path, 0o600)  # noqa: PTH101 - beside bind, in its terms
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    return sock


def is_alive(pid: int) -> bool:
    """Tell whether a relay's process is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
