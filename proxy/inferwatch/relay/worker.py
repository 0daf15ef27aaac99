"""One relay process: wiring, the once-a-second chores, reload and drain.

It is started by the supervisor with a listening socket and a control channel, and lives until the channel ends or
tells it to drain. Nothing in here is on the way of a request.
"""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import ssl
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from inferwatch import memory, tap
from inferwatch.config import Config
from inferwatch.control import Channel
from inferwatch.relay.engine_probe import Engine
from inferwatch.relay.gatekeeping import FLUSH_S, Gatekeeper
from inferwatch.relay.identity import Identity
from inferwatch.relay.listener import Listener
from inferwatch.relay.mirror import Mirror
from inferwatch.relay.pool import Pool
from inferwatch.relay.server import Relay
from inferwatch.settings.traffic import Upstream
from inferwatch.tasks import TaskSet
from inferwatch.tenants import TenantTable

log = logging.getLogger(__name__)

# Without these a relay would go on, but deaf to the supervisor, unwatched, or without time-outs.
CRITICAL_TASKS: Final = frozenset({"control", "mirror", "chores"})

CHORES_S: Final = 1.0

# After the open requests are over: time for the collector to acknowledge them. What is left then goes to the spool.
TAP_CLOSE_S: Final = 5.0

# After the open requests are over: time for slow clients to take what is left of their replies.
LAST_WORDS_S: Final = 2.0

# When garbage is looked for, in seconds. Left to itself Python looks after so many allocations, in the middle of a
# read, and holds up every stream for 2 to 5 ms (measured at 15,000 events/s); there is hardly a cycle to find in
# here. The young are few each second; all are looked at when nothing is open, or after this long.
GC_MIDDLE_S: Final = 10
GC_ALL_S: Final = 300


class Start(msgspec.Struct, frozen=True):
    """The first control message, from the supervisor."""

    config: Config
    worker: int
    tap_socket: str
    spool_dir: str
    identity_secret: str  # hex
    tenants: TenantTable = TenantTable()
    board: str = ""  # what budgets are kept on; "": no budgets are enforced


