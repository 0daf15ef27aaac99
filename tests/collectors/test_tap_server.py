"""The collector's end of the tap, over a real socket."""

import asyncio
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from inferwatch import tap
from inferwatch.record import Outcome, RequestRecord
from inferwatch.tap import Ack, Batch, Bye, Cut, Hello
from inferwatch_collectors import tap_server as tap_server_module
from inferwatch_collectors import turns
from inferwatch_collectors.booking import GRACE_NS, Booking
from inferwatch_collectors.cardinality import CardinalityGuard
from inferwatch_collectors.ledger.journal import Journal
from inferwatch_collectors.ledger.sqlite import SqliteLedger
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.recorder import Recorder
from inferwatch_collectors.tap_server import TapServer


class Peer:
    """A relay's end of the connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = tap.relay_side()
        self.acked = 0
        self.cut: list[int] = []
        self.reasons: list[str] = []

    def send(self, *messages: Hello | Batch | Bye) -> None:
        self._writer.write(b"".join(map(tap.encode, messages)))

    def send_raw(self, data: bytes) -> None:
        self._writer.write(data)

    async def until_acked(self, seq: int) -> None:
        async with asyncio.timeout(20):
            while self.acked < seq:
                data = await self._reader.read(65536)
                assert data, "disconnected"
                for message in self._frames.feed(data):
                    if isinstance(message, Cut):
                        self.cut += message.ids
                        self.reasons.append(message.reason)
                        continue
                    assert isinstance(message, Ack)
                    assert message.seq > self.acked, "acknowledgements go forward"
                    self.acked = message.seq

    async def until_disconnected(self) -> None:
        async with asyncio.timeout(20):
            while await self._reader.read(65536):
                pass

    def hang_up(self) -> None:
        self._writer.close()


class Collector:
    """Server, booking and journal on a ledger in memory."""

    def __init__(self, path: Path, ledger: SqliteLedger) -> None:
        self.path = path
        self.ledger = ledger
        store = MetricStore()
        self.journal = Journal(ledger, store)
        self.booking = Booking(Recorder(store, CardinalityGuard()), self._sink)
        self.server = TapServer(path, self.booking, self.journal)
        self.records: list[RequestRecord] = []
        self._peers: list[Peer] = []

    def _sink(self, record: RequestRecord) -> None:
        self.records.append(record)
        self.journal.add(record)

    async def connect(self) -> Peer:
        peer = Peer(*await asyncio.open_unix_connection(str(self.path)))
        self._peers.append(peer)
        return peer

    async def until_links(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.server.links()) != count:
                await asyncio.sleep(0.005)

    def hang_up(self) -> None:
        for peer in self._peers:
            peer.hang_up()


@pytest.fixture
async def collector(tmp_path: Path, nothing_blocks: None) -> AsyncIterator[Collector]:
    ledger = await SqliteLedger.open(None)
    collector = Collector(tmp_path / "tap.sock", ledger)
    async with asyncio.TaskGroup() as group:
        group.create_task(collector.journal.run())
        await collector.server.start()
        yield collector
        collector.hang_up()
        await collector.server.drain(5)
        await collector.server.disconnect()
        collector.journal.close()
    await ledger.close()


async def test_an_acknowledged_request_is_in_the_ledger(collector: Collector, frames: Any) -> None:
    """Acks come after the commit, cumulatively."""
    peer = await collector.connect()
    peer.send(frames.hello(), frames.whole(1, 2, seq=1), frames.whole(3, seq=2))
    await peer.until_acked(2)
    assert len(await collector.ledger.recent(9)) == 3


async def test_nothing_is_acknowledged_before_the_commit(
    collector: Collector, frames: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a commit is under way the relay keeps what it has sent."""
    gate = asyncio.Event()
    commit = collector.ledger.commit

    async def slow_commit(*arguments: Any) -> None:
        await gate.wait()
        await commit(*arguments)

    monkeypatch.setattr(collector.ledger, "commit", slow_commit)
    peer = await collector.connect()
    peer.send(frames.hello(), frames.whole(1, seq=1))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await peer.until_acked(1)
    assert collector.records
    gate.set()
    await peer.until_acked(1)


async def test_a_batch_without_a_close_needs_no_commit(collector: Collector, frames: Any) -> None:
    """What holds nothing to be kept is acknowledged as soon as it was applied."""
    peer = await collector.connect()
    peer.send(frames.hello(), frames.batch(1, opens=[frames.open(1)]))
    await peer.until_acked(1)
    assert collector.booking.open_requests == 1


