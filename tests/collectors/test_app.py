"""The collector as a process: killed, starved of disk, ignored, told to stop. Nothing is lost or counted twice."""

import asyncio
import contextlib
import json
import os
import random
import resource
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from inferwatch import tap
from inferwatch.control import Channel
from inferwatch.tap import Ack, Batch, Bye, Close, Open
from inferwatch_collectors import app as app_module
from inferwatch_collectors import metrics as m
from inferwatch_collectors import parts as parts_module
from inferwatch_collectors.ledger.sqlite import FILE_NAME
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.metrics import TABLE
from inferwatch_collectors.start import CollectorSettings, settings_from

PATIENCE_S = 60.0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def connected(path: Path) -> socket.socket:
    """Connect as soon as somebody listens."""
    sock = socket.socket(socket.AF_UNIX)
    async with asyncio.timeout(PATIENCE_S):
        while sock.connect_ex(str(path)):
            await asyncio.sleep(0.02)
    return sock


class Folder:
    """Where one collector keeps its things, and the admin port that outlives it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = path / "state"
        self.tap = path / "tap.sock"
        self.spool = path / "spool"
        self.log = path / "stdout"
        self.errors = path / "stderr"
        self.admin = socket.create_server(("127.0.0.1", 0))
        self.admin.setblocking(False)
        self.admin_address = self.admin.getsockname()[:2]

    def ids(self) -> list[str]:
        with contextlib.closing(sqlite3.connect(self.state / FILE_NAME)) as reader:
            return [row[0] for row in reader.execute("SELECT request_id FROM requests ORDER BY seq")]

    def counters(self) -> MetricStore:
        """What a next collector would begin with."""
        with contextlib.closing(sqlite3.connect(self.state / FILE_NAME)) as reader:
            rows = reader.execute("SELECT family, labels, value FROM metric_state").fetchall()
        store = MetricStore(TABLE)
        assert store.restore(rows).discarded == ()
        return store

    async def scrape(self, name: str, path: str = "/metrics") -> dict[str, float]:
        """Return the samples of `name` by their labels."""
        text = (await self.get(path))[1]
        samples = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(name))
        return {labels.removeprefix(name): float(value) for labels, value in samples}

    async def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        reader, writer = await asyncio.open_connection(*self.admin_address)
        writer.write(f"{method} {path} HTTP/1.0\r\n\r\n".encode())
        async with asyncio.timeout(PATIENCE_S):
            answer = await reader.read()
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()


class Process:
    """One life of a collector process."""

    def __init__(self, folder: Folder, process: asyncio.subprocess.Process) -> None:
        self.folder = folder
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(cls, folder: Folder, stdout: int | None = None) -> "Process":
        arguments = [
            "--tap-socket",
            str(folder.tap),
            "--state-dir",
            str(folder.state),
            "--spool-dir",
            str(folder.spool),
        ]
        folder.tap.unlink(missing_ok=True)
        with folder.log.open("ab") as log, folder.errors.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "inferwatch_collectors",
                *arguments,
                "--admin-fd",
                str(folder.admin.fileno()),
                pass_fds=[folder.admin.fileno()],
                stdout=log if stdout is None else stdout,
                stderr=errors,
            )
        return cls(folder, process)

    def kill(self) -> None:
        self._process.kill()

    def terminate(self) -> None:
        self._process.terminate()

    async def wait(self) -> int:
        async with asyncio.timeout(PATIENCE_S):
            return await self._process.wait()

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@pytest.fixture
def folder(tmp_path: Path) -> Iterable[Folder]:
    folder = Folder(tmp_path)
    yield folder
    folder.admin.close()


@pytest.fixture
async def start(folder: Folder) -> AsyncIterator[Callable[..., Any]]:
    lives: list[Process] = []

    async def start(**options: Any) -> Process:
        lives.append(await Process.start(folder, **options))
        return lives[-1]

    yield start
    for life in lives:
        await life.end()


class Relay:
    """The relay's side of the promise: a close is kept until it is acknowledged, and told again after a reconnect."""

    def __init__(self, frames: Any, path: Path, boot: str = "b007", worker: int = 0) -> None:
        self._frames = frames
        self._path = path
        self._boot = boot
        self._worker = worker
        self._seq = 0
        self._unacked: list[tuple[int, Open, Close]] = []
        self._open: dict[int, Open] = {}
        self._writer: asyncio.StreamWriter | None = None
        self.closed: list[str] = []
        self.feature = ""
        self.deaf = False  # acknowledgements get lost
        self._left = False

    async def run(self) -> None:
        """Keep a connection for as long as there is a collector to connect to."""
        while not self._left:
            try:
                reader, self._writer = await asyncio.open_unix_connection(str(self._path))
            except OSError:
                await asyncio.sleep(0.02)
                continue
            self._write(self._frames.hello(boot=self._boot, worker=self._worker))
            self._tell_again()
            self.report()
            with contextlib.suppress(ConnectionError):
                await self._hear(reader)
            self._writer.close()
            self._writer = None

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        frames = tap.relay_side()
        while data := await reader.read(65536):
            for message in frames.feed(data):
                assert isinstance(message, Ack)
                if self.deaf:
                    continue
                self._unacked = [entry for entry in self._unacked if entry[0] > message.seq]

    def _tell_again(self) -> None:
        entries, self._unacked = self._unacked, []
        for _, opened, close in entries:
            self._send([opened], closes=[close], opened={opened.id: opened})
        if self._open:
            self._send([replace(opened, resumed=True, body=b"") for opened in self._open.values()])

    def begin(self, *numbers: int) -> None:
        """Streams begin."""
        for number in numbers:
            self._open[number] = self._frames.open(number, stream=True)
        self._send([self._open[number] for number in numbers])

    def finish(self, *numbers: int) -> None:
        """Requests end: streams that were begun, and plain ones from beginning to end."""
        opened = {
            number: self._open.pop(number, None) or self._frames.open(number, feature=self.feature)
            for number in numbers
        }
        self.closed += [each.request_id for each in opened.values()]
        plain = [each for each in opened.values() if not each.stream]
        self._send(
            plain,
            reads=[self._frames.read(each.id, self._frames.plain_reply) for each in plain],
            closes=[self._frames.close(number) for number in numbers],
            opened=opened,
        )

    def report(self) -> None:
        self._send([], stats=self._frames.stats())

    def _send(
        self,
        opens: list[Open],
        reads: list[tuple[int, int, bytes]] | None = None,
        closes: list[Close] | None = None,
        opened: dict[int, Open] | None = None,
        stats: Any = None,
    ) -> None:
        self._seq += 1
        for close in closes or []:
            again = replace((opened or {})[close.id], resumed=True, body=b"")
            self._unacked.append((self._seq, again, close))
        self._write(Batch(self._seq, opens, [], reads or [], closes or [], stats))

    def _write(self, message: Any) -> None:
        if self._writer is not None:
            self._writer.write(tap.encode(message))

    @property
    def all_acked(self) -> bool:
        return not self._unacked

    def leave(self) -> None:
        """Say goodbye, and do not come again."""
        self._left = True
        self._write(Bye())


