"""mirror: the relay's end of the tap. Never waits, never loses a finished request, never grows without bound."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from harness import PATIENCE_S, until

from inferwatch import tap
from inferwatch.record import ErrorType, Outcome
from inferwatch.relay import masking as masking_module
from inferwatch.relay import mirror as mirror_module
from inferwatch.relay import spool as spool_module
from inferwatch.relay import telling as telling_module
from inferwatch.relay.masking import masked_batch
from inferwatch.relay.mirror import RESEND_BATCH, SPOOL_BATCH, Mirror
from inferwatch.relay.observer import Observer, Subject
from inferwatch.relay.telling import SPOOLED_BYTES
from inferwatch.relay.usage_request import Facts
from inferwatch.settings.traffic import Tap


class Collector:
    """The other end of the tap: listens, remembers, acknowledges when told to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hellos: list[tap.Hello] = []
        self.batches: list[tap.Batch] = []
        self.byes = 0
        self.acks = True
        self.reads = True  # False: hangs
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._connected, str(self.path))

    async def stop(self) -> None:
        """Die: every connection breaks."""
        self.reads = True
        if self._server is not None:
            self._server.close()
            self.hang_up()
            await self._server.wait_closed()
            self._server = None
            self.path.unlink(missing_ok=True)

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        frames = tap.collector_side()
        with contextlib.suppress(ConnectionError):
            while True:
                while not self.reads:
                    await asyncio.sleep(0.005)
                data = await reader.read(1 << 20)
                if not data:
                    break
                for message in frames.feed(data):
                    self._take(message, writer)
        writer.close()

    def _take(self, message: Any, writer: asyncio.StreamWriter) -> None:
        if isinstance(message, tap.Hello):
            self.hellos.append(message)
        elif isinstance(message, tap.Bye):
            self.byes += 1
        else:
            self.batches.append(message)
            if self.acks:
                self.ack(writer=writer)

    def ack(self, seq: int | None = None, writer: asyncio.StreamWriter | None = None) -> None:
        (writer or self._writers[-1]).write(tap.encode(tap.Ack(seq or self.batches[-1].seq)))

    def all(self, kind: str) -> list[Any]:
        return [frame for batch in self.batches for frame in getattr(batch, kind)]

    async def closes(self, count: int) -> list[tap.Close]:
        """Wait for so many closes."""
        await until(lambda: len(self.all("closes")) >= count)
        return self.all("closes")


Make = Callable[..., Awaitable[Mirror]]


@pytest.fixture(name="collector")
async def _collector(state_dir: Path) -> AsyncIterator[Collector]:
    collector = Collector(state_dir / "tap")
    await collector.start()
    yield collector
    await collector.stop()


