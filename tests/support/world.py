"""One host that is watched by all of it: simulator, the real Inferwatch, Prometheus and Alertmanager, and an inbox.

The rules are those we ship, on a clock DIVISOR times faster: every window, `for` and interval is that much shorter,
expressions and thresholds are the same. So are Alertmanager's waits.
"""

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import nvml_stand_in
import yaml
from alerts.src import build
from fleet import Host
from inbox import Inbox, inbox
from monitoring import ROOT, Alertmanager, Prometheus, closing
from stack import client, send, wait_until

DIVISOR = 30
# What is to hold for hours or days is to hold for seconds, where a test says so.
MUCH_FASTER = 2880

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


@contextmanager
def worlds(folder: Path) -> Iterator[Callable[..., World]]:
    """Give a maker of worlds, and close what it made. It takes flags of the simulator, and sections of the
    configuration; `soon` are alerts whose `for` is MUCH_FASTER still, and `interval` is
    that of scrapes and evaluations."""
    rules = folder / "rules"
    rules.mkdir()
    assert build.main(["--rules-to", str(rules), "--divisor", str(DIVISOR)]) == 0
    opened: list[Any] = []
    with inbox() as box, closing(_Closer(opened)):

        def make(*simulate_flags: str, soon: Collection[str] = (), interval: str = "1s", **settings: Any) -> World:
            _hurry(rules, soon)
            library, frames = nvml_stand_in.build(folder), nvml_stand_in.capture("h100_idle")
            # The usual patience with engines, and with their pauses.
            settings = {"upstream": {}, "quality": {"listen": True}} | settings
            host = Host(folder / "h", library, frames, simulate_flags, **settings)
            manager, prometheus = Alertmanager(folder), Prometheus(folder)
            world = World(host, prometheus, box)
            opened.extend((host, manager, prometheus, world))
            manager.start(config_for(box, manager.folder))
            host.start()
            address = f"127.0.0.1:{manager.port}"
            prometheus.start({"host1:9480": host.address}, rules=rules, alertmanager=address, interval=interval)
            wait_until(lambda: bool(prometheus.query("inferwatch_build_info")), "the first scrape")
            return world

        yield make


def _hurry(rules: Path, soon: Collection[str]) -> None:
    for path in rules.glob("*.yml") if soon else ():
        content = yaml.safe_load(path.read_text("utf-8"))
        for rule in content["groups"][0]["rules"]:
            if rule.get("alert") in soon:
                rule["for"] = build.divided(rule["for"], MUCH_FASTER)
        path.write_text(yaml.safe_dump(content), "utf-8")


class _Closer:
    """Closes what was opened, the last first."""

    def __init__(self, opened: list[Any]) -> None:
        self._opened = opened

    def close(self) -> None:
        for each in reversed(self._opened):
            each.close()