@pytest.fixture
async def relay(frames: Any, folder: Folder) -> AsyncIterator[Relay]:
    relay = Relay(frames, folder.tap)
    running = asyncio.get_running_loop().create_task(relay.run())
    yield relay
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    if relay._writer is not None:
        relay._writer.close()


# --- lost and found


async def test_kill_9_in_the_middle(folder: Folder, start: Any, relay: Relay, frames: Any) -> None:
    """Killed three times amid traffic, the ledger has each request once, and the counters count each once."""
    chance = random.Random(4711)
    next_number = 1
    shown = 0.0
    process = await start()
    for _ in range(3):
        await until(folder.tap.exists)
        relay.begin(next_number, next_number + 1)
        streams, next_number = (next_number, next_number + 1), next_number + 2
        for _ in range(25):
            relay.finish(*range(next_number, next_number + 8))
            next_number += 8
            await asyncio.sleep(chance.uniform(0, 0.02))
        relay.deaf = True  # the collector dies before its last acknowledgements arrive
        before = await folder.scrape("inferwatch_tokens_total")
        relay.finish(streams[0], *range(next_number, next_number + 5))  # the moment before the kill
        next_number += 5
        await asyncio.sleep(chance.uniform(0, 0.12))
        process.kill()
        await process.wait()
        relay.deaf = False
        relay.finish(*range(next_number, next_number + 7))  # nobody is there
        next_number += 7
        process = await start()
        await until(folder.tap.exists)
        after = await folder.scrape("inferwatch_tokens_total")
        assert sum(after.values()) >= sum(before.values()) > shown, "a counter that was seen never goes back"
        shown = sum(after.values())
        relay.finish(streams[1])
    await until(lambda: relay.all_acked)
    relay.leave()
    process.terminate()
    assert await process.wait() == 0

    assert sorted(folder.ids()) == sorted(relay.closed)
    counters = folder.counters()
    booked = len(relay.closed)
    labels = ("qwen", "acme", "chat")
    assert counters.counter(m.REQUESTS, (*labels, "ok")).value == booked
    assert counters.counter(m.TOKENS, (*labels, "completion")).value == booked * frames.completion_tokens
    assert counters.counter(m.TOKENS, (*labels, "prompt")).value == booked * frames.prompt_tokens


