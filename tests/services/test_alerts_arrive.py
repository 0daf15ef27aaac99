"""From a fault to the message: simulator, the real Inferwatch, Prometheus and Alertmanager, and somebody who is woken.

The rules are those we ship, on a clock DIVISOR times faster: every window, `for` and interval is that much shorter,
expressions and thresholds are the same. So are Alertmanager's waits. What a page promises ("within") is held to on that
clock, with some seconds for processes to start and for a busy machine.
"""

import asyncio
import contextlib
import itertools
import re
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import nvml_stand_in
import pytest
import yaml
from alerts.src import build
from fleet import Host
from inbox import Inbox, inbox
from monitoring import ROOT, Alertmanager, Prometheus, closing
from stack import MODEL, chat, client, send, wait_until

DIVISOR = 30

# A hiccup of two seconds of a shared machine is a minute on this clock, and then another alert may be the first. What
# arrives wrongly for a reason does so each time.
pytestmark = pytest.mark.flaky(reruns=2, reruns_delay=5)

SLACK_S = 8.0
WITHIN_S = {
    alert.name: int(alert.within.rstrip("mh")) * {"m": 60, "h": 3600}[alert.within[-1]]
    for alert in reversed(build.alerts())  # of several windows the first counts: the fastest
    if alert.within
}
_TIME = re.compile(r"^\d+[smhd]$")


def config_for(box: Inbox, folder: Path) -> dict[str, Any]:
    """Return our Alertmanager configuration: faster, its ways out led to the inbox, a webhook added to each."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "alerts" / "alertmanager.yml").read_text("utf-8"))
    secrets = folder / "secrets"
    secrets.mkdir(parents=True)
    web = f"http://127.0.0.1:{box.http_port}"
    (secrets / "slack_url").write_text(f"{web}/slack", "utf-8")
    (secrets / "pagerduty_key").write_text("k" * 32, "utf-8")
    (secrets / "webhook_token").write_text("token", "utf-8")
    config["global"] |= {
        "smtp_smarthost": f"127.0.0.1:{box.smtp_port}",
        "smtp_require_tls": False,
        "pagerduty_url": f"{web}/pagerduty",
        "resolve_timeout": "10s",
    }
    del config["global"]["smtp_auth_username"], config["global"]["smtp_auth_password_file"]
    config["templates"] = [str(ROOT / "alerts" / "templates" / "*.tmpl")]
    _hasten(config["route"])
    for receiver in config["receivers"]:
        if receiver["name"] != "none":
            receiver["webhook_configs"] = [{"url": f"{web}/hook/{receiver['name']}"}]
    return config


def _hasten(route: dict[str, Any]) -> None:
    for key, value in route.items():
        if isinstance(value, str) and _TIME.match(value):
            route[key] = build.divided(value, DIVISOR) if value != "0s" else value
    for inner in route.get("routes", ()):
        _hasten(inner)


class World:
    """One host, watched, and what is told of it."""

    def __init__(self, host: Host, prometheus: Prometheus, box: Inbox) -> None:
        self.host, self.prometheus, self.box = host, prometheus, box
        self._enough = threading.Event()
        self._threads: list[threading.Thread] = []

    def send(
        self,
        body: dict[str, Any] | Callable[[], dict[str, Any]],
        *,
        at_once: int,
        pause_s: float = 0.1,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Begin to send this, or what is made each time, so many at once, until the end."""
        made = body if callable(body) else lambda: body

        async def one() -> None:
            async with client() as session:
                while not self._enough.is_set():
                    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                        await asyncio.wait_for(send(session, self.host.stack.url, made(), headers=headers or {}), 45)
                    await asyncio.sleep(pause_s)

        async def all_of_them() -> None:
            tasks = [one() for _ in range(at_once)]
            running = asyncio.gather(*tasks, return_exceptions=True)
            while not self._enough.is_set() and not running.done():
                await asyncio.sleep(0.1)
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

        self._do(all_of_them)

    def _do(self, what: Callable[[], Coroutine[Any, Any, None]]) -> None:
        def run() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                asyncio.run(what())

        thread = threading.Thread(target=run)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join(30)


@pytest.fixture(name="make_world")
def _make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    rules = tmp_path / "rules"
    rules.mkdir()
    assert build.main(["--rules-to", str(rules), "--divisor", str(DIVISOR)]) == 0
    opened: list[Any] = []
    with inbox() as box, closing(_Closer(opened)):

        def make(*simulate_flags: str, **settings: Any) -> World:
            library, frames = nvml_stand_in.build(tmp_path), nvml_stand_in.capture("h100_idle")
            settings = {"upstream": {}} | settings  # the usual patience with engines
            host = Host(tmp_path / "h", library, frames, simulate_flags, **settings)
            manager, prometheus = Alertmanager(tmp_path), Prometheus(tmp_path)
            world = World(host, prometheus, box)
            opened.extend((host, manager, prometheus, world))
            manager.start(config_for(box, manager.folder))
            host.start()
            address = f"127.0.0.1:{manager.port}"
            prometheus.start({"host1:9480": host.address}, rules=rules, alertmanager=address, interval="1s")
            wait_until(lambda: bool(prometheus.query("inferwatch_build_info")), "the first scrape")
            return world

        yield make