@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_any_split_of_the_bytes(collector: Collector, frames: Any, size: int) -> None:
    """Where the stream is cut makes no difference."""
    peer = await collector.connect()
    data = b"".join(map(tap.encode, (frames.hello(), frames.whole(1, seq=1), frames.whole(2, seq=2))))
    for start in range(0, len(data), size):
        peer.send_raw(data[start : start + size])
        if size == 1 and start % 50 == 0:
            await asyncio.sleep(0)
    await peer.until_acked(2)
    assert len(collector.records) == 2


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"], id="another protocol"),
        pytest.param([b"\x00\x00\x00\x02\xc1\xc1"], id="not a message"),
        pytest.param([b"\xff\xff\xff\xff"], id="too long"),
        pytest.param([Batch(1, [], [], [], [])], id="no hello"),
        pytest.param([Hello(99, 0, 1, "b")], id="another version"),
        pytest.param([Hello(1, 0, 1, "b"), Hello(1, 0, 1, "b")], id="two hellos"),
        pytest.param([Hello(1, 0, 1, "b"), Batch(2, [], [], [], []), Batch(2, [], [], [], [])], id="seq repeated"),
        pytest.param([Hello(1, 0, 1, "b"), Batch(0, [], [], [], [])], id="seq not counted"),
    ],
)
async def test_a_bad_peer_is_sent_away(collector: Collector, frames: Any, messages: list[Any], caplog: Any) -> None:
    """It is disconnected, counted and logged once a minute; the others are served on."""
    good = await collector.connect()
    good.send(frames.hello(boot="good"))
    bad = await collector.connect()
    bad.send_raw(b"".join(each if isinstance(each, bytes) else tap.encode(each) for each in messages))
    await bad.until_disconnected()
    assert collector.server.bad_peers == 1
    assert "tap_peer_rejected" in caplog.text
    good.send(frames.whole(1, seq=1))
    await good.until_acked(1)


