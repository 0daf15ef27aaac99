"""One contender under measurement: start it, run the phases, check that nothing was lost, give the figures.

Each phase sets the engine's pace, runs the load, and compares what arrived with what the engine sent; a phase in which
they differ raises LoadError, and the run has no result.
"""

import asyncio
import gc
import socket
import tempfile
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import uvloop
from bench import load, procs
from bench.contenders import Burden, Contender, Place
from bench.load import Load, LoadError, quantile
from bench.meters import CpuMeter, memory_by_role
from bench.mock_engine import Pace, Totals
from bench.report import Cpu, Delay, Direct, Held, Turn

EVENTS_PER_STREAM = 50  # of the latency phase: short answers, so that there are many first tokens
FIRST_S = 0.05  # the engine's delay before the first token
# Beyond this the load client itself queues, and would be what is measured.
LATENCY_CAP_EVENTS_PER_S = 15_000.0
LATE_S = 0.02  # a load client that is this late was waiting for its core, and so was everything it timed
TRIES = 3
LATENCY_LOAD = 0.5  # of the contender's saturation

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Plan:
    """How long everything takes."""

    rounds: int
    window_s: float
    plain_s: float
    latency_s: float
    held_fraction: float  # of the streams that are held open


class Bench:
    """One run: the engine's port, the cores, the plan."""

    def __init__(self, plan: Plan, engine: int, core: int | None, folder: Path) -> None:
        self.plan = plan
        self.engine = engine
        self.core = core
        self.folder = folder

    # --- the engine's side

    def wait_for_engine(self) -> None:
        """Return when the engine answers."""

        async def wait() -> None:
            async with asyncio.timeout(10):
                while True:
                    try:
                        await self._control("/bench/totals")
                        return
                    except OSError:
                        await asyncio.sleep(0.05)

        run(wait())

    async def _control(self, path: str, body: bytes = b"") -> bytes:
        channel = Load(self.engine, keep=True)
        await channel.exchange(channel.message(path, body))
        channel.close()
        assert channel.kept is not None
        return bytes(channel.kept)

    async def set_pace(self, pace: Pace) -> None:
        """Have the engine answer like that from now on, and count anew."""
        await self._control("/bench/pace", msgspec.json.encode(pace))
        await self._control("/bench/totals")

    async def _totals(self) -> Totals:
        return msgspec.json.decode(await self._control("/bench/totals"), type=Totals)

    async def _check(self, contender: Contender | None, target: Load) -> None:
        """Everything that the engine sent has arrived, once; to the byte where the contender promises it."""
        sent = await self._totals()
        if contender is not None and not contender.exact:
            # It builds events of its own: one more or one fewer per stream is its way, a lost token is not.
            if abs(target.events - sent.events) > 2 * sent.streams or target.completed != sent.streams + sent.replies:
                raise LoadError(f"the engine sent {sent}; {target.events} events in {target.completed} replies arrived")
            return
        expected = (sent.events, sent.stream_bytes + sent.reply_bytes, sent.streams + sent.replies)
        got = (target.events, target.body_bytes, target.completed)
        if got != expected:
            raise LoadError(f"events, body bytes, replies: the engine sent {expected}, the client got {got}")

    # --- phases

    async def streamed(self, contender: Contender, port: int, meter: CpuMeter) -> dict[str, float]:
        """CPU microseconds per streamed event, by role."""
        burden = contender.burden
        target = Load(port)
        await self.set_pace(Pace(events_per_s=burden.events_per_s, first_s=FIRST_S))
        window_s = self.plan.window_s * burden.stretch
        window = await load.steady_streams(
            target, burden.streams, burden.events_per_s, ramp_s=burden.ramp_s, window_s=window_s, sample=meter.read
        )
        target.close()
        await self._check(contender, target)
        return meter.per_unit_us(window)

    async def plain(self, contender: Contender, port: int, meter: CpuMeter) -> dict[str, float]:
        """CPU microseconds per plain request, by role."""
        target = Load(port)
        await self.set_pace(Pace())
        burden = contender.burden
        window = await load.plain_at_rate(
            target, burden.plain_per_s, window_s=self.plan.plain_s * burden.stretch, sample=meter.read
        )
        target.close()
        await self._check(contender, target)
        return meter.per_unit_us(window)

    async def one_by_one(self, contender: Contender | None, port: int, count: int) -> float:
        """Median milliseconds of a plain request, one at a time."""
        target = Load(port)
        await self.set_pace(Pace())
        await load.plain_one_by_one(target, count // 10)
        median_ms = await load.plain_one_by_one(target, count)
        target.close()
        await self._check(contender, target)
        return median_ms

    async def latency(
        self, contender: Contender | None, port: int, streams_per_s: float, seconds: float, meter: CpuMeter | None
    ) -> tuple[Delay, dict[str, float]]:
        """First token, event and gap delays at that many new streams per second; with a meter, CPU µs of each by role.

        When others kept the load client from its core, it is tried again; the last try counts and says how late it was.
        """
        delay, answer_us = await self._latency(contender, port, streams_per_s, seconds, meter)
        for _ in range(TRIES - 1):
            if delay.late_s <= LATE_S:
                break
            delay, answer_us = await self._latency(contender, port, streams_per_s, seconds, meter)
        return delay, answer_us

    async def _latency(
        self, contender: Contender | None, port: int, streams_per_s: float, seconds: float, meter: CpuMeter | None
    ) -> tuple[Delay, dict[str, float]]:
        target = Load(port, stamped=True)
        await self.set_pace(Pace(events_per_s=50.0, first_s=FIRST_S, stamped=True))
        before, began_s = meter.read() if meter else None, time.monotonic()
        await load.arrivals(
            target, streams_per_s, seconds, lambda: target.chat(stream=True, max_tokens=EVENTS_PER_STREAM)
        )
        answer_us: dict[str, float] = {}
        if meter and before:
            window = load.Window(target.completed, time.monotonic() - began_s, before, meter.read())
            answer_us = meter.per_unit_us(window)
        target.close()
        await self._check(contender, target)
        delays = target.delays
        assert delays is not None
        if len(delays.event) != target.completed * EVENTS_PER_STREAM:
            raise LoadError(f"{target.completed * EVENTS_PER_STREAM - len(delays.event)} stamped events did not arrive")
        delay = Delay(
            (quantile(delays.first, 0.5), quantile(delays.first, 0.99)),
            (quantile(delays.event, 0.5), quantile(delays.event, 0.99)),
            (quantile(delays.gap, 0.5), quantile(delays.gap, 0.99)),
            target.late_s,
        )
        return delay, answer_us

    async def held(self, contender: Contender, port: int, root: int) -> Held:
        """Memory of a fresh contender at rest and with many open streams, by role."""
        burden = contender.burden
        streams = round(burden.open_streams * self.plan.held_fraction)
        rest = memory_by_role(contender, root)
        await self.set_pace(Pace(events_per_s=0.5, first_s=0.5))
        loaded = await load.open_streams(
            Load(port), streams, ramp_s=burden.open_ramp_s * self.plan.held_fraction,
            sample=lambda: memory_by_role(contender, root),
        )  # fmt: skip
        await asyncio.sleep(1.0)  # the end of so many streams is not to be charged to the next phase
        return Held(streams, rest, loaded)

    async def same_bytes(self, contender: Contender, port: int) -> None:
        """Two replies through the contender are the engine's, byte for byte, as those fetched without it."""
        await self.set_pace(Pace(events_per_s=1000.0, first_s=0.0))
        for stream in (False, True):
            replies = []
            for each in (port, self.engine):
                target = Load(each, keep=True)
                await target.exchange(target.chat(stream=stream, max_tokens=20))
                target.close()
                replies.append(target.kept)
            if replies[0] != replies[1]:
                raise LoadError(f"{contender.title} changed the bytes of a {'streamed' if stream else 'plain'} reply")

    # --- turns

    @contextmanager
    def started(self, contender: Contender) -> Iterator[tuple[int, int]]:
        """The contender, ready to serve: its port and the pid of its first process."""
        with tempfile.TemporaryDirectory(dir=self.folder, ignore_cleanup_errors=True) as name:
            port, *spare = free_ports(3)
            place = Place(port, self.engine, (spare[0], spare[1]), Path(name))
            log = self.folder / f"{contender.key}.log"
            argv = contender.command(place)
            with procs.running(argv, core=self.core, log=log, cwd=place.folder, env=contender.env) as pid:
                run(self._ready(contender, port, pid, log))
                yield port, pid

    async def _ready(self, contender: Contender, port: int, pid: int, log: Path) -> None:
        """Wait for a first good reply, then send enough of both kinds that nothing is done for the first time later."""
        deadline_s = time.monotonic() + contender.start_timeout_s
        while True:
            target = Load(port)
            try:
                async with asyncio.timeout(contender.start_timeout_s):
                    await target.exchange(target.chat(stream=False))
                break
            except (OSError, LoadError, TimeoutError) as error:
                if procs.read_process(pid) is None or time.monotonic() > deadline_s:
                    tail = log.read_text(errors="replace")[-2000:]
                    raise LoadError(f"{contender.title} did not start ({error}); its log ends:\n{tail}") from error
                await asyncio.sleep(0.1)
            finally:
                target.close()
        await self.set_pace(Pace(events_per_s=100.0, first_s=0.0))
        target = Load(port)
        for _ in range(5):
            await target.exchange(target.chat(stream=False))
            await target.exchange(target.chat(stream=True, max_tokens=10))
        target.close()
        if contender.exact:
            await self.same_bytes(contender, port)

    def turn(self, contender: Contender, *, hold_streams: bool) -> Turn:
        """One contender, one round; first of all, as long as it is fresh, its memory (`hold_streams`)."""
        burden = contender.burden
        with self.started(contender) as (port, pid):
            held = run(self.held(contender, port, pid)) if hold_streams else None
            meter = CpuMeter(contender, pid, self.core)
            event_us = run(self.streamed(contender, port, meter))
            request_us = run(self.plain(contender, port, meter))
            one_by_one_ms = run(self.one_by_one(contender, port, burden.one_by_one))
            saturation_per_s = 1e6 / (sum(request_us.values()) + EVENTS_PER_STREAM * sum(event_us.values()))
            streams_per_s = min(LATENCY_LOAD * saturation_per_s, LATENCY_CAP_EVENTS_PER_S / EVENTS_PER_STREAM)
            seconds = self.plan.latency_s * burden.stretch
            others = meter.others
            direct, _ = run(self.latency(None, self.engine, streams_per_s, seconds, None))
            through, answer_us = run(self.latency(contender, port, streams_per_s, seconds, meter))
        return Turn(
            event_us=event_us,
            request_us=request_us,
            answer_us=answer_us,
            one_by_one_ms=one_by_one_ms,
            others=others,
            held=held,
            latency_events_per_s=streams_per_s * EVENTS_PER_STREAM,
            latency_load=streams_per_s / saturation_per_s,
            direct=direct,
            through=through,
        )

    def cpu_turn(self, contender: Contender) -> Cpu:
        """One contender, one round, its CPU alone."""
        with self.started(contender) as (port, pid):
            meter = CpuMeter(contender, pid, self.core)
            return Cpu(run(self.streamed(contender, port, meter)), run(self.plain(contender, port, meter)))

    def direct(self) -> Direct:
        """The engine without a proxy, for the plain request."""
        return Direct(run(self.one_by_one(None, self.engine, Burden().one_by_one)))


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """One phase on an event loop of its own, without garbage collection pauses in the middle of it.

    Raises LoadError for whatever went wrong in any of its many requests.
    """
    gc.collect()
    gc.disable()
    try:
        return uvloop.run(work)
    except TimeoutError as error:
        raise LoadError("a phase did not end: replies are missing, or the machine is far too busy") from error
    except ExceptionGroup as group:
        raise LoadError(f"{len(group.exceptions)} requests failed, the first with: {group.exceptions[0]!r}") from group
    finally:
        gc.enable()


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
