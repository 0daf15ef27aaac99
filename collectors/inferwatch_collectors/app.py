"""The collector process: wires tap, booking, ledger, metrics and admin port, and takes them down in order.

At the end: the tap takes no new connections and waits for the relays to leave, what dead relays left open is booked,
the last commit is made and acknowledged, then the rest goes. A task of ours that dies unexpectedly ends the process
with exit code 1; the supervisor starts another, and the relays tell it everything that was not acknowledged.
"""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import time
import traceback
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from inferwatch import __version__
from inferwatch.config import Config, ConfigError, parse_address
from inferwatch.control import Channel
from inferwatch.memory import settle
from inferwatch.record import LateCount, RequestRecord
from inferwatch.secret_file import variable
from inferwatch.tasks import TaskSet
from inferwatch_collectors import dead_relays, through_restart
from inferwatch_collectors import metrics as m
from inferwatch_collectors.access import REFUSALS, Access
from inferwatch_collectors.admin import Admin, Condition, Service, not_ready, relay_stats
from inferwatch_collectors.booking import GRACE_NS
from inferwatch_collectors.canary.asking import Asker, data_url
from inferwatch_collectors.canary.conditions import Present
from inferwatch_collectors.canary.probing import Probing
from inferwatch_collectors.engine.watch import EngineWatch
from inferwatch_collectors.exposition import Exposition
from inferwatch_collectors.ledger import retention
from inferwatch_collectors.ledger.base import Ledger, LedgerInUseError
from inferwatch_collectors.ledger.sqlite import FILE_NAME
from inferwatch_collectors.live.prometheus import Prometheus
from inferwatch_collectors.live.routes import LivePage
from inferwatch_collectors.live.service import LiveService
from inferwatch_collectors.parts import Parts, open_ledger
from inferwatch_collectors.report.building import PriceBasis
from inferwatch_collectors.report.service import UsageService
from inferwatch_collectors.request_log import RequestLog
from inferwatch_collectors.start import CollectorSettings
from inferwatch_collectors.supervision import Supervision
from inferwatch_collectors.upstream_probe import UpstreamWatch

_log: Final = logging.getLogger(__name__)

TICK_S: Final = 0.5

# Garbage is looked for when so many objects more were made than freed. Python's own 700 are forty requests that wait
# for their commit: a search for each such handful costs more than all else of a commit, and finds nothing, because
# there is hardly a cycle in here. The older generations are looked at after ten and a hundred times as many.
GC_OBJECTS: Final = 20_000

# Told to stop, the relays are gone already, or will not go; the supervisor kills after 10 s.
STOP_DRAIN_S: Final = 3.0
STOP_COMMIT_S: Final = 4.0
STOP_LOG_S: Final = 0.5
# Whoever takes longer has lost it; the supervisor counts the seconds.
STOP_EXPORT_S: Final = 1.0


async def run(settings: CollectorSettings, channel: Channel | None = None) -> int:
    """Collect until told to stop. Returns the exit code.

    Raises:
        OSError: a socket cannot be bound; `filename` names the path.
    """
    try:
        ledger = await open_ledger(settings)
    except LedgerInUseError as error:
        _log.error("ledger_in_use %s", error)
        return 1
    try:
        collector = Collector(settings, ledger, channel)
    except ConfigError as error:  # the supervisor has checked it; keys or environment were changed since
        _log.error("cannot_export reason=%s", error)
        await ledger.close()
        return 1
    try:
        return await collector.run()
    finally:
        await collector.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_COMMIT_S):
                await ledger.close()