async def test_a_silent_peer_is_sent_away(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not say hello in time is disconnected."""
    monkeypatch.setattr(tap_server_module, "HELLO_TIMEOUT_S", 0.01)
    peer = await collector.connect()
    await peer.until_disconnected()
    assert collector.server.bad_peers == 1


async def test_a_relay_may_be_silent_for_long(
    collector: Collector, frames: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time limit is for the hello only."""
    monkeypatch.setattr(tap_server_module, "HELLO_TIMEOUT_S", 0.05)
    peer = await collector.connect()
    peer.send(frames.hello())
    await collector.until_links(1)
    await asyncio.sleep(0.1)
    peer.send(frames.whole(1, seq=1))
    await peer.until_acked(1)


async def test_a_killed_relay_is_parked(collector: Collector, frames: Any) -> None:
    """A connection that ends without goodbye leaves its requests to be taken up or interrupted."""
    peer = await collector.connect()
    peer.send(frames.hello(), frames.batch(1, opens=[frames.open(1)]))
    await peer.until_acked(1)
    peer.hang_up()
    await collector.until_links(0)
    assert collector.records == []
    assert len(list(collector.booking.expire(frames.base_ns + 100 * GRACE_NS))) == 1
    assert [record.outcome for record in collector.records] == [Outcome.INTERRUPTED]


async def test_only_the_relay_whose_requests_they_are_is_told_to_cut(collector: Collector, frames: Any) -> None:
    """One that has just gone is told nothing, and nobody minds."""
    first, second = await collector.connect(), await collector.connect()
    first.send(frames.hello(), frames.batch(1, opens=[frames.open(1)]))
    await first.until_acked(1)
    (link,) = collector.server.links()
    second.send(frames.hello(worker=1, boot="another"), frames.batch(1, opens=[frames.open(2)]))
    await second.until_acked(1)
    collector.server.cut(link, (1, 7))
    for peer in (first, second):
        peer.send(frames.batch(2, closes=[frames.close(1 if peer is first else 2)]))
        await peer.until_acked(2)
    assert (first.cut, first.reasons, second.cut) == ([1, 7], ["budget"], [])
    first.hang_up()
    await collector.until_links(1)
    collector.server.cut(link, (1,))


async def test_the_relay_of_a_loop_is_told_why(collector: Collector, frames: Any) -> None:
    """By the request's id for ever: another relay's request of the same number is nobody's business."""
    first, second = await collector.connect(), await collector.connect()
    first.send(frames.hello(), frames.batch(1, opens=[frames.open(1)]))
    second.send(frames.hello(worker=1, boot="another"), frames.batch(1, opens=[frames.open(1, request_id="other1")]))
    for peer in (first, second):
        await peer.until_acked(1)
    collector.server.cut_loop("other1", 1)
    collector.server.cut_loop("gone", 1)
    collector.server.cut_loop("other1", 2)
    for peer in (first, second):
        peer.send(frames.batch(2, closes=[frames.close(1)]))
        await peer.until_acked(2)
    assert (first.cut, second.cut, second.reasons) == ([], [1], ["loop"])


async def test_goodbye(collector: Collector, frames: Any) -> None:
    """After a goodbye nothing of the relay is left, and the connection is closed."""
    peer = await collector.connect()
    peer.send(frames.hello(), frames.batch(1, opens=[frames.open(1)]), Bye())
    await peer.until_disconnected()
    await collector.until_links(0)
    assert collector.booking.open_requests == 0
    assert collector.server.bad_peers == 0


async def test_a_newer_connection_replaces_the_older(collector: Collector, frames: Any) -> None:
    """A relay that comes again before its broken connection was noticed takes its requests up."""
    old = await collector.connect()
    old.send(frames.hello(), frames.batch(1, opens=[frames.open(1)]))
    await old.until_acked(1)
    new = await collector.connect()
    new.send(frames.hello(), frames.batch(2, opens=[frames.again(1)], closes=[frames.close(1)]))
    await new.until_acked(2)
    await old.until_disconnected()
    assert [record.outcome for record in collector.records] == [Outcome.OK]
    assert len(collector.server.links()) == 1


async def test_of_two_newer_connections_the_later_counts(collector: Collector, frames: Any) -> None:
    """A relay that came twice while the loop was held up: it has one connection, and its requests are not given up."""
    old = await collector.connect()
    old.send(frames.hello(), frames.batch(1, opens=[frames.open(1)]))
    await old.until_acked(1)
    sockets = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    for each in sockets:  # no await: both are there when the collector looks
        each.setblocking(False)
        each.connect(str(collector.path))
        each.sendall(tap.encode(frames.hello()) + tap.encode(frames.batch(1, opens=[frames.again(1)])))
    given_up, present = sockets
    given_up.close()
    await old.until_disconnected()
    peer = Peer(*await asyncio.open_unix_connection(sock=present))
    peer.send(frames.batch(2, closes=[frames.close(1)]))
    await peer.until_acked(2)
    assert len(collector.server.links()) == 1
    assert list(collector.booking.expire(frames.base_ns + 100 * GRACE_NS)) == []
    assert [record.outcome for record in collector.records] == [Outcome.OK]
    peer.hang_up()


@pytest.mark.parametrize("steps", range(0, 21, 2))
async def test_a_batch_that_is_broken_off_anywhere(
    collector: Collector, frames: Any, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """A relay that comes again while its last batch is half applied tells it again: each request is booked once."""
    monkeypatch.setattr(turns, "TURN_S", 0)
    numbers = range(1, 11)
    old, new = await collector.connect(), await collector.connect()
    old.send(frames.hello(), frames.whole(*numbers, seq=1))
    while 2 * len(collector.records) + collector.booking.open_requests < steps:
        await asyncio.sleep(0)
    new.send(frames.hello(), frames.told_again(*numbers, seq=1))
    await new.until_acked(1)
    assert {record.request_id for record in collector.records} == {frames.open(number).request_id for number in numbers}
    assert collector.booking.open_requests == 0
    assert len(collector.records) == len(await collector.ledger.recent(99)) == len(numbers)


async def test_what_an_earlier_collector_booked_is_not_booked_again(collector: Collector, frames: Any) -> None:
    """Unacknowledged closes are told again to a new collector, which asks its ledger."""
    await collector.ledger.commit([frames.record(1)], [])
    peer = await collector.connect()
    peer.send(frames.hello(), frames.told_again(1, 2, seq=1))
    await peer.until_acked(1)
    assert [record.request_id for record in collector.records] == [frames.open(2).request_id]
    assert len(await collector.ledger.recent(9)) == 2


async def test_only_our_user_may_connect(collector: Collector) -> None:
    """The socket is closed to others."""
    mode = await asyncio.to_thread(lambda: collector.path.stat().st_mode)
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


async def test_what_a_killed_predecessor_left_is_replaced(collector: Collector, frames: Any) -> None:
    """A socket file of an earlier life does not prevent the start."""
    successor = TapServer(collector.path, collector.booking, collector.journal)
    await successor.start()
    peer = await collector.connect()
    peer.send(frames.hello())
    async with asyncio.timeout(20):
        while not successor.links():
            await asyncio.sleep(0.005)
    peer.hang_up()
    await successor.drain(5)


async def test_an_unusable_path_is_named(collector: Collector, tmp_path: Path) -> None:
    """The error of a socket that cannot be bound has the path in it."""
    path = tmp_path / ("x" * 120)
    with pytest.raises(OSError, match="x" * 120):
        await TapServer(path, collector.booking, collector.journal).start()


async def test_many_relays_at_once(collector: Collector, frames: Any) -> None:
    """Each gets its own acknowledgements."""
    peers = [await collector.connect() for _ in range(8)]
    for worker, peer in enumerate(peers):
        numbers = range(1 + worker * 100, 1 + worker * 100 + 50)
        peer.send(frames.hello(boot=f"boot{worker}", worker=worker))
        peer.send(*(frames.whole(number, seq=seq) for seq, number in enumerate(numbers, 1)))
    for peer in peers:
        await peer.until_acked(50)
    assert len({record.request_id for record in collector.records}) == 400
    assert len(await collector.ledger.recent(1000)) == 400
