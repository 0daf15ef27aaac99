"""The admin port: metrics, health, and a few words about this process. Never content, never a key.

What a scrape has seen is durable: values are collected, then the ledger commits, then the text is sent. So a counter
never goes back, not even over `kill -9`, and no dashboard shows the spike that Prometheus makes of a counter reset. If
the ledger fails, the scrape goes out all the same. Values are collected family by family, the text is made in a thread.
"""

import asyncio
import gzip
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import msgspec
from aiohttp import web
from prometheus_client import Metric as PrometheusFamily
from prometheus_client import ProcessCollector

from inferwatch import __version__, canary
from inferwatch_collectors import exposition, malformed
from inferwatch_collectors.access import Access
from inferwatch_collectors.canary.watch import CanaryWatch
from inferwatch_collectors.doorkeeper import Doorkeeper
from inferwatch_collectors.drift.watch import DriftWatch
from inferwatch_collectors.drift_report import as_text, joined, of_tenant
from inferwatch_collectors.exposition import Exposition
from inferwatch_collectors.feedback.service import MAX_BODY_BYTES, FeedbackService
from inferwatch_collectors.live.routes import LivePage
from inferwatch_collectors.open_requests import Link
from inferwatch_collectors.report.service import Answer
from inferwatch_collectors.turns import Turn

# A relay reports every second.
RELAY_SILENT_NS: Final = 5_000_000_000

# A scrape waits this long for the disk at most; the usual scrape times out after 10 s.
FLUSH_TIMEOUT_S: Final = 1.0

# Prometheus in a pair, a person with curl, and one to spare. Each holds the whole text in memory.
MAX_SCRAPES: Final = 4

# zlib's own default spends twice the time for 5 % less.
GZIP_LEVEL: Final = 3

# Of votes: too many at once, or a disk that fails.
RETRY_LATER: Final = frozenset({429, 503})

# The supervisor reads one file and tells its children.
RELOAD_TIMEOUT_S: Final = 10.0

DRIFT_FORMATS: Final = ("json", "text")

INDEX: Final = """Inferwatch admin port
  GET  /           the live page, to browsers
  GET  /metrics    Prometheus and OpenMetrics
  GET  /healthz    200 while the data path is alive
  GET  /readyz     200 while new requests can be served
  GET  /config     the configuration in force, redacted
  GET  /usage      what was used and what it cost: ?from=&to=&by=&tenant=&top=&format=
  GET  /drift      what is unlike before: ?format=json or text, &tenant= of this one alone
  POST /drift/pin  ?model=&tenant=: take what was learnt for the reference, or begin to learn another one
  POST /feedback   a vote on an answer, with the token of `feedback`
  POST /-/reload   read the configuration anew
  GET  /version
Where a token is asked for (all but /healthz, /readyz and /feedback): `Authorization: Bearer TOKEN`, browsers sign in at
/login.
"""


class Condition(NamedTuple):
    """What health and readiness are judged by."""

    relay_stats_ns: Sequence[int]  # when each connected relay last reported; 0: not yet
    upstream: str  # host:port
    upstream_up: bool | None  # None: not tried yet
    draining: bool


class Service(NamedTuple):
    """What the admin port needs from the collector."""

    exposition: Exposition
    refresh: Callable[[], None]  # bring self-metrics up to date
    flush: Callable[[float], Awaitable[bool]]  # commit within so many seconds
    condition: Callable[[], Condition]
    shown_config: Callable[[], Mapping[str, Any]]
    reload: Callable[[], Awaitable[str]]  # returns the fault, or ""
    usage: Callable[[Mapping[str, str], float], Awaitable[Answer]] | None = None  # parameters, Unix time
    drift: DriftWatch | None = None
    feedback: FeedbackService | None = None
    canary: CanaryWatch | None = None


def relay_stats(links: Iterable[Link]) -> list[int]:
    """Return the stamps for `Condition.relay_stats_ns`."""
    return [link.stats_ns for link in links]


def not_healthy(condition: Condition, now_ns: int) -> list[str]:
    """Return why the data path is not alive; empty if it is. Depends on nothing but the relays."""
    if not condition.relay_stats_ns:
        return ["no relay is connected"]
    silent_ns = now_ns - max(condition.relay_stats_ns)
    if silent_ns > RELAY_SILENT_NS:
        return ["no relay has reported in the last 5 s"]
    return []


def not_ready(condition: Condition, now_ns: int) -> list[str]:
    """Return why no new requests should be sent here; empty if they should."""
    reasons = not_healthy(condition, now_ns)
    if condition.draining:
        reasons.append("draining")
    if condition.upstream_up is None:
        reasons.append(f"upstream {condition.upstream} not tried yet")
    elif not condition.upstream_up:
        reasons.append(f"upstream {condition.upstream} does not accept connections")
    return reasons


