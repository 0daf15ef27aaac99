"""The admin port: what it answers and when."""

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from inferwatch import __version__
from inferwatch.admin_token import digest
from inferwatch.settings.canary import Canary
from inferwatch.settings.drift import Drift
from inferwatch.settings.privacy import Privacy
from inferwatch_collectors import admin as admin_module
from inferwatch_collectors import metrics as m
from inferwatch_collectors import turns
from inferwatch_collectors.admin import MAX_SCRAPES, RELAY_SILENT_NS, Admin, Condition, Service, not_healthy, not_ready
from inferwatch_collectors.canary.watch import CanaryWatch
from inferwatch_collectors.cardinality import CardinalityGuard
from inferwatch_collectors.drift.watch import DriftWatch
from inferwatch_collectors.exposition import Exposition
from inferwatch_collectors.feedback.comments import Comments
from inferwatch_collectors.feedback.service import MAX_BODY_BYTES, FeedbackService
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.report.service import Answer

NOW_NS = 100 * RELAY_SILENT_NS


def condition(**changes: Any) -> Condition:
    fields: dict[str, Any] = {
        "relay_stats_ns": [NOW_NS - 1],
        "upstream": "engine:8000",
        "upstream_up": True,
        "draining": False,
    }
    return Condition(**fields | changes)


# --- the verdicts


@pytest.mark.parametrize(
    ("changes", "healthy", "ready"),
    [
        ({}, True, True),
        ({"relay_stats_ns": []}, False, False),
        ({"relay_stats_ns": [0]}, False, False),
        ({"relay_stats_ns": [NOW_NS - RELAY_SILENT_NS - 1]}, False, False),
        ({"relay_stats_ns": [0, NOW_NS - RELAY_SILENT_NS]}, True, True),
        ({"draining": True}, True, False),
        ({"upstream_up": False}, True, False),
        ({"upstream_up": None}, True, False),
    ],
)
def test_health_is_the_data_path_readiness_is_more(changes: dict[str, Any], healthy: bool, ready: bool) -> None:
    """Health depends on a relay that reports, on nothing else; readiness also on the upstream and on draining."""
    assert (not_healthy(condition(**changes), NOW_NS) == []) is healthy
    assert (not_ready(condition(**changes), NOW_NS) == []) is ready


def test_every_reason_is_given() -> None:
    """Somebody who was woken wants all of them."""
    reasons = not_ready(condition(relay_stats_ns=[], upstream_up=False, draining=True), NOW_NS)
    assert reasons == ["no relay is connected", "draining", "upstream engine:8000 does not accept connections"]


# --- the port


TOKEN = "0123456789abcdef"


class _NoRows:
    """A ledger that knows of no request."""

    async def asked(self, _request_id: str) -> None:
        return None


class Port:
    """An admin port on a store of its own."""

    def __init__(self) -> None:
        self.store = MetricStore()
        self.condition = condition(relay_stats_ns=[])
        self.flushes = 0
        self.refreshed = 0
        self.at_refresh: Callable[[], object] = int
        self.fault = ""
        self.canary = CanaryWatch(self.store, Canary(enabled=True), secret=b"", around=lambda _: {})
        self.flush_gate = asyncio.Event()
        self.flush_gate.set()
        self.session: aiohttp.ClientSession
        self.routes: set[tuple[str, str]] = set()
        self.url = ""

    def service(self) -> Service:
        return Service(
            exposition=Exposition(self.store),
            refresh=self._refresh,
            flush=self._flush,
            condition=lambda: self.condition,
            shown_config=lambda: {"upstream": {"url": "http://***@engine"}},
            reload=self._reload,
            usage=self._usage,
            feedback=FeedbackService(
                {"feedback": digest(TOKEN)},
                _NoRows(),  # type: ignore[arg-type]
                Comments(Privacy(), lambda _: None),
                self.store,
                CardinalityGuard(),
                still_open=lambda _: None,
                flush=self._committed,
            ),
            drift=DriftWatch(self.store, CardinalityGuard(), Drift(), secret=b""),
            canary=self.canary,
        )

    async def _usage(self, parameters: Mapping[str, str], now_s: float) -> Answer:
        assert now_s > 1.7e9
        return Answer(200, f"asked for {sorted(parameters.items())}", "text/markdown")

    def _refresh(self) -> None:
        self.refreshed += 1
        self.at_refresh()

    async def _flush(self, timeout_s: float) -> bool:
        self.flushes += 1
        self.store.counter(m.LEDGER_COMMITS).add()  # after the values were collected
        await self.flush_gate.wait()
        return False

    async def _committed(self, timeout_s: float) -> bool:
        return True

    async def _reload(self) -> str:
        if self.fault == "hang":
            await asyncio.sleep(3600)
        return self.fault

    async def get(self, path: str, **headers: str) -> tuple[int, bytes, str]:
        async with self.session.get(self.url + path, headers=headers) as response:
            return response.status, await response.read(), response.headers.get("Content-Type", "")

    async def post(self, path: str) -> tuple[int, str]:
        async with self.session.post(self.url + path) as response:
            return response.status, await response.text()