@pytest.fixture(name="make")
async def _make(state_dir: Path) -> AsyncIterator[Make]:
    """Starts a mirror with tiny bounds where asked."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(*, run: bool = True, **settings: Any) -> Mirror:
            options = msgspec.convert({"flush_interval_s": 0.001} | settings, Tap)
            mirror = Mirror(options, worker=3, socket_path=state_dir / "tap", spool_dir=state_dir / "spool")
            if run:
                task = asyncio.create_task(mirror.run())

                async def end() -> None:
                    if not mirror._closing:
                        await mirror.close(0.05)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)

                stack.push_async_callback(end)
            return mirror

        yield make


async def connected(mirror: Mirror) -> Mirror:
    await until(lambda: mirror._transport is not None)
    return mirror


def request(mirror: Mirror, body: bytes = b"{}", headers: dict[str, str] | None = None) -> Observer:
    """A request on its way."""
    watcher = Observer(mirror, Subject(arrival_ns=1, method="POST", path="/", tenant="t", headers=headers or {}))
    watcher.opened(Facts("m", True, 1), body, len(body), 2, asked_usage=False)
    watcher.head(3, 200, [(b"content-type", b"text/event-stream")], None)  # type: ignore[arg-type]
    return watcher


def finish(watcher: Observer) -> str:
    watcher.closed(Outcome.OK, ErrorType.NONE, status=200, stalled_ns=0, retried=False)
    return watcher.request_id


def spooled(folder: Path, suffix: str = "ready") -> list[tap.Batch]:
    """Read what the collector would find; of a relay that died, the file is still called `.spool`."""
    messages: list[Any] = []
    for path in sorted(folder.glob(f"spool/*.{suffix}")):
        messages += tap.collector_side().feed(path.read_bytes())
    return messages


async def test_request_is_told_in_order(make: Make, collector: Collector) -> None:
    """Hello first, then opens, heads, reads and closes of one request."""
    mirror = await connected(await make())
    watcher = request(mirror, b"prompt")
    watcher.body(4, b"one")
    watcher.body(5, b"two")
    finish(watcher)
    (close,) = await collector.closes(1)
    (hello,) = collector.hellos
    assert (hello.protocol, hello.worker, hello.boot) == (tap.PROTOCOL_VERSION, 3, mirror.boot)
    (opened,) = collector.all("opens")
    assert (opened.body, opened.resumed, opened.request_id) == (b"prompt", False, watcher.request_id)
    assert [frame.status for frame in collector.all("heads")] == [200]
    assert [tuple(read) for read in collector.all("reads")] == [(1, 4, b"one"), (1, 5, b"two")]
    assert (close.response_bytes, close.dropped_bytes) == (6, 0)


async def test_frames_are_batched(make: Make, collector: Collector) -> None:
    """Not one message per read."""
    mirror = await connected(await make(flush_interval_s=0.05))
    watchers = [request(mirror) for _ in range(20)]
    for watcher in watchers:
        for number in range(20):
            watcher.body(number, b"x")
    await until(lambda: len(collector.all("reads")) == 400)
    assert len(collector.batches) <= 3
    for watcher in watchers:
        finish(watcher)


async def test_batch_numbers_rise(make: Make, collector: Collector) -> None:
    """By one."""
    mirror = await connected(await make())
    for number in range(1, 6):
        finish(request(mirror))
        await collector.closes(number)
    numbers = [batch.seq for batch in collector.batches]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


async def test_acknowledged_requests_are_forgotten(make: Make, collector: Collector) -> None:
    """And only those."""
    collector.acks = False
    mirror = await connected(await make())
    finish(request(mirror))
    await collector.closes(1)
    seq = collector.batches[-1].seq
    finish(request(mirror))
    await collector.closes(2)
    assert len(mirror._unacked) == 2
    collector.ack(seq)
    await until(lambda: len(mirror._unacked) == 1)
    collector.ack()
    await until(lambda: not mirror._unacked)


async def test_broken_connection_is_taken_up_again(make: Make, collector: Collector) -> None:
    """Same boot; what was not acknowledged comes again, what is open is introduced again, without the body."""
    collector.acks = False
    mirror = await connected(await make())
    done = finish(request(mirror))
    await collector.closes(1)
    still_open = request(mirror, b"prompt")
    still_open.body(4, b"before")
    await until(lambda: len(collector.all("reads")) == 1)
    collector.batches.clear()
    collector.hang_up()
    await until(lambda: len(collector.hellos) == 2)
    (close,) = await collector.closes(1)
    await until(lambda: len(collector.all("opens")) == 2)
    again, resumed = collector.all("opens")
    assert collector.hellos[0].boot == collector.hellos[1].boot
    assert (again.request_id, again.resumed, close.id) == (done, True, again.id)
    assert (resumed.request_id, resumed.resumed, resumed.body, resumed.body_bytes) == (
        still_open.request_id,
        True,
        b"",
        6,
    )
    still_open.body(5, b"after")
    finish(still_open)
    await collector.closes(2)
    assert [tuple(read) for read in collector.all("reads")] == [(2, 5, b"after")]


async def test_collector_that_was_never_there(make: Make, state_dir: Path) -> None:
    """Requests are kept, copies are dropped and counted, nothing waits."""
    mirror = await make()
    for _ in range(5):
        watcher = request(mirror)
        watcher.body(1, b"12345")
        finish(watcher)
    await until(lambda: len(mirror._unacked) == 5)
    assert (mirror.dropped_bytes, mirror.dropped_reads) == (25, 5)
    collector = Collector(state_dir / "tap")
    await collector.start()
    closes = await collector.closes(5)
    assert [close.dropped_bytes for close in closes] == [5] * 5
    assert len({frame.request_id for frame in collector.all("opens")}) == 5
    await until(lambda: not mirror._unacked)
    await collector.stop()


async def test_nothing_finished_is_lost_while_the_collector_comes_and_goes(make: Make, collector: Collector) -> None:
    """A hundred requests, a collector that dies ten times before it acknowledges."""
    collector.acks = False
    mirror = await connected(await make())
    ids = set()
    for turn in range(10):
        ids |= {finish(request(mirror)) for _ in range(10)}
        await asyncio.sleep(0.003 * (turn % 3))
        collector.hang_up()
    collector.acks = True
    await until(lambda: not mirror._unacked and not mirror._closes)
    opens = {frame.id: frame.request_id for frame in collector.all("opens")}
    assert {opens[frame.id] for frame in collector.all("closes")} == ids
    assert mirror.lost == 0


async def test_gap_is_marked_once(make: Make, collector: Collector) -> None:
    """Where copies are missing, the collector's parser is told: one empty read, then copies again."""
    collector.reads = False
    mirror = await connected(await make(max_pending_bytes=1000, flush_interval_s=0.01))
    watcher = request(mirror)
    for number in range(10):
        watcher.body(number, b"x" * 400)
    collector.reads = True
    await until(lambda: any(not read[2] for read in collector.all("reads")))
    watcher.body(11, b"again")
    finish(watcher)
    (close,) = await collector.closes(1)
    reads = [read[2] for read in collector.all("reads")]
    assert reads.count(b"") == 1
    assert reads[-2:] == [b"", b"again"]
    assert close.dropped_bytes == 4005 - sum(map(len, reads)) == mirror.dropped_bytes
    assert close.response_bytes == 4005