async def test_a_disk_without_room(folder: Folder, start: Any, relay: Relay) -> None:
    """While the disk takes nothing, requests are counted and shown but not acknowledged; afterwards all are booked."""
    process = await start()
    relay.finish(1)
    await until(lambda: relay.all_acked)
    hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[1]
    size = max(file.stat().st_size for file in (*folder.state.iterdir(), folder.log, folder.errors))
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size + 4096, hard))
    for start_number in range(2, 1002, 100):
        relay.finish(*range(start_number, start_number + 100))
    failures: dict[str, float] = {}
    async with asyncio.timeout(PATIENCE_S):
        while failures.get("", 0) < 2:
            failures = await folder.scrape("inferwatch_ledger_commit_failures_total")
    assert await folder.scrape("inferwatch_ledger_durable") == {"": 0}
    ok = {
        labels: value for labels, value in (await folder.scrape("inferwatch_requests_total")).items() if "ok" in labels
    }
    assert sum(ok.values()) == 1001
    assert not relay.all_acked
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    await until(lambda: relay.all_acked)
    assert await folder.scrape("inferwatch_ledger_durable") == {"": 1}
    assert sorted(folder.ids()) == sorted(relay.closed)
    assert folder.errors.read_text().count("ledger_failed") == 1


async def test_spooled_requests_are_found_at_the_start(folder: Folder, start: Any, frames: Any) -> None:
    """What a relay handed over on disk is booked, and its file deleted."""
    folder.spool.mkdir()
    spooled = folder.spool / "dead-0.ready"
    spooled.write_bytes(tap.encode(frames.told_again(1, 2, 3)) + b"\x00\x00")
    await start()
    await until(lambda: folder.state.exists() and not spooled.exists())
    assert len(folder.ids()) == 3
    assert (await folder.scrape("inferwatch_collector_cut_total"))['{reason="spool_torn"}'] == 1


async def test_a_relay_that_was_killed(folder: Folder, start: Any, frames: Any) -> None:
    """Some seconds later its open requests are booked as interrupted."""
    await start()
    with await connected(folder.tap) as relay:
        relay.sendall(tap.encode(frames.hello()) + tap.encode(frames.batch(1, opens=[frames.open(1), frames.open(2)])))
        async with asyncio.timeout(PATIENCE_S):
            while sum((await folder.scrape("inferwatch_requests_in_flight")).values()) != 2:
                await asyncio.sleep(0.02)
    await until(lambda: len(folder.ids()) == 2)
    requests = await folder.scrape("inferwatch_requests_total")
    assert {value for labels, value in requests.items() if "interrupted" in labels} == {2}


async def test_a_clean_end_forgets_nothing_of_drift(folder: Folder, start: Any, relay: Relay) -> None:
    """A vote is there in the next life, though no hour is over."""

    async def votes() -> int:
        streams = json.loads((await folder.get("/drift"))[1])["streams"]
        return streams[0]["votes"] if streams else 0

    process = await start()
    await until(folder.tap.exists)
    before = number = 0
    async with asyncio.timeout(PATIENCE_S):
        while not before:
            number += 1
            relay.finish(number)
            await asyncio.sleep(0.2)
            before = await votes()
    relay.leave()
    process.terminate()
    assert await process.wait() == 0
    await start()
    await until(folder.tap.exists)
    assert await votes() >= before


# --- around it


async def test_nobody_reads_stdout(folder: Folder, start: Any, relay: Relay) -> None:
    """A log that nobody reads costs log lines; requests are booked and the admin port answers."""
    reading, writing = os.pipe()
    process = await start(stdout=writing)
    os.close(writing)
    relay.feature = "x" * 4000  # so that 2,000 lines are more than the log may hold back
    for first in range(1, 2001, 100):
        relay.finish(*range(first, first + 100))
        await asyncio.sleep(0)
    await until(lambda: relay.all_acked)
    assert (await folder.scrape("inferwatch_collector_cut_total"))['{reason="log_lines"}'] > 0
    relay.leave()
    process.terminate()
    assert await process.wait() == 0
    os.close(reading)
    assert len(folder.ids()) == 2000