class Worker:
    """The relay process."""

    def __init__(self, start: Start, channel: Channel) -> None:
        self._config = start.config
        self._secret = bytes.fromhex(start.identity_secret)
        self._channel = channel
        self._tasks = TaskSet(self._task_failed)
        self._mirror = Mirror(
            start.config.tap,
            worker=start.worker,
            socket_path=Path(start.tap_socket),
            spool_dir=Path(start.spool_dir),
        )
        self._engine = Engine(start.config.upstream.engine)
        self._relay = Relay(
            start.config,
            pool=_pool(start.config.upstream),
            engine=self._engine,
            identity=Identity(self._secret, start.config.identity.trusted_peers, start.tenants),
            mirror=self._mirror,
        )
        self._gatekeeper = Gatekeeper(Path(start.board) if start.board else None)
        self._ask_budgets()
        self._mirror.on_cut = self._relay.cut
        self._probe: asyncio.Task[Any] | None = None
        self._draining = asyncio.Event()
        self._lag_max_ns = 0
        self._since_full = 0  # chores since all garbage was looked for
        self._connects = self._connect_errors = 0  # of pools that a reload has replaced

    def _task_failed(self, name: str, error: BaseException) -> None:
        log.error("task_failed name=%s type=%s", name, type(error).__name__)
        if name in CRITICAL_TASKS:
            self._draining.set()  # finish what is open; the supervisor starts a whole relay in our place

    async def run(self, listener: socket.socket) -> None:
        """Serve until told to stop."""
        clients = Listener(self._relay)
        await clients.start(listener, _server_tls(self._config))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._draining.set)
        # A collector that has just started learns at once that the data path is alive.
        self._mirror.on_connected = lambda: self._mirror.flush(self._stats(clients))
        self._tasks.spawn(self._mirror.run(), "mirror")
        self._tasks.spawn(self._listen_to_supervisor(), "control")
        self._tasks.spawn(self._chores(clients), "chores")
        self._probe = self._tasks.start(self._engine.run(self._relay.pool), "probe")
        memory.settle()
        gc.disable()  # from here on it is one of the chores
        self._channel.send({"ready": True})
        await self._draining.wait()
        await self._drain(clients)

    def _ask_budgets(self) -> None:
        """Have the budgets of the present configuration asked, if there are any."""
        self._relay.room.gate = self._gatekeeper.use(self._config)
        usual_s = self._config.tap.flush_interval_s
        self._mirror.flush_interval_s = usual_s if self._relay.room.gate is None else min(usual_s, FLUSH_S)

    async def _listen_to_supervisor(self) -> None:
        async for message in self._channel.messages():
            if "config" in message:
                tenants = msgspec.convert(message.get("tenants", {}), TenantTable)
                self._reload(msgspec.convert(message["config"], Config), tenants)
            if message.get("drain"):
                break
        self._draining.set()  # told to, or the supervisor is gone

    def _reload(self, config: Config, tenants: TenantTable) -> None:
        old, self._config = self._config, config
        logging.getLogger().setLevel(config.log.level.upper())
        self._relay.config = config
        self._ask_budgets()
        self._relay.identity = Identity(self._secret, config.identity.trusted_peers, tenants)
        if config.upstream != old.upstream:
            pool, self._relay.pool = self._relay.pool, _pool(config.upstream)
            self._connects += pool.connects
            self._connect_errors += pool.connect_errors
            pool.close()
            self._engine = self._relay.engine = Engine(config.upstream.engine)
            if self._probe is not None:
                self._probe.cancel()
            self._probe = self._tasks.start(self._engine.run(self._relay.pool), "probe")

    async def _chores(self, clients: Listener) -> None:
        beat = 0
        due_s = time.monotonic()
        while True:
            due_s += CHORES_S
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            now_s = time.monotonic()
            self._lag_max_ns = int(max(0.0, now_s - due_s) * 1e9)
            due_s = max(due_s, now_s - CHORES_S)
            beat += 1
            self._relay.sweep(time.monotonic_ns())
            clients.sweep(time.monotonic())
            self._mirror.flush(self._stats(clients))
            self._channel.send({"beat": beat})
            self._collect_garbage(beat)

    def _collect_garbage(self, beat: int) -> None:
        self._since_full += 1
        idle = not self._relay.active and self._since_full >= GC_MIDDLE_S
        if idle or self._since_full >= GC_ALL_S:
            self._since_full = 0
            gc.collect(2)
        else:
            gc.collect(1 if beat % GC_MIDDLE_S == 0 else 0)

    def _stats(self, clients: Listener) -> tap.Stats:
        mirror, pool = self._mirror, self._relay.pool
        return tap.Stats(
            stamp_ns=time.monotonic_ns(),
            cpu_ns=time.process_time_ns(),
            loop_lag_max_ns=self._lag_max_ns,
            open_requests=mirror.open_requests,
            client_connections=len(clients.connections),
            upstream_idle=pool.idle,
            upstream_connects=self._connects + pool.connects,
            upstream_connect_errors=self._connect_errors + pool.connect_errors,
            upstream_retries=self._relay.retries,
            tap_pending_bytes=mirror.pending_bytes,
            tap_dropped_bytes=mirror.dropped_bytes,
            tap_dropped_reads=mirror.dropped_reads,
            tap_spooled=mirror.spooled,
            tap_lost=mirror.lost,
            observer_errors=mirror.observer_errors,
            budget_unsure=self._gatekeeper.unsure,
        )

    async def _drain(self, clients: Listener) -> None:
        """No new connections, then no open requests, then the tap."""
        log.info("draining open_requests=%d", len(self._relay.active))
        clients.close()
        clients.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.drain.timeout_s):
                while self._relay.active:
                    await asyncio.sleep(0.02)
        if self._relay.active:
            log.warning("drain_cut open_requests=%d", len(self._relay.active))
        else:
            await self._last_words(clients)
        self._relay.cutting = True
        clients.cut()
        await self._relay.tasks.close()
        self._relay.pool.close()
        await self._mirror.close(TAP_CLOSE_S)
        await self._tasks.close()
        self._channel.close()

    async def _last_words(self, clients: Listener) -> None:
        """Let clients take the end of their replies, which is in our buffers."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(LAST_WORDS_S, self._config.drain.timeout_s)):
                while clients.connections:
                    await asyncio.sleep(0.02)


def _pool(upstream: Upstream) -> Pool:
    tls: ssl.SSLContext | None = None
    if upstream.tls:
        tls = ssl.create_default_context(cafile=upstream.tls_ca_file or None)
        if not upstream.tls_verify:
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
    return Pool(
        upstream.host,
        upstream.port,
        tls=tls,
        max_idle=upstream.max_idle_connections,
        idle_s=upstream.idle_connection_s,
        connect_timeout_s=upstream.connect_timeout_s,
    )


def _server_tls(config: Config) -> ssl.SSLContext | None:
    if not config.tls.cert_file:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(config.tls.cert_file, config.tls.key_file)
    return context


async def main(control_fd: int, listen_fd: int) -> None:
    """Run one relay process on inherited sockets."""
    channel = await Channel.over(socket.socket(fileno=control_fd))
    async for message in channel.messages():
        start = msgspec.convert(message, Start)
        logging.getLogger().setLevel(start.config.log.level.upper())
        await Worker(start, channel).run(socket.socket(fileno=listen_fd))
        return
