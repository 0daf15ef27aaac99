"""Degenerate loops: an answer whose end is the same words again and again. Exact, live, and O(1) a piece of text.

The tail is a loop if it consists of more than three repeats of one period, and is long enough not to be meant so:
MIN_CHARS or MIN_PIECES of it (pieces as they were streamed, one token or more each). What has no word in it, rows of
figures, pictures and rulers, is often meant so, and must be longer: how long, what is so in real texts decided
(bench/RESULTS-drift.md).

How it is found: where the last NEEDLE characters stood before, there is a candidate for a period; two slices then tell.
No hashing and no probability: if it says so, it is so.

Pure.
"""

import re
from typing import Final

# Some 500 tokens, 350 words of English. vLLM's own detection and others look for no more than 128.
MAX_PERIOD_CHARS: Final = 2048
REPEATS: Final = 3
# 56 tokens of English, and 48 pieces where the tokens are shorter.
MIN_CHARS: Final = 224
MIN_PIECES: Final = 48
# Code and lists say one line three times over. Of a short period a fourth repeat is waited for, of a long one 40 tokens
# of it.
MORE_CHARS: Final = 160
# Without a word: a fourth longer than any in real texts, but for sources that are generated. Of one
# character, or of a few and no figure: rulers, leaders, blanks, noughts of a constant. Else pictures, tables, arrays.
FEW_CHARS: Final = 8
MIN_FEW_CHARS: Final = 640
MIN_PLAIN_CHARS: Final = 2048

KEEP_CHARS: Final = REPEATS * MAX_PERIOD_CHARS + MORE_CHARS
NEEDLE_CHARS: Final = 24
# Looked at once for so many new characters or pieces, so that a loop is known well within 64 tokens.
EVERY_CHARS: Final = 32
EVERY_PIECES: Final = 8
# What was taken is put together when it is so much, looked at or not.
FOLD_CHARS: Final = 512
# A needle may stand several times in one period, and candidates are as many; nobody's prose has more.
MAX_CANDIDATES: Final = 16

# What begins with a letter: `x1` is one, `0x1f` is a figure.
_WORD: Final = re.compile(r"\b_*[^\W\d_]")


class TailCycle:
    """Takes one choice of an answer as it comes. `period` is what it repeats now; None: it does not, or no longer."""

    __slots__ = ("_fresh", "_fresh_chars", "_fresh_pieces", "_sizes", "_tail", "period")

    def __init__(self) -> None:
        self._tail = ""
        self._fresh: list[str] = []  # since the last look
        self._fresh_chars = 0
        self._fresh_pieces = 0
        self._sizes: list[tuple[int, int]] = []  # (characters, pieces) of what was taken last
        self.period: str | None = None

    def take(self, text: str, pieces: int = 1) -> bool:
        """Take the next piece, or several in one; tell whether it repeats itself now, as far as was looked."""
        is_due = self._fresh_chars + len(text) >= EVERY_CHARS or self._fresh_pieces + pieces >= EVERY_PIECES
        self.keep(text, pieces)
        return self.finish() if is_due else self.period is not None

    def keep(self, text: str, pieces: int = 1) -> None:
        """Take the next piece, or several in one, for a look that comes later."""
        size = len(text)
        if size > KEEP_CHARS:  # a plain reply, whole: what repeats itself in the midst of it is over
            text = text[-KEEP_CHARS:]
        self._fresh.append(text)
        self._fresh_chars += size
        self._fresh_pieces += pieces
        self._sizes.append((size, pieces))
        if self._fresh_chars > FOLD_CHARS:
            self._fold()

    def missing(self) -> None:
        """Some of it was not seen: begin anew."""
        self._tail, self._fresh_chars, self._fresh_pieces = "", 0, 0
        self._fresh.clear()
        self._sizes.clear()
        self.period = None

    def finish(self) -> bool:
        """Tell whether it repeats itself at the end of what was taken."""
        self._fold()
        self.period = cycle(self._tail, self._last_chars())
        return self.period is not None

    def _fold(self) -> None:
        self._tail = (self._tail + "".join(self._fresh))[-KEEP_CHARS:]
        self._fresh.clear()
        self._fresh_chars = self._fresh_pieces = 0
        if len(self._sizes) > 2 * MIN_PIECES:
            del self._sizes[:-MIN_PIECES]

    def _last_chars(self) -> int | None:
        """Return the characters of the last MIN_PIECES pieces; None: there were fewer."""
        chars = pieces = 0
        for size, count in reversed(self._sizes):
            chars += size
            pieces += count
            if pieces >= MIN_PIECES:
                return chars
        return None

    def lasts(self) -> int:
        """Return how many characters the repeats of `period` had at the last look, up to KEEP_CHARS; 0: there were
        none."""
        if self.period is None:
            return 0
        tail, length = self._tail, len(self.period)
        least, most = REPEATS * length, len(tail)
        while least < most:
            middle = (least + most + 1) // 2
            if tail[-middle:-length] == tail[length - middle :]:
                least = middle
            else:
                most = middle - 1
        return least


def cycle(tail: str, pieces_chars: int | None = None) -> str | None:
    """Return the period in which `tail` ends, None if it does not. `pieces_chars`: what the last MIN_PIECES are
    long."""
    size = len(tail)
    least = MIN_CHARS if pieces_chars is None else min(MIN_CHARS, pieces_chars)
    more = MORE_CHARS if pieces_chars is None else min(MORE_CHARS, pieces_chars)
    if size < max(least, NEEDLE_CHARS + 1):
        return None
    needle = tail[-NEEDLE_CHARS:]
    at = size - NEEDLE_CHARS
    first = max(0, at - MAX_PERIOD_CHARS)
    for _ in range(MAX_CANDIDATES):
        at = tail.rfind(needle, first, at + NEEDLE_CHARS - 1)
        if at < 0:
            return None
        length = size - NEEDLE_CHARS - at
        period = tail[-length:]
        covered = max(REPEATS * length + min(length, more), _least(period, least))
        if covered <= size and tail[-covered:-length] == tail[length - covered :]:
            return period
    return None


def has_word(period: str) -> bool:
    """Tell whether anything in it begins with a letter."""
    return _WORD.search(period) is not None


def _least(period: str, least: int) -> int:
    """Return how many characters of repeats of a period are a loop: `least` if it has a word."""
    if has_word(period):
        return least
    is_few = len(period) == 1 or (len(period) <= FEW_CHARS and not any(map(str.isalnum, period)))
    return MIN_FEW_CHARS if is_few else MIN_PLAIN_CHARS