@pytest.fixture
async def port(nothing_blocks: None) -> AsyncIterator[Port]:
    port = Port()
    admin = Admin(port.service())
    sites: list[web.TCPSite] = []

    def site(runner: web.AppRunner) -> web.TCPSite:
        sites.append(web.TCPSite(runner, "127.0.0.1", 0))
        return sites[0]

    await admin.start(site)
    port.url = f"http://127.0.0.1:{sites[0]._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
    port.routes = {
        (route.method, route.resource.canonical)
        for route in sites[0]._runner.app.router.routes()  # type: ignore[attr-defined]
        if route.method != "HEAD"
    }
    async with aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=["Accept-Encoding"]) as session:
        port.session = session
        yield port
    await admin.close()


async def test_metrics(port: Port) -> None:
    """The text format by default, with the process's own figures, after the self-metrics were brought up to date."""
    port.store.counter(m.LEDGER_COMMIT_FAILURES).add(3)
    status, body, content_type = await port.get("/metrics")
    assert (status, port.refreshed) == (200, 1)
    assert content_type.startswith("text/plain; version=0.0.4")
    assert b"inferwatch_ledger_commit_failures_total 3.0\n" in body
    assert b"process_cpu_seconds_total" in body
    assert b"process_resident_memory_bytes" in body