async def test_content_and_names_stay_inside(folder: Folder, start: Any, frames: Any) -> None:
    """Neither prompt nor answer nor user is in any output, and prompt and answer are not in any file."""
    process = await start()
    secret = b"canary-4711"
    with await connected(folder.tap) as relay:
        opens = [
            frames.open(1, body=b'{"messages":[{"content":"%b"}]}' % secret, user="user-canary-4711"),
            frames.open(2, headers={"x-request-id": secret.decode()}, path="/v1/" + secret.decode()),
        ]
        reads = [frames.read(1, frames.plain_reply.replace(b"Hello", secret)), frames.read(2, b"{broken " + secret)]
        closes = [frames.close(1, tail=secret), frames.close(2, dropped_bytes=5, tail=b'{"x":"%b' % secret)]
        batch = frames.batch(1, opens=opens, heads=[frames.head(1), frames.head(2)], reads=reads, closes=closes)
        relay.sendall(tap.encode(frames.hello()) + tap.encode(batch) + tap.encode(Bye()))
        await until(lambda: len(folder.ids()) == 2)
    texts = [(await folder.get(path))[1] for path in ("/", "/metrics", "/config", "/healthz", "/readyz", "/version")]
    process.terminate()
    assert await process.wait() == 0
    lines = folder.log.read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["request", "request"]
    assert not [text for text in (*texts, *lines, folder.errors.read_text()) if "canary-4711" in text]
    user_only = (folder.state / FILE_NAME).read_bytes().replace(b"user-canary-4711", b"")
    assert secret not in user_only


async def test_a_path_that_cannot_be_used_is_one_line(folder: Folder, start: Any) -> None:
    """Exit code 1 and a line that names the path."""
    folder.tap = Path("/proc/no/tap.sock")
    process = await start()
    assert await process.wait() == 1
    lines = [line for line in folder.errors.read_text().splitlines() if "ERROR" in line]
    assert len(lines) == 1
    assert "/proc/no" in lines[0]


async def test_without_a_state_folder_it_counts_in_memory(folder: Folder, start: Any, relay: Relay) -> None:
    """A folder that cannot be used is said in the metrics, and requests are acknowledged all the same."""
    folder.state.write_text("a file")
    await start()
    relay.finish(1)
    await until(lambda: relay.all_acked)
    assert await folder.scrape("inferwatch_ledger_durable") == {"": 0}


# --- under a supervisor, in this process


class Supervised:
    """A collector in this process, and the supervisor's end of its channel."""

    def __init__(self, settings: CollectorSettings, channel: Channel, running: "asyncio.Task[int]") -> None:
        self.settings = settings
        self.channel = channel
        self.running = running
        self.messages: list[dict[str, Any]] = []

    async def listen(self) -> None:
        async for message in self.channel.messages():
            self.messages.append(message)
            if message.get("reload"):
                self.channel.send({"reloaded": "workers: expected an integer"})


def first_message(folder: Folder, **config: Any) -> dict[str, Any]:
    return {
        "config": {
            "upstream": {"url": "http://127.0.0.1:9"},
            "log": {"requests": False, "level": "info"},
            "ledger": {"retention_days": 1, "max_rows": 100},
            "metrics": {"max_models": 3, "max_tenants": 3},
            "drain": {"timeout_s": 0.2},
        }
        | config,
        "redacted": {"shown": True},
        "state_dir": str(folder.state),
        "tap_socket": str(folder.tap),
        "spool_dir": str(folder.spool),
        "status": {"draining": False, "reload_ok": True, "reload_unix": 123.0},
    }


@pytest.fixture
async def supervised(folder: Folder, nothing_blocks: None) -> AsyncIterator[Supervised]:
    ours, theirs = socket.socketpair()
    settings = settings_from(first_message(folder), os.dup(folder.admin.fileno()))
    loop = asyncio.get_running_loop()
    channel = await Channel.over(ours)
    running = loop.create_task(app_module.run(settings, await Channel.over(theirs)))
    supervised = Supervised(settings, channel, running)
    listening = loop.create_task(supervised.listen())
    await until(lambda: {"ready": True} in supervised.messages)
    yield supervised
    channel.send({"stop": True})
    async with asyncio.timeout(PATIENCE_S):
        assert await running == 0
    channel.close()
    await listening


