"""`inferwatch top`: its flags, and what it does without a terminal."""

import argparse
import math
import shutil
import sys
from typing import Final

import msgspec

from inferwatch import admin_token
from inferwatch.config import Config, reachable_address
from inferwatch.top.asking import MIN_INTERVAL_S, AdminPort, NoAnswerError
from inferwatch.top.page import Look, draw, text
from inferwatch.top.state import State
from inferwatch.top.views import BY_NAME

MAX_INTERVAL_S: Final = 3600.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "--view", choices=tuple(BY_NAME), default="tenants", help="what to begin with (default tenants)"
    )
    parser.add_argument("--sort", metavar="COLUMN", help="column of that view to sort by, as its heading says")
    parser.add_argument("--reverse", action="store_true", help="sort the other way round")
    parser.add_argument("--filter", metavar="TEXT", default="", help="only rows that contain this")
    parser.add_argument("--interval-s", metavar="S", type=_interval, default=1.0, help="between two looks (default 1)")
    once = parser.add_mutually_exclusive_group()
    once.add_argument("--once", action="store_true", help="print one page as text, all rows of it, and end")
    once.add_argument("--json", action="store_true", help="print one frame as JSON, with all streams, and end")


def _interval(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not MIN_INTERVAL_S <= seconds <= MAX_INTERVAL_S:
        raise argparse.ArgumentTypeError(f"expected {MIN_INTERVAL_S} to {MAX_INTERVAL_S:.0f} seconds, got {value}")
    return seconds


def run(arguments: argparse.Namespace, config: Config) -> int:
    """Show, or print once. Returns the exit code."""
    state = State(view=arguments.view, filter=arguments.filter)
    if arguments.sort is not None:
        titles = [column.title for column in state.shown.columns]
        if arguments.sort not in titles:
            return _fail(2, f"--sort: the view {arguments.view} has no column {arguments.sort!r}: {', '.join(titles)}")
        state = msgspec.structs.replace(state, sort={arguments.view: arguments.sort})
    if arguments.reverse:
        state = msgspec.structs.replace(state, backwards=frozenset({arguments.view}))
    admin = AdminPort(*reachable_address("admin", config.admin), lambda: admin_token.headers(config.access))
    try:
        if arguments.json or arguments.once:
            return _print(admin, state, as_json=arguments.json)
        return _show(admin, state, arguments.interval_s)
    except NoAnswerError as error:
        return _fail(1, f"no frame from the admin port {admin.address}: {error}; {error.remedy}")


def _print(admin: AdminPort, state: State, *, as_json: bool) -> int:
    try:
        frame = admin.with_rates()
    finally:
        admin.close()
    if as_json:
        sys.stdout.buffer.write(msgspec.json.encode(frame) + b"\n")
    else:
        columns = shutil.get_terminal_size((120, 24)).columns
        sys.stdout.write(text(draw(frame, state, Look(admin.address, columns)).lines) + "\n")
    return 0


def _show(admin: AdminPort, state: State, interval_s: float) -> int:
    try:
        from inferwatch.top import screen  # noqa: PLC0415 - some Pythons are built without curses
    except ImportError:
        return _fail(1, "this Python has no curses; --once and --json work without")
    _ = admin.frame(all_streams=False)  # whom nobody answers should read why, and not an empty screen
    try:
        screen.run(admin, state, interval_s)
    except screen.NoTerminalError as error:
        return _fail(1, f"{error}; --once and --json work without a terminal")
    return 0


def _fail(code: int, message: str) -> int:
    sys.stderr.write(f"inferwatch: top: {message}\n")
    return code
