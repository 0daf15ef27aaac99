"""`inferwatch serve` as its operators know it: real processes, signals, ports and folders.

The engine is a scripted one on loopback. The collector is a stand-in that starts quickly, but where its books, its
metrics or its admin port are what a test is about.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from serving import Engine, Reply, Serve, is_gone, until

from inferwatch import child as child_module
from inferwatch import host
from inferwatch.child import Child
from inferwatch.config import Config, ConfigError
from inferwatch.settings.observing import Identity
from inferwatch.supervisor import Supervisor

MakeServe = Callable[..., Serve]


async def test_requests_go_through_and_sigterm_is_exit_0(serve: MakeServe, engine: Engine) -> None:
    """Started, used and stopped: the answer is the engine's, each request is booked once, stderr has no error, and a
    time on each line."""
    server = serve(collector="real")
    await server.start()

    assert Reply(200, b"engine") == await server.get("/hello")
    server.signal(signal.SIGTERM)

    assert await server.exit_code() == 0
    # The collector looks for the engine's own metrics, too, and at what it is and which model it has.
    assert [path for path in engine.paths if not path.endswith(("metrics", "/v1/models", "/version", "/info"))] == [
        "/hello"
    ]
    assert [(record["outcome"], record["status"]) for record in server.records()] == [("ok", 200)]
    assert [line for line in server.log if "ERROR" in line or "Traceback" in line] == []
    told = [line for line in server.log if " INFO " in line]
    assert any("inferwatch.relay" in line for line in told)
    assert [line for line in told if not re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO ", line)] == []
    assert await server.refuses()


async def test_ctrl_c_stops_like_sigterm(serve: MakeServe) -> None:
    """SIGINT is asked for by a person, and is no failure."""
    server = serve()
    await server.start()
    server.signal(signal.SIGINT)

    assert await server.exit_code() == 0


@pytest.mark.parametrize("after_s", [0.0, 0.15, 0.3, 0.5])
async def test_sigterm_during_the_start_is_heard(serve: MakeServe, after_s: float) -> None:
    """Whatever a child is doing when the signal comes, it is told to end."""
    server = serve()
    await server.start(until="")
    async with asyncio.timeout(20):
        while await server.refuses():
            await asyncio.sleep(0.01)
    await asyncio.sleep(after_s)
    server.signal(signal.SIGTERM)

    # The socket listens a moment before the signal handler stands; a signal in between ends the process at once.
    assert await server.exit_code() in (0, -signal.SIGTERM)


# --- children that die


async def test_a_killed_relay_is_replaced_and_connections_wait_meanwhile(serve: MakeServe, engine: Engine) -> None:
    """Its socket lives on in the supervisor: who connects while there is no relay is served by the next one."""
    server = serve()
    await server.start()
    relay = server.children()["relay-0"]
    os.kill(relay, signal.SIGKILL)
    await until(lambda: is_gone(relay))

    replies = await asyncio.gather(*[server.get(f"/{number}") for number in range(20)])

    assert [Reply(200, b"engine")] * 20 == replies
    assert relay != server.children()["relay-0"]
    assert "child_died name=relay-0 code=-9" in await server.logged("child_died")


async def test_with_several_relays_each_has_its_own_queue_of_connections(serve: MakeServe) -> None:
    """Killing one of two loses no connection, to whichever of the two the kernel gives it."""
    server = serve("--workers", "2")
    await server.start()
    relays = server.children()
    assert {"collector", "relay-0", "relay-1"} == set(relays)
    os.kill(relays["relay-1"], signal.SIGKILL)
    await until(lambda: is_gone(relays["relay-1"]))

    replies = await asyncio.gather(*[server.get() for _ in range(20)])

    assert [Reply(200, b"engine")] * 20 == replies
    await until(lambda: len(server.children()) == 3)


async def test_a_killed_collector_disturbs_no_request_and_no_liveness(serve: MakeServe, engine: Engine) -> None:
    """While it is away the supervisor answers /healthz; the open stream goes on, and is booked by the next one."""
    server = serve(collector="real")
    await server.start()
    await server.admin_says("/healthz", lambda reply: reply.status == 200)
    async with server.stream(engine) as stream:
        collector = server.children()["collector"]
        os.kill(collector, signal.SIGKILL)
        await until(lambda: is_gone(collector))

        away = await server.admin_says("/healthz", lambda reply: b"restarting" in reply.body)
        assert away.status == 200
        assert Reply(200, b"engine") == await server.get("/meanwhile")
        await server.admin_says("/metrics", lambda reply: reply.status == 200)

        engine.go.set()
        await stream.readuntil(b"data: two\n\n\r\n0\r\n\r\n")
    server.signal(signal.SIGTERM)

    assert await server.exit_code() == 0
    assert {("GET", "ok", 200)} == {
        (record["method"], record["outcome"], record["status"]) for record in server.records()
    }
    assert len({record["request_id"] for record in server.records()}) == 2


async def test_liveness_never_fails_while_a_collector_comes_back(serve: MakeServe) -> None:
    """Between the stand-in's last answer and the new collector's first there is none that says 503."""
    server = serve(collector="real")
    await server.start()
    await server.admin_says("/healthz", lambda reply: reply.status == 200)
    os.kill(server.children()["collector"], signal.SIGKILL)

    replies: list[Reply] = []

    async def asked() -> bool:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):  # taken over in mid-question
            replies.append(await server.admin_get("/healthz"))
        return any(b"restarting" in reply.body for reply in replies) and b"restarting" not in replies[-1].body

    await until(asked)
    for _ in range(10):
        await asked()

    assert {200} == {reply.status for reply in replies}


async def test_without_any_collector_traffic_flows(serve: MakeServe) -> None:
    """A collector that dies at every start costs the traffic nothing; it is started again ever more slowly."""
    server = serve(collector="dies")
    await server.start(until="child_died name=collector code=3")
    await server.admin_says("/healthz", lambda reply: reply.status == 200)

    assert Reply(200, b"engine") == await server.get()
    assert (await server.admin_get("/readyz")).status == 503
    await server.logged("restart_in_s=0.4")
    pauses = [line.rpartition("=")[2] for line in server.log if "child_died name=collector" in line]
    assert pauses[:2] == ["0.2", "0.4"]


async def test_when_the_supervisor_is_killed_its_children_finish_and_exit(serve: MakeServe, engine: Engine) -> None:
    """Nothing outlives it but what a client is still reading."""
    server = serve(collector="real")
    await server.start()
    children = server.children()
    async with server.stream(engine) as stream:
        await server.admin_says("/metrics", lambda reply: b"inferwatch_requests_in_flight{" in reply.body)
        server.signal(signal.SIGKILL)
        await until(server.refuses)
        engine.go.set()
        await stream.readuntil(b"data: two\n\n\r\n0\r\n\r\n")

    await until(lambda: all(is_gone(pid) for pid in children.values()))
    assert await server.exit_code() == -signal.SIGKILL
    assert [record["outcome"] for record in server.records()] == ["ok"]


async def test_after_a_killed_supervisor_the_next_one_serves_at_once(serve: MakeServe, engine: Engine) -> None:
    """It need not wait for what the old one's children still finish; the books of both end up in one ledger."""
    first, second = serve(collector="real"), serve(collector="real")
    second.state_dir, second.port, second.admin = first.state_dir, first.port, first.admin
    await first.start()
    orphans = first.children()
    async with first.stream(engine) as stream:
        await first.admin_says("/metrics", lambda reply: b"inferwatch_requests_in_flight{" in reply.body)
        first.signal(signal.SIGKILL)
        await until(first.refuses)
        await second.start(until="")

        async def served() -> bool:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                return await second.get("/next") == Reply(200, b"engine")
            return False

        await until(served)
        engine.go.set()
        await stream.readuntil(b"data: two\n\n\r\n0\r\n\r\n")
    await until(lambda: all(is_gone(pid) for pid in orphans.values()))
    await second.logged(" ready: ")
    second.signal(signal.SIGTERM)

    assert await second.exit_code() == 0
    assert [record["outcome"] for record in [*first.records(), *second.records()]] == ["ok", "ok"]


