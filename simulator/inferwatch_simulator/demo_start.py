"""`inferwatch demo`: what must be fast. The engine and the proxy are started before this process imports its client:
each takes most of a second to come up, and they do so side by side.

Each part is a process of its own, as in production.
"""

import contextlib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from inferwatch.config import parse_address, reachable_address
from inferwatch_simulator.scenarios import BY_NAME, Scenario, settings, tenants

STOP_S: Final = 10.0


class Options(NamedTuple):
    """What the command line may change."""

    seconds: float | None = None  # None: until Ctrl-C
    against: str | None = None  # None: start an engine and a proxy
    rate: float | None = None  # conversations per second; None: the scenario's
    seed: int = 1
    scenario: str = "day"
    browser: bool = False  # open the live page in one
    listen: str = "127.0.0.1:8080"
    admin: str = "127.0.0.1:9480"


class Started(NamedTuple):
    """Where the parts are, as URLs."""

    engine: str
    data: str
    admin: str


def run(options: Options) -> int:
    """Run the demo. Returns the exit code.

    Raises:
        ConfigError: `listen` or `admin` is no address.
    """
    if options.against is not None:
        from inferwatch_simulator import demo  # noqa: PLC0415

        return demo.only_traffic(options)
    with _started(options) as started:
        from inferwatch_simulator import demo  # noqa: PLC0415 - while the others start

        return demo.show(options, started)


@contextlib.contextmanager
def _started(options: Options) -> Iterator[Started]:
    """Start the engine and the proxy; stopped as they would be in production, by SIGTERM."""
    listen, admin = _usable("listen", options.listen), _usable("admin", options.admin)
    engine = f"127.0.0.1:{_free_port()}"
    with tempfile.TemporaryDirectory(prefix="inferwatch-demo-") as folder:
        simulate = ["simulate", "--port", engine.rpartition(":")[2], "--seed", str(options.seed)]
        serve = ["serve", "--upstream", f"http://{engine}", "--listen", listen, "--admin", admin]
        serve += ["--config", _configured(Path(folder), BY_NAME[options.scenario])]
        serve += ["--state-dir", f"{folder}/state", "--log-level", "error"]
        with _process(simulate), _process(serve):
            data, page = (_joined(*reachable_address("listen", address)) for address in (listen, admin))
            yield Started(f"http://{engine}", f"http://{data}", f"http://{page}")


def _configured(folder: Path, scenario: Scenario) -> str:
    """Write the scenario's configuration and the keys of its tenants; return the file."""
    files = {}
    for name, key in tenants(scenario).items():
        file = folder / f"{name}.key"
        file.touch(mode=0o600)
        file.write_text(f"{key}\n", encoding="utf-8")
        files[name] = str(file)
    config = folder / "inferwatch.yml"
    config.write_bytes(msgspec.yaml.encode(settings(scenario, files)))
    return str(config)


@contextlib.contextmanager
def _process(arguments: list[str]) -> Iterator[None]:
    """Run one of our own commands beside us, in a process group of its own: Ctrl-C is for us to pass on."""
    command = [sys.executable, "-m", "inferwatch", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, process_group=0) as process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _usable(key: str, address: str) -> str:
    """Return the address, or one with a free port if somebody has that already, or it is 0.

    Raises:
        ConfigError: it is none, naming `key`.
    """
    host, port = parse_address(key, address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            port = _free_port()
        else:
            port = probe.getsockname()[1]
    return _joined(host, port)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
