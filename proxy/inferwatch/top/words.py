"""Numbers and names as a terminal shows them. Pure.

What is not known is a dash, never 0. Names come from clients' requests: nothing in one may move a cursor.
"""

import time
import unicodedata
from typing import Final

UNKNOWN: Final = "-"
ELLIPSIS: Final = "~"

_THOUSAND: Final = 1e4  # below that all digits are shown
_GIB: Final = 2**30


def number(value: float | None, digits: int = 1) -> str:
    """Return four digits or so, with the unit prefix that needs."""
    if value is None:
        return UNKNOWN
    for size, divisor, prefix in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (_THOUSAND, 1e3, "k")):
        if abs(value) >= size:
            return f"{value / divisor:.1f} {prefix}"
    return f"{value:.0f}" if value == int(value) else f"{value:.{digits}f}"


def whole(value: float | None) -> str:
    return UNKNOWN if value is None else f"{round(value):,}"


def dollars(value: float | None) -> str:
    """Return the amount; small ones to a hundredth of a cent."""
    return UNKNOWN if value is None else f"${value:.{4 if value < 10 else 2}f}"


def percent(value: float | None) -> str:
    return UNKNOWN if value is None else f"{100 * value:.0f} %"


def seconds(value: float | None) -> str:
    """Return a duration in the unit that suits it."""
    if value is None:
        return UNKNOWN
    if value < 1:
        return f"{1000 * value:.0f} ms"
    for below, divisor, digits, unit in ((120, 1, 1, "s"), (7200, 60, 0, "min"), (172_800, 3600, 1, "h")):
        if value < below:
            return f"{value / divisor:.{digits}f} {unit}"
    return f"{value / 86_400:.1f} d"


def gibibytes(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value / _GIB:.1f}"


def clock(unix_s: float) -> str:
    """Return the local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(unix_s))


def amount(value: float | None, unit: str) -> str:
    """Return a budget's amount in its unit."""
    return dollars(value) if unit == "dollars" else f"{number(value, 0)} {unit.replace('_', ' ')}"


def safe(text: str) -> str:
    """Return `text` without control characters, which a terminal would obey."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def width(text: str) -> int:
    """Return how many columns `text` takes: ideographs take two, combining marks none."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def fit(text: str, columns: int, *, left: bool = True) -> str:
    """Return `text` in exactly so many columns: cut, with a mark, or filled with blanks."""
    text = safe(text)
    have = width(text)
    if have > columns:
        text = _head(text, columns - 1) + ELLIPSIS if columns else ""
        have = width(text)
    blanks = " " * (columns - have)
    return text + blanks if left else blanks + text


def bar(ratio: float, columns: int) -> str:
    """Return a gauge of so many columns, brackets included."""
    room = max(0, columns - 2)
    full = round(min(1.0, max(0.0, ratio)) * room)
    return "[" + "|" * full + " " * (room - full) + "]"


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _head(text: str, columns: int) -> str:
    taken = 0
    for place, char in enumerate(text):
        taken += _columns(char)
        if taken > columns:
            return text[:place]
    return text