# --- draining


async def test_sigterm_lets_open_streams_finish_and_refuses_new_connections(serve: MakeServe, engine: Engine) -> None:
    """The stream that was open gets its end; nobody new gets in; the exit code is 0."""
    server = serve(collector="real")
    await server.start()
    async with server.stream(engine) as stream:
        server.signal(signal.SIGTERM)
        await until(server.refuses)
        assert server.children()["relay-0"]
        engine.go.set()
        await stream.readuntil(b"data: two\n\n\r\n0\r\n\r\n")

    assert await server.exit_code() == 0
    assert [record["outcome"] for record in server.records()] == ["ok"]


async def test_an_idle_keep_alive_connection_does_not_hold_up_the_end(serve: MakeServe) -> None:
    """Only requests are waited for."""
    server = serve(collector="real")
    await server.start()
    async with server.connection() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        await reader.readuntil(b"engine")
        server.signal(signal.SIGTERM)

        assert await server.exit_code() == 0
        assert await reader.read() == b""


async def test_what_is_open_after_the_drain_budget_is_cut_and_booked(serve: MakeServe, engine: Engine) -> None:
    """`drain.timeout_s` is a promise to the orchestrator; the engine is told to stop, the books say interrupted."""
    server = serve(collector="real", INFERWATCH__DRAIN__TIMEOUT_S="0.2")
    await server.start()
    async with server.stream(engine) as stream:
        server.signal(signal.SIGTERM)
        assert b"two" not in await stream.read()

    assert await server.exit_code() == 0
    assert [record["outcome"] for record in server.records()] == ["interrupted"]
    await until(lambda: engine.hung_up == 1)