async def hung(make: Make, collector: Collector, **bounds: Any) -> Mirror:
    """A mirror whose collector accepts and does not read, with the socket's buffers full."""
    collector.reads = False
    mirror = await connected(await make(max_pending_bytes=100_000, **bounds))
    assert mirror._transport is not None
    for _ in range(1000):
        watcher = request(mirror)
        watcher.body(1, b"x" * 60_000)
        finish(watcher)
        mirror.flush()
        if mirror._transport.get_write_buffer_size() > 100_000:
            mirror._transport.write(bytes(1 << 20))  # nobody will read it
            return mirror
    raise AssertionError("the socket's buffer has no end")


async def test_hung_collector_does_not_make_bodies_pile_up(make: Make, collector: Collector) -> None:
    """Promise 7: copies of prompts are copies; above the bound they are dropped."""
    mirror = await hung(make, collector)
    for _ in range(100):
        finish(request(mirror, b"p" * 100_000))
        mirror.flush()
    held = sum(len(frame.body) for frame in mirror._opens)
    assert held <= 2 * 100_000


async def test_hung_collector_makes_finished_requests_go_to_the_spool(
    make: Make, collector: Collector, state_dir: Path
) -> None:
    """As a missing one does: memory holds max_pending_closes, the disk the rest, and none is lost."""
    mirror = await hung(make, collector, max_pending_closes=600)
    ids = {finish(request(mirror)) for _ in range(3000)}
    mirror.flush()
    assert len(mirror._closes) + len(mirror._unacked) <= 1500
    await mirror.close(0.0)
    found = {frame.request_id for batch in spooled(state_dir) for frame in batch.opens}
    assert ids <= found
    assert mirror.lost == 0