class _Closer:
    """Closes what was opened, the last first."""

    def __init__(self, opened: list[Any]) -> None:
        self._opened = opened

    def close(self) -> None:
        for each in reversed(self._opened):
            each.close()


def expect(
    world: World, since_s: float, pages: set[tuple[str, str]], *, also: dict[str, set[str]] | None = None
) -> None:
    """Wait for just these pages, in time; of other receivers for at least these alerts."""
    box = world.box

    def arrived() -> bool:
        others = all(names <= {name for name, _ in box.groups(receiver)} for receiver, names in (also or {}).items())
        return box.groups("page") >= pages and others

    seen = lambda: f"page {box.groups('page')}, ticket {box.groups('ticket')}, finance {box.groups('finance')}"  # noqa: E731
    wait_until(arrived, f"{pages} and {also}", 70, seen)
    time.sleep(2)  # another page would be here by now
    assert box.groups("page") == pages
    for name, model in pages:
        [first, *_] = [
            each
            for each in box.to("/hook/page")
            if each.content["groupLabels"] == {"alertname": name, **({"model": model} if model else {})}
        ]
        took_s = first.at_s - since_s
        assert took_s < WITHIN_S[name] / DIVISOR + SLACK_S, (name, took_s)
        print(f"{name}: paged after {took_s * DIVISOR / 60:.1f} min of its clock; promised {WITHIN_S[name] / 60:.0f}")


BRIEF = chat("hello", max_tokens=12)


def test_ordinary_traffic_wakes_nobody(make_world: Callable[..., World]) -> None:
    """The Watchdog alone gets through."""
    world = make_world()
    world.send(BRIEF, at_once=4)
    wait_until(lambda: world.box.groups("watchdog") == {("InferwatchWatchdog", "")}, "the Watchdog")
    time.sleep(20)
    assert world.box.groups("page") == set()
    assert world.box.groups("ticket") == set()
    assert world.box.groups("finance") == set()


def test_errors(make_world: Callable[..., World]) -> None:
    """The engine fails one in three: one page for the model, though several windows burn; no ticket of the same."""
    world = make_world()
    world.send(BRIEF, at_once=4)
    time.sleep(6)
    began_s = time.time()
    world.send(BRIEF, at_once=4, headers={"x-sim-fault": "status:500"})
    expect(world, began_s, {("InferwatchAvailabilityBurn", MODEL)})
    assert ("InferwatchAvailabilityBurn", MODEL) not in world.box.groups("ticket")
    [page, *_] = world.box.to("/hook/page")
    assert page.content["commonLabels"]["severity"] == "page"
    _messages_are_readable(world.box)


def _messages_are_readable(box: Inbox) -> None:
    """Slack and PagerDuty got the same, through our templates."""
    wait_until(lambda: bool(box.to("/slack")) and bool(box.to("/pagerduty")), "Slack and PagerDuty")
    slack = box.to("/slack")[0].content["attachments"][0]
    assert slack["title"].startswith(f"[PAGE] Requests to {MODEL} fail")
    assert slack["actions"][0]["url"].endswith("/InferwatchAvailabilityBurn.md")
    assert slack["actions"][1]["url"].endswith(f"/d/inferwatch-oncall?var-model={MODEL}")
    assert "alertname%3D%22InferwatchAvailabilityBurn%22" in slack["actions"][2]["url"]
    duty = box.to("/pagerduty")[0].content["payload"]
    assert duty["summary"].startswith(f"[PAGE] Requests to {MODEL} fail")
    assert "runbook" in duty["custom_details"]


def test_slow_prefill(make_world: Callable[..., World]) -> None:
    """Prompts take seconds to be read: users wait for the first token."""
    world = make_world("--prefill-tokens-per-s", "100")
    began_s = time.time()
    prompts = itertools.count()  # each another one, or the prefix cache has it
    world.send(lambda: chat(f"{next(prompts)} " + "word " * 300, max_tokens=1), at_once=3)
    expect(world, began_s, {("InferwatchFirstTokenBurn", MODEL)})


def test_a_queue(make_world: Callable[..., World]) -> None:
    """More than the engine can take: users are paged for, and the reason is a ticket."""
    world = make_world("--max-num-seqs", "2")
    began_s = time.time()
    for _ in range(2):
        world.send(chat("long", max_tokens=60), at_once=12, pause_s=0)
    expect(world, began_s, {("InferwatchFirstTokenBurn", MODEL)}, also={"ticket": {"InferwatchEngineQueue"}})