async def test_during_the_drain_delay_it_serves_but_is_not_ready(serve: MakeServe) -> None:
    """Load balancers get the time to notice; after it new connections are refused."""
    server = serve(collector="real", INFERWATCH__DRAIN__DELAY_S="3")
    await server.start()
    await server.admin_says("/readyz", lambda reply: reply.status == 200)
    server.signal(signal.SIGTERM)

    unready = await server.admin_says("/readyz", lambda reply: reply.status == 503)
    assert b"draining" in unready.body
    assert (await server.admin_get("/healthz")).status == 200
    assert Reply(200, b"engine") == await server.get()
    await until(server.refuses)
    assert await server.exit_code() == 0


@pytest.mark.parametrize("delay_s", ["0", "30"])
async def test_a_second_sigterm_cuts_what_is_open(serve: MakeServe, engine: Engine, delay_s: str) -> None:
    """Neither the delay nor the budget is waited for, no child comes back, and the books are still kept."""
    server = serve(collector="real", INFERWATCH__DRAIN__DELAY_S=delay_s)
    await server.start()
    async with server.stream(engine) as stream:
        await server.admin_says("/metrics", lambda reply: b"inferwatch_requests_in_flight{" in reply.body)
        server.signal(signal.SIGTERM)
        await (until(server.refuses) if delay_s == "0" else asyncio.sleep(0.2))
        server.signal(signal.SIGTERM)
        with contextlib.suppress(ConnectionError):
            assert b"two" not in await stream.read()

    assert await server.exit_code() == 0
    assert [record["outcome"] for record in server.records()] == ["interrupted"]
    assert [line for line in server.log if "restart_in" in line] == []


# --- reload


