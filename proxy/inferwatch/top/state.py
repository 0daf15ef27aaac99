"""What the person at the terminal has chosen, and what each key makes of it. Pure."""

from typing import Final

import msgspec

from inferwatch.top.views import BY_NAME, VIEWS, Column, View

# Longer than any name that would fit on the line.
MAX_FILTER_CHARS: Final = 64

# A screen's worth, when it is not known how tall it is.
PAGE_ROWS: Final = 10

# (keys, what they do), as the help shows them.
HELP: Final = (
    ("1 to 7, Tab, Shift-Tab", "choose a view"),
    ("< >, F6", "sort by the column before, or the next"),
    ("capital letters", "sort by a column, see below"),
    ("r", "sort the other way round"),
    ("/, F4", "filter: only rows with these letters (Esc: all)"),
    ("Space", "pause, and go on"),
    ("arrows, PgUp, PgDn, Home, End", "move through the rows (also j and k)"),
    ("h, ?, F1", "this help"),
    ("q, F10, Ctrl-C", "end"),
)


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The choices. `sort` is a column's title by view; `top` the first row shown."""

    view: str = VIEWS[0].name
    sort: dict[str, str] = {}
    backwards: frozenset[str] = frozenset()  # views that sort the other way round
    filter: str = ""
    typing: str | None = None  # the filter while it is typed
    paused: bool = False
    help: bool = False
    top: int = 0
    ended: bool = False

    @property
    def shown(self) -> View:
        return BY_NAME[self.view]

    @property
    def wanted(self) -> str:
        """The filter in force: while one is typed, that."""
        return self.filter if self.typing is None else self.typing

    @property
    def column(self) -> Column | None:
        """The column that is sorted by; None: the rows as they come."""
        title = self.sort.get(self.view, self.shown.sort)
        return next((column for column in self.shown.columns if column.title == title), None)


def press(state: State, key: str) -> State:
    """Return the state after a key: a character, or a name such as `UP`, `TAB`, `F4`, `ENTER`, `ESC`, `BACKSPACE`."""
    if state.typing is not None:
        return _typed(state, state.typing, key)
    if state.help:
        return _with(state, ended=key in ("q", "F10"), help=False)
    if (moved := _moved(state, key)) is not None:
        return moved
    if key.isdecimal() and 1 <= int(key) <= len(VIEWS):
        return _with(state, view=VIEWS[int(key) - 1].name, top=0)
    for column in state.shown.columns:
        if column.letter == key:
            return _sorted_by(state, column)
    return _commanded(state, key)


def _commanded(state: State, key: str) -> State:
    if key in ("q", "F10"):
        return _with(state, ended=True)
    if key in ("h", "?", "F1"):
        return _with(state, help=True)
    if key in ("/", "F4"):
        return _with(state, typing=state.filter)
    if key == " ":
        return _with(state, paused=not state.paused)
    if key == "r":
        return _with(state, backwards=state.backwards ^ {state.view})
    if key in ("TAB", "BACKTAB"):
        return _with(state, view=_next_view(state.view, 1 if key == "TAB" else -1), top=0)
    if key in ("<", ">", "F6"):
        return _sorted_by(state, _next_column(state, -1 if key == "<" else 1))
    if key == "ESC":
        return _with(state, filter="", top=0)
    return state


def _typed(state: State, typed: str, key: str) -> State:
    if key == "ENTER":
        return _with(state, filter=typed, typing=None, top=0)
    if key == "ESC":
        return _with(state, typing=None)
    if key == "BACKSPACE":
        return _with(state, typing=typed[:-1])
    if len(key) == 1 and key.isprintable():
        return _with(state, typing=(typed + key)[:MAX_FILTER_CHARS], top=0)
    return state


def _moved(state: State, key: str) -> State | None:
    steps = {"UP": -1, "k": -1, "DOWN": 1, "j": 1, "PGUP": -PAGE_ROWS, "PGDN": PAGE_ROWS}
    if key in steps:
        return _with(state, top=max(0, state.top + steps[key]))
    if key == "HOME":
        return _with(state, top=0)
    return _with(state, top=1 << 30) if key == "END" else None  # `page` brings it within what there is


def _sorted_by(state: State, column: Column) -> State:
    return _with(state, sort={**state.sort, state.view: column.title}, top=0)


def _next_view(name: str, step: int) -> str:
    names = list(BY_NAME)
    return names[(names.index(name) + step) % len(names)]


def _next_column(state: State, step: int) -> Column:
    columns = state.shown.columns
    if state.column is None:
        return columns[0 if step > 0 else -1]
    return columns[(columns.index(state.column) + step) % len(columns)]


def _with(state: State, **changes: object) -> State:
    return msgspec.structs.replace(state, **changes)
