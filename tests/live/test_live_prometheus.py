"""What the page gets from a Prometheus: fixed queries, bounded answers, faults as words. A real one is in services."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from inferwatch.settings.live import Live, fault
from inferwatch_collectors.live import prometheus as module
from inferwatch_collectors.live.prometheus import (
    ALERTS_KEPT_S,
    FAULT_KEPT_S,
    GRID_S,
    MAX_ALERTS,
    OLDER,
    POINTS,
    QUERIES,
    STALE_S,
    Prometheus,
    PrometheusError,
    on_grid,
)
from inferwatch_collectors.live.service import LiveService, joined
from inferwatch_collectors.live.totals import COLUMNS

NOW_S = 1_700_000_000.0


class Stand:
    """Stands in for a Prometheus: keeps what it was asked, answers with `answer`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], str]] = []
        self.answer: Any = {"data": {"alerts": []}}
        self.status = 200
        self.url = ""
        self.now_s = NOW_S
        self.clock_s = 5000.0
        self.gate = asyncio.Event()
        self.gate.set()

    async def reply(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, dict(request.query), request.headers.get("Authorization", "")))
        await self.gate.wait()
        body = self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()
        return web.Response(status=self.status, body=body, headers={"Location": "http://elsewhere/"})

    def client(self, **settings: Any) -> Prometheus:
        return Prometheus(
            Live(prometheus_url=f"{self.url}/prom/", **settings), lambda: self.now_s, lambda: self.clock_s
        )


@pytest.fixture(name="stand")
async def _stand() -> AsyncIterator[Stand]:
    stand = Stand()
    app = web.Application()
    app.router.add_get("/{path:.*}", stand.reply)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    stand.url = "http://127.0.0.1:{1}".format(*runner.addresses[0])
    yield stand
    await runner.cleanup()


@pytest.fixture(name="asking")
async def _asking(stand: Stand) -> AsyncIterator[Callable[..., Prometheus]]:
    made: list[Prometheus] = []

    def make(**settings: Any) -> Prometheus:
        made.append(stand.client(**settings))
        return made[-1]

    yield make
    for each in made:
        await each.close()


def alert(name: str, severity: str = "ticket", state: str = "firing", at: int = 1, **labels: str) -> dict[str, Any]:
    return {
        "labels": {"alertname": name, "severity": severity, **labels},
        "annotations": {"summary": f"{name} happens"},
        "state": state,
        "activeAt": f"2023-11-14T22:00:{at:02d}.123456789Z",
        "value": "1e+00",
    }


# --- settings


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, ""),
        ({"prometheus_url": "http://prometheus:9090"}, ""),
        ({"prometheus_url": "https://prometheus/select/0/prometheus"}, ""),
        ({"prometheus_url": "prometheus:9090"}, "live.prometheus_url: expected"),
        ({"prometheus_url": "http://"}, "live.prometheus_url: expected"),
        ({"prometheus_url": "http://p:0"}, "live.prometheus_url: expected"),
        ({"prometheus_url": "http://p:port"}, "live.prometheus_url: expected"),
        ({"prometheus_url": "http://p/?q=1"}, "live.prometheus_url: expected"),
        ({"prometheus_url": "http://p/a b"}, "live.prometheus_url: expected"),
        ({"prometheus_url": "http://user:s3cret@p"}, "live.prometheus_url: holds a user"),
        ({"prometheus_token_file": "/t"}, "live.prometheus_token_file: needs"),
        ({"instance": "a"}, "live.instance: needs"),
    ],
)
def test_settings(changes: dict[str, str], problem: str) -> None:
    """A fault names its key and quotes no password."""
    found = fault(Live(**changes))
    assert found.startswith(problem)
    assert bool(found) == bool(problem)
    assert "s3cret" not in found


# --- alerts


async def test_alerts_of_ours_the_gravest_first(stand: Stand, asking: Callable[..., Prometheus]) -> None:
    """Firing before pending, pages before tickets, the oldest first; others' rules and the watchdog are no rows."""
    stand.answer = {
        "data": {
            "alerts": [
                alert("InferwatchWatchdog", "none"),
                alert("NodeDown", "page"),
                alert("InferwatchDrift", at=9),
                alert("InferwatchTapDropping", at=3),
                alert("InferwatchDown", "page", "pending"),
                alert("InferwatchEngineDown", "page", at=5),
            ]
        }
    }
    told = await asking().alerts()
    assert [row["alert"] for row in told["rows"]] == ["EngineDown", "TapDropping", "Drift", "Down"]
    assert (told["firing"], told["pending"], told["count"], told["fault"]) == (3, 1, 4, "")
    assert told["rows"][0] == {
        "alert": "EngineDown",
        "severity": "page",
        "state": "firing",
        "since_s": pytest.approx(1_699_999_205.123457),
        "summary": "InferwatchEngineDown happens",
    }
    assert stand.asked == [("/prom/api/v1/alerts", {}, "")]