async def test_acknowledgement_of_what_was_told_is_none_of_what_was_not(
    make: Make, collector: Collector, state_dir: Path
) -> None:
    """A collector that wakes up books what it has read; what ended meanwhile it has not been told."""
    mirror = await hung(make, collector)
    told = [seq for seq, *_ in mirror._unacked]
    last = finish(request(mirror))
    mirror.flush()
    mirror.data_received(tap.encode(tap.Ack(max(told))))
    assert [observer.request_id for _, _, observer, _ in mirror._unacked] == [last]
    await mirror.close(0.0)
    assert [frame.request_id for batch in spooled(state_dir) for frame in batch.opens] == [last]


async def test_close_with_a_hung_collector_spools_everything(make: Make, collector: Collector, state_dir: Path) -> None:
    """Also what had not been batched yet."""
    mirror = await hung(make, collector)
    last = finish(request(mirror))
    await mirror.close(0.05)
    assert last in {frame.request_id for batch in spooled(state_dir) for frame in batch.opens}


async def test_close_waits_for_the_acknowledgement_and_says_goodbye(make: Make, collector: Collector) -> None:
    """A clean exit leaves no spool."""
    mirror = await connected(await make(flush_interval_s=10.0))
    finish(request(mirror))
    await mirror.close(PATIENCE_S)
    await until(lambda: collector.byes == 1)
    assert len(collector.all("closes")) == 1
    assert mirror.spooled == 0


async def test_close_without_a_collector_spools(make: Make, state_dir: Path) -> None:
    """The next life finds it."""
    mirror = await make()
    ids = {finish(request(mirror)) for _ in range(7)}
    await mirror.close(0.01)
    (batch,) = spooled(state_dir)
    assert {frame.request_id for frame in batch.opens} == ids
    assert {frame.id for frame in batch.closes} == {frame.id for frame in batch.opens}
    assert (mirror.spooled, mirror.lost) == (7, 0)


async def test_memory_is_bounded_without_a_collector(make: Make, state_dir: Path) -> None:
    """Above max_pending_closes the oldest go to disk, in order."""
    mirror = await make(run=False, max_pending_closes=100)
    ids = [finish(request(mirror)) for _ in range(2000)]
    mirror.flush()
    assert len(mirror._unacked) <= 100
    await mirror.close(0.0)
    assert [frame.request_id for batch in spooled(state_dir) for frame in batch.opens] == ids


async def test_without_a_collector_what_is_finished_is_on_disk_at_once(make: Make, state_dir: Path) -> None:
    """Killed now, the relay would take nothing with it; and what stays in memory is told as well, when it can be."""
    mirror = await make(run=False, max_pending_closes=100)
    ids = [finish(request(mirror)) for _ in range(3)]
    mirror.flush()
    await until(lambda: [frame.request_id for batch in spooled(state_dir, "spool") for frame in batch.opens] == ids)
    assert [frame.id for *_, frame in mirror._unacked] == [1, 2, 3]
    assert (mirror.spooled, mirror.lost) == (0, 0)
    await mirror.close(0.0)


@pytest.mark.parametrize("known", [True, False], ids=["it is known", "it is not known yet"])
async def test_a_copy_that_could_not_be_made_is_lost_with_the_memory(
    make: Make, monkeypatch: pytest.MonkeyPatch, *, known: bool
) -> None:
    """A fault of ours costs those of one message, and those only that leave the memory, whenever it comes out."""
    may_fail = threading.Event()
    faults = iter([ValueError])

    def mask(requests: Iterable[tuple[tap.Open, tap.Close]]) -> tuple[tap.Batch, list[str]]:
        may_fail.wait(PATIENCE_S)
        for fault in faults:
            raise fault
        return masked_batch(requests)

    monkeypatch.setattr(telling_module, "masked_batch", mask)
    mirror = await make(run=False, max_pending_closes=3)
    for _ in range(3):
        finish(request(mirror))
    mirror.flush()
    if known:
        may_fail.set()
        await until(lambda: (copy := mirror._unacked[0][1]) is not None and copy.failed)
    assert mirror.lost == 0
    for _ in range(5):
        finish(request(mirror))
    mirror.flush()
    may_fail.set()
    await mirror.close(0.0)
    assert mirror.lost == 3


