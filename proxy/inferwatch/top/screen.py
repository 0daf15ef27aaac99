"""The terminal: curses in, curses out. Everything that is decided is decided in `state` and `page`.

The loop sleeps until a key, a new frame or a signal comes; all three wake it by a descriptor, so nothing is polled.
"""

import contextlib
import curses
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from typing import Final

import msgspec

from inferwatch.top.asking import AdminPort, Watcher
from inferwatch.top.page import Line, Look, Style, draw
from inferwatch.top.state import State, press

# An Esc that nothing follows is the key Esc after this; terminals send sequences at once.
ESCAPE_MS: Final = 25

# While the connection is lost, the age of the numbers goes on.
IDLE_S: Final = 1.0

_NAMES: Final = {
    curses.KEY_UP: "UP",
    curses.KEY_DOWN: "DOWN",
    curses.KEY_LEFT: "<",
    curses.KEY_RIGHT: ">",
    curses.KEY_PPAGE: "PGUP",
    curses.KEY_NPAGE: "PGDN",
    curses.KEY_HOME: "HOME",
    curses.KEY_END: "END",
    curses.KEY_BTAB: "BACKTAB",
    curses.KEY_BACKSPACE: "BACKSPACE",
    curses.KEY_ENTER: "ENTER",
    **{curses.KEY_F0 + number: f"F{number}" for number in range(1, 13)},
}
_CHARACTERS: Final = {"\t": "TAB", "\n": "ENTER", "\r": "ENTER", "\x1b": "ESC", "\x7f": "BACKSPACE", "\b": "BACKSPACE"}

# style -> (colour, attribute); without colours the attribute is all there is.
_STYLES: Final[dict[Style, tuple[int, int]]] = {
    "": (-1, curses.A_NORMAL),
    "bold": (-1, curses.A_BOLD),
    "dim": (-1, curses.A_DIM),
    "good": (curses.COLOR_GREEN, curses.A_NORMAL),
    "warn": (curses.COLOR_YELLOW, curses.A_BOLD),
    "bad": (curses.COLOR_RED, curses.A_BOLD),
    "heading": (-1, curses.A_UNDERLINE),
    "chosen": (-1, curses.A_REVERSE),
}


class NoTerminalError(Exception):
    """Nothing can be drawn here; the message says why."""


def run(port: AdminPort, state: State, interval_s: float) -> None:
    """Show until `q`, Ctrl-C or SIGTERM.

    Raises:
        NoTerminalError: there is no terminal, or one that curses does not know.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise NoTerminalError("this is no terminal")
    try:
        curses.setupterm()
    except curses.error:
        raise NoTerminalError(f"TERM={os.environ.get('TERM', '')} is not known here") from None
    curses.set_escdelay(ESCAPE_MS)
    with _waking() as (reading, wake), contextlib.suppress(KeyboardInterrupt):
        curses.wrapper(lambda window: _Shell(window, port, interval_s, reading, wake).show(state))


@contextlib.contextmanager
def _waking() -> Iterator[tuple[int, int]]:
    """Make a pipe into which signals write; those that would end us, or that curses would take, only wake."""
    reading, writing = os.pipe()
    for end in (reading, writing):
        os.set_blocking(end, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGWINCH, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield reading, writing
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)


class _Shell:
    """The loop."""

    def __init__(self, window: curses.window, port: AdminPort, interval_s: float, reading: int, wake: int) -> None:
        self._window = window
        self._port = port
        self._reading = reading
        self._wake = wake
        self._attributes = _attributes()
        self._stopped = False
        self._watcher = Watcher(port, interval_s, self._new_frame)

    def show(self, state: State) -> None:
        """Draw, wait, take keys, until the end."""
        # Set after curses has set its own: the size is looked at below.
        signal.signal(signal.SIGWINCH, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._stop)
        with contextlib.suppress(curses.error):
            curses.curs_set(0)
        self._window.nodelay(True)
        self._watcher.all_streams = state.view == "streams"
        self._watcher.start()
        try:
            while not (state.ended or self._stopped):
                state = self._draw(state)
                self._wait()
                state = self._keys(state)
        finally:
            self._watcher.close()

    def _stop(self, *_: object) -> None:
        self._stopped = True

    def _new_frame(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake already; closed: it has ended
            os.write(self._wake, b".")

    def _wait(self) -> None:
        ready, _, _ = select.select([sys.stdin, self._reading], [], [], IDLE_S if self._watcher.latest[1] else None)
        if self._reading in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._reading, 4096)

    def _keys(self, state: State) -> State:
        while not state.ended:
            try:
                key = self._window.get_wch()
            except curses.error:  # no more
                break
            name = _NAMES.get(key, "") if isinstance(key, int) else _CHARACTERS.get(key, key)
            if name:
                state = self._pressed(state, name)
        return state

    def _pressed(self, state: State, name: str) -> State:
        after = press(state, name)
        self._watcher.all_streams = after.view == "streams"
        if after.paused != state.paused:
            self._watcher.paused = after.paused
            self._watcher.hurry()
        elif after.view != state.view:
            self._watcher.hurry()
        return after

    def _draw(self, state: State) -> State:
        size = os.get_terminal_size(sys.stdout.fileno())
        # Terminals of programs may have no size; then it is what curses took it to be.
        if size.lines > 0 and size.columns > 0 and self._window.getmaxyx() != (size.lines, size.columns):
            curses.resizeterm(size.lines, size.columns)
        lines, columns = self._window.getmaxyx()
        frame, fault, came_s = self._watcher.latest
        look = Look(self._port.address, columns, lines, fault, time.monotonic() - came_s)
        page = draw(frame, state, look)
        self._window.erase()
        for row, line in enumerate(page.lines):
            self._put(row, line)
        self._window.refresh()
        return msgspec.structs.replace(state, top=page.top)

    def _put(self, row: int, line: Line) -> None:
        encoding = self._window.encoding
        with contextlib.suppress(curses.error):  # the last cell of the screen is written, and complained of
            self._window.move(row, 0)
            for span in line:
                text = span.text.encode(encoding, "replace").decode(encoding)
                self._window.addstr(text, self._attributes[span.style])


def _attributes() -> dict[Style, int]:
    """Return what each style is on this terminal. https://no-color.org is respected."""
    coloured = curses.has_colors() and not os.environ.get("NO_COLOR")
    if coloured:
        try:
            curses.use_default_colors()
        except curses.error:
            coloured = False
    found: dict[Style, int] = {}
    for number, (style, (colour, attribute)) in enumerate(_STYLES.items(), 1):
        found[style] = attribute
        if coloured and colour >= 0:
            curses.init_pair(number, colour, -1)
            found[style] |= curses.color_pair(number)
    return found
