"""What the live page gets from a Prometheus, if one is configured: active alerts, and charts of what is older.

Asked only when the page asks, and then at most once in so many seconds for all who look: an answer is kept, and who
comes while it is on its way waits for the same one. A range that memory has a part of waits for nobody: it is filled
when the answer is there. What is asked is fixed here; the browser chooses a range, no query.
Bounded in time and bytes. A Prometheus that is away is words on the page, and nothing else.

State: the client session, the last answer for each range, the last alerts, and what is asked for ranges to be filled.
"""

import asyncio
import contextlib
import datetime as dt
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

import aiohttp
import msgspec

from inferwatch.config import ConfigError
from inferwatch.http_words import why
from inferwatch.secret_file import bearer
from inferwatch.settings.live import Live
from inferwatch.tasks import TaskSet
from inferwatch_collectors import metrics as m
from inferwatch_collectors.live.totals import COLUMNS, FAILED

# A page shows nothing for so long; Prometheus' own queries time out after two minutes.
TIMEOUT_S: Final = 10.0
# A chart of 360 points has some 10 kB a column; an alert half a kilobyte.
MAX_BYTES: Final = 2 * 1024 * 1024

# Rules are evaluated every 15 to 30 s.
ALERTS_KEPT_S: Final = 10.0
MAX_ALERTS: Final = 50
# Who does not answer is not asked again at once by the next page.
FAULT_KEPT_S: Final = 10
# What is old is shown until the new answer is there, for as long as it would not be seen to be old.
STALE_S: Final = 60.0

# A point is as wide as a pixel or two.
POINTS: Final = 360
# Minutes that the page lets one choose: memory has the first two, unless the collector began later; the others it has
# not. A fixed list, so that a browser cannot make us ask much.
FILLED: Final = frozenset({60.0, 360.0})
OLDER: Final = frozenset({1440.0, 10_080.0, 43_200.0})
# The usual distance of scrapes: nothing is known closer together.
GRID_S: Final = 15
# rate() needs two samples; scrapes are 15 s apart, or 60 s in large fleets.
MIN_WINDOW_S: Final = 120
# Of all that is asked for charts: more at a time would be in the way of Prometheus' other users.
QUERIES_AT_ONCE: Final = 4

_FILE_KEY: Final = "live.prometheus_token_file"

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


Columns = dict[str, list[float | None]]


class _Kept(NamedTuple):
    """What came for a range, and until when it is good; CLOCK_MONOTONIC."""

    until_s: float
    found: Columns | PrometheusError


class Prometheus:
    """One Prometheus, for all pages that are open."""

    def __init__(
        self, settings: Live, now: Callable[[], float] = time.time, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`now` is what charts end at, Unix time; `clock` says how long answers are kept, whatever happens to that."""
        self._settings = settings
        self._base = settings.prometheus_url.rstrip("/")
        self._now = now
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._alerts: tuple[float, dict[str, Any]] | None = None
        self._ranges: dict[float, _Kept] = {}  # by minutes
        self._asking_alerts = asyncio.Lock()
        self._asking = {minutes: asyncio.Lock() for minutes in FILLED | OLDER}
        self._room = asyncio.Semaphore(QUERIES_AT_ONCE)
        self._tasks = TaskSet(_not_filled)

    @property
    def is_configured(self) -> bool:
        """Whether there is one to ask."""
        return bool(self._base)

    async def alerts(self) -> dict[str, Any]:
        """Return what the page shows of alerts; a fault is a part of it."""
        async with self._asking_alerts:
            if self._alerts is None or self._clock() - self._alerts[0] >= ALERTS_KEPT_S:
                try:
                    answer = _decoded(await self._get("/api/v1/alerts", {}, await self._headers()), _AlertsAnswer)
                    found = active(answer.data.alerts, self._settings.instance)
                except PrometheusError as error:
                    found = {"rows": [], "count": 0, "firing": 0, "pending": 0, "fault": str(error)}
                self._alerts = (self._clock(), found)
            return self._alerts[1]

    async def columns(self, minutes: float) -> Columns:
        """Return `time` (Unix, s) and COLUMNS of the last `minutes`, one of FILLED or OLDER, by POINTS points or so.

        Raises:
            PrometheusError: there is no answer.
        """
        async with self._asking[minutes]:
            kept = self._ranges.get(minutes)
            if kept is None or self._clock() >= kept.until_s:
                kept = self._ranges[minutes] = await self._asked(minutes)
        if isinstance(kept.found, PrometheusError):
            raise kept.found
        return kept.found

    def columns_so_far(self, minutes: float) -> Columns | None:
        """Return the same at once, None while nothing is known; what is old is asked for meanwhile.

        Raises:
            PrometheusError: there was no answer.
        """
        kept, now_s = self._ranges.get(minutes), self._clock()
        if (kept is None or now_s >= kept.until_s) and not self._asking[minutes].locked():
            self._tasks.spawn(self._fill(minutes), "prometheus")
        if kept is None or now_s >= kept.until_s + STALE_S:
            return None
        if isinstance(kept.found, PrometheusError):
            raise kept.found
        return kept.found

    async def _fill(self, minutes: float) -> None:
        with contextlib.suppress(PrometheusError):  # kept, and told to who asks next
            _ = await self.columns(minutes)

    async def _asked(self, minutes: float) -> _Kept:
        step_s = max(GRID_S, int(minutes * 60) // POINTS)
        try:
            return _Kept(self._clock() + step_s, await self._columns(minutes, step_s))
        except PrometheusError as error:
            return _Kept(self._clock() + FAULT_KEPT_S, error)

    async def _columns(self, minutes: float, step_s: int) -> Columns:
        end_s = self._now() // GRID_S * GRID_S
        times = [end_s - step_s * ago for ago in range(int(minutes * 60) // step_s, -1, -1)]
        window_s = max(MIN_WINDOW_S, step_s)
        labels = f"instance={_quoted(self._settings.instance)}" if self._settings.instance else ""
        headers = await self._headers()

        async def one(name: str) -> list[float | None]:
            query = QUERIES[name](labels, window_s)
            parameters = {"query": query, "start": f"{times[0]}", "end": f"{end_s}", "step": f"{step_s}"}
            async with self._room:
                answer = _decoded(await self._get("/api/v1/query_range", parameters, headers), _MatrixAnswer)
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
        await self._tasks.close()
        if self._session is not None:
            await self._session.close()

    async def _headers(self) -> dict[str, str]:
        """Return the header with the token, read anew for each ask: it may be changed while we run."""
        path = self._settings.prometheus_token_file
        if not path:
            return {}
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await asyncio.to_thread(bearer, _FILE_KEY, path)
        except TimeoutError:  # a folder of another host
            raise PrometheusError(f"{_FILE_KEY}: not read within {TIMEOUT_S:.0f} s") from None
        except ConfigError as error:
            raise PrometheusError(str(error)) from None

    async def _get(self, path: str, parameters: Mapping[str, str], headers: Mapping[str, str]) -> bytes:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
            # One more than charts take: alerts do not wait for them.
            connector = aiohttp.TCPConnector(limit=QUERIES_AT_ONCE + 1)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=connector)
        try:
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
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise PrometheusError(why(error)) from None
        if len(body) > MAX_BYTES:
            raise PrometheusError(f"its answer is longer than {MAX_BYTES} bytes")
        return body


def _not_filled(name: str, error: BaseException) -> None:
    """A fault of ours; it is counted where those of connections are."""
    asyncio.get_running_loop().call_exception_handler({"message": name, "exception": error})


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