async def test_full_spool_is_counted(make: Make) -> None:
    """The one case in which a finished request is lost."""
    mirror = await make(run=False, max_pending_closes=1, max_spool_bytes=10)
    for _ in range(10):
        finish(request(mirror))
    mirror.flush()
    await mirror.close(0.0)
    assert mirror.lost == 10


async def test_spool_is_handed_over_when_the_collector_is_back(make: Make, state_dir: Path) -> None:
    """It need not wait for our end."""
    mirror = await make(max_pending_closes=1)
    for _ in range(600):
        finish(request(mirror))
    await until(lambda: mirror.spooled > 0)
    collector = Collector(state_dir / "tap")
    await collector.start()
    await until(lambda: bool(list(state_dir.glob("spool/*.ready"))))
    await collector.stop()


async def test_spool_waits_until_what_was_told_again_is_booked(
    make: Make, collector: Collector, state_dir: Path
) -> None:
    """In the file is less of the same requests, and what is read first is booked."""
    await collector.stop()
    mirror = await make()
    last = [finish(request(mirror)) for _ in range(600)][-1]
    await until(lambda: len(mirror._unacked) == 600)
    collector.acks = False
    await collector.start()
    await collector.closes(600)
    *_, first, second = [batch.seq for batch in collector.batches if batch.closes]
    mirror.flush(tap.Stats(**dict.fromkeys(tap.Stats.__struct_fields__, 1)))
    collector.ack(first)
    await until(lambda: len(mirror._unacked) == 100)
    assert not spooled(state_dir)
    collector.ack(second)
    await until(lambda: last in {frame.request_id for batch in spooled(state_dir) for frame in batch.opens})


async def test_much_is_told_again_in_small_pieces(make: Make, collector: Collector) -> None:
    """Streams go on between them; and what a connection that breaks has not been told, the next one is."""
    await collector.stop()
    mirror = await make(max_pending_bytes=1000)
    ids = {finish(request(mirror, headers={"x": "x" * 2000})) for _ in range(1000)}
    await until(lambda: len(mirror._unacked) == 1000)
    collector.acks = collector.reads = False
    await collector.start()
    await connected(mirror)
    await until(lambda: bool(collector._writers) and mirror.pending_bytes > 1000)
    assert mirror._untold
    collector.hang_up()
    collector.acks = collector.reads = True
    await until(lambda: not mirror._unacked and not mirror._untold)
    assert {frame.request_id for frame in collector.all("opens")} == ids
    assert max(len(batch.closes) for batch in collector.batches) <= RESEND_BATCH


class Silent(asyncio.Transport):
    """A connection that takes everything and says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Any] = []
        self.buffered_bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.batches += tap.collector_side().feed(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.buffered_bytes

    def close(self) -> None:
        pass


@pytest.mark.parametrize("end", ["lost", "closed"])
async def test_what_was_to_be_told_again_is_kept_when_that_ends(make: Make, state_dir: Path, end: str) -> None:
    """Whether the connection goes or we do."""
    mirror = await make(run=False)
    ids = [finish(request(mirror)) for _ in range(1000)]
    mirror.flush()
    mirror.connection_made(Silent())
    assert len(mirror._untold) == 1000 - RESEND_BATCH
    if end == "lost":
        mirror.connection_lost(None)
        assert {observer.request_id for _, _, observer, _ in mirror._unacked} == set(ids)
    await mirror.close(0.0)
    assert {frame.request_id for batch in spooled(state_dir) for frame in batch.opens} == set(ids)
    assert mirror.lost == 0


async def test_what_is_told_again_waits_while_the_collector_takes_nothing(make: Make) -> None:
    """As any batch does, and no longer."""
    mirror = await make(run=False)
    for _ in range(1000):
        finish(request(mirror))
    mirror.flush()
    silent = Silent()
    mirror.connection_made(silent)
    silent.buffered_bytes = 1 << 30
    for _ in range(5):
        mirror.flush()  # it finds the collector behind
        await asyncio.sleep(0)
    assert len(mirror._untold) == 1000 - RESEND_BATCH
    silent.buffered_bytes = 0
    mirror.flush()
    await until(lambda: not mirror._untold)
    sizes = [len(batch.closes) for batch in silent.batches if isinstance(batch, tap.Batch)]
    assert max(sizes) <= RESEND_BATCH
    assert len(mirror._unacked) == 1000
    await mirror.close(0.0)


async def test_the_next_pieces_are_asked_for_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector that comes again before the last piece: two who tell in turns would hold up streams twice as long."""
    mirror = await make(run=False)
    for _ in range(1000):
        finish(request(mirror))
    mirror.flush()
    calls = 0
    resent = mirror_module.resent

    def count(*parts: Any) -> tap.Batch:
        nonlocal calls
        calls += 1
        return resent(*parts)

    monkeypatch.setattr(mirror_module, "resent", count)
    for _ in range(5):
        mirror.connection_made(Silent())
        mirror.connection_lost(None)
    mirror.connection_made(Silent())
    before = calls
    await asyncio.sleep(0)
    assert calls <= before + 1
    await mirror.close(0.0)