async def test_sighup_takes_up_a_good_file_and_open_streams_stay(
    serve: MakeServe, engine: Engine, tmp_path: Path
) -> None:
    """New requests go to the new upstream; a stream from the old one ends as it began."""
    other = Engine("other")
    await other.start()
    file = tmp_path / "inferwatch.yml"
    file.write_text(f"upstream: {{url: 'http://127.0.0.1:{engine.port}'}}\n", encoding="utf-8")
    server = serve("--config", str(file))
    server.without_upstream_flag()
    await server.start()
    async with server.stream(engine) as stream:
        file.write_text(f"upstream: {{url: 'http://127.0.0.1:{other.port}'}}\n", encoding="utf-8")
        server.signal(signal.SIGHUP)
        await server.logged("inferwatch.supervisor reloaded")

        async def moved() -> bool:
            return await server.get() == Reply(200, b"other")

        await until(moved)
        engine.go.set()
        await stream.readuntil(b"data: two\n\n\r\n0\r\n\r\n")
    await other.stop()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("upstream: {tls_ca_file: /nonexistent}\n", "upstream.tls_ca_file: cannot read `/nonexistent`"),
        ("upstream: {connect_timeout_s: soon}\n", "upstream.connect_timeout_s: expected `float`, got `str`"),
        ("upstream: {" + "[" * 1000, "not YAML: nested too deeply"),
        ('identity: {key_file: "a\\0b"}\n', "identity.key_file: holds a null byte"),
    ],
)
async def test_a_bad_file_is_told_to_who_asked_and_the_old_one_stays(
    serve: MakeServe, tmp_path: Path, text: str, fault: str
) -> None:
    """POST /-/reload answers with the fault; nothing changes, nothing dies; the repaired file is taken."""
    file = tmp_path / "inferwatch.yml"
    file.write_text("limits: {max_headers: 100}\n", encoding="utf-8")
    server = serve("--config", str(file), collector="real")
    await server.start()
    file.write_text(text, encoding="utf-8")

    refused = await server.reload()

    assert refused.status == 500
    assert refused.body.decode().rstrip("\n").endswith(fault)
    assert fault in await server.logged("reload_failed")
    assert Reply(200, b"engine") == await server.get()
    assert b"inferwatch_config_last_reload_successful 0" in (await server.admin_get("/metrics")).body

    file.write_text("limits: {max_headers: 101}\n", encoding="utf-8")
    assert Reply(200, b"reloaded\n") == await server.reload()
    assert b'"max_headers":101' in (await server.admin_get("/config")).body
    await server.admin_says("/metrics", lambda reply: b"inferwatch_config_last_reload_successful 1" in reply.body)
    server.signal(signal.SIGTERM)
    assert await server.exit_code() == 0


async def test_a_bad_file_does_not_fail_the_health_check(serve: MakeServe, tmp_path: Path) -> None:
    """A container's runtime would restart what serves; nor does an `admin` that waits for a restart."""
    file = tmp_path / "inferwatch.yml"
    file.touch()
    server = serve("--config", str(file), collector="real")
    await server.start()
    words = [sys.executable, "-m", "inferwatch", "healthcheck", "--config", str(file), "--state-dir"]
    for text in ("", "upstream: {url: nonsense}\n", "limits: [", "admin: 127.0.0.1:1\n"):
        file.write_text(text, encoding="utf-8")
        check = await asyncio.create_subprocess_exec(*words, str(server.state_dir))
        assert await check.wait() == 0
    server.signal(signal.SIGTERM)
    assert await server.exit_code() == 0
    assert not (server.state_dir / host.ADMIN_NOTE).exists()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
async def test_the_ready_line_has_ipv6_in_brackets(serve: MakeServe) -> None:
    """What it says can be opened."""
    server = serve("--listen", "[::1]:0", "--admin", "[::1]:0")
    await server.start()
    line = await server.logged(" ready: ")
    assert re.search(r"http://\[::1\]:\d+ -> .*, admin http://\[::1\]:\d+$", line)


