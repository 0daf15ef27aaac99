"""`python -m inferwatch_collectors`: started by the supervisor with inherited sockets, or by hand with flags."""

import argparse
import contextlib
import logging
import os
import socket
import sys
from typing import Final

import uvloop

from inferwatch import config
from inferwatch.control import Channel, Message
from inferwatch_collectors.app import run
from inferwatch_collectors.start import CollectorSettings, settings_from

# About a tenth of a relay's weight when both want the same core; alone it has all of it.
COLLECTOR_NICE: Final = 10


def main(arguments: list[str] | None = None) -> int:
    """Run the collector. Returns the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        return uvloop.run(_under_supervisor(options) if options.control_fd is not None else run(_by_hand(options)))
    except OSError as error:
        logging.getLogger(__name__).error("cannot_start path=%s reason=%s", error.filename, error.strerror)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="inferwatch_collectors", description=__doc__)
    parser.add_argument("--control-fd", type=int, help="socket to the supervisor, which sends the settings")
    parser.add_argument("--admin-fd", type=int, default=-1, help="listening socket of the admin port")
    parser.add_argument("--tap-socket", default="tap.sock", help="Unix socket for the relays")
    parser.add_argument("--state-dir", default="", help="folder of the ledger; without it the ledger is in memory")
    parser.add_argument("--spool-dir", default="spool", help="where relays leave what they could not send")
    parser.add_argument("--admin-host", default="127.0.0.1")
    parser.add_argument("--admin-port", type=int, default=9480)
    parser.add_argument("--upstream", default="http://127.0.0.1:8000")
    parser.add_argument("--config", help="YAML file")
    parser.add_argument("--no-request-log", action="store_true")
    return parser


async def _under_supervisor(options: argparse.Namespace) -> int:
    _stand_back()
    channel = await Channel.over(socket.socket(fileno=options.control_fd))
    first = await _first_message(channel)
    if first is None:
        return 0  # the supervisor went before it said anything
    logging.getLogger().setLevel(str(first["config"]["log"]["level"]).upper())
    return await run(settings_from(first, options.admin_fd), channel)


def _stand_back() -> None:
    """Let the relays have the processor first: where cores are few, digesting a batch must not delay a token."""
    with contextlib.suppress(OSError):  # a container may forbid it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        os.nice(COLLECTOR_NICE)


async def _first_message(channel: Channel) -> Message | None:
    async for message in channel.messages():
        return message
    return None


def _by_hand(options: argparse.Namespace) -> CollectorSettings:
    flags = {
        "upstream.url": options.upstream,
        "admin": f"{options.admin_host}:{options.admin_port}",
        "log.requests": not options.no_request_log,
    }
    return CollectorSettings(
        config=config.load(options.config, environ={}, flags=flags),
        socket_path=options.tap_socket,
        spool_dir=options.spool_dir,
        state_dir=options.state_dir,
        admin_fd=options.admin_fd,
    )


if __name__ == "__main__":
    sys.exit(main())