async def test_what_is_still_to_be_told_counts_for_the_bound(make: Make, state_dir: Path) -> None:
    """It is the same memory."""
    mirror = await make(run=False, max_pending_closes=1000)
    ids = {finish(request(mirror)) for _ in range(1000)}
    mirror.flush()
    silent = Silent()
    mirror.connection_made(silent)
    silent.buffered_bytes = 1 << 30
    for _ in range(4):
        ids |= {finish(request(mirror)) for _ in range(300)}
        mirror.flush()
        assert len(mirror._unacked) + len(mirror._untold) <= 1000
    await mirror.close(0.0)
    assert {frame.request_id for batch in spooled(state_dir) for frame in batch.opens} == ids
    assert mirror.lost == 0


@pytest.mark.parametrize("again", [True, False], ids=["told again", "told"])
async def test_a_message_that_cannot_be_made_costs_no_request(
    make: Make, state_dir: Path, monkeypatch: pytest.MonkeyPatch, *, again: bool
) -> None:
    """A fault of ours: what would have been in it is kept, once."""

    def fail(_: tap.Batch) -> bytes:
        raise TypeError

    mirror = await make(run=False)
    mirror.connection_made(Silent())
    ids = [finish(request(mirror)) for _ in range(150)]
    if again:
        mirror.flush()
        mirror._resend()
    monkeypatch.setattr(mirror, "_encoded", fail)
    with pytest.raises(TypeError):
        (mirror._resend_more if again else mirror.flush)()
    mirror.connection_lost(None)
    await mirror.close(0.0)
    assert sorted(frame.request_id for batch in spooled(state_dir) for frame in batch.opens) == ids


async def test_a_collector_that_comes_and_goes_leaves_one_copy_of_each(make: Make, state_dir: Path) -> None:
    """The file waits for an acknowledgement: what is told again, and again in vain, must not fill it."""
    mirror = await make(run=False)
    ids = [finish(request(mirror)) for _ in range(3)]
    mirror.flush()
    for _ in range(50):
        mirror.connection_made(Silent())
        ids.append(finish(request(mirror)))
        mirror.flush()
        mirror.connection_lost(None)
    await mirror.close(0.0)
    assert [frame.request_id for batch in spooled(state_dir) for frame in batch.opens] == ids