async def test_a_token_is_changed_without_a_restart(serve: MakeServe, tmp_path: Path) -> None:
    """The old one ends with the reload; one that cannot be read changes nothing. Probes need none."""
    first, second = "first-token-of-ours", "second-token-of-ours"
    file = tmp_path / "token"
    file.write_text(first, encoding="utf-8")
    server = serve("--token-file", str(file), collector="real")
    await server.start()
    assert (await server.admin_get("/config")).status == 401
    await server.admin_says("/healthz", lambda reply: reply.status == 200)
    assert (await server.reload()).status == 401

    file.write_text("short", encoding="utf-8")
    assert (await server.reload(token=first)).status == 500
    file.write_text(second, encoding="utf-8")
    assert (await server.reload(token=first)).status == 200

    assert (await server.reload(token=first)).status == 401
    assert (await server.reload(token=second)).status == 200
    assert not any(first in line or second in line for line in server.log)


async def test_an_admin_port_that_everybody_reaches_is_named(serve: MakeServe) -> None:
    """A warning, because containers have no other way; none on loopback."""
    server = serve()
    await server.start()
    assert not any("admin_port_is_open" in line for line in server.log)
    server.signal(signal.SIGTERM)
    assert await server.exit_code() == 0
    server = serve("--admin", "0.0.0.0:0")
    await server.start()
    await server.logged("admin_port_is_open")


async def test_what_needs_a_restart_is_named_and_left(serve: MakeServe, tmp_path: Path) -> None:
    """A reload does not pretend: keys that it cannot take up are in the log."""
    file = tmp_path / "inferwatch.yml"
    file.touch()
    server = serve("--config", str(file))
    await server.start()
    file.write_text("workers: 3\ntap: {max_body_bytes: 1}\nbudgets: {max_accounts: 99}\n", encoding="utf-8")
    server.signal(signal.SIGHUP)

    line = await server.logged("reload_needs_restart")
    assert line.endswith("keys=workers,tap,budgets.max_accounts")
    assert {"collector", "relay-0"} == set(server.children())


# --- what cannot start


async def test_a_port_in_use_is_exit_2_and_names_its_key(serve: MakeServe) -> None:
    """`listen` and `admin` are told apart; the error is one line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for flag in ("listen", "admin"):
            server = serve(f"--{flag}", address)
            await server.start(until="")

            assert await server.exit_code() == 2
            expected = f"inferwatch: {flag}: cannot listen on {address}: Address already in use"
            assert [expected, "(end of log)"] == server.log


async def test_a_state_folder_in_use_is_exit_2(serve: MakeServe) -> None:
    """Two supervisors with one ledger would each undo the other's counters."""
    first, second = serve(), serve()
    await first.start()
    second.state_dir = first.state_dir
    await second.start(until="")

    assert await second.exit_code() == 2
    expected = f"inferwatch: state_dir: {first.state_dir} is in use by another Inferwatch"
    assert [expected, "(end of log)"] == second.log
    assert Reply(200, b"engine") == await first.get()


async def test_a_state_folder_that_cannot_be_made_is_exit_2(serve: MakeServe, tmp_path: Path) -> None:
    """The folder is named, with the reason."""
    (tmp_path / "file").touch()
    server = serve()
    server.state_dir = tmp_path / "file" / "state"
    await server.start(until="")

    assert await server.exit_code() == 2
    assert [f"inferwatch: state_dir: {server.state_dir}: Not a directory", "(end of log)"] == server.log


async def test_a_secret_that_is_too_short_is_exit_2(serve: MakeServe, tmp_path: Path) -> None:
    """Short secrets can be guessed, and then tenants' keys as well."""
    secret = tmp_path / "identity.key"
    secret.write_bytes(b"short\n")
    server = serve(INFERWATCH__IDENTITY__KEY_FILE=str(secret))
    await server.start(until="")

    assert await server.exit_code() == 2
    expected = f"inferwatch: identity.key_file: {secret} holds 5 bytes, expected at least 16"
    assert [expected, "(end of log)"] == server.log


