"""The real thing for tests: a simulated engine, `inferwatch serve` before it, and a client; each in processes of its
own."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp

from inferwatch_simulator.readings import Scrape, parse, total

START_S = 30.0
MODEL = "simulated-8b"


class Stack:
    """A running engine and a running Inferwatch."""

    def __init__(self, folder: Path, *serve_flags: str, simulate_flags: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self._serve_flags = serve_flags
        self._simulate_flags = simulate_flags
        self.engine_port, self.port, self.admin_port = free_ports(3)
        self.engine = f"http://127.0.0.1:{self.engine_port}"
        self.url = f"http://127.0.0.1:{self.port}"
        self.admin = f"http://127.0.0.1:{self.admin_port}"
        self._log = (folder / "log").open("ab")
        self.simulator: subprocess.Popen[bytes] | None = None
        self.supervisor: subprocess.Popen[bytes] | None = None

    def start(self) -> "Stack":
        self.simulator = self._run("simulate", "--port", str(self.engine_port), *self._simulate_flags)
        wait_until(lambda: status(f"{self.engine}/health") != 0, "the engine")  # Ollama, say, has no such page
        self.serve()
        return self

    def serve(self) -> None:
        self.supervisor = self._run(
            "serve",
            *(
                "--upstream",
                self.engine,
                "--listen",
                f"127.0.0.1:{self.port}",
                "--admin",
                f"127.0.0.1:{self.admin_port}",
            ),
            *("--state-dir", str(self.folder / "state"), *self._serve_flags),
        )
        wait_until(lambda: status(f"{self.admin}/readyz") == 200, "Inferwatch")

    def stop_serving(self, timeout_s: float = 30) -> int:
        assert self.supervisor is not None
        self.supervisor.terminate()
        return self.supervisor.wait(timeout_s)

    def close(self) -> None:
        for process in (self.supervisor, self.simulator):
            if process is not None and process.poll() is None:
                process.terminate()
        for process in (self.supervisor, self.simulator):
            if process is not None:
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self._log.close()

    def _run(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "inferwatch", *arguments], stdout=self._log, stderr=self._log)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def pids(self, module: str) -> list[int]:
        """Processes of the supervisor that run `module`."""
        assert self.supervisor is not None
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if parent == self.supervisor.pid and module.encode() in words:
                    found.append(int(entry.name))
        return found

    def kill(self, module: str, number: int = signal.SIGKILL) -> int:
        pid = self.pids(module)[0]
        os.kill(pid, number)
        return pid

    def scrape(self) -> Scrape:
        """Read `/metrics`. While a collector starts, the supervisor's stand-in may still answer, with 503."""
        deadline_s = time.monotonic() + START_S
        while True:
            try:
                with urllib.request.urlopen(f"{self.admin}/metrics", timeout=10) as reply:
                    return parse(reply.read().decode(), time.monotonic())
            except urllib.error.HTTPError as error:
                if error.code != 503 or time.monotonic() > deadline_s:
                    raise
            time.sleep(0.1)

    def engine_scrape(self) -> Scrape:
        with urllib.request.urlopen(f"{self.engine}/metrics", timeout=10) as reply:
            return parse(reply.read().decode(), time.monotonic())

    def total(self, name: str, **where: str) -> float:
        return total(self.scrape(), name, **where)

    def settled(self, requests: int, timeout_s: float = 20) -> Scrape:
        """Wait until so many requests are booked, then return the scrape."""
        found: list[Scrape] = []

        def booked() -> bool:
            with contextlib.suppress(OSError):
                found[:] = [self.scrape()]
                return total(found[0], "inferwatch_requests_total") >= requests
            return False

        wait_until(booked, f"{requests} booked requests", timeout_s, lambda: f"got {found and _counts(found[0])}")
        return found[0]

    def charged(self, timeout_s: float = 30) -> Scrape:
        """Wait until no request is under way, none was booked since the look before, and some were charged, which is
        seconds after they were booked; return the scrape."""
        scrape = self.scrape()

        def at_rest() -> bool:
            nonlocal scrape
            time.sleep(0.5)  # a collector that has other work may book that much later
            before, scrape = scrape, self.scrape()
            booked = [total(each, "inferwatch_requests_total") for each in (before, scrape)]
            under_way = total(scrape, "inferwatch_requests_in_flight")
            charged = total(scrape, "inferwatch_cost_dollars_total", basis="gpu")
            return booked[0] == booked[1] and not under_way and charged > 0

        wait_until(at_rest, "charged requests", timeout_s)
        return scrape


def _counts(scrape: Scrape) -> dict[str, float]:
    series = scrape.samples.get("inferwatch_requests_total", {})
    return {dict(labels)["outcome"]: value for labels, value in series.items() if value}


@contextlib.contextmanager
def running(folder: Path, *serve_flags: str, simulate_flags: tuple[str, ...] = ()) -> Iterator[Stack]:
    """Start a stack and take it down again."""
    stack = Stack(folder, *serve_flags, simulate_flags=simulate_flags)
    try:
        yield stack.start()
    finally:
        stack.close()


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def status(url: str) -> int:
    """Status of a GET; 0 without an answer."""
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def wait_until(
    condition: Callable[[], bool], what: str, timeout_s: float = START_S, detail: Callable[[], str] = lambda: ""
) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"{what}: not within {timeout_s} s; {detail()}")
        time.sleep(0.05)


def chat(content: str = "hello", *, stream: bool = True, max_tokens: int = 20, **more: Any) -> dict[str, Any]:
    """A chat request that generates exactly `max_tokens` tokens."""
    body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": content}], "stream": stream}
    return {**body, "max_tokens": max_tokens, "ignore_eos": True, "temperature": 0, **more}


async def send(session: aiohttp.ClientSession, url: str, body: dict[str, Any], **kwargs: Any) -> tuple[int, bytes]:
    """POST a chat request and read the whole answer."""
    async with session.post(f"{url}/v1/chat/completions", json=body, **kwargs) as reply:
        return reply.status, await reply.read()


async def hang_up_after(session: aiohttp.ClientSession, url: str, body: dict[str, Any], events: int) -> int:
    """Read so many events of a stream, then close the connection. Returns the events seen."""
    seen = 0
    async with session.post(f"{url}/v1/chat/completions", json=body) as reply:
        async for data in reply.content.iter_any():
            seen += data.count(b"\n\n")
            if seen >= events:
                break
        reply.close()
    return seen


def client(**kwargs: Any) -> aiohttp.ClientSession:
    """A client without limits of its own."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=60), **kwargs
    )


async def gather_all(tasks: list[Any]) -> list[Any]:
    return list(await asyncio.gather(*tasks))
