"""`inferwatch`: the commands, declared once in COMMANDS."""

import argparse
import logging
import sys
from collections.abc import Callable
from typing import Final, NamedTuple

from inferwatch import __version__, config
from inferwatch.config import Config, ConfigError

EXIT_OK: Final = 0
EXIT_RUNTIME: Final = 1
EXIT_USAGE: Final = 2

# Flag -> key. Only what people change at a first try; everything else is in the file and the environment.
_FLAGS: Final = {
    "--upstream": ("upstream.url", "URL", "where the engine listens (default http://127.0.0.1:8000)"),
    "--listen": ("listen", "HOST:PORT", "data port (default 0.0.0.0:8080)"),
    "--admin": ("admin", "HOST:PORT", "admin port with /metrics (default 127.0.0.1:9480)"),
    "--workers": ("workers", "N", "relay processes (default 1)"),
    "--state-dir": ("state_dir", "DIR", "ledger, spool and key"),
    "--engine": ("upstream.engine", "NAME", "auto, vllm or unknown (default auto)"),
    "--log-level": ("log.level", "LEVEL", "debug, info, warning or error (default info)"),
}


class Command(NamedTuple):
    """One subcommand."""

    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def _config_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="YAML file; see docs/configuration.md")
    for flag, (key, metavar, text) in _FLAGS.items():
        parser.add_argument(flag, dest=key, metavar=metavar, help=text)


def _load(arguments: argparse.Namespace) -> Config:
    flags = {key: getattr(arguments, key) for key, _, _ in _FLAGS.values()}
    return config.load(arguments.config, flags=flags)


def _serve(arguments: argparse.Namespace) -> int:
    from inferwatch import supervisor  # noqa: PLC0415 - a command pays for its own imports only

    loaded = _load(arguments)
    supervisor.configure_log(loaded.log.level)
    return supervisor.serve(loaded, lambda: _load(arguments))


def _check_config(arguments: argparse.Namespace) -> int:
    import msgspec  # noqa: PLC0415

    loaded = _load(arguments)
    sys.stdout.buffer.write(msgspec.yaml.encode(config.redacted(loaded)))
    return EXIT_OK


def _version(_: argparse.Namespace) -> int:
    sys.stdout.write(f"inferwatch {__version__}\n")
    return EXIT_OK


def _healthcheck_flags(parser: argparse.ArgumentParser) -> None:
    _config_flags(parser)
    parser.add_argument("--timeout-s", type=float, default=3.0, help="give up after this (default 3)")


def _healthcheck(arguments: argparse.Namespace) -> int:
    import http.client  # noqa: PLC0415

    host, port = config.parse_address("admin", _load(arguments).admin)
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    connection = http.client.HTTPConnection(host, port, timeout=arguments.timeout_s)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"inferwatch: no answer on the admin port {host}:{port}: {error}\n")
        return EXIT_RUNTIME
    finally:
        connection.close()
    if status != http.client.OK:
        sys.stderr.write(f"inferwatch: not healthy: /healthz answered {status}\n")
        return EXIT_RUNTIME
    return EXIT_OK


COMMANDS: Final = {
    "serve": Command("stand in front of an engine", _config_flags, _serve),
    "check-config": Command("check the configuration and print it", _config_flags, _check_config),
    "healthcheck": Command("exit 0 if the data path is alive", _healthcheck_flags, _healthcheck),
    "version": Command("print the version", lambda _: None, _version),
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="inferwatch", description="A sidecar that watches self-hosted models.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=command.help, description=command.help)
        command.configure(subparser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command. Exit codes: 0, 1 at run time, 2 usage or configuration."""
    arguments = build_parser().parse_args(argv)
    try:
        return COMMANDS[arguments.command].run(arguments)
    except ConfigError as error:
        sys.stderr.write(f"inferwatch: {error}\n")
        return EXIT_USAGE
    except KeyboardInterrupt:
        logging.getLogger(__name__).info("interrupted")
        return EXIT_RUNTIME


if __name__ == "__main__":
    sys.exit(main())