async def test_ready_and_alive(supervised: Supervised) -> None:
    """It says that it is ready once it is, and then that it lives."""
    await until(lambda: {"beat": 1} in supervised.messages)
    assert supervised.messages.count({"ready": True}) == 1


async def test_not_healthy_without_relays(supervised: Supervised, folder: Folder) -> None:
    """Without a relay no request can come through."""
    assert (await folder.get("/healthz"))[0] == 503


async def test_health_follows_the_relays(supervised: Supervised, folder: Folder, relay: Relay) -> None:
    """Healthy with a relay that reports; not ready while the upstream is away."""
    async with asyncio.timeout(PATIENCE_S):
        while (await folder.get("/healthz"))[0] != 200:
            await asyncio.sleep(0.02)
    status, body = await folder.get("/readyz")
    assert status == 503
    assert "127.0.0.1:9" in body


async def test_requests_are_booked_and_nothing_blocks(supervised: Supervised, folder: Folder, relay: Relay) -> None:
    """The whole way from the tap to the ledger and the scrape, without a blocking call on the loop."""
    relay.begin(1, 2)
    relay.finish(1, 2, 3, 4)
    await until(lambda: relay.all_acked)
    requests = await folder.scrape("inferwatch_requests_total")
    assert sum(requests.values()) == 4
    relay.leave()
    assert await asyncio.to_thread(lambda: len(folder.ids())) == 4


async def test_the_supervisors_word(supervised: Supervised, folder: Folder) -> None:
    """Draining, the state of the configuration and the configuration itself come from the supervisor."""
    assert await folder.scrape("inferwatch_config_last_reload_successful") == {"": 1}
    assert json.loads((await folder.get("/config"))[1]) == {"shown": True}
    changed = first_message(folder)["config"] | {
        "upstream": {"url": "http://127.0.0.1:10"},
        "log": {"requests": True, "level": "warning"},
    }
    supervised.channel.send({"config": changed, "redacted": {"shown": "anew"}})
    supervised.channel.send({"status": {"draining": True, "reload_ok": False, "reload_unix": 124.0}})
    async with asyncio.timeout(PATIENCE_S):
        while "draining" not in (await folder.get("/readyz"))[1]:
            await asyncio.sleep(0.01)
        while '{upstream="127.0.0.1:10"}' not in await folder.scrape("inferwatch_upstream_up"):
            await asyncio.sleep(0.01)
    assert list(await folder.scrape("inferwatch_upstream_up")) == ['{upstream="127.0.0.1:10"}']
    assert await folder.scrape("inferwatch_config_last_reload_successful") == {"": 0}
    assert await folder.scrape("inferwatch_draining") == {"": 1}
    assert json.loads((await folder.get("/config"))[1]) == {"shown": "anew"}


async def test_reload_is_the_supervisors(supervised: Supervised, folder: Folder) -> None:
    """The answer of the supervisor is the answer of the admin port."""
    assert await folder.get("/-/reload", "POST") == (500, "workers: expected an integer\n")


async def test_a_task_that_dies_ends_the_process(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in a part of the collector is exit code 1, for the supervisor to start another."""

    async def die(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(parts_module.SpoolReader, "run", die)
    settings = settings_from(first_message(folder), os.dup(folder.admin.fileno()))
    async with asyncio.timeout(PATIENCE_S):
        assert await app_module.run(settings) == 1


async def test_without_a_supervisor_it_ends(folder: Folder) -> None:
    """When the other end of the channel is gone, it gives the relays time to leave, commits, and ends."""
    ours, theirs = socket.socketpair()
    settings = settings_from(first_message(folder), os.dup(folder.admin.fileno()))
    running = asyncio.get_running_loop().create_task(app_module.run(settings, await Channel.over(theirs)))
    ours.close()
    async with asyncio.timeout(PATIENCE_S):
        assert await running == 0


async def test_a_second_collector_is_refused(
    supervised: Supervised, folder: Folder, monkeypatch: Any, caplog: Any
) -> None:
    """Two on one ledger would overwrite each other's counters: the second says so and ends with exit code 1."""
    monkeypatch.setattr("inferwatch_collectors.ledger.sqlite_store.LOCK_WAIT_S", 0.0)
    assert await app_module.run(supervised.settings) == 1
    assert "ledger_in_use" in caplog.text