class Collector:
    """Everything in one process, and the order in which it starts and stops."""

    def __init__(self, settings: CollectorSettings, ledger: Ledger, channel: Channel | None) -> None:
        self._settings = settings
        self._config = settings.config
        self._ledger = ledger
        self._supervised = channel is not None
        self._supervision = Supervision(channel, self, settings.shown_config)
        watchers = (("engine", self._compare), ("live", self._show), ("log", self._write_line))
        self._parts = Parts(
            settings,
            ledger,
            watchers,
            in_force=lambda: self._config,
            engine=lambda: self._engine.engine,
            said=lambda: self._engine.said,
            ask=lambda: self._engine.ask_soon(),  # noqa: PLW0108 - it is made below
        )
        self._live = LiveService(
            self._parts.store, self._refresh, self._parts.open_exchanges, self._health, Prometheus(self._config.live)
        )
        self._request_log = RequestLog(self._parts.writer) if settings.config.log.requests else None
        file = Path(settings.state_dir) / FILE_NAME if ledger.durable else None
        self._pricing = self._parts.recorder.pricing
        self._usage = UsageService(
            file, lambda: PriceBasis(self._pricing.lists.book or None, self._pricing.lists.compared), ledger.fault
        )
        self._access = Access(settings.access)
        for reason in REFUSALS:
            self._parts.vitals.count(m.ADMIN_REFUSED, (reason,), partial(self._access.refused.__getitem__, reason))
        self._admin = Admin(self._service(), LivePage(self._live, self._access), self._access)
        self._draining = False
        self._orphaned = False  # the supervisor is gone
        self._stop = asyncio.Event()
        self._exit_code = 0
        self._tasks = TaskSet(self._task_failed)
        self._upstream = UpstreamWatch(settings.config.upstream.url, self._tasks)
        self._engine = EngineWatch(self._parts.store, self, self._tasks, self._late, self._parts.drift)
        self._vouched_ns = time.monotonic_ns() if settings.status.get("data_path_alive") else 0
        self.take_status(settings.status)

    async def run(self) -> int:
        """Start, serve until told to stop, and stop."""
        loop = asyncio.get_running_loop()
        # Spool files and start-up: one at a time. Each idle thread would keep memory that nobody else can use.
        loop.set_default_executor(ThreadPoolExecutor(max_workers=1, thread_name_prefix="files"))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.set_exception_handler(self._callback_failed)
        await through_restart.take_up(self._parts, self._ledger)
        self._engine.start(self._config, self._upstream.probe.name)
        await self._pricing.take_up(self._config.prices)
        committing = self._tasks.start(self._parts.journal.run(), "journal")
        self._parts.follow_counts()
        if self._parts.otlp is not None:
            self._parts.otlp.start()
        await self._parts.tap.start()
        self._parts.budgets.start(self._tasks)
        # Before the admin port: from then on until `ready` the supervisor's stand-in answers there, too.
        await self._parts.budgets.ready()
        await self._admin.start(self._site)
        self._tasks.spawn(self._parts.spool.run(), "spool")
        self._upstream.start()
        if self._config.canary.enabled:
            self._tasks.spawn(self._canary().run(), "canary")
        if self._parts.embedder is not None:
            self._tasks.spawn(self._parts.embedder.run(), "embeddings")
        self._tasks.spawn(self._parts.gpu.run(), "gpu")
        self._tasks.spawn(self._tick(), "tick")
        self._tasks.spawn(dead_relays.watch(self._parts.booking, self._parts.journal), "dead_relays")
        self._tasks.spawn(retention.keep(self._ledger), "retention")
        if self._supervised:
            self._tasks.spawn(self._supervision.listen(), "control")
            self._tasks.spawn(self._supervision.beat(), "beat")
            self._supervision.ready()
        settle()
        gc.set_threshold(GC_OBJECTS)
        _log.info("collector_ready durable=%s", self._ledger.durable)
        await self._stop.wait()
        await self._shut_down(committing)
        return self._exit_code

    async def close(self) -> None:
        """Release what `run` holds, however it ended."""
        await self._parts.tap.disconnect()
        await self._admin.close()
        await self._live.close()
        await self._tasks.close()
        if self._request_log is not None:
            self._request_log.flush()
        await asyncio.to_thread(self._parts.writer.close, STOP_LOG_S)
        if self._parts.otlp is not None:
            await asyncio.to_thread(self._parts.otlp.close, STOP_EXPORT_S)
        self._parts.budgets.close()
        if self._parts.feedback is not None:
            self._parts.feedback.close()
        self._usage.close()
        self._supervision.close()

    # --- start and stop

    def _canary(self) -> Probing:
        settings, canary = self._settings, self._config.canary
        url = data_url(settings.data_host, settings.data_port, tls=bool(self._config.tls.cert_file))
        present = Present(
            store=self._parts.store,
            engine_watch=self._engine,
            upstream=lambda: self._upstream.probe,
            draining=lambda: self._draining,
            has_port=bool(settings.data_port),
        )
        asker = Asker(canary, url, secret=self._parts.secret, key=variable(canary.key_env))
        return Probing(self._parts.canary, asker, present, self._parts.recorder.observer_error)

    async def _shut_down(self, committing: asyncio.Task[None]) -> None:
        self._draining = True
        if self._orphaned:
            await self._admin.close()  # its port is the next supervisor's, however long our relays still take
        await self._parts.tap.drain(self._config.drain.timeout_s if self._orphaned else STOP_DRAIN_S)
        await dead_relays.book(self._parts.booking, self._parts.journal, time.monotonic_ns() + GRACE_NS)
        self._parts.gpu.close()
        self._parts.gpu.refresh()
        self._parts.meter.tick(time.monotonic_ns(), time.time_ns(), self._parts.tap.links(), force=True)
        await through_restart.write_down(self._parts)
        await self._parts.journal.flush(STOP_COMMIT_S)
        await self._parts.budgets.part()
        await self._parts.tap.disconnect()
        self._parts.vitals.refresh()
        self._parts.journal.close()
        _, late = await asyncio.wait([committing], timeout=STOP_COMMIT_S)
        if late or self._parts.journal.committed < self._parts.journal.position:
            _log.error(
                "ledger_last_commit_failed waiting=%d", self._parts.journal.position - self._parts.journal.committed
            )

    def _site(self, runner: web.AppRunner) -> web.BaseSite:
        if self._settings.admin_fd >= 0:
            return web.SockSite(runner, socket.socket(fileno=self._settings.admin_fd))
        return web.TCPSite(runner, *parse_address("admin", self._config.admin))

    def _task_failed(self, name: str, error: BaseException) -> None:
        # The type and the place, not the message: it may quote what a client sent.
        place = traceback.extract_tb(error.__traceback__)[-1:]
        _log.error("task_failed name=%s error=%s at=%s", name, type(error).__name__, place)
        self._exit_code = 1
        self._stop.set()

    def _callback_failed(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A connection of a relay or a scraper ended in a fault of ours. The peer comes again; we count."""
        error = context.get("exception")
        place = traceback.extract_tb(error.__traceback__)[-1:] if error is not None else []
        self._parts.recorder.observer_error("callback")
        # The type and the place, not the message: it may quote what a client sent.
        _log.error("callback_failed error=%s at=%s", type(error).__name__, place)

    # --- what the parts need of each other

    def _compare(self, record: RequestRecord) -> None:
        self._engine.record(record)

    def _show(self, record: RequestRecord) -> None:
        self._live.record(record)

    def _write_line(self, record: RequestRecord) -> None:
        if self._request_log is not None:
            self._request_log.add(record)

    def _late(self, late: LateCount) -> None:
        """Book what the engine's counters tell of a request that was hung up on: in the step in which they are read."""
        priced = self._parts.recorder.late(late, now_s=time.monotonic())
        self._parts.journal.add_late(priced)
        self._parts.budgets.meter.late(priced)

    def _service(self) -> Service:
        return Service(
            exposition=Exposition(self._parts.store),
            refresh=self._refresh,
            flush=self._parts.journal.flush,
            condition=self._condition,
            shown_config=lambda: self._supervision.shown_config,
            reload=self._supervision.ask_for_reload,
            usage=self._usage.answer,
            drift=self._parts.drift,
            feedback=self._parts.feedback,
            canary=self._parts.canary,
        )

    def _condition(self) -> Condition:
        # The relays were there before us: until they have reconnected, the supervisor's word counts as a report.
        stamps = [*relay_stats(self._parts.tap.links()), self._vouched_ns]
        probe = self._upstream.probe
        return Condition([stamp for stamp in stamps if stamp], probe.name, probe.up, self._draining)

    def _health(self) -> dict[str, Any]:
        condition = self._condition()
        return {
            "version": __version__,
            "upstream": condition.upstream,
            "guarded": self._access.is_guarded,
            "faults": not_ready(condition, time.monotonic_ns()),
        }

    def _refresh(self) -> None:
        vitals = self._parts.vitals
        vitals.refresh()
        self._parts.gpu.refresh()
        self._engine.refresh()
        self._parts.budgets.refresh()
        self._parts.anomalies.refresh()
        self._parts.drift.refresh()
        self._parts.canary.refresh()
        vitals.gauge(m.LEDGER_PENDING, self._parts.journal.position - self._parts.journal.committed)
        vitals.gauge(m.LEDGER_DURABLE, int(self._ledger.durable and not self._parts.journal.failing))
        vitals.gauge(m.DRAINING, int(self._draining))
        if self._parts.otlp is not None:
            self._parts.otlp.refresh(vitals)
        probe = self._upstream.probe
        vitals.gauge(m.UPSTREAM_UP, None if probe.up is None else int(probe.up), (probe.name,))

    # --- what is open: `engine.monitor.Traffic`

    def open_ids(self) -> AbstractSet[str]:
        """Return the ids of the requests that are open and were not booked before."""
        return self._parts.recorder.open_ids()

    def told_ns(self) -> int:
        """Return the time up to which all that relays saw has been applied; 0 if one is missing."""
        links = self._parts.tap.links()
        return min(link.told_ns for link in links) if len(links) >= self._settings.config.workers else 0

    # --- background

    async def _tick(self) -> None:
        while True:
            due_s = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            now_s = time.monotonic()
            self._parts.vitals.lagged(now_s, now_s - due_s)
            now_ns = time.monotonic_ns()
            now_s = now_ns / 1e9
            self._engine.reachable(self._upstream.probe.up)
            self._parts.meter.tick(now_ns, time.time_ns(), self._parts.tap.links())
            self._parts.recorder.tick(now_s=now_s)
            self._parts.anomalies.tick(now_s, time.time())
            self._parts.drift.tick(now_s, time.time(), through_restart.slept_s())
            self._parts.canary.tick(now_s, time.time(), through_restart.slept_s())
            self._parts.quality.tick(now_s)
            self._parts.vitals.refresh()
            self._live.tick(now_s, time.time())
            if self._parts.otlp is not None:
                self._export(now_s)

    def _export(self, now_s: float) -> None:
        assert self._parts.otlp is not None
        self._parts.otlp.tick(now_s, self._parts.recorder.open_ids, self._refresh)

    # --- the supervisor: `supervision.Listener`

    def stop(self, *, orphaned: bool) -> None:
        """Begin to stop."""
        self._orphaned = self._orphaned or orphaned
        self._stop.set()

    def reconfigure(self, config: Config) -> None:
        """Take up a new configuration."""
        old, self._config = self._config, config
        if config.prices != old.prices or config.prices.catalogue_file:
            self._tasks.spawn(self._pricing.take_up(config.prices), "prices")
        if gone := self._upstream.use(config.upstream.url):
            self._parts.vitals.gauge(m.UPSTREAM_UP, None, (gone,))
        self._engine.reconfigure(config, self._upstream.probe.name)
        self._parts.budgets.reconfigure(config, self._tasks)
        if config.log.requests != (self._request_log is not None):
            if self._request_log is not None:
                self._request_log.flush()
            self._request_log = RequestLog(self._parts.writer) if config.log.requests else None
        logging.getLogger().setLevel(config.log.level.upper())

    def admit(self, digests: Mapping[str, str]) -> None:
        """Take up other tokens for the admin port."""
        self._access.use(digests)
        if self._parts.feedback is not None:
            self._parts.feedback.use(digests)

    def take_status(self, status: Mapping[str, Any]) -> None:
        """Learn from the supervisor how the data path is."""
        self._draining = self._draining or bool(status.get("draining"))
        if "reload_ok" in status:
            ok = bool(status["reload_ok"])
            self._parts.vitals.gauge(m.CONFIG_RELOAD_SUCCESSFUL, int(ok))
            self._parts.vitals.gauge(m.CONFIG_RELOAD_TIMESTAMP, status.get("reload_unix"))
