"""What the live page is told: a frame a second to whoever looks, and the last hours when asked.

Looks at the store are taken every few seconds for the history, all the time: some tenths of a millisecond. Everything
else is done only while somebody looks; one frame serves all who do.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import msgspec

from inferwatch.record import RequestRecord
from inferwatch.settings.live import Live
from inferwatch_collectors import metrics as m
from inferwatch_collectors.exchange import Exchange
from inferwatch_collectors.live import signs, tables
from inferwatch_collectors.live.history import COARSE_POINTS, COARSE_S, History
from inferwatch_collectors.live.prometheus import FILLED, OLDER, Prometheus, PrometheusError
from inferwatch_collectors.live.totals import COLUMNS, Totals, between, read, shown, values
from inferwatch_collectors.metric_store import MetricStore

# Rates and quantiles on the page are of the last so many seconds: long enough to be calm, short enough to be live.
WINDOW_S: Final = 10.0

# A frame is made anew after this.
FRAME_S: Final = 1.0

# Frames older than this are of an earlier visitor: no rate is told across that.
FORGET_S: Final = 3 * WINDOW_S

MAX_UNHAPPY: Final = 50

MEMORY_MINUTES: Final = COARSE_POINTS * COARSE_S / 60

_encode: Final = msgspec.json.Encoder().encode


class _Look(NamedTuple):
    totals: Totals
    tenants: tables.Usage
    models: tables.Usage


class LiveService:
    """Makes frames and keeps the history. `refresh` brings gauges up to date, `open_exchanges` yields what runs."""

    def __init__(
        self,
        store: MetricStore,
        refresh: Callable[[], None],
        open_exchanges: Callable[[], Iterable[Exchange]],
        health: Callable[[], dict[str, Any]],
        prometheus: Prometheus | None = None,
    ) -> None:
        self._store = store
        self._refresh = refresh
        self._open_exchanges = open_exchanges
        self._health = health
        self._prometheus = prometheus or Prometheus(Live())
        self._history = History()
        self._unhappy: deque[dict[str, Any]] = deque(maxlen=MAX_UNHAPPY)
        self._looks: deque[_Look] = deque()
        self._frame = b""

    def record(self, record: RequestRecord) -> None:
        """Take a finished request: those that did not end well are shown."""
        if record.outcome in tables.UNHAPPY:
            self._unhappy.appendleft(tables.unhappy(record))

    def tick(self, now_s: float, unix_s: float) -> None:
        """Take a look for the history, if one is due. `now_s` is CLOCK_MONOTONIC."""
        if self._history.due(now_s):
            self._refresh()
            self._history.take(read(self._store, now_s), unix_s)

    def has(self, minutes: float) -> bool:
        """Whether there can be a history of so many minutes."""
        return 0 < minutes <= MEMORY_MINUTES or (minutes in OLDER and self._prometheus.is_configured)

    async def history(self, minutes: float) -> bytes:
        """Return the last `minutes` as JSON: a list for each column, and what is wrong with Prometheus, if it is asked.

        From memory; what is older, or from before the collector began, from Prometheus. Memory's part waits for none.
        """
        known = self._history.columns(minutes) if minutes <= MEMORY_MINUTES else _no_columns()
        fault, older = "", _no_columns()
        try:
            if self._prometheus.is_configured and minutes in OLDER:
                older = await self._prometheus.columns(minutes)
            elif self._prometheus.is_configured and minutes in FILLED and _is_short(known, minutes):
                older = self._prometheus.columns_so_far(minutes) or older
        except PrometheusError as error:
            fault = str(error)
        return _encode({**joined(older, known), "fault": fault})

    async def alerts(self) -> bytes:
        """Return our active alerts as JSON; `null` if there is no Prometheus to ask."""
        return _encode(await self._prometheus.alerts() if self._prometheus.is_configured else None)

    async def close(self) -> None:
        """Let go of Prometheus."""
        await self._prometheus.close()

    def streams(self, now_ns: int) -> bytes:
        """Return more of what is under way than a frame has, as JSON."""
        return _encode(tables.streams(self._open_exchanges(), now_ns, tables.MOST_STREAMS)[0])

    def frame(self, now_ns: int, unix_s: float) -> bytes:
        """Return what happens now, as JSON; the same to all who ask within a second."""
        now_s = now_ns / 1e9
        while self._looks and now_s - self._looks[-1].totals.at_s > FORGET_S:
            self._looks.clear()
        if not self._frame or not self._looks or now_s - self._looks[-1].totals.at_s >= FRAME_S - 0.05:
            self._frame = self._made(now_ns, unix_s)
        return self._frame

    def _made(self, now_ns: int, unix_s: float) -> bytes:
        self._refresh()
        store = self._store
        new = _Look(read(store, now_ns / 1e9), tables.used_by(store, "tenant"), tables.used_by(store, "model"))
        self._looks.append(new)
        while new.totals.at_s - self._looks[0].totals.at_s > WINDOW_S + FRAME_S:
            self._looks.popleft()
        old = self._looks[0]
        seconds = new.totals.at_s - old.totals.at_s
        streams, running = tables.streams(self._open_exchanges(), now_ns)
        budgets, budget_count = tables.budgets(store)
        gpus, gpu_count = tables.gpus(store)
        signals, signal_count = _signals(store)
        return _encode(
            {
                "unix_s": unix_s,
                "window_s": seconds,
                "health": {**self._health(), "prometheus": self._prometheus.is_configured},
                "totals": shown(new.totals),
                "now": between(old.totals, new.totals),
                "streams": streams,
                "running": running,
                "tenants": tables.busiest(store, "tenant", old.tenants, new.tenants, seconds),
                "models": tables.busiest(store, "model", old.models, new.models, seconds),
                "tenant_count": len(new.tenants),
                "model_count": len(new.models),
                "budgets": budgets,
                "budget_count": budget_count,
                "gpus": gpus,
                "gpu_count": gpu_count,
                "signals": signals,
                "signal_count": signal_count,
                "drift": signs.drift(store),
                "quality": signs.quality(store),
                "unhappy": list(self._unhappy),
            }
        )


def _no_columns() -> dict[str, list[float | None]]:
    return {name: [] for name in ("time", *COLUMNS)}


def _is_short(known: dict[str, list[float | None]], minutes: float) -> bool:
    """Whether memory begins later than the range does."""
    times = [time_s for time_s in known["time"] if time_s is not None]
    return not times or times[-1] - times[0] < minutes * 60 - 3 * COARSE_S


def joined(older: dict[str, list[float | None]], known: dict[str, list[float | None]]) -> dict[str, list[float | None]]:
    """Return both as one history: of `older` what is before `known` begins."""
    first_s = known["time"][0] if known["time"] else None
    keep = sum(first_s is None or (time_s or 0.0) < first_s for time_s in older["time"])
    return {name: older[name][:keep] + known[name] for name in older}


def _signals(store: MetricStore) -> tuple[list[dict[str, Any]], int]:
    """Return how often each tenant's spending was found unusual, the most often first, and how many rows there are."""
    found: list[dict[str, Any]] = [
        {"tenant": labels[0], "kind": labels[1], "count": count}
        for labels, count in values(store, m.SPEND_ANOMALY_SIGNALS)
        if count
    ]
    return sorted(found, key=lambda row: -row["count"])[: tables.MAX_ROWS], len(found)