def test_a_hang(make_world: Callable[..., World]) -> None:
    """Nothing fails and nothing finishes: only that no token comes says so."""
    world = make_world()
    world.send(chat("warm up", max_tokens=5), at_once=1, pause_s=0.5)
    time.sleep(5)
    world.close()
    world._enough.clear()
    began_s = time.time()
    world.send(BRIEF, at_once=5, headers={"x-sim-fault": "hang_before_head"})
    expect(world, began_s, {("InferwatchNoTokens", MODEL)})


def test_an_engine_that_dies(make_world: Callable[..., World]) -> None:
    """One page, for the engine: that requests fail follows from it and is silenced."""
    world = make_world()
    world.send(BRIEF, at_once=3)
    time.sleep(8)
    began_s = time.time()
    simulator = world.host.stack.simulator
    assert simulator is not None
    simulator.kill()
    expect(world, began_s, {("InferwatchEngineDown", MODEL)})
    time.sleep(8)  # the error budget burns by now
    firing = {each["metric"]["alertname"] for each in world.prometheus.query('ALERTS{alertstate="firing"}')}
    assert "InferwatchAvailabilityBurn" in firing
    assert world.box.groups("page") == {("InferwatchEngineDown", MODEL)}


def test_a_budget_that_runs_out(make_world: Callable[..., World]) -> None:
    """A month's budget is gone in minutes: a page, and those who own the money hear of both."""
    budget = {"name": "month", "limit": 3000, "unit": "tokens", "on_limit": "reject"}
    world = make_world(budgets={"rules": [budget]})
    began_s = time.time()
    world.send(chat("spend", max_tokens=60), at_once=2)
    also = {"finance": {"InferwatchBudgetBurn", "InferwatchBudgetRefusing"}}
    expect(world, began_s, {("InferwatchBudgetBurn", "")}, also=also)
    wait_until(lambda: bool(world.box.to("mail")), "a mail")
    mail = world.box.to("mail")[0].content
    assert "finance@example.org" in mail
    assert "runbook" in mail


def test_a_gpu_that_falls_off(make_world: Callable[..., World]) -> None:
    """The card is lost: a page; what else is said of the card is silenced."""
    world = make_world()
    world.send(BRIEF, at_once=2)
    wait_until(lambda: world.host.stack.total("inferwatch_gpu_up") == 1, "the GPU")
    time.sleep(3)
    began_s = time.time()
    world.host.card.lose()
    expect(world, began_s, {("InferwatchGPULost", "")})


def test_memory_errors_of_a_gpu(make_world: Callable[..., World]) -> None:
    """An Xid of hardware is a ticket, no page."""
    world = make_world()
    world.send(BRIEF, at_once=2)
    wait_until(lambda: world.host.stack.total("inferwatch_gpu_up") == 1, "the GPU")
    world.host.card.lay_over({}, [{"who": "0", "type": 8, "data": 13}])
    time.sleep(4)
    world.host.card.lay_over({}, [{"who": "0", "type": 8, "data": 94}])
    world.host.card.lay_over({}, [{"who": "0", "type": 8, "data": 94}])
    expect(world, time.time(), set(), also={"ticket": {"InferwatchGPUXid"}})


def test_a_collector_that_is_killed_again_and_again(make_world: Callable[..., World]) -> None:
    """Traffic goes on; that nobody sees it is a page."""
    world = make_world()
    world.send(BRIEF, at_once=2)
    time.sleep(5)
    began_s = time.time()
    enough = threading.Event()

    def kill() -> None:
        while not enough.wait(0.1):
            if world.host.stack.pids("inferwatch_collectors"):
                world.host.stack.kill("inferwatch_collectors")

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        expect(world, began_s, {("InferwatchDown", "")})
    finally:
        enough.set()
        killer.join()


def test_a_collector_that_is_killed_once(make_world: Callable[..., World]) -> None:
    """It is back before anybody must know."""
    world = make_world()
    world.send(BRIEF, at_once=2)
    time.sleep(4)
    world.host.stack.kill("inferwatch_collectors")
    time.sleep(20)
    assert world.box.groups("page") == set()
    assert world.box.groups("ticket") == set()


def test_answers_that_repeat_themselves(make_world: Callable[..., World]) -> None:
    """Loops are seen while they stream, and are a ticket; nobody is woken."""
    world = make_world(quality={"listen": True})
    world.send(BRIEF, at_once=2)
    began_s = time.time()
    world.send(chat("say it", max_tokens=80), at_once=1, pause_s=0.5, headers={"x-sim-fault": "loop:8"})
    expect(world, began_s, set(), also={"ticket": {"InferwatchLoops"}})