class Admin:
    """The routes."""

    def __init__(self, service: Service, page: LivePage | None = None, access: Access | None = None) -> None:
        self._service = service
        self._doorkeeper = Doorkeeper(access or Access())
        self._page = page
        self._process: ProcessCollector | None = None
        self._scrapes = 0
        # One of our own: a folder that hangs, read in the loop's default threads, must not hold up scrapes.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="exposition")
        self._runner: web.AppRunner | None = None

    async def start(self, make_site: Callable[[web.AppRunner], web.BaseSite]) -> None:
        """Serve on the site that `make_site` returns.

        Raises:
            OSError: it cannot be listened on.
        """
        malformed.tell_in_one_line()
        # Of the routes that read a body, votes have the longest.
        app = web.Application(middlewares=[self._doorkeeper.check], client_max_size=MAX_BODY_BYTES)
        app.add_routes(
            [
                web.get("/", self._index),
                web.get("/metrics", self._metrics),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/config", self._config),
                web.get("/usage", self._usage),
                web.get("/drift", self._drift),
                web.post("/drift/pin", self._pin),
                web.post("/feedback", self._feedback),
                web.post("/-/reload", self._reload),
                web.get("/version", self._version),
                *self._doorkeeper.routes(),
                *(self._page.routes() if self._page is not None else ()),
            ]
        )
        # Probes and scrapes are short; a hanging one must not hold up the end.
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        await make_site(self._runner).start()

    async def close(self) -> None:
        """Stop serving."""
        if self._runner is not None:
            await self._runner.cleanup()
        self._thread.shutdown(wait=False)

    async def _index(self, request: web.Request) -> web.Response:
        if self._page is not None and "text/html" in request.headers.get("Accept", ""):
            return await self._page.page()
        return web.Response(text=INDEX, headers={"Vary": "Accept"})

    async def _metrics(self, request: web.Request) -> web.Response:
        if self._scrapes >= MAX_SCRAPES:
            return web.Response(status=503, text=f"{MAX_SCRAPES} scrapes are under way\n")
        self._scrapes += 1
        try:
            self._service.refresh()
            families: list[PrometheusFamily] = []
            turn = Turn()
            for family in self._service.exposition.collect():
                families.append(family)
                await turn.over()
            await self._service.flush(FLUSH_TIMEOUT_S)
            compress = "gzip" in request.headers.get("Accept-Encoding", "")
            accept = request.headers.get("Accept", "")
            body, content_type = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._encode, families, accept, compress
            )
        finally:
            self._scrapes -= 1
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if compress:
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=body, headers=headers)

    def _encode(self, families: list[PrometheusFamily], accept: str, compress: bool) -> tuple[bytes, str]:
        """Runs in a thread, for the time it takes and for the files in /proc: nothing here touches the store."""
        self._process = self._process or ProcessCollector(registry=None)
        families.extend(self._process.collect())
        body, content_type = exposition.encode(families, accept)
        return (gzip.compress(body, GZIP_LEVEL) if compress else body), content_type

    async def _healthz(self, _: web.Request) -> web.Response:
        return _verdict(not_healthy(self._service.condition(), time.monotonic_ns()))

    async def _readyz(self, _: web.Request) -> web.Response:
        return _verdict(not_ready(self._service.condition(), time.monotonic_ns()))

    async def _config(self, _: web.Request) -> web.Response:
        return _json(200, self._service.shown_config())

    async def _usage(self, request: web.Request) -> web.Response:
        if self._service.usage is None:
            return web.Response(status=503, text="there is no ledger to report from\n")
        answer = await self._service.usage(dict(request.query), time.time())
        return web.Response(status=answer.status, text=answer.text, content_type=answer.content_type)

    async def _drift(self, request: web.Request) -> web.Response:
        if self._service.drift is None:
            return web.Response(status=503, text="there is no drift to report of\n")
        probed = None if self._service.canary is None else self._service.canary.report()
        report = joined(self._service.drift.report(), probed)
        name = request.query.get("format", "json")
        if name not in DRIFT_FORMATS:
            return web.Response(status=400, text=f"format: expected one of {', '.join(DRIFT_FORMATS)}\n")
        if "tenant" in request.query:
            report = of_tenant(report, request.query["tenant"])
        if name == "text":
            return web.Response(text=as_text(report))
        return _json(200, report)

    async def _pin(self, request: web.Request) -> web.Response:
        if self._service.drift is None:
            return web.Response(status=503, text="there is no drift to report of\n")
        model, tenant = request.query.get("model", ""), request.query.get("tenant", "")
        if tenant == canary.TENANT and self._service.canary is not None:
            done, said = self._service.canary.pin(model)
        else:
            done, said = self._service.drift.pin(model, tenant)
        return web.Response(status=200 if done else 409, text=f"{said}\n")

    async def _feedback(self, request: web.Request) -> web.Response:
        feedback = self._service.feedback
        if feedback is None:
            return web.Response(status=404, text="no votes are taken: feedback.token_file is not set\n")
        if not feedback.may(request.headers):
            return web.Response(status=401, text="expected the token\n", headers={"WWW-Authenticate": "Bearer"})
        reply = await feedback.take(await request.read(), time.time_ns(), time.monotonic())
        response = _json(reply.status, {"result": reply.result} | ({"reason": reply.text} if reply.text else {}))
        if reply.status in RETRY_LATER:
            response.headers["Retry-After"] = "1"
        return response

    async def _version(self, _: web.Request) -> web.Response:
        return _json(200, {"version": __version__})

    async def _reload(self, _: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(RELOAD_TIMEOUT_S):
                fault = await self._service.reload()
        except TimeoutError:
            fault = f"no answer from the supervisor within {RELOAD_TIMEOUT_S:.0f} s"
        return web.Response(status=500, text=f"{fault}\n") if fault else web.Response(text="reloaded\n")


def _verdict(reasons: list[str]) -> web.Response:
    return _json(503 if reasons else 200, {"status": "failing" if reasons else "ok", "reasons": reasons})


def _json(status: int, value: object) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(value) + b"\n", content_type="application/json")
