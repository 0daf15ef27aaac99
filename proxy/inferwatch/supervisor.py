"""`inferwatch serve`: holds the sockets, starts both planes, restarts what dies, drains at SIGTERM, reloads at SIGHUP.

The listening sockets belong to the supervisor and are inherited by the children. A relay that dies leaves its socket
behind: connections wait in its backlog for the next one instead of being refused. While the collector is away the
supervisor itself answers on the admin port, so that a liveness probe sees the data path, not the state of the
observing side. Nothing here is on the way of a request or of a token; it must only never die, so it is small and
imports little.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from inferwatch import __version__, config, memory
from inferwatch.admin_standin import StandIn
from inferwatch.config import Config, ConfigError
from inferwatch.control import Channel, Message

log = logging.getLogger(__name__)

# A child that dies at once (a broken install, a port that is gone) is not started more often than this.
RESTART_MIN_S: Final = 0.1
RESTART_MAX_S: Final = 5.0
# A child that has lived this long has proved itself: its next death is a first one again.
HEALTHY_S: Final = 10.0

# Children say every second that they are alive; one that is silent for this long hangs and is killed.
SILENCE_S: Final = 20.0

# After the relays are gone: time for the collector to commit and exit.
COLLECTOR_STOP_S: Final = 10.0

# Beyond `drain.timeout_s` a relay needs time to hand its tap over; then it is killed.
RELAY_STOP_S: Final = 10.0

SECRET_BYTES: Final = 32

# sun_path has 108 bytes with the closing zero.
MAX_SOCKET_PATH_BYTES: Final = 107


class Child:
    """One child process, started again whenever it dies."""

    def __init__(
        self,
        name: str,
        module: str,
        inherited: dict[str, socket.socket],
        first_message: Callable[[], Message],
        on_message: Callable[["Child", Message], None],
        on_change: Callable[[], None],
    ) -> None:
        self.name = name
        self._module = module
        self._inherited = inherited
        self._first_message = first_message
        self._on_message = on_message
        self._on_change = on_change
        self._channel: Channel | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._last_sign_s = 0.0
        self._last_words: Message = {}
        self.ready = asyncio.Event()
        self.stopping = False

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def send(self, message: Message) -> None:
        if self._channel is not None:
            self._channel.send(message)

    def stop(self, message: Message) -> None:
        """Ask it to end, and do not start it again. A child that is just being started hears it, too."""
        self.stopping = True
        self._last_words = message
        self.send(message)

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def _is_stopping(self) -> bool:
        return self.stopping

    async def run(self) -> None:
        """Start and restart until stopping."""
        delay_s = RESTART_MIN_S
        while not self._is_stopping():
            started_s = time.monotonic()
            try:
                code = await self._live_once()
            except OSError as error:  # no process, no descriptor, no memory: later, perhaps
                code = -1
                log.error("child_cannot_start name=%s reason=%s", self.name, error.strerror)
            self.ready.clear()
            if self._is_stopping():
                return
            self._on_change()
            delay_s = RESTART_MIN_S if time.monotonic() - started_s > HEALTHY_S else min(delay_s * 2, RESTART_MAX_S)
            log.error("child_died name=%s code=%s restart_in_s=%.1f", self.name, code, delay_s)
            await asyncio.sleep(delay_s)

    async def _live_once(self) -> int:
        with contextlib.ExitStack() as cleanup:
            ours, theirs = socket.socketpair()
            cleanup.callback(theirs.close)
            ours_guard = cleanup.enter_context(contextlib.ExitStack())
            ours_guard.callback(ours.close)
            files = {"control": theirs, **self._inherited}
            arguments = [text for key, sock in files.items() for text in (f"--{key}-fd", str(sock.fileno()))]
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self._module,
                *arguments,
                pass_fds=[sock.fileno() for sock in files.values()],
                # Ctrl-C in a terminal goes to the whole group; the order of stopping is ours to decide.
                process_group=0,
            )
            ours_guard.pop_all()  # the channel's from now on
        self._channel = channel = await Channel.over(ours)
        self._last_sign_s = time.monotonic()
        channel.send(self._first_message())
        if self.stopping:
            channel.send(self._last_words)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(process))
            async for message in channel.messages():
                self._last_sign_s = time.monotonic()
                if message.get("ready"):
                    self.ready.set()
                    self._on_change()
                self._on_message(self, message)
        channel.close()
        self._channel = None
        return await process.wait()

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        while process.returncode is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    _ = await process.wait()
            silent_s = time.monotonic() - self._last_sign_s
            if self.running and silent_s > SILENCE_S and not self.stopping:
                log.error("child_hangs name=%s silent_s=%.0f", self.name, silent_s)
                process.kill()


class Supervisor:
    """Owns sockets, state directory and children."""

    def __init__(self, loaded: Config, reload: Callable[[], Config]) -> None:
        self._config = loaded
        self._reload_config = reload
        self._state_dir = _state_dir(loaded)
        self._secret = _secret(loaded, self._state_dir)
        self._socket_dir = _socket_dir(self._state_dir)
        self._listeners = _bind_all("listen", loaded.listen, loaded.workers)
        self._admin = _bind_all("admin", loaded.admin, 1)[0]
        self._standin = StandIn(self._admin, self._data_path_alive)
        self._reloaded_ok = True
        self._reloaded_unix = time.time()
        self._draining = False
        self._stop = asyncio.Event()
        self._impatient = asyncio.Event()
        self._changed = asyncio.Event()
        self.collector = Child(
            "collector",
            "inferwatch_collectors",
            {"admin": self._admin},
            self._collector_start,
            self._on_message,
            self._changed.set,
        )
        self.relays = [
            Child(
                f"relay-{worker}",
                "inferwatch.relay",
                {"listen": listener},
                lambda worker=worker: self._relay_start(worker),  # type: ignore[misc]
                self._on_message,
                self._changed.set,
            )
            for worker, listener in enumerate(self._listeners)
        ]

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT. Returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        async with asyncio.TaskGroup() as group:
            children = [group.create_task(child.run()) for child in (self.collector, *self.relays)]
            tell = group.create_task(self._tell_changes())
            announce = group.create_task(self._announce())
            await self._stop.wait()
            announce.cancel()
            await self._drain()
            tell.cancel()
            await asyncio.wait(children)
        await self._standin.stop()
        return 0

    def _asked_to_stop(self) -> None:
        """Once: drain. Twice: cut what is open. Three times: do not even wait for the books."""
        if self._impatient.is_set():
            self.collector.kill()
        elif self._stop.is_set():
            self._impatient.set()
            for relay in self.relays:
                relay.stopping = True
                relay.kill()
        self._stop.set()

    async def _announce(self) -> None:
        for child in (self.collector, *self.relays):
            await child.ready.wait()
        memory.settle()
        scheme = "https" if self._config.tls.cert_file else "http"
        host, port = self._listeners[0].getsockname()[:2]
        admin_host, admin_port = self._admin.getsockname()[:2]
        log.info(
            "inferwatch %s ready: %s://%s:%d -> %s, admin http://%s:%d",
            __version__,
            scheme,
            host,
            port,
            config.redacted(self._config)["upstream"]["url"],
            admin_host,
            admin_port,
        )

    async def _tell_changes(self) -> None:
        """Keep the collector informed, and the admin port answered while it is away."""
        while True:
            if self.collector.ready.is_set():
                await self._standin.stop()
                self.collector.send({"status": self._status()})
            else:
                await self._standin.start()
            await self._changed.wait()
            self._changed.clear()

    def _status(self) -> Message:
        return {
            "draining": self._draining,
            "data_path_alive": self._data_path_alive(),
            "reload_ok": self._reloaded_ok,
            "reload_unix": self._reloaded_unix,
        }

    def _data_path_alive(self) -> bool:
        return any(relay.running and relay.ready.is_set() for relay in self.relays)

    def _collector_start(self) -> Message:
        return {
            "config": msgspec.to_builtins(self._config),
            "redacted": config.redacted(self._config),
            "state_dir": str(self._state_dir),
            "tap_socket": str(self._socket_dir / "tap.sock"),
            "spool_dir": str(self._state_dir / "spool"),
            "status": self._status(),
        }

    def _relay_start(self, worker: int) -> Message:
        return {
            "config": msgspec.to_builtins(self._config),
            "worker": worker,
            "tap_socket": str(self._socket_dir / "tap.sock"),
            "spool_dir": str(self._state_dir / "spool"),
            "identity_secret": self._secret.hex(),
        }

    def _on_message(self, child: Child, message: Message) -> None:
        if message.get("reload"):
            error = self._reload()
            child.send({"reloaded": error})

    def _reload(self) -> str:
        """Take up the configuration anew; on a fault keep the old one. Returns the fault or ""."""
        try:
            fresh = self._reload_config()
        except (ConfigError, OSError, ValueError, TypeError, LookupError, RecursionError) as error:
            # ConfigError is what it should be; but a file that breaks its reader must not end a running sidecar.
            self._reloaded_ok = False
            log.error("reload_failed %s", error)
            self._changed.set()
            return str(error)
        names = fresh.__struct_fields__
        ignored = [name for name in names if name not in config.RELOADABLE]
        needs_restart = [name for name in ignored if getattr(fresh, name) != getattr(self._config, name)]
        if fresh.identity.key_file != self._config.identity.key_file:
            needs_restart.append("identity.key_file")
        if needs_restart:
            log.warning("reload_needs_restart keys=%s", ",".join(needs_restart))
        taken = {name: getattr(fresh, name) for name in config.RELOADABLE}
        self._config = msgspec.structs.replace(self._config, **taken)
        logging.getLogger().setLevel(self._config.log.level.upper())
        self._reloaded_ok = True
        self._reloaded_unix = time.time()
        message = {"config": msgspec.to_builtins(self._config)}
        for relay in self.relays:
            relay.send(message)
        self.collector.send({**message, "redacted": config.redacted(self._config)})
        log.info("reloaded")
        self._changed.set()
        return ""

    async def _drain(self) -> None:
        """Readiness first, then new connections, then open streams, then what is left in the tap."""
        self._draining = True
        self._changed.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.drain.delay_s):
                _ = await self._impatient.wait()
        for listener in self._listeners:
            listener.close()
        for relay in self.relays:
            relay.stop({"drain": True})
        await self._wait_for(self.relays, self._config.drain.timeout_s + RELAY_STOP_S)
        self.collector.stop({"stop": True})
        await self._wait_for([self.collector], COLLECTOR_STOP_S)

    async def _wait_for(self, children: list[Child], timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while any(child.running for child in children) and time.monotonic() < deadline_s:
            await asyncio.sleep(0.02)
        for child in children:
            if child.running:
                log.error("child_killed name=%s after_s=%.0f", child.name, timeout_s)
                child.kill()


def _bind_all(key: str, address: str, count: int) -> list[socket.socket]:
    """Bind `count` listening sockets to one address.

    Raises:
        ConfigError: naming `key`.
    """
    host, port = config.parse_address(key, address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if count > 1:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((host, port))
            port = sock.getsockname()[1]
            sock.listen(4096)
            sock.setblocking(False)
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise ConfigError(f"{key}: cannot listen on {address}: {error.strerror or error}") from None
    return sockets


def _state_dir(loaded: Config) -> Path:
    """Return a writable folder that is ours alone.

    Raises:
        ConfigError: it cannot be made, or another Inferwatch uses it.
    """
    port = config.parse_address("listen", loaded.listen)[1]
    chosen = loaded.state_dir or os.environ.get("STATE_DIRECTORY", "")
    if not chosen:
        home = os.environ.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
        chosen = str(Path(home) / "inferwatch" / str(port))
    folder = Path(chosen).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held until the process ends
    except BlockingIOError:
        raise ConfigError(f"state_dir: {folder} is in use by another Inferwatch") from None
    except OSError as error:
        raise ConfigError(f"state_dir: {folder}: {error.strerror or error}") from None
    return folder


def _socket_dir(state_dir: Path) -> Path:
    """Return where the tap's socket goes: a Unix socket's path has 107 bytes at most, so not in a deep state folder."""
    if _fits(state_dir):
        return state_dir
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or "/run/user/0")
    if not os.access(runtime, os.W_OK):
        raise ConfigError(
            f"state_dir: {state_dir} is too long for a Unix socket in it, and there is no XDG_RUNTIME_DIR"
        )
    # Named after the state folder, which is locked: the next life of this Inferwatch finds and uses it again.
    folder = runtime / f"inferwatch-{hashlib.blake2b(str(state_dir).encode(), digest_size=8).hexdigest()}"
    if not _fits(folder):
        raise ConfigError(f"state_dir: {state_dir} is too long for a Unix socket in it, and so is {folder}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"state_dir: {folder} for the socket: {error.strerror}") from None
    return folder


def _fits(folder: Path) -> bool:
    return len(str(folder / "tap.sock").encode()) <= MAX_SOCKET_PATH_BYTES


def _secret(loaded: Config, state_dir: Path) -> bytes:
    """Return the secret behind the hashes of API keys, making one at the first start.

    Raises:
        ConfigError: the file is unreadable or too short.
    """
    path = Path(loaded.identity.key_file) if loaded.identity.key_file else state_dir / "identity.key"
    try:
        if not loaded.identity.key_file and not path.exists():
            fresh = path.with_suffix(".new")
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(SECRET_BYTES))
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(path)  # whole or not at all: half a key would change every tenant's name
        secret = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"identity.key_file: {path}: {error.strerror}") from None
    if len(secret.strip()) < 16:
        raise ConfigError(f"identity.key_file: {path} holds {len(secret.strip())} bytes, expected at least 16")
    return secret


def serve(loaded: Config, reload: Callable[[], Config]) -> int:
    """Run the supervisor. Returns the exit code.

    Raises:
        ConfigError: a socket, folder or file that the configuration names cannot be used.
    """

    async def main() -> int:
        return await Supervisor(loaded, reload).run()

    return asyncio.run(main())


def configure_log(level: str, **_: Any) -> None:
    """One line per event on stderr; stdout belongs to the request log."""
    logging.basicConfig(
        stream=sys.stderr, level=level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
