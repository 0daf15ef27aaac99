"""`inferwatch serve`: holds the sockets, starts both planes, restarts what dies, drains at SIGTERM, reloads at SIGHUP.

The listening sockets belong to the supervisor and are inherited by the children. A relay that dies leaves its socket
behind: connections wait in its backlog for the next one instead of being refused. While the collector is away the
supervisor itself answers on the admin port, so that a liveness probe sees the data path, not the state of the
observing side. Nothing here is on the way of a request or of a token; it must only never die, so it is small and
imports little.
"""

import asyncio
import contextlib
import ipaddress
import logging
import signal
import sys
import time
from collections.abc import Callable
from typing import Final

import msgspec

from inferwatch import __version__, admin_token, board, config, host, memory
from inferwatch.admin_standin import StandIn
from inferwatch.child import Child
from inferwatch.config import Config, ConfigError
from inferwatch.control import Message
from inferwatch.tenants import read_table

log = logging.getLogger(__name__)

# After the relays are gone: time for the collector to commit and exit.
COLLECTOR_STOP_S: Final = 10.0

# Beyond `drain.timeout_s` a relay needs time to hand its tap over; then it is killed.
RELAY_STOP_S: Final = 10.0


class Supervisor:
    """Owns sockets, state directory and children."""

    def __init__(self, loaded: Config, reload: Callable[[], Config]) -> None:
        self._config = loaded
        self._reload_config = reload
        self._state_dir = host.state_dir(loaded)
        self._access = admin_token.digests(loaded.access, loaded.feedback)
        self._secret = host.identity_secret(loaded, self._state_dir)
        self._tenants = read_table(loaded.tenants, self._secret)
        self._socket_dir = host.socket_dir(self._state_dir)
        self._board = host.clean_board(self._state_dir, self._socket_dir)
        self._listeners = host.bind("listen", loaded.listen, loaded.workers)
        self._data_address: tuple[str, int] = self._listeners[0].getsockname()[:2]
        self._admin = host.bind("admin", loaded.admin, 1)[0]
        host.note_admin(self._state_dir, self._admin.getsockname()[:2])
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
        host.forget_admin(self._state_dir)
        with contextlib.suppress(OSError):  # it is memory, and nobody needs it any more
            board.clear(self._board)
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
        admin_host, admin_port = self._admin.getsockname()[:2]
        admin = config.address_text(admin_host, admin_port)
        log.info(
            "inferwatch %s ready: %s://%s -> %s, admin http://%s",
            __version__,
            scheme,
            config.address_text(*self._data_address),
            config.redacted(self._config)["upstream"]["url"],
            admin,
        )
        if not self._config.access.is_guarded and not ipaddress.ip_address(admin_host).is_loopback:
            log.warning("admin_port_is_open address=%s see=access.token_file", admin)

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
            "access": self._access,
            "state_dir": str(self._state_dir),
            "tap_socket": str(self._socket_dir / "tap.sock"),
            "spool_dir": str(self._state_dir / "spool"),
            "board": str(self._board),
            "data_host": self._data_address[0],
            "data_port": self._data_address[1],
            "status": self._status(),
        }

    def _relay_start(self, worker: int) -> Message:
        return {
            "config": msgspec.to_builtins(self._config),
            "worker": worker,
            "tap_socket": str(self._socket_dir / "tap.sock"),
            "spool_dir": str(self._state_dir / "spool"),
            "board": str(self._board),
            "identity_secret": self._secret.hex(),
            "tenants": msgspec.to_builtins(self._tenants),
        }

    def _on_message(self, child: Child, message: Message) -> None:
        if message.get("reload"):
            error = self._reload()
            child.send({"reloaded": error})

    def _reload(self) -> str:
        """Take up the configuration anew; on a fault keep the old one. Returns the fault or ""."""
        try:
            fresh = self._reload_config()
            # Whether and where from votes are taken needs a restart; their token does not.
            access = admin_token.digests(fresh.access, self._config.feedback)
            tenants = read_table(fresh.tenants, self._secret)  # keys are rotated by writing their file and reloading
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
        accounts = self._config.budgets.max_accounts  # the size of the board, which all children must agree about
        if fresh.budgets.max_accounts != accounts:
            needs_restart.append("budgets.max_accounts")
        if needs_restart:
            log.warning("reload_needs_restart keys=%s", ",".join(needs_restart))
        taken = {name: getattr(fresh, name) for name in config.RELOADABLE}
        taken["budgets"] = msgspec.structs.replace(fresh.budgets, max_accounts=accounts)
        self._config = msgspec.structs.replace(self._config, **taken)
        logging.getLogger().setLevel(self._config.log.level.upper())
        self._tenants = tenants
        self._access = access
        self._reloaded_ok = True
        self._reloaded_unix = time.time()
        message = {"config": msgspec.to_builtins(self._config)}
        for relay in self.relays:
            relay.send({**message, "tenants": msgspec.to_builtins(tenants)})
        self.collector.send({**message, "redacted": config.redacted(self._config), "access": access})
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


def serve(loaded: Config, reload: Callable[[], Config]) -> int:
    """Run the supervisor. Returns the exit code.

    Raises:
        ConfigError: a socket, folder or file that the configuration names cannot be used.
    """

    host.forbid_core_dumps()
    host.allow_open_files()

    async def main() -> int:
        return await Supervisor(loaded, reload).run()

    return asyncio.run(main())


def configure_log(level: str) -> None:
    """One line per event on stderr; stdout belongs to the request log."""
    logging.basicConfig(
        stream=sys.stderr, level=level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
