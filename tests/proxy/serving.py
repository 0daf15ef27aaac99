"""What the supervisor's tests stand on: a scripted engine, a scripted collector, and a handle on `inferwatch serve`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

PATIENCE_S = 20.0

# Stands in for the collector where its work does not matter; starts in a tenth of the time. FAKE_COLLECTOR chooses
# what it does: "fake" behaves, "dies" exits at once, "mute" never says that it is ready.
FAKE_COLLECTOR = """
import json, os, select, socket, sys

control = socket.socket(fileno=int(sys.argv[sys.argv.index("--control-fd") + 1]))
mode = os.environ["FAKE_COLLECTOR"]
lines = control.makefile("rb", buffering=0)
lines.readline()
if mode == "dies":
    sys.exit(3)
if mode == "fake":
    control.sendall(b'{"ready": true}\\n')
while True:
    if select.select([control], [], [], 1.0)[0]:
        line = lines.readline()
        if not line or json.loads(line).get("stop"):
            sys.exit(0)
    control.sendall(b'{"beat": 1}\\n')
"""


class Reply(NamedTuple):
    """What came back."""

    status: int
    body: bytes


class Engine:
    """Answers `/stream` with two events, the second when `go` is set; anything else with its own name."""

    def __init__(self, name: str = "engine") -> None:
        self.name = name
        self.go = asyncio.Event()
        self.streaming = asyncio.Event()
        self.paths: list[str] = []
        self.hung_up = 0  # streams that were not read to their end
        self.port = 0
        self._server: asyncio.Server | None = None
        self._handlers: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._handlers:
            task.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        task.add_done_callback(self._handlers.discard)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            self.paths.append(path)
            if path == "/stream":
                await self._stream(reader, writer)
            else:
                body = self.name.encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body)
                )
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the collector's probe: connects, and leaves again
        finally:
            writer.close()

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(b"b\r\ndata: one\n\n\r\n")
        await writer.drain()
        self.streaming.set()
        end = asyncio.ensure_future(reader.read(1))
        go = asyncio.ensure_future(self.go.wait())
        await asyncio.wait([end, go], return_when=asyncio.FIRST_COMPLETED)
        if end.done():
            go.cancel()
            with contextlib.suppress(ConnectionError):
                end.result()
            self.hung_up += 1
            return
        end.cancel()
        await asyncio.wait([end])
        writer.write(b"b\r\ndata: two\n\n\r\n0\r\n\r\n")
        await writer.drain()


class Serve:
    """One `inferwatch serve`."""

    def __init__(self, state_dir: Path, flags: tuple[str, ...], environ: dict[str, str]) -> None:
        self.state_dir = state_dir
        self.port = free_port()
        self.admin = free_port()
        self._flags = flags
        self._environ = environ
        self._process: asyncio.subprocess.Process | None = None
        self._children: set[int] = set()
        self.log: list[str] = []
        self.stdout = b""
        self._log_grew = asyncio.Condition()
        self._readers: list[asyncio.Task[Any]] = []

    def without_upstream_flag(self) -> None:
        """Leave the upstream to the file: a flag would win over it."""
        at = self._flags.index("--upstream")
        self._flags = (*self._flags[:at], *self._flags[at + 2 :])

    async def start(self, *, until: str = " ready: ") -> None:
        """Start, and wait for a line of the log that contains `until`."""
        command = [sys.executable, "-m", "inferwatch", "serve"]
        command += ["--listen", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{self.admin}"]
        command += ["--state-dir", str(self.state_dir), *self._flags]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("INFERWATCH__")}
        self._process = await asyncio.create_subprocess_exec(
            *command,
            env={**environ, **self._environ},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self._readers = [asyncio.ensure_future(self._read_log()), asyncio.ensure_future(self._read_stdout())]
        if until:
            await self.logged(until)

    async def _read_log(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            async with self._log_grew:
                self.log.append(line.decode().rstrip())
                self._log_grew.notify_all()
        async with self._log_grew:
            self.log.append("(end of log)")
            self._log_grew.notify_all()

    async def _read_stdout(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while data := await self._process.stdout.read(65536):
            self.stdout += data

    async def logged(self, text: str) -> str:
        """Wait for a line with `text` in it."""
        async with asyncio.timeout(PATIENCE_S), self._log_grew:
            while True:
                for line in self.log:
                    if text in line:
                        return line
                assert "(end of log)" not in self.log, self.log
                await self._log_grew.wait()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def exit_code(self) -> int:
        """Wait for the supervisor to end, and for all that its processes wrote."""
        assert self._process is not None
        async with asyncio.timeout(PATIENCE_S):
            code = await self._process.wait()
            await asyncio.gather(*self._readers)
        return code

    def records(self) -> list[dict[str, Any]]:
        """Return the lines of the request log so far."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    def children(self) -> dict[str, int]:
        """Return the living children: `relay-0`, `relay-1`, …, `collector`, by name, with their pids."""
        found: dict[str, int] = {}
        relays = []
        for pid in child_pids(self.pid):
            words = command_line(pid)
            if "inferwatch.relay" in words:
                relays.append(pid)
            elif "inferwatch_collectors" in words:
                found["collector"] = pid
        found.update({f"relay-{number}": pid for number, pid in enumerate(sorted(relays))})
        self._children.update(found.values())
        return found

    async def kill(self) -> None:
        """End whatever is left of it."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self.children()
            self._process.kill()
        for pid in self._children:
            if any(name in command_line(pid) for name in ("inferwatch.relay", "inferwatch_collectors")):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        await self.exit_code()

    # talking to it

    async def get(self, path: str = "/", *, port: int = 0) -> Reply:
        """GET from the data port, on a connection of its own."""
        async with self.connection(port) as (reader, writer):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
            return await read_reply(reader)

    async def admin_get(self, path: str) -> Reply:
        return await self.get(path, port=self.admin)

    async def reload(self, *, token: str = "") -> Reply:
        """POST /-/reload."""
        allowed = f"Authorization: Bearer {token}\r\n".encode() if token else b""
        async with self.connection(self.admin) as (reader, writer):
            head = b"POST /-/reload HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 0\r\n"
            writer.write(head + allowed + b"\r\n")
            return await read_reply(reader)

    @contextlib.asynccontextmanager
    async def connection(self, port: int = 0) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port or self.port)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    @contextlib.asynccontextmanager
    async def stream(self, engine: Engine) -> AsyncIterator[asyncio.StreamReader]:
        """Open a stream and read until its first event is there."""
        async with self.connection() as (reader, writer):
            writer.write(b"GET /stream HTTP/1.1\r\nHost: test\r\n\r\n")
            async with asyncio.timeout(PATIENCE_S):
                await reader.readuntil(b"data: one\n\n\r\n")
                await engine.streaming.wait()
            yield reader

    async def admin_says(self, path: str, wanted: Callable[[Reply], bool]) -> Reply:
        """Ask the admin port until the answer is as wanted."""
        answers: list[Reply] = []

        async def asked() -> bool:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                answers.append(await self.admin_get(path))
                return wanted(answers[-1])
            return False

        await until(asked)
        return answers[-1]

    async def refuses(self) -> bool:
        """Whether nobody listens on the data port."""
        try:
            async with self.connection():
                return False
        except ConnectionRefusedError:
            return True


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    """Read status and body of a reply that ends with its connection or has a length.

    Raises:
        asyncio.IncompleteReadError: the connection ended before the head was there.
    """
    async with asyncio.timeout(PATIENCE_S):
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        body = await (reader.readexactly(int(length[1])) if length else reader.read())
    return Reply(int(head.split(b" ")[1]), body)


async def until(condition: Callable[[], Any]) -> None:
    """Wait until `condition` (plain or async) holds."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            held = condition()
            if await held if asyncio.iscoroutine(held) else held:
                return
            await asyncio.sleep(0.02)


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def child_pids(parent: int) -> list[int]:
    """Return the pids whose parent is `parent`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry.name))
    return found


def command_line(pid: int) -> list[str]:
    """Return the words of a process's command; empty when it is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


def is_gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    return not command_line(pid)