async def test_a_deep_state_folder_does_not_break_the_tap(serve: MakeServe, tmp_path: Path) -> None:
    """A Unix socket's path is short; the socket then lives in the runtime folder, and requests are booked."""
    with tempfile.TemporaryDirectory(prefix="inferwatch-") as runtime:  # short, unlike a test's own folder
        server = serve(collector="real", XDG_RUNTIME_DIR=runtime)
        server.state_dir = tmp_path / ("deep" * 20) / "state"
        await server.start()
        await server.get()
        server.signal(signal.SIGTERM)

        assert await server.exit_code() == 0
    assert len(server.records()) == 1


@pytest.mark.parametrize("runtime", ["", "{deep}"])
def test_a_state_folder_too_deep_for_any_socket_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    """Without a runtime folder that is short enough, the error names the key at the start."""
    deep = tmp_path / ("deep" * 30)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime.format(deep=deep) or "/nonexistent")

    with pytest.raises(ConfigError, match=r"^state_dir: "):
        host.socket_dir(deep)


# --- in this process: what cannot be brought about from outside


def config_for(folder: Path, **changes: object) -> Config:
    """A configuration with free ports and a folder of its own."""
    return Config(listen="127.0.0.1:0", admin="127.0.0.1:0", state_dir=str(folder), **changes)  # type: ignore[arg-type]


def test_the_secret_is_made_once_and_only_we_may_read_it(tmp_path: Path) -> None:
    """Tenants' names are the same after a restart; nobody else on the host can compute them."""
    loaded = config_for(tmp_path)
    first = host.identity_secret(loaded, tmp_path)
    second = host.identity_secret(loaded, tmp_path)

    assert first == second
    assert len(first) == 32
    assert stat.S_IMODE((tmp_path / "identity.key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["identity.key"]


def test_a_given_secret_is_used_and_no_other_is_made(tmp_path: Path) -> None:
    """Several hosts can share a secret, so that a tenant has the same name on each."""
    given = tmp_path / "shared.key"
    given.write_bytes(b"s" * 40)
    state = tmp_path / "state"
    state.mkdir()

    assert host.identity_secret(config_for(state, identity=Identity(key_file=str(given))), state) == b"s" * 40
    assert list(state.iterdir()) == []


@pytest.mark.parametrize(
    ("state_dir", "environ", "expected"),
    [
        ("{tmp}/chosen", {"STATE_DIRECTORY": "{tmp}/systemd", "XDG_STATE_HOME": "{tmp}/xdg"}, "{tmp}/chosen"),
        ("", {"STATE_DIRECTORY": "{tmp}/systemd", "XDG_STATE_HOME": "{tmp}/xdg"}, "{tmp}/systemd"),
        ("", {"XDG_STATE_HOME": "{tmp}/xdg"}, "{tmp}/xdg/inferwatch/8123"),
        ("", {"HOME": "{tmp}/home"}, "{tmp}/home/.local/state/inferwatch/8123"),
        ("~/state", {"HOME": "{tmp}/home"}, "{tmp}/home/state"),
    ],
)
def test_the_state_folder_is_the_first_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state_dir: str, environ: dict[str, str], expected: str
) -> None:
    """The key, then systemd's folder, then the user's, by data port: two Inferwatches need no configuration."""
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value.format(tmp=tmp_path))
    loaded = Config(listen="127.0.0.1:8123", state_dir=state_dir.format(tmp=tmp_path))

    folder = host.state_dir(loaded)

    assert Path(expected.format(tmp=tmp_path)) == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


CHILD = """
import json, select, socket, sys, time
control = socket.socket(fileno=int(sys.argv[sys.argv.index("--control-fd") + 1]))
lines = control.makefile("rb", buffering=0)
first = json.loads(lines.readline())
if first.get("die"):
    sys.exit(7)
control.sendall(b'{"ready": true}\\n')
while True:
    line = b""
    if select.select([control], [], [], 0.05)[0]:
        line = lines.readline()
        if not line or json.loads(line).get("end"):
            sys.exit(0)
    if not first.get("silent"):
        control.sendall(b'{"beat": 1}\\n')
"""