async def test_alerts_of_this_host(stand: Stand, asking: Callable[..., Prometheus]) -> None:
    """With `live.instance`, those of other hosts are left out; those of no host stay."""
    stand.answer = {
        "data": {
            "alerts": [
                alert("InferwatchWatchdog"),
                alert("InferwatchDown", instance="a"),
                alert("InferwatchDrift", instance="b"),
                alert("InferwatchAbsent"),
            ]
        }
    }
    told = await asking(instance="a").alerts()
    assert {row["alert"] for row in told["rows"]} == {"Down", "Absent"}


async def test_without_the_watchdog_nobody_watches(asking: Callable[..., Prometheus]) -> None:
    """No alert is no good news where no rule is evaluated."""
    assert "none of our rules" in (await asking().alerts())["fault"]


async def test_alerts_are_bounded(stand: Stand, asking: Callable[..., Prometheus]) -> None:
    """What is left out is counted; a summary has its length."""
    many = [alert(f"Inferwatch{number}") for number in range(MAX_ALERTS + 3)]
    many[0]["annotations"]["summary"] = "x" * 5000
    stand.answer = {"data": {"alerts": many}}
    told = await asking().alerts()
    assert (len(told["rows"]), told["count"]) == (MAX_ALERTS, MAX_ALERTS + 3)
    assert max(len(row["summary"]) for row in told["rows"]) == 300


async def test_all_pages_share_one_answer(stand: Stand, asking: Callable[..., Prometheus]) -> None:
    """Also those that ask while it is on its way; it is asked again when the answer is old, however clocks are set."""
    one = asking()
    await asyncio.gather(*(one.alerts() for _ in range(5)))
    assert len(stand.asked) == 1
    stand.clock_s += ALERTS_KEPT_S
    await one.alerts()
    assert len(stand.asked) == 2
    for set_to_s in (NOW_S - 3600, NOW_S + 3600):
        stand.now_s = set_to_s
        await one.alerts()
        assert len(stand.asked) == 2
    stand.clock_s += ALERTS_KEPT_S
    await one.alerts()
    assert len(stand.asked) == 3


# --- what goes wrong


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (b"", 200, "its answer is not Prometheus'"),
        (b"\xff\xfe", 200, "its answer is not Prometheus'"),
        (
            {"data": {"alerts": [{"labels": {"alertname": 5}}], "result": [{"values": [[1]]}]}},
            200,
            "its answer is not Prometheus'",
        ),
        ({"data": None}, 200, "its answer is not Prometheus'"),
        (b"x" * (module.MAX_BYTES + 1), 200, "its answer is longer than"),
        ({}, 401, "it answers 401"),
        ({}, 302, "it answers 302"),
    ],
)
async def test_answers_that_are_none(
    stand: Stand, asking: Callable[..., Prometheus], answer: Any, status: int, words: str
) -> None:
    """Words on the page, with nothing that was sent."""
    stand.answer, stand.status = answer, status
    told = await asking().alerts()
    assert told["fault"].startswith(words)
    with pytest.raises(PrometheusError, match=words.replace("'", ".")):
        await asking().columns(1440.0)


async def test_nobody_there(asking: Callable[..., Prometheus], free_port: Callable[[], int]) -> None:
    """So it is said."""
    gone = Prometheus(Live(prometheus_url=f"http://127.0.0.1:{free_port()}"))
    assert (await gone.alerts())["fault"] == "Connection refused"
    await gone.close()


async def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """In words, not with the resolver's number."""

    def nobody(*_: Any, **__: Any) -> Any:  # some hosts' resolvers know everybody, and some take their time
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    unknown = Prometheus(Live(prometheus_url="http://nobody.invalid:9090"))
    assert (await unknown.alerts())["fault"] == "the host's name is not known"
    await unknown.close()


async def test_one_that_speaks_no_tls(stand: Stand) -> None:
    """Likewise; what a certificate may lack is the doctor's to test."""
    plain = Prometheus(Live(prometheus_url=stand.url.replace("http:", "https:")))
    assert (await plain.alerts())["fault"] == "no TLS connection"
    await plain.close()


