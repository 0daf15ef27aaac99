"""What the live page gets from a Prometheus, if one is configured: active alerts, and charts of what is older.

Asked only when the page asks, and then at most once in so many seconds for all who look: an answer is kept, and who
comes while it is on its way waits for the same one. What is asked is fixed here; the browser chooses a range, no query.
Bounded in time and bytes. A Prometheus that is away is words on the page, and nothing else.

State: the client session, the last answer for each range, and the last alerts.
"""

import asyncio
import contextlib
import datetime as dt
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import msgspec

from inferwatch.settings.live import Live
from inferwatch_collectors import metrics as m
from inferwatch_collectors.live.totals import COLUMNS, FAILED

# A page shows nothing for so long; Prometheus' own queries time out after two minutes.
TIMEOUT_S: Final = 10.0
# A chart of 360 points has some 10 kB a column; an alert half a kilobyte.
MAX_BYTES: Final = 2 * 1024 * 1024
MAX_TOKEN_BYTES: Final = 4096

# Rules are evaluated every 15 to 30 s.
ALERTS_KEPT_S: Final = 10.0
MAX_ALERTS: Final = 50
# Who does not answer is not asked again at once by the next page.
FAULT_KEPT_S: Final = 10

# A point is as wide as a pixel or two.
POINTS: Final = 360
# Minutes that the page lets one choose: memory has the first two, unless the collector began later; the others it has
# not. A fixed list, so that a browser cannot make us ask much.
FILLED: Final = frozenset({60.0, 360.0})
OLDER: Final = frozenset({1440.0, 10_080.0, 43_200.0})
RANGES: Final = FILLED | OLDER
# The usual distance of scrapes: nothing is known closer together.
GRID_S: Final = 15
# rate() needs two samples; scrapes are 15 s apart, or 60 s in large fleets.
MIN_WINDOW_S: Final = 120
# Of one page that is opened: more at a time would be in the way of Prometheus' other users.
QUERIES_AT_ONCE: Final = 4

OURS: Final = "Inferwatch"
WATCHDOG: Final = "InferwatchWatchdog"
_SEVERITIES: Final = ("page", "ticket")

_FAILED: Final = "|".join(sorted(FAILED))
_LABELS: Final[Mapping[str, str]] = {
    "prompt_tokens": 'type="prompt"',
    "completion_tokens": 'type="completion"',
    "failed": f'outcome=~"{_FAILED}"',
    "cost": 'basis="gpu"',
}


def _rate(metric: m.Metric, column: str = "", factor: str = "") -> Callable[[str, int], str]:
    def query(labels: str, window_s: int) -> str:
        both = ",".join(filter(None, (labels, _LABELS.get(column, ""))))
        return f"sum(rate({metric.name}{{{both}}}[{window_s}s])){factor}"

    return query


def _quantile(metric: m.Metric, q: float) -> Callable[[str, int], str]:
    return lambda labels, window_s: (
        f"histogram_quantile({q}, sum by (le) (rate({metric.name}_bucket{{{labels}}}[{window_s}s])))"
    )


def _gauge(metric: m.Metric, how: str) -> Callable[[str, int], str]:
    return lambda labels, _: f"{how}({metric.name}{{{labels}}})"


# The page's columns, as `totals.between` makes them of two looks. (labels, window in seconds) -> PromQL
QUERIES: Final[Mapping[str, Callable[[str, int], str]]] = {
    "requests": _rate(m.REQUESTS),
    "failed": _rate(m.REQUESTS, "failed"),
    "prompt_tokens": _rate(m.TOKENS, "prompt_tokens"),
    "completion_tokens": _rate(m.TOKENS, "completion_tokens"),
    "cost": _rate(m.COST_DOLLARS, "cost", " * 3600"),
    "idle_cost": _rate(m.IDLE_COST_DOLLARS, factor=" * 3600"),
    "ttft_p50": _quantile(m.TIME_TO_FIRST_TOKEN, 0.5),
    "ttft_p99": _quantile(m.TIME_TO_FIRST_TOKEN, 0.99),
    "gap_p50": _quantile(m.INTER_TOKEN_LATENCY, 0.5),
    "gap_p99": _quantile(m.INTER_TOKEN_LATENCY, 0.99),
    "in_flight": _gauge(m.REQUESTS_IN_FLIGHT, "sum"),
    "waiting": _gauge(m.ENGINE_REQUESTS_WAITING, "sum"),
    "kv_cache": _gauge(m.ENGINE_KV_CACHE_USAGE, "max"),
    "gpu_utilization": _gauge(m.GPU_UTILIZATION, "avg"),
    "gpu_watts": _gauge(m.GPU_POWER, "sum"),
}