@pytest.fixture(name="child")
def _child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Child]:
    """Make a Child that runs a small script; its first message says how it behaves."""
    (tmp_path / "scripted_child.py").write_text(CHILD, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(child_module, "RESTART_MIN_S", 0.01)

    def make(behaviour: Callable[[], dict[str, object]] = dict) -> Child:
        return Child("scripted", "scripted_child", {}, behaviour, lambda child, message: None, lambda: None)

    return make


async def finished(task: asyncio.Task[None]) -> None:
    """Wait for a child's `run`, which must not fail."""
    async with asyncio.timeout(10):
        await task


async def test_a_child_runs_until_it_is_told_to_end(child: Callable[..., Child]) -> None:
    """`stop` carries the last words, and nothing is started afterwards."""
    each = child()
    task = asyncio.ensure_future(each.run())
    await each.ready.wait()
    assert each.running
    each.stop({"end": True})

    await finished(task)
    assert not each.running
    assert not each.ready.is_set()


async def test_a_child_that_is_being_started_hears_that_it_should_end(child: Callable[..., Child]) -> None:
    """Between the fork and its first word there is nobody to tell; it is told as soon as there is."""
    each = child()
    task = asyncio.ensure_future(each.run())
    await asyncio.sleep(0)
    assert not each.running
    each.stop({"end": True})

    await finished(task)


async def test_a_child_that_dies_at_once_is_started_again_until_it_lives(child: Callable[..., Child]) -> None:
    """Its exit code is no matter: whoever is not told to stop is needed."""
    lives: list[dict[str, object]] = [{"die": True}, {"die": True}, {}]
    each = child(lambda: lives.pop(0))
    task = asyncio.ensure_future(each.run())
    await asyncio.wait_for(each.ready.wait(), 10)

    assert lives == []
    each.stop({"end": True})
    await finished(task)


async def test_a_child_that_hangs_is_killed_and_replaced(
    child: Callable[..., Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence for SILENCE_S means that its loop stands still."""
    monkeypatch.setattr(child_module, "SILENCE_S", 0.3)
    lives: list[dict[str, object]] = [{"silent": True}, {}]
    each = child(lambda: lives.pop(0))
    task = asyncio.ensure_future(each.run())
    await until(lambda: not lives and each.ready.is_set())

    assert each.running
    each.stop({"end": True})
    await finished(task)


async def test_a_start_that_the_system_refuses_is_tried_again(
    child: Callable[..., Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process, no descriptor, no memory: a reason to wait, never to give up the other children."""
    real = asyncio.create_subprocess_exec
    refusals = [OSError(11, "Resource temporarily unavailable"), OSError(24, "Too many open files")]

    async def sometimes(*arguments: object, **options: object) -> object:
        if refusals:
            raise refusals.pop()
        return await real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", sometimes)
    each = child()
    task = asyncio.ensure_future(each.run())
    await asyncio.wait_for(each.ready.wait(), 10)

    assert refusals == []
    each.stop({"end": True})
    await finished(task)


def test_a_reload_that_breaks_in_an_unforeseen_way_keeps_the_old_configuration(tmp_path: Path) -> None:
    """Whatever the loader raises, the supervisor and what it serves live on."""

    def broken() -> Config:
        raise RecursionError("deep")

    started = Supervisor(config_for(tmp_path), broken)
    before = started._config
    child_asking = started.collector

    started._on_message(child_asking, {"reload": True})

    assert before is started._config
    for listener in (*started._listeners, started._admin):
        listener.close()


async def test_ports_that_are_not_given_are_found(tmp_path: Path) -> None:
    """Port 0 is for tests and demos: each worker listens on the same free port."""
    listeners = host.bind("listen", "127.0.0.1:0", 3)

    assert len({listener.getsockname() for listener in listeners}) == 1
    for listener in listeners:
        listener.close()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6_addresses_have_brackets() -> None:
    """`[::1]:0` is bound as IPv6."""
    (listener,) = host.bind("listen", "[::1]:0", 1)

    assert listener.family == socket.AF_INET6
    listener.close()
