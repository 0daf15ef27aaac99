"""A frame as lines of text: header, tabs, one table, and the keys. Pure.

A line is made of spans, each with a style; what a style looks like is the terminal's affair.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from inferwatch.top import words
from inferwatch.top.state import HELP, State
from inferwatch.top.views import VIEWS, Column, Frame, Row, matching, ordered

Style = Literal["", "bold", "dim", "good", "warn", "bad", "heading", "chosen"]

# Narrower cells would cut their values.
CELL_COLUMNS: Final = 38
LABEL_COLUMNS: Final = 11
BAR_COLUMNS: Final = 12

# The header gives way to the table on a low terminal.
MIN_TABLE_ROWS: Final = 4

# Fullest budgets in the header.
BUDGETS_SHOWN: Final = 2

# A name is cut to this before a column is left out, and no longer than that if there is room.
NARROW_NAME: Final = 12
WIDE_NAME: Final = 40

# So that columns do not move with each figure.
MIN_FIGURE: Final = 8

_GAP: Final = 2
_MARK: Final = 2  # which way the column sorts
_ALMOST_FULL: Final = 0.8
_CACHE_ALMOST_FULL: Final = 0.9


class Span(NamedTuple):
    """Some text in one style."""

    text: str
    style: Style = ""


Line = tuple[Span, ...]


class Look(NamedTuple):
    """What is around the frame: where it comes from, and on how large a screen it goes."""

    address: str
    columns: int
    rows: int | None = None  # None: as many as there are
    fault: str = ""  # why there is no newer frame
    age_s: float = 0.0  # how old this one is


class Page(NamedTuple):
    """The lines, and the first row that is shown of the table."""

    lines: list[Line]
    top: int


def text(lines: Sequence[Line]) -> str:
    """Return lines without their styles."""
    return "\n".join("".join(span.text for span in line).rstrip() for line in lines)


def draw(frame: Frame | None, state: State, look: Look) -> Page:
    """Return the page; each line is as wide as the screen at most, and there are as many as it has at most."""
    if state.help:
        return Page(_within(_help(state), look), state.top)
    if frame is None:
        return Page(_within([_title(None, look), *_fault(None, state, look)], look), state.top)
    head = [_title(frame, look), *_fault(frame, state, look)]
    signals = _signals(frame, look.columns)
    around = len(head) + 3  # the tabs, the headings, the keys
    if look.rows is not None:
        signals = signals[: max(0, look.rows - around - MIN_TABLE_ROWS)]
    room = None if look.rows is None else max(1, look.rows - around - len(signals))
    table, top, matched = _table(frame, state, look.columns, room)
    filling: list[Line] = [] if room is None else [(Span(""),)] * (room + 1 - len(table))
    lines = [*head, *signals, _tabs(frame, state, matched, look.columns), *table, *filling]
    if look.rows is not None:
        lines.append(_keys(state))
    return Page(_within(lines, look), top)


def _within(lines: Sequence[Line], look: Look) -> list[Line]:
    shown = lines if look.rows is None else lines[: look.rows]
    return [_cut(line, look.columns) for line in shown]


def _cut(line: Line, columns: int) -> Line:
    kept: list[Span] = []
    for span in line:
        have = words.width(span.text)
        if have > columns:
            kept.append(span._replace(text=words.fit(span.text, columns)))
            break
        kept.append(span)
        columns -= have
    return tuple(kept)


# --- above the table


def _title(frame: Frame | None, look: Look) -> Line:
    health = (frame or {}).get("health") or {}
    before = f" before {words.safe(str(health['upstream']))}" if health.get("upstream") else ""
    at = f"  {words.clock(frame['unix_s'])}" if frame is not None else ""
    return (Span(f"Inferwatch {health.get('version', '')}".rstrip(), "bold"), Span(f"{before} at {look.address}{at}"))


def _fault(frame: Frame | None, state: State, look: Look) -> list[Line]:
    if look.fault:
        age = f"; the numbers are {words.seconds(look.age_s)} old" if frame is not None else ""
        return [(Span(f"connection lost: {look.fault}{age}; trying again", "bad"),)]
    if frame is None:
        return [(Span("waiting for the first answer", "dim"),)]
    faults = (frame.get("health") or {}).get("faults") or ()
    line: Line = (Span(words.safe("not ready: " + "; ".join(faults)), "bad"),) if faults else (Span("well", "good"),)
    return [(*line, Span("  paused", "warn")) if state.paused else line]


def _signals(frame: Frame, columns: int) -> list[Line]:
    """Return the golden signals, money and what is full, in as many columns as fit."""
    cells = [*_traffic(frame), *_full(frame)]
    abreast = max(1, columns // CELL_COLUMNS)
    size = columns // abreast
    lines = []
    for start in range(0, len(cells), abreast):
        spans: list[Span] = []
        for label, value, style in cells[start : start + abreast]:
            spans += [
                Span(words.fit(label, min(LABEL_COLUMNS, size)) + " ", "dim"),
                Span(words.fit(value, max(0, size - LABEL_COLUMNS - 1)), style),
            ]
        lines.append(tuple(spans))
    return lines


def _traffic(frame: Frame) -> list[tuple[str, str, Style]]:
    now, totals = frame.get("now") or {}, frame.get("totals") or {}
    gpu_dollars = words.dollars(totals.get("gpu_dollars"))
    return [
        ("requests", f"{words.number(now.get('requests'))}/s, {words.whole(totals.get('requests'))} in all", ""),
        (
            "failed",
            f"{words.number(now.get('failed'), 2)}/s, {words.whole(totals.get('failed'))} in all",
            "bad" if now.get("failed") else "",
        ),
        (
            "in flight",
            f"{words.whole(now.get('in_flight'))}, {words.whole(now.get('waiting'))} waiting in the engine",
            "warn" if now.get("waiting") else "",
        ),
        ("first token", _quantiles(now, "ttft"), ""),
        ("token gap", _quantiles(now, "gap"), ""),
        (
            "prompt",
            f"{words.number(now.get('prompt_tokens'), 0)} tok/s, {words.whole(totals.get('prompt_tokens'))}",
            "",
        ),
        (
            "completion",
            f"{words.number(now.get('completion_tokens'), 0)} tok/s, {words.whole(totals.get('completion_tokens'))}",
            "",
        ),
        ("cost", f"{gpu_dollars}, {words.dollars(now.get('cost'))}/h now", ""),
        ("idle", f"{words.dollars(totals.get('idle_dollars'))}, {words.dollars(now.get('idle_cost'))}/h now", ""),
        ("by prices", words.dollars(totals.get("price_dollars")), ""),
    ]


def _quantiles(now: Row, name: str) -> str:
    return f"p50 {words.seconds(now.get(name + '_p50'))}, p99 {words.seconds(now.get(name + '_p99'))}"


def _full(frame: Frame) -> list[tuple[str, str, Style]]:
    now = frame.get("now") or {}
    cache, busy, watts = now.get("kv_cache"), now.get("gpu_utilization"), now.get("gpu_watts")
    cells: list[tuple[str, str, Style]] = [
        ("KV cache", _gauge(cache), "warn" if (cache or 0.0) >= _CACHE_ALMOST_FULL else "good"),
        ("GPUs", _gauge(busy) if watts is None else f"{_gauge(busy)}, {words.number(watts, 0)} W", "good"),
    ]
    for row in (frame.get("budgets") or ())[:BUDGETS_SHOWN]:
        share = row["spent"] / row["limit"] if row.get("spent") is not None and row.get("limit") else None
        style: Style = "good" if (share or 0.0) < _ALMOST_FULL else "warn" if (share or 0.0) < 1 else "bad"
        cells.append((f"{row['budget']} {row['account']}".strip(), _gauge(share), style))
    return cells


def _gauge(ratio: float | None) -> str:
    return words.UNKNOWN if ratio is None else f"{words.bar(ratio, BAR_COLUMNS)} {words.percent(ratio)}"


# --- the table


def _tabs(frame: Frame, state: State, matched: int, columns: int) -> Line:
    view = state.shown
    counted = _counted(frame, state, matched)
    tabs = [Span(f" {place} {each.title} ", "chosen" if each is view else "dim") for place, each in enumerate(VIEWS, 1)]
    if sum(len(tab.text) for tab in tabs) + 1 + words.width(counted) > columns:
        tabs = [tab for tab in tabs if tab.style == "chosen"]
    return (*tabs, Span(" "), Span(counted))


def _counted(frame: Frame, state: State, matched: int) -> str:
    view = state.shown
    told, in_all = len(view.rows(frame)), view.in_all(frame)
    counted = f"{told} of {in_all}" if told < in_all else str(in_all)
    return f"{matched} with {words.safe(state.wanted)!r} of {counted}" if state.wanted else counted


def _table(frame: Frame, state: State, columns: int, room: int | None) -> tuple[list[Line], int, int]:
    """Return headings and rows, the first row shown, and how many rows match the filter."""
    view = state.shown
    backwards = view.name in state.backwards
    rows = ordered(matching(view, view.rows(frame), state.wanted), state.column, backwards=backwards)
    top = 0 if room is None else min(state.top, max(0, len(rows) - room))
    shown = rows[top:] if room is None else rows[top : top + room]
    texts = [[words.safe(column.text(row)) for column in view.columns] for row in shown]
    widths = _widths(view.columns, texts, columns, state.column)
    lines: list[Line] = [_headings(view.columns, widths, state.column, backwards=backwards)]
    for cells in texts:
        fitted = (
            words.fit(cell, size, left=column.left)
            for cell, size, column in zip(cells, widths, view.columns, strict=True)
            if size
        )
        lines.append((Span((" " * _GAP).join(fitted)),))
    if not rows:
        lines.append((Span("no row has these letters" if view.rows(frame) else view.empty, "dim"),))
    return lines, top, len(rows)


def _headings(columns: Sequence[Column], widths: Sequence[int], chosen: Column | None, *, backwards: bool) -> Line:
    spans = []
    for column, size in zip(columns, widths, strict=True):
        if not size:
            continue
        mark = ""
        if column is chosen:
            mark = " ^" if column.left != backwards else " v"
        title = words.fit(column.title + mark, size, left=column.left)
        spans += [Span(title, "chosen" if column is chosen else "heading"), Span(" " * _GAP, "heading")]
    return tuple(spans[:-1])


def _widths(columns: Sequence[Column], texts: Sequence[Sequence[str]], room: int, chosen: Column | None) -> list[int]:
    """Return how wide each column is; 0: there is no room for it."""
    widths = []
    for place, column in enumerate(columns):
        longest = max((words.width(cells[place]) for cells in texts), default=0)
        longest = min(longest, WIDE_NAME) if column.left else max(longest, MIN_FIGURE)
        widths.append(max(longest, len(column.title) + (_MARK if column is chosen else 0)))
    by_rank = sorted(range(len(columns)), key=lambda place: (columns[place] is chosen, columns[place].rank))
    while True:
        over = sum(widths) + _GAP * (sum(map(bool, widths)) - 1) - room
        if over <= 0:
            return widths
        longest_name = max((place for place in by_rank if columns[place].left), key=widths.__getitem__)
        if widths[longest_name] > NARROW_NAME:
            widths[longest_name] = max(NARROW_NAME, widths[longest_name] - over)
        elif sum(map(bool, widths)) > 1:
            last = next(place for place in _last_first(by_rank, columns, chosen) if widths[place])
            widths[last] = 0
        else:
            return [min(size, room) for size in widths]


def _last_first(by_rank: Sequence[int], columns: Sequence[Column], chosen: Column | None) -> list[int]:
    """Return the order in which columns are left out: the column that is sorted by comes last but for the first."""
    ordinary = [place for place in reversed(by_rank) if columns[place] is not chosen and place]
    return [*ordinary, *(place for place in by_rank if columns[place] is chosen and place)]


# --- below it


def _keys(state: State) -> Line:
    if state.typing is not None:
        return (
            Span("filter: ", "bold"),
            Span(state.typing),
            Span("_", "chosen"),
            Span("  Enter keeps it, Esc does not"),
        )
    pause = "go on" if state.paused else "pause"
    pairs = (("h", "help"), ("1-7", "view"), ("/", "filter"), ("< >", "sort"), ("r", "reverse"), ("Space", pause))
    spans: list[Span] = []
    for key, what in (*pairs, ("q", "quit")):
        spans += [Span(key, "bold"), Span(f" {what}  ", "dim")]
    return tuple(spans)


def _help(state: State) -> list[Line]:
    size = max(len(keys) for keys, _ in HELP) + 2
    lines: list[Line] = [(Span("inferwatch top: the live page in a terminal", "bold"),), (Span(""),)]
    lines += [(Span(keys.ljust(size), "bold"), Span(what)) for keys, what in HELP]
    lines += [(Span(""),), (Span(f"{state.shown.title}: capital letters that sort", "bold"),)]
    letters = [f"{column.letter} {column.title}" for column in state.shown.columns if column.letter]
    lines += [(Span("  ".join(letters)),), (Span(""),)]
    return [
        *lines,
        (Span("Rates and quantiles are of the last ten seconds. - is not known. Any key goes back.", "dim"),),
    ]
