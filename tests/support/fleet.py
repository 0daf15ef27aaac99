"""Three hosts with everything on them: a simulated engine, the real Inferwatch, budgets, prices, and a stand-in GPU each;
and traffic in which everything happens that a dashboard can show."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from monitoring import Prometheus
from nvml_stand_in import capture, script
from stack import Stack, chat, client, hang_up_after, send, wait_until

ENERGY = "nvmlDeviceGetFieldValues/83"
TENANT = {"x-inferwatch-tenant": "acme", "x-inferwatch-feature": "assistant", "x-inferwatch-session": "s1"}

FEEDBACK_TOKEN = "0123456789abcdef"

BUDGETS = [
    {"name": "acme-month", "tenant": "acme", "limit": 5, "on_limit": "observe", "per": ["tenant", "feature", "model"]},
    {"name": "small", "tenant": "small", "limit": 400, "unit": "tokens", "period": "day", "on_limit": "reject"},
    {"name": "cut", "tenant": "cut", "limit": 9000, "unit": "tokens", "period": "rolling", "window_s": 86400}
    | {"on_limit": "cut"},
]

SETTINGS: dict[str, Any] = {
    "identity": {"trusted_peers": ["127.0.0.1/32"]},
    "budgets": {"rules": BUDGETS},
    "prices": {
        "rules": [{"model": "simulated-8b", "input": 30, "cached_input": 3, "output": 120}],
        "compare": ["openai/gpt-5.4-mini"],
    },
    "cost": {"gpus": 1, "hourly_dollars": 2.5},
    "energy": {"grid_gco2e_per_kwh": 350},
    "attribution": {"weights": "learned"},
    "tap": {"max_pending_bytes": 65536, "max_pending_closes": 20},
    "upstream": {"first_byte_timeout_s": 6, "idle_timeout_s": 6},
    "metrics": {"max_tenants": 12},
    "gpu": {"interval_s": 0.5, "hang_timeout_s": 1.0},
    "engine_metrics": {"interval_s": 1.0},
    "trace": {"mint": True},
    # Every ordinary gap is a stall.
    "quality": {"listen": True, "stall_s": 0.001},
    "feedback": {"token_env": "FEEDBACK_TOKEN"},
}


class Card:
    """What the stand-in of one host answers: a capture whose energy counters grow, and what is laid over it."""

    def __init__(self, folder: Path, frames: list[dict[str, Any]]) -> None:
        self.path = folder / "answers"
        self._frames = frames
        self._over: dict[str, Any] = {}
        self._events: list[dict[str, Any]] = []
        self._energy_mj = 5_000_000
        self._lock = threading.Lock()
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.write()

    def lay_over(self, calls: dict[str, Any], events: list[dict[str, Any]] | None = None) -> None:
        """Answer these calls so from now on; the events happen now."""
        with self._lock:
            self._over |= calls
            self._events = events or []
        self.write()
        if events:
            time.sleep(2)  # until the reading thread has asked for them
            with self._lock:
                self._events = []

    def lose(self) -> None:
        """Fall off the bus: every call about it fails from now on."""
        self.stop()
        self.path.write_bytes(b"0/*\t15\t0\n/nvmlDeviceGetCount\t0\t0\t1")

    def write(self) -> None:
        with self._lock:
            known = {key for frame in self._frames for key in frame["calls"]}
            energy = {key: self._energy_mj for key in known if key.endswith(ENERGY)}
            calls = {key: value for key, value in energy.items() if not isinstance(self._of(key), dict)}
            text = script(*self._frames, {"calls": calls | self._over, "events": self._events})
        beside = self.path.with_suffix(".new")
        beside.write_bytes(text)
        beside.replace(self.path)

    def _of(self, key: str) -> Any:
        return next((frame["calls"][key] for frame in reversed(self._frames) if key in frame["calls"]), None)

    def _run(self) -> None:
        while not self._enough.wait(0.2):
            self._energy_mj += 80_011
            self.write()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._enough.set()
        if self._thread.ident is not None:
            self._thread.join()


class Host:
    """A stack with a card of its own. `engine` are flags of the simulator, `settings` replace sections of SETTINGS."""

    def __init__(
        self, folder: Path, library: Path, frames: list[dict[str, Any]], engine: tuple[str, ...] = (), **settings: Any
    ) -> None:
        folder.mkdir()
        self.card = Card(folder, frames)
        self._environment = {
            "NVML_STUB_FILE": str(self.card.path),
            "INFERWATCH__GPU__NVML_LIBRARY": str(library),
            "FEEDBACK_TOKEN": FEEDBACK_TOKEN,
        }
        self.settings = SETTINGS | settings
        self.config = folder / "config.yaml"
        self.config.write_bytes(msgspec.yaml.encode(self.settings))
        self.stack = Stack(folder, "--config", str(self.config), simulate_flags=engine)

    def start(self) -> None:
        with _environment(self._environment):
            self.stack.start()
        self.card.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.stack.admin_port}"

    def close(self) -> None:
        self.card.stop()
        self.stack.close()


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


# Nobody listens there.
_EXPORT: dict[str, Any] = {"traces": True, "metrics": True, "logs": True, "endpoint": "http://127.0.0.1:9"}

# Nothing that is asked for has a price there.
_OTHER_PRICES: dict[str, Any] = {"rules": [{"model": "another", "input": 1, "output": 1}]}

_SMALL = (
    *("--max-num-seqs", "12", "--kv-tokens", "33000", "--max-num-queued-reqs", "60"),
    *("--enable-prompt-tokens-details", "--enable-per-request-metrics"),
)


class Fleet:
    """Three hosts: eight H100 under load, one split by MIG, and a P100."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.hosts = {
            "h100:9480": Host(folder / "h100", library, capture("h100_x8_loaded"), _SMALL),
            "mig:9480": Host(folder / "mig", library, capture("h100_mig"), _SMALL, otlp=_EXPORT),
            "p100:9480": Host(folder / "p100", library, capture("p100_no_energy"), _SMALL, prices=_OTHER_PRICES),
        }

    @property
    def targets(self) -> dict[str, str]:
        return {name: host.address for name, host in self.hosts.items()}

    def start(self) -> None:
        for host in self.hosts.values():
            host.start()

    def close(self) -> None:
        for host in self.hosts.values():
            host.close()


