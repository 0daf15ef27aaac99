"""outbox: what a lane adds to is sent in time, bounded, and closed when there is nobody to send it to."""

from collections.abc import Awaitable, Callable

from harness import chunk, until
from test_exchange import Transport
from test_mirror import Collector, Make, _collector, _make, connected, request

from inferwatch.relay.lane import Lane
from inferwatch.relay.mirror import FLUSH_BYTES, Mirror
from inferwatch.relay.outbox import READ_OVERHEAD_BYTES

__all__ = ["_collector", "_make"]  # fixtures

FAR_S = 60.0  # no batch is due within the test
EVENT = b"data: %04d" + b"x" * 1000 + b"\n\n"


def open_lane(mirror: Mirror) -> Lane:
    """A lane with a client."""
    observer = request(mirror)
    observer.is_stream = True
    lane = observer.lane(Transport())  # type: ignore[arg-type]
    assert lane is not None
    return lane


def send(lane: Lane, count: int, start: int = 0) -> int:
    """Read so many events; returns how many were taken."""
    return sum(lane.take(number, chunk(EVENT % number)) for number in range(start, start + count))


async def test_each_batch_makes_the_next_one_due(make: Make, collector: Collector) -> None:
    """Though nothing but the lane adds to it."""
    lane = open_lane(await connected(await make(flush_interval_s=0.001)))
    for number in range(3):
        assert send(lane, 1, number) == 1
        await until(lambda number=number: len(collector.all("reads")) == number + 1)
    assert [read[2] for read in collector.all("reads")] == [EVENT % number for number in range(3)]


async def test_much_is_sent_before_its_time(make: Make, collector: Collector) -> None:
    lane = open_lane(await connected(await make(flush_interval_s=FAR_S)))
    count = FLUSH_BYTES // (len(EVENT) + READ_OVERHEAD_BYTES) + 3
    assert send(lane, count) == count
    await until(lambda: len(collector.all("reads")) >= count - 3)


async def test_the_bound_of_the_settings_holds(make: Make, collector: Collector) -> None:
    """Also where it is less than what makes a batch."""
    mirror = await connected(await make(flush_interval_s=FAR_S, max_pending_bytes=5000))
    lane = open_lane(mirror)
    taken = send(lane, 10)
    assert 0 < taken < 6
    assert mirror.pending_bytes <= 5000 + len(EVENT) + 2 * READ_OVERHEAD_BYTES


async def closed(mirror: Mirror, end: Callable[[], Awaitable[None]]) -> None:
    lane = open_lane(mirror)
    assert send(lane, 1) == 1
    await end()
    await until(lambda: mirror._transport is None)
    assert send(lane, 1, 1) == 0
    assert len(mirror.outbox.reads) <= 1, "what was taken before waits for the next batch, or was dropped with it"


async def test_without_a_collector_nothing_is_taken(make: Make, collector: Collector) -> None:
    """The long way counts what is dropped."""
    await closed(await connected(await make(flush_interval_s=FAR_S)), collector.stop)


async def test_at_the_end_nothing_more_is_taken(make: Make, collector: Collector) -> None:
    mirror = await connected(await make(flush_interval_s=FAR_S))
    await closed(mirror, lambda: mirror.close(0.1))