async def test_a_copy_that_failed_is_made_again_when_the_connection_breaks(
    make: Make, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is in no file: there is nothing to be spared."""
    faults = iter([ValueError])

    def mask(requests: Iterable[tuple[tap.Open, tap.Close]]) -> tuple[tap.Batch, list[str]]:
        for fault in faults:
            raise fault
        return masked_batch(requests)

    monkeypatch.setattr(telling_module, "masked_batch", mask)
    mirror = await make(run=False)
    ids = [finish(request(mirror)) for _ in range(3)]
    mirror.flush()
    await until(lambda: (copy := mirror._unacked[0][1]) is not None and copy.failed)
    mirror.connection_made(Silent())
    mirror.connection_lost(None)
    await mirror.close(0.0)
    assert [frame.request_id for batch in spooled(state_dir) for frame in batch.opens] == ids
    assert mirror.lost == 0


@pytest.fixture(name="narrow")
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for the spool's thread is one message at a time."""
    monkeypatch.setattr(spool_module, "MAX_QUEUED_BYTES", int(1.5 * SPOOL_BATCH * SPOOLED_BYTES))


@pytest.mark.usefixtures("narrow")
async def test_a_clean_end_loses_nothing_that_the_disk_has_room_for(make: Make, state_dir: Path) -> None:
    """The queue of the spool's thread is smaller than what may be left: the end waits for it."""
    mirror = await make(run=False)
    mirror.connection_made(Silent())
    ids = [finish(request(mirror)) for _ in range(4 * SPOOL_BATCH)]
    await mirror.close(0.0)
    assert (mirror.spooled, mirror.lost) == (4 * SPOOL_BATCH, 0)
    assert [frame.request_id for batch in spooled(state_dir) for frame in batch.opens] == ids


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("was_connected", [True, False])
async def test_a_copy_that_found_no_room_is_made_when_there_is(
    make: Make, state_dir: Path, *, was_connected: bool
) -> None:
    """Killed in a minute, the relay would take it with it."""
    mirror = await make(run=False)
    if was_connected:
        mirror.connection_made(Silent())
    ids = [finish(request(mirror)) for _ in range(3 * SPOOL_BATCH)]
    mirror.flush()
    if was_connected:
        mirror.connection_lost(None)

    def on_disk() -> list[str]:
        mirror.flush()
        return [frame.request_id for batch in spooled(state_dir, "spool") for frame in batch.opens]

    await until(lambda: on_disk() == ids)
    assert len(mirror._unacked) == 3 * SPOOL_BATCH
    await mirror.close(0.0)
    assert [frame.request_id for batch in spooled(state_dir) for frame in batch.opens] == ids
    assert mirror.lost == 0


async def test_a_collector_that_comes_while_we_end_is_told_nothing(make: Make, state_dir: Path) -> None:
    """What is left is on its way to the spool."""
    mirror = await make(run=False)
    ids = [finish(request(mirror)) for _ in range(3)]
    ending = asyncio.create_task(mirror.close(0.0))
    await until(lambda: mirror._closing)
    mirror.connection_made(Silent())
    mirror.flush()
    await ending
    assert mirror._transport is None
    assert [frame.request_id for batch in spooled(state_dir) for frame in batch.opens] == ids


async def test_garbage_from_the_collector_only_costs_the_connection(make: Make, collector: Collector) -> None:
    """A peer that does not speak the protocol is left; the traffic knows nothing of it."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)
    mirror = await connected(await make())
    collector._writers[-1].write(b"\x00\x00\x00\x02\xc1\xc1")
    await until(lambda: len(collector.hellos) >= 2)
    finish(request(mirror))
    await collector.closes(1)


async def test_collector_that_hangs_up_at_once_is_not_called_in_a_loop(make: Make, state_dir: Path) -> None:
    """A crash loop over there must not cost us a processor."""
    calls = 0

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        writer.close()

    server = await asyncio.start_unix_server(refuse, str(state_dir / "tap"))
    await make()
    await asyncio.sleep(0.5)
    server.close()
    assert 1 <= calls <= 25


async def test_statistics_are_sent_even_if_there_is_nothing_else(make: Make, collector: Collector) -> None:
    """Once a second, whatever the traffic."""
    mirror = await connected(await make())
    stats = tap.Stats(**dict.fromkeys(tap.Stats.__struct_fields__, 1))
    mirror.flush(stats)
    await until(lambda: any(batch.stats for batch in collector.batches))


async def test_text_that_is_none_costs_its_words_not_the_tap(make: Make, collector: Collector) -> None:
    """A lone surrogate that got past every check: the request is booked, and so are the others."""
    mirror = await connected(await make())
    odd = Observer(mirror, Subject(arrival_ns=1, method="GET", path="/\udcff", tenant="t", headers={}))
    odd.opened(Facts(), b"", 0, 0, asked_usage=False)
    finish(odd)
    finish(request(mirror))
    assert len(await collector.closes(2)) == 2
    assert mirror.observer_errors == 1


async def test_a_number_that_is_too_large_stops_nothing(make: Make, collector: Collector) -> None:
    """Whoever wrote it: each request is told of, once, and the others with all they have."""
    mirror = await connected(await make())
    for most in (5, 10**30, 6):
        watcher = Observer(mirror, Subject(arrival_ns=1, method="POST", path="/v1", tenant="t", headers={}))
        watcher.opened(Facts("m", True, 1, max_tokens=most), b"{}", 2, 2, asked_usage=False)
        finish(watcher)
    finish(request(mirror))
    assert len(await collector.closes(4)) == 4
    assert [(frame.path, frame.max_tokens) for frame in collector.all("opens")[:3]] == [("/v1", 5), ("", 0), ("/v1", 6)]
    assert mirror.observer_errors == 1
    assert len(collector.all("heads")) == 1


async def test_what_cannot_be_said_in_the_spool_is_counted(make: Make, state_dir: Path) -> None:
    """It is in the file without the number, and so are the others."""
    mirror = await make(run=False)
    for most in (5, 10**30):
        watcher = Observer(mirror, Subject(arrival_ns=1, method="POST", path="/v1", tenant="t", headers={}))
        watcher.opened(Facts("m", True, 1, max_tokens=most), b"{}", 2, 2, asked_usage=False)
        finish(watcher)
    mirror.flush()
    await until(lambda: mirror.observer_errors == 1)
    await mirror.close(0.0)
    assert [frame.max_tokens for batch in spooled(state_dir) for frame in batch.opens] == [5, 0]
    assert (mirror.observer_errors, mirror.lost) == (1, 0)


async def test_a_request_that_cannot_be_masked_costs_its_words_alone(
    make: Make, state_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of ours in the spool's thread: it is counted as one of an observer's, and the others are written."""
    masked = masking_module.masked

    def mask(tail: bytes, *, whole: bool, ended: bool) -> bytes:
        if tail == b"odd":
            raise ValueError("with the text of somebody")
        return masked(tail, whole=whole, ended=ended)

    monkeypatch.setattr(masking_module, "masked", mask)
    mirror = await make(run=False)
    ids = []
    for said in (b"data: [DONE]", b"odd", b"data: [DONE]"):
        watcher = request(mirror)
        watcher.body(1, said)
        ids.append(finish(watcher))
    mirror.flush()
    await until(lambda: mirror.observer_errors == 1)
    await mirror.close(0.0)
    (batch,) = spooled(state_dir)
    assert [frame.request_id for frame in batch.opens] == ids
    assert [frame.tail for frame in batch.closes] == [b"data: [DONE]", b"", b"data: [DONE]"]
    assert mirror.lost == 0
    assert [record.getMessage() for record in caplog.records] == ["observer_fault stage=mask type=ValueError"]


async def test_odd_text_is_survived_when_it_is_sent_again(make: Make, state_dir: Path) -> None:
    """After a reconnect, and in the spool."""
    mirror = await make(max_pending_closes=1)
    for path in ["/\udcff", *["/"] * 600]:
        watcher = Observer(mirror, Subject(arrival_ns=1, method="GET", path=path, tenant="t", headers={}))
        watcher.opened(Facts(), b"", 0, 0, asked_usage=False)
        finish(watcher)
    mirror.flush()
    collector = Collector(state_dir / "tap")
    await collector.start()
    await until(lambda: not mirror._unacked)
    await mirror.close(1.0)
    told = {frame.id for frame in collector.all("closes")}
    told |= {frame.id for batch in spooled(state_dir) for frame in batch.closes}
    assert told == set(range(1, 602))
    await collector.stop()