class Watched:
    """What the tests look at: the fleet, its Prometheus, and when it all began and ended."""

    def __init__(self, fleet: Fleet, prometheus: Prometheus) -> None:
        self.fleet = fleet
        self.prometheus = prometheus
        self.start_s = time.time()
        self.end_s = self.start_s


# --- traffic ---


async def ordinary(session: aiohttp.ClientSession, url: str, tenant: str, number: int) -> None:
    """One of the kinds of use there are, by its number."""
    headers = TENANT | {"x-inferwatch-tenant": tenant}
    body = _BODIES[number % len(_BODIES)]
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        if number % 7 == 6:
            await hang_up_after(session, url, chat("hang up", max_tokens=120), 3)
        else:
            await send(session, url, body, headers=headers)


_LONG = "tell me more about this and that " * 900
_BODIES = (
    chat("hello", max_tokens=30),
    chat("hello again " * 40, max_tokens=60),
    chat("plain", stream=False, max_tokens=40),
    chat(_LONG, max_tokens=20),
    chat("think", max_tokens=60, chat_template_kwargs={"enable_thinking": True}),
    chat("think too long", max_tokens=5, chat_template_kwargs={"enable_thinking": True}),
)

FAULTS = (
    "status:500",
    "status:429",
    "error_event:3",
    "reset_mid_stream:2",
    "reset_before_head",
    "hang_before_head",
    "hang_mid_stream:2",
    "garbage_head",
    "no_done",
)


async def faulty(session: aiohttp.ClientSession, url: str) -> None:
    """Everything that can go wrong with an engine."""

    async def one(fault: str) -> None:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            await send(session, url, chat("x"), headers=TENANT | {"x-sim-fault": fault})

    await asyncio.gather(*(one(fault) for fault in FAULTS))


async def clients_at_fault(session: aiohttp.ClientSession, url: str) -> None:
    """Bodies that are none, models without a price, answers that nobody waits for, tenants by the dozen."""
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        await session.post(f"{url}/v1/chat/completions", data=b"{not json", headers=TENANT)
        await send(session, url, chat("x", model="no-such-model"))
        await session.get(f"{url}/v1/models", headers=TENANT)
        for number in range(16):
            await send(session, url, chat("x", max_tokens=2), headers={"x-inferwatch-tenant": f"t{number}"})
        for _ in range(8):
            await send(session, url, chat("small", max_tokens=80), headers={"x-inferwatch-tenant": "small"})
            await send(session, url, chat("cut", max_tokens=800), headers={"x-inferwatch-tenant": "cut"})


async def traffic(hosts: list[str], seconds: float) -> None:
    """Requests to all hosts at once, for so long."""
    deadline = time.monotonic() + seconds
    async with client() as session:
        number = 0
        while time.monotonic() < deadline:
            await asyncio.gather(
                *(
                    ordinary(session, url, tenant, number + offset)
                    for url in hosts
                    for offset, tenant in enumerate(("acme", "globex", "acme", "initech"))
                )
            )
            number += 1


async def storm(url: str) -> None:
    """A client that sends the same request again and again, and it fails each time."""
    async with client() as session:
        for _ in range(60):
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                await send(session, url, chat("again", model="storm"), headers=TENANT | {"x-sim-fault": "status:500"})


async def impatience(url: str) -> None:
    """Clients that leave before the first token."""
    async with client() as session:
        for _ in range(8):
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                headers = TENANT | {"x-sim-fault": "hang_before_head"}
                await asyncio.wait_for(send(session, url, chat("now", max_tokens=5), headers=headers), 0.2)


async def misfortune(hosts: list[str]) -> None:
    """What must not happen, once on each host."""
    async with client() as session:
        await asyncio.gather(
            *(faulty(session, url) for url in hosts), *(clients_at_fault(session, url) for url in hosts)
        )


async def crowd(url: str, requests: int) -> None:
    """So many long answers at once that the engine queues, and puts some back."""
    async with client() as session:
        bodies = [chat(_LONG[:9000] + str(number), max_tokens=1500) for number in range(requests)]
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            await asyncio.gather(*(send(session, url, body, headers=TENANT) for body in bodies), return_exceptions=True)


def while_the_collector_is_away(stack: Stack, what: Callable[[], None]) -> None:
    """Stop the collector in its tracks meanwhile: copies are dropped, finished requests spooled."""
    pid = stack.kill("inferwatch_collectors", signal.SIGSTOP)
    try:
        what()
    finally:
        os.kill(pid, signal.SIGCONT)


def restart_a_relay(stack: Stack) -> None:
    """Kill it; another takes its place."""
    pid = stack.kill("inferwatch.relay")
    wait_until(lambda: pid not in stack.pids("inferwatch.relay") and bool(stack.pids("inferwatch.relay")), "a relay")
