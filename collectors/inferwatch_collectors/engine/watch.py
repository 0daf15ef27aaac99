"""The one engine that is watched at present: made from the configuration, made anew when that changes."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from inferwatch.config import Config
from inferwatch.engines import AUTO
from inferwatch.record import LateCount, RequestRecord
from inferwatch.secret_file import variable
from inferwatch.tasks import TaskSet
from inferwatch_collectors.engine.monitor import EngineMonitor, Traffic
from inferwatch_collectors.engine.said import EngineSaid, Listener, Said
from inferwatch_collectors.engine.scraper import Target
from inferwatch_collectors.metric_store import MetricStore

# (label, what to scrape, how often); None: nothing
_Plan = tuple[str, Target, float] | None


class Changes(Listener, Protocol):
    """Who must not take one engine for another."""

    def doubt(self) -> None:
        """There is a sign that it was started anew, or is another one."""


class EngineWatch:
    """Holds the monitor and its task. Nothing happens before `start`."""

    def __init__(
        self,
        store: MetricStore,
        traffic: Traffic,
        tasks: TaskSet,
        on_late: Callable[[LateCount], None] | None = None,
        changes: Changes | None = None,
    ) -> None:
        """`on_late`: see `EngineMonitor`; `changes`: who judges by what the engine is, if drift is watched."""
        self._on_late = on_late
        self._changes = changes
        self._up: bool | None = None
        self._store = store
        self._traffic = traffic
        self._tasks = tasks
        self._plan: _Plan = None
        self._config: Config | None = None
        self._said: EngineSaid | None = None
        self._asking: asyncio.Task[None] | None = None
        self._monitor: EngineMonitor | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, config: Config, upstream: str) -> None:
        """Watch the engine of `config`. Once, after the store was restored and before the first record.

        `upstream` is the label: `host:port`.
        """
        self._watch(_plan(config, upstream))
        self._ask(config)

    def reconfigure(self, config: Config, upstream: str) -> None:
        """Watch another engine, or the same in another way, if `config` says so."""
        self._ask(config)
        plan = _plan(config, upstream)
        if plan == self._plan:
            return
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        self._watch(plan)

    @property
    def engine(self) -> str:
        """What the engine is: as configured, else as its metrics say; "" before it was met."""
        if self._config is not None and self._config.upstream.engine != AUTO:
            return self._config.upstream.engine
        return "" if self._monitor is None else self._monitor.engine

    @property
    def said(self) -> Said:
        """What the engine says of itself; nothing before it was asked, and without a canary and drift."""
        return Said() if self._said is None else self._said.said

    def ask_soon(self) -> None:
        """Have the engine asked at once what it is."""
        if self._said is not None:
            self._said.ask_soon()

    def reachable(self, up: bool | None) -> None:
        """Take whether the engine accepts connections at present. Each time it is looked at."""
        if None not in (up, self._up) and up != self._up:
            self._doubt()
        self._up = up

    def _doubt(self) -> None:
        if self._changes is not None:
            self._changes.doubt()

    def record(self, record: RequestRecord) -> None:
        """Take a request, in the step that adds it to the journal."""
        if self._monitor is not None:
            self._monitor.record(record)

    def refresh(self) -> None:
        """Let go of what is no longer known. Right before an exposition."""
        if self._monitor is not None:
            self._monitor.refresh()

    def _ask(self, config: Config) -> None:
        """Ask the engine who it is, for the canary and for drift, which compare it with what it was."""
        if self._config is not None and self._config.upstream == config.upstream:
            return
        if self._config is not None:
            self._doubt()
        self._config = config
        if self._asking is not None:
            self._asking.cancel()
            self._said = self._asking = None
        listener = self._changes if config.drift.enabled else None
        if config.canary.enabled or listener is not None:
            self._said = EngineSaid(config, variable(config.canary.key_env), listener)
            self._asking = self._tasks.start(self._said.run(), "engine_said")

    def _watch(self, plan: _Plan) -> None:
        self._plan = plan
        if plan is None:
            return
        upstream, target, interval_s = plan
        self._monitor = EngineMonitor(
            self._store,
            upstream,
            target,
            self._traffic,
            interval_s=interval_s,
            on_late=self._on_late,
            on_restart=self._doubt,
        )
        self._monitor.resume()
        self._task = self._tasks.start(self._monitor.run(), "engine_metrics")


def _plan(config: Config, upstream: str) -> _Plan:
    section, engine = config.engine_metrics, config.upstream
    if not section.enabled:
        return None
    target = Target(
        upstream_url=engine.url,
        url=section.url,
        engine=engine.engine,
        timeout_s=section.timeout_s,
        max_bytes=section.max_bytes,
        tls_ca_file=engine.tls_ca_file,
        tls_verify=engine.tls_verify,
    )
    return upstream, target, section.interval_s