async def test_one_that_hangs(stand: Stand, asking: Callable[..., Prometheus], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for that long, and then left alone for a while."""
    monkeypatch.setattr(module, "TIMEOUT_S", 0.05)
    stand.gate.clear()
    one = asking()
    get, asks = one._get, 0  # what reaches the other end in so short a time is another matter

    async def counted(*arguments: Any) -> bytes:
        nonlocal asks
        asks += 1
        return await get(*arguments)

    monkeypatch.setattr(one, "_get", counted)
    with pytest.raises(PrometheusError, match="no answer within"):
        await one.columns(1440.0)
    first = asks
    assert first > 0
    with pytest.raises(PrometheusError, match="no answer within"):
        await one.columns(1440.0)
    assert asks == first
    stand.clock_s += FAULT_KEPT_S
    with pytest.raises(PrometheusError, match="no answer within"):
        await one.columns(1440.0)
    assert asks > first


# --- ranges


def test_every_column_has_a_query() -> None:
    """The page's charts are the same, wherever they come from."""
    assert tuple(QUERIES) == COLUMNS


@pytest.mark.parametrize("minutes", sorted(OLDER))
async def test_a_range(stand: Stand, asking: Callable[..., Prometheus], minutes: float) -> None:
    """One query a column, of this host, on one grid; what has no sample is unknown."""
    step_s = int(minutes * 60) // POINTS
    end_s = NOW_S // GRID_S * GRID_S
    stand.answer = {
        "data": {"result": [{"values": [[end_s, "2.5"], [end_s - step_s, "NaN"], [end_s - 2 * step_s, "+Inf"]]}]}
    }
    found = await asking(instance='a"b').columns(minutes)
    assert set(found) == {"time", *COLUMNS}
    assert found["time"][-1] == end_s
    assert len(found["time"]) == POINTS + 1
    for name in COLUMNS:
        assert found[name][-3:] == [None, None, 2.5]
        assert set(found[name][:-3]) == {None}
    assert len(stand.asked) == len(COLUMNS)
    for path, query, _ in stand.asked:
        assert path == "/prom/api/v1/query_range"
        assert 'instance="a\\"b"' in query["query"]
        assert int(query["step"]) == step_s


async def test_a_token_is_sent(stand: Stand, asking: Callable[..., Prometheus], tmp_path: Path) -> None:
    """From a file; one that cannot be read is a fault like others."""
    (tmp_path / "token").write_text("sesame\n")
    await asking(prometheus_token_file=str(tmp_path / "token")).alerts()
    assert stand.asked[-1][2] == "Bearer sesame"
    fault = (await asking(prometheus_token_file=str(tmp_path / "none")).alerts())["fault"]
    assert fault.startswith("live.prometheus_token_file: cannot read")


async def test_a_token_is_read_once_for_a_chart(
    stand: Stand, asking: Callable[..., Prometheus], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And for the next one anew; without a file nothing is read, and no thread is asked to."""
    read: list[str] = []

    def bearer(_: str, path: str) -> dict[str, str]:
        read.append(path)
        return {"Authorization": f"Bearer token-{len(read)}"}

    monkeypatch.setattr(module, "bearer", bearer)
    stand.answer = {"data": {"result": []}}
    await asking().columns(1440.0)
    assert read == []
    one = asking(prometheus_token_file="/t")
    for number, minutes in enumerate(sorted(OLDER), 1):
        await one.columns(minutes)
        assert {token for _, _, token in stand.asked[-len(COLUMNS) :]} == {f"Bearer token-{number}"}


async def test_a_token_that_cannot_be_had_in_time(
    asking: Callable[..., Prometheus], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from a folder of a host that has gone: a fault, and not a page that waits for ever."""
    hangs = threading.Event()

    def bearer(*_: str) -> dict[str, str]:
        hangs.wait()
        return {}

    monkeypatch.setattr(module, "TIMEOUT_S", 0.05)
    monkeypatch.setattr(module, "bearer", bearer)
    try:
        fault = (await asking(prometheus_token_file="/t").alerts())["fault"]
    finally:
        hangs.set()
    assert fault.startswith("live.prometheus_token_file: not read within")


async def test_ranges_do_not_wait_for_each_other(stand: Stand, asking: Callable[..., Prometheus]) -> None:
    """One whose answer is kept is told while another is on its way."""
    one = asking()
    stand.answer = {"data": {"result": []}}
    kept = await one.columns(10_080.0)
    stand.gate.clear()
    slow = asyncio.ensure_future(one.columns(1440.0))
    while len(stand.asked) == len(COLUMNS):
        await asyncio.sleep(0)
    assert await one.columns(10_080.0) == kept
    assert not slow.done()
    stand.gate.set()
    await slow


def test_samples_find_their_place() -> None:
    """Prometheus leaves out steps without a value."""
    assert on_grid([(20.0, "2"), (30.0, "none"), (40.001, "4")], [10.0, 20.0, 30.0, 40.0]) == [None, 2.0, None, 4.0]


def test_what_memory_has_is_memorys() -> None:
    """Older points come before it, and none twice."""
    older: dict[str, list[float | None]] = {"time": [1.0, 2.0, 3.0], "a": [10.0, None, 30.0]}
    known: dict[str, list[float | None]] = {"time": [2.5, 3.5], "a": [25.0, 35.0]}
    assert joined(older, known) == {"time": [1.0, 2.0, 2.5, 3.5], "a": [10.0, None, 25.0, 35.0]}
    nothing: dict[str, list[float | None]] = {"time": [], "a": []}
    assert joined(older, nothing) == older
    assert joined(nothing, known) == known


# --- the service


async def asked(service: LiveService, minutes: float) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(await service.history(minutes))
    return told


async def filled(service: LiveService, enough: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask as a page does, until it is `enough`; the test's time-out bounds it."""
    while not enough(told := await asked(service, 60)):
        await asyncio.sleep(0.01)
    return told


async def test_memory_alone(traffic: Any) -> None:
    """Without a Prometheus there are six hours, and no alerts to know of."""
    service = LiveService(traffic.store, lambda: None, list, dict)
    assert [service.has(minutes) for minutes in (0, 360, 361, 1440)] == [False, True, False, False]
    assert json.loads(await service.alerts()) is None
    assert await asked(service, 60) == {"time": [], **{name: [] for name in COLUMNS}, "fault": ""}


async def test_memory_and_prometheus(traffic: Any, stand: Stand, asking: Callable[..., Prometheus]) -> None:
    """A collector that began a minute ago has the hour before from there, and says if it has not."""
    stand.answer = {"data": {"result": [{"values": [[NOW_S // GRID_S * GRID_S - 600, "7"]]}]}}
    service = LiveService(traffic.store, lambda: None, list, dict, asking())
    for second in range(0, 200, 5):
        service.tick(float(second), NOW_S - 200 + second)
    stand.gate.clear()
    told = await asked(service, 60)  # at once: what memory has
    assert (len(told["time"]), told["fault"], told["requests"].count(7.0)) == (3, "", 0)
    stand.gate.set()
    told = await filled(service, lambda told: 7.0 in told["requests"])
    assert [service.has(minutes) for minutes in (361, 1440, 1441)] == [False, True, False]
    assert told["requests"].count(7.0) == 1
    assert told["time"] == sorted(told["time"])
    were = len(stand.asked)
    told = await asked(service, 15)
    assert (7.0 in told["requests"], told["fault"]) == (False, "")
    assert len(stand.asked) == were  # of so short a range nobody is asked
    stand.status, stand.clock_s = 500, stand.clock_s + 3600
    assert (await asked(service, 60))["fault"] == ""  # too old to be shown, and not yet known to be away
    told = await filled(service, lambda told: bool(told["fault"]))
    assert told["fault"] == "it answers 500"
    assert len(told["time"]) == 3


async def test_what_is_old_is_shown_until_there_is_newer(
    traffic: Any, stand: Stand, asking: Callable[..., Prometheus]
) -> None:
    """A chart does not come and go with each question."""
    stand.answer = {"data": {"result": [{"values": [[NOW_S // GRID_S * GRID_S - 600, "7"]]}]}}
    service = LiveService(traffic.store, lambda: None, list, dict, asking())
    await filled(service, lambda told: 7.0 in told["requests"])
    stand.clock_s += STALE_S
    stand.gate.clear()
    for _ in range(3):  # as pages ask while it is on its way
        assert 7.0 in (await asked(service, 60))["requests"]
    stand.gate.set()
    stand.answer["data"]["result"][0]["values"][0][1] = "8"
    await filled(service, lambda told: 8.0 in told["requests"])
    assert len(stand.asked) == 2 * len(COLUMNS)