async def test_metrics_as_openmetrics(port: Port) -> None:
    """A scraper that prefers OpenMetrics gets it."""
    _, body, content_type = await port.get("/metrics", Accept="application/openmetrics-text;version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


async def test_metrics_compressed(port: Port) -> None:
    """A scraper that takes gzip gets the same text, smaller."""
    _, plain, _ = await port.get("/metrics")
    _, packed, _ = await port.get("/metrics", **{"Accept-Encoding": "gzip"})
    names = [line.split(b" ")[0] for line in gzip.decompress(packed).splitlines()]
    assert len(packed) < len(plain)
    assert set(names) >= {line.split(b" ")[0] for line in plain.splitlines()}


async def test_what_a_scrape_shows_is_committed(port: Port) -> None:
    """Values are taken before the commit that the scrape waits for: a crash cannot take back what was shown."""
    port.store.counter(m.LEDGER_COMMITS)
    _, body, _ = await port.get("/metrics")
    assert port.flushes == 1
    assert b"inferwatch_ledger_commits_total 0.0\n" in body


async def test_a_scrape_goes_out_although_the_ledger_fails(port: Port) -> None:
    """Metrics are needed most when something is broken."""
    status, _, _ = await port.get("/metrics")
    assert status == 200


COUNTERS = [metric for metric in m.TABLE if metric.kind is m.Kind.COUNTER]


@pytest.mark.parametrize(("turn_s", "waits"), [(60.0, 0), (0.0, len(COUNTERS))])
async def test_a_scrape_lets_others_run_by_the_time_it_takes(
    port: Port, monkeypatch: pytest.MonkeyPatch, turn_s: float, waits: int
) -> None:
    """Not once for each family: a collector with a backlog keeps it waiting for a whole turn each time."""
    for metric in COUNTERS:
        port.store.counter(metric, ("x",) * len(metric.labels)).add()
    monkeypatch.setattr(turns, "TURN_S", turn_s)
    others = 0

    def count() -> None:
        nonlocal others
        others += 1
        if not port.flushes:
            asyncio.get_running_loop().call_soon(count)

    port.at_refresh = lambda: asyncio.get_running_loop().call_soon(count)
    status, _, _ = await port.get("/metrics")
    assert status == 200
    # Once more between the commit and the text.
    assert others - 1 == waits


async def test_scrapes_do_not_pile_up(port: Port) -> None:
    """Above MAX_SCRAPES at a time the next one is refused; the others are answered."""
    port.flush_gate.clear()
    scrapes = [asyncio.get_running_loop().create_task(port.get("/metrics")) for _ in range(MAX_SCRAPES)]
    async with asyncio.timeout(10):
        while port.flushes < MAX_SCRAPES:
            await asyncio.sleep(0.005)
    assert (await port.get("/metrics"))[0] == 503
    port.flush_gate.set()
    assert [status for status, _, _ in await asyncio.gather(*scrapes)] == [200] * MAX_SCRAPES
    assert (await port.get("/metrics"))[0] == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_a_failing_check_says_why(port: Port, path: str) -> None:
    """503 and the reasons as JSON."""
    status, body, content_type = await port.get(path)
    assert (status, content_type) == (503, "application/json")
    verdict = json.loads(body)
    assert verdict["status"] == "failing"
    assert "no relay is connected" in verdict["reasons"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_a_passing_check(port: Port, path: str) -> None:
    """200 with nothing to complain about."""
    port.condition = condition(relay_stats_ns=[1 << 62])
    status, body, _ = await port.get(path)
    assert (status, json.loads(body)) == (200, {"status": "ok", "reasons": []})


async def test_config_is_what_the_supervisor_shows(port: Port) -> None:
    """The redacted configuration, as it was given."""
    status, body, _ = await port.get("/config")
    assert (status, json.loads(body)) == (200, {"upstream": {"url": "http://***@engine"}})


async def test_usage(port: Port) -> None:
    """Parameters go to the report as they are, its answer comes back as it is."""
    assert await port.get("/usage?from=2026-03-01&by=tenant%2Cday") == (
        200,
        b"asked for [('by', 'tenant,day'), ('from', '2026-03-01')]",
        "text/markdown; charset=utf-8",
    )


async def test_drift(port: Port) -> None:
    """As JSON, in words, and pinned by command."""
    status, body, content_type = await port.get("/drift")
    assert (status, content_type.partition(";")[0]) == (200, "application/json")
    assert json.loads(body) == {
        "weeks_per_false_alarm": 20.0,
        "text": False,
        "streams": [],
        "canary": {"weeks_per_false_alarm": 20.0},
    }
    assert b"Nothing is followed yet" in (await port.get("/drift?format=text"))[1]
    of_one = json.loads((await port.get("/drift?tenant=t"))[1])
    assert of_one == {"weeks_per_false_alarm": 20.0, "text": False, "tenant": "t", "streams": []}
    assert b"Nothing is followed of t." in (await port.get("/drift?format=text&tenant=t"))[1]
    assert await port.post("/drift/pin?model=m&tenant=t") == (409, "no such model and tenant is followed\n")


async def test_drift_in_no_other_form(port: Port) -> None:
    """400, as `/usage` says it."""
    status, body, _ = await port.get("/drift?format=xml")
    assert (status, body) == (400, b"format: expected one of json, text\n")


async def test_feedback(port: Port) -> None:
    """With the token, a vote of a bounded size; the rest is in `feedback.service`."""
    vote = json.dumps({"request_id": "r1", "thumb": "up"})
    allowed = {"Authorization": f"Bearer {TOKEN}"}

    async def post(body: str, **headers: str) -> tuple[int, str]:
        async with port.session.post(f"{port.url}/feedback", data=body, headers=headers) as response:
            return response.status, await response.text()

    assert await post(vote) == (401, "expected the token\n")
    status, text = await post(vote, **allowed)
    assert (status, json.loads(text)["result"]) == (404, "unknown")
    assert (await post("{", **allowed))[0] == 400
    assert (await post(" " * (MAX_BODY_BYTES + 1), **allowed))[0] == 413
    assert (await port.get("/feedback"))[0] == 405


async def test_drift_of_the_canary(port: Port) -> None:
    """A section of its own, and pinned by the name of its tenant."""
    port.canary.take("m", 0, {"a": -1.0})
    shown = json.loads((await port.get("/drift"))[1])["canary"]
    assert shown == {"weeks_per_false_alarm": 20.0, "models": [{"model": "m", "state": "learning", "replies": 1}]}
    assert b"m: learning, 1 replies so far" in (await port.get("/drift?format=text"))[1]
    refused = (409, "too few replies: 1, expected at least 1000\n")
    assert await port.post("/drift/pin?model=m&tenant=inferwatch-canary") == refused


async def test_version(port: Port) -> None:
    """The version of the package."""
    _, body, _ = await port.get("/version")
    assert json.loads(body) == {"version": __version__}


async def test_the_index_names_every_route(port: Port) -> None:
    """What is there can be found without the manual: each route, but those of signing in, and no other."""
    _, body, _ = await port.get("/")
    told = set(re.findall(r"^  (GET|POST) +(/\S*)", body.decode(), re.MULTILINE))
    assert told == {(method, path) for method, path in port.routes if path not in ("/login", "/logout")}


def test_the_manual_names_every_route() -> None:
    """Operations says where there is more about each."""
    page = (Path(__file__).parents[2] / "docs/topics/operations.md").read_text("utf-8")
    told = page.partition("\nThe admin port: ")[2].partition("\n\n")[0]
    for method, path in re.findall(r"^  (GET|POST) +(/\S*)", admin_module.INDEX, re.MULTILINE):
        assert f"`{path}`" in told or f"`{method} {path}`" in told


@pytest.mark.parametrize(("fault", "status", "text"), [("", 200, "reloaded\n"), ("workers: no\n", 500, "workers: no")])
async def test_reload(port: Port, fault: str, status: int, text: str) -> None:
    """200, or 500 with the line that says what is wrong."""
    port.fault = fault.strip()
    assert await port.post("/-/reload") == (status, text if not fault else text + "\n")


async def test_reload_without_an_answer(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor that does not answer is a failure after the time limit."""
    monkeypatch.setattr(admin_module, "RELOAD_TIMEOUT_S", 0.01)
    port.fault = "hang"
    status, text = await port.post("/-/reload")
    assert status == 500
    assert "no answer" in text


async def test_reload_is_no_get(port: Port) -> None:
    """A link or a crawler reloads nothing."""
    assert (await port.get("/-/reload"))[0] == 405


async def test_unknown_paths(port: Port) -> None:
    """404, and nothing of the request is echoed."""
    status, body, _ = await port.get("/no/such/SECRET")
    assert status == 404
    assert b"SECRET" not in body