_T = TypeVar("_T")


class _Alert(msgspec.Struct):
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    state: str = ""
    activeAt: dt.datetime | None = None  # noqa: N815 - Prometheus' name


class _Alerts(msgspec.Struct):
    alerts: list[_Alert] = []


class _AlertsAnswer(msgspec.Struct):
    data: _Alerts


class _Series(msgspec.Struct):
    values: list[tuple[float, str]] = []


class _Matrix(msgspec.Struct):
    result: list[_Series] = []


class _MatrixAnswer(msgspec.Struct):
    data: _Matrix


class PrometheusError(Exception):
    """It gave no answer; the message is for the page, and has nothing that a peer sent."""


class Prometheus:
    """One Prometheus, for all pages that are open."""

    def __init__(self, settings: Live, now: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._base = settings.prometheus_url.rstrip("/")
        self._now = now
        self._session: aiohttp.ClientSession | None = None
        self._alerts: tuple[float, dict[str, Any]] | None = None
        # minutes -> (good until, what came)
        self._ranges: dict[float, tuple[float, dict[str, list[float | None]] | PrometheusError]] = {}
        self._asking_alerts = asyncio.Lock()
        self._asking_columns = asyncio.Lock()

    @property
    def is_configured(self) -> bool:
        """Whether there is one to ask."""
        return bool(self._base)

    async def alerts(self) -> dict[str, Any]:
        """Return what the page shows of alerts; a fault is a part of it."""
        async with self._asking_alerts:
            if self._alerts is None or not 0 <= self._now() - self._alerts[0] < ALERTS_KEPT_S:
                try:
                    answer = _decoded(await self._get("/api/v1/alerts", {}), _AlertsAnswer)
                    found = active(answer.data.alerts, self._settings.instance)
                except PrometheusError as error:
                    found = {"rows": [], "count": 0, "firing": 0, "pending": 0, "fault": str(error)}
                self._alerts = (self._now(), found)
            return self._alerts[1]

    async def columns(self, minutes: float) -> dict[str, list[float | None]]:
        """Return `time` (Unix, s) and COLUMNS of the last `minutes`, one of RANGES, by POINTS points or so.

        Raises:
            PrometheusError: there is no answer.
        """
        step_s = max(GRID_S, int(minutes * 60) // POINTS)
        async with self._asking_columns:
            kept = self._ranges.get(minutes)
            if kept is None or self._now() >= kept[0]:
                try:
                    found: dict[str, list[float | None]] | PrometheusError = await self._columns(minutes, step_s)
                except PrometheusError as error:
                    found, step_s = error, FAULT_KEPT_S
                kept = self._ranges[minutes] = (self._now() + step_s, found)
            if isinstance(kept[1], PrometheusError):
                raise kept[1]
            return kept[1]

    async def _columns(self, minutes: float, step_s: int) -> dict[str, list[float | None]]:
        end_s = self._now() // GRID_S * GRID_S
        times = [end_s - step_s * ago for ago in range(int(minutes * 60) // step_s, -1, -1)]
        window_s = max(MIN_WINDOW_S, step_s)
        labels = f"instance={_quoted(self._settings.instance)}" if self._settings.instance else ""
        room = asyncio.Semaphore(QUERIES_AT_ONCE)

        async def one(name: str) -> list[float | None]:
            query = QUERIES[name](labels, window_s)
            parameters = {"query": query, "start": f"{times[0]}", "end": f"{end_s}", "step": f"{step_s}"}
            async with room:
                answer = _decoded(await self._get("/api/v1/query_range", parameters), _MatrixAnswer)
            return on_grid(answer.data.result[0].values if answer.data.result else [], times)

        try:
            async with asyncio.TaskGroup() as group:
                asked = {name: group.create_task(one(name)) for name in COLUMNS}
        except ExceptionGroup as errors:
            told, others = errors.split(PrometheusError)
            if others is not None:
                raise others from None
            assert told is not None
            raise told.exceptions[0] from None
        return {"time": list(times), **{name: task.result() for name, task in asked.items()}}

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _get(self, path: str, parameters: Mapping[str, str]) -> bytes:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
            self._session = aiohttp.ClientSession(
                timeout=timeout, connector=aiohttp.TCPConnector(limit=QUERIES_AT_ONCE)
            )
        try:
            headers = await asyncio.to_thread(_authorization, self._settings.prometheus_token_file)
            async with self._session.get(
                self._base + path, params=parameters, headers=headers, allow_redirects=False
            ) as reply:
                if reply.status != 200:
                    raise PrometheusError(f"it answers {reply.status}")
                body = await reply.content.read(MAX_BYTES + 1)
                while len(body) <= MAX_BYTES and (more := await reply.content.read(MAX_BYTES + 1 - len(body))):
                    body += more
        except TimeoutError:
            raise PrometheusError(f"no answer within {TIMEOUT_S:.0f} s") from None
        except aiohttp.ClientConnectorError as error:
            raise PrometheusError(os.strerror(error.errno) if error.errno else "no connection") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise PrometheusError(type(error).__name__) from None
        if len(body) > MAX_BYTES:
            raise PrometheusError(f"its answer is longer than {MAX_BYTES} bytes")
        return body


def active(alerts: list[_Alert], instance: str) -> dict[str, Any]:
    """Return our alerts of this host, pages first, the oldest first; and whether rules are evaluated at all."""
    rows: list[dict[str, Any]] = []
    watched = False
    for alert in alerts:
        name = alert.labels.get("alertname", "")
        if not name.startswith(OURS):
            continue
        if name == WATCHDOG:
            watched = True
            continue
        if instance and alert.labels.get("instance", instance) != instance:
            continue
        rows.append(
            {
                "alert": name.removeprefix(OURS),
                "severity": alert.labels.get("severity", ""),
                "state": alert.state,
                "since_s": alert.activeAt.timestamp() if alert.activeAt else None,
                "summary": alert.annotations.get("summary", "")[:300],
            }
        )
    rows.sort(key=lambda row: (row["state"] != "firing", _rank(row["severity"]), row["since_s"] or 0.0))
    return {
        "rows": rows[:MAX_ALERTS],
        "count": len(rows),
        "firing": sum(row["state"] == "firing" for row in rows),
        "pending": sum(row["state"] == "pending" for row in rows),
        "fault": "" if watched else "it evaluates none of our rules (alerts/rules)",
    }


def _rank(severity: str) -> int:
    return _SEVERITIES.index(severity) if severity in _SEVERITIES else len(_SEVERITIES)


def on_grid(samples: list[tuple[float, str]], times: list[float]) -> list[float | None]:
    """Return a value, or None, for each of `times`. NaN, as a quantile of nothing is, is unknown as well."""
    known = {}
    for at_s, text in samples:
        with contextlib.suppress(ValueError):
            value = float(text)
            if math.isfinite(value):
                known[round(at_s)] = value
    return [known.get(round(at_s)) for at_s in times]


def _quoted(text: str) -> str:
    """Return a string of PromQL."""
    return msgspec.json.encode(text).decode()


def _decoded(body: bytes, wanted: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=wanted)
    except ValueError:
        raise PrometheusError("its answer is not Prometheus'") from None


def _authorization(path: str) -> dict[str, str]:
    """Blocking.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no text.
    """
    if not path:
        return {}
    with Path(path).open("rb") as file:
        return {"Authorization": f"Bearer {file.readline(MAX_TOKEN_BYTES).strip().decode('ascii')}"}
