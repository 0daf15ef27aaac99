"""Degenerate loops: an answer whose end is the same words again and again. Exact, live, and O(1) a piece of text.

The tail is a loop if it consists of more than three repeats of one period, and is long enough not to be meant so:
MIN_CHARS or MIN_PIECES of it (pieces as they were streamed, one token or more each). What has no letter in it, rows of
figures and rulers, is often meant so, and must be longer.

How it is found: where the last NEEDLE characters stood before, there is a candidate for a period; two slices then tell.
No hashing and no probability: if it says so, it is so.

Pure.
"""

from typing import Final

# Some 250 tokens. vLLM's own detection and others look for no more than 128.
MAX_PERIOD_CHARS: Final = 1024
REPEATS: Final = 3
# 56 tokens of English, and 48 pieces where the tokens are shorter.
MIN_CHARS: Final = 224
MIN_PIECES: Final = 48
# Code and lists say one line three times over. Of a short period a fourth repeat is waited for, of a long one 40 tokens
# of it.
MORE_CHARS: Final = 160
# Without a letter: longer than a line of a table or a row of an array.
MIN_PLAIN_CHARS: Final = 2560

KEEP_CHARS: Final = REPEATS * MAX_PERIOD_CHARS + MORE_CHARS
NEEDLE_CHARS: Final = 24
# Looked at once for so many new characters or pieces, so that a loop is known well within 64 tokens.
EVERY_CHARS: Final = 32
EVERY_PIECES: Final = 8
# A needle may stand several times in one period, and candidates are as many; nobody's prose has more.
MAX_CANDIDATES: Final = 16


class TailCycle:
    """Takes one choice of an answer as it comes. `period` is what it repeats now; None: it does not, or no longer."""

    __slots__ = ("_fresh", "_fresh_chars", "_pieces", "_tail", "period")

    def __init__(self) -> None:
        self._tail = ""
        self._fresh: list[str] = []  # since the last look
        self._fresh_chars = 0
        self._pieces: list[int] = []  # the lengths of the last pieces
        self.period: str | None = None

    def take(self, text: str) -> bool:
        """Take the next piece; tell whether it repeats itself now, as far as was looked."""
        size = len(text)
        if size > EVERY_CHARS:  # a plain reply, whole: what repeats itself in the midst of it is over
            text = text[-KEEP_CHARS:]
        self._fresh.append(text)
        self._pieces.append(size)
        self._fresh_chars += size
        if self._fresh_chars < EVERY_CHARS and len(self._fresh) < EVERY_PIECES:
            return self.period is not None
        return self.finish()

    def missing(self) -> None:
        """Some of it was not seen: begin anew."""
        self._tail, self._fresh_chars = "", 0
        self._fresh.clear()
        self._pieces.clear()
        self.period = None

    def finish(self) -> bool:
        """Tell whether it repeats itself at the end of what was taken."""
        self._tail = (self._tail + "".join(self._fresh))[-KEEP_CHARS:]
        self._fresh.clear()
        self._fresh_chars = 0
        pieces = self._pieces
        if len(pieces) > 2 * MIN_PIECES:
            del pieces[:-MIN_PIECES]
        self.period = cycle(self._tail, sum(pieces[-MIN_PIECES:]) if len(pieces) >= MIN_PIECES else None)
        return self.period is not None

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
    for _ in range(MAX_CANDIDATES):
        at = tail.rfind(needle, 0, at + NEEDLE_CHARS - 1)
        length = size - NEEDLE_CHARS - at
        if at < 0 or length > MAX_PERIOD_CHARS:
            return None
        period = tail[-length:]
        covered = max(REPEATS * length + min(length, more), least if any(map(str.isalpha, period)) else MIN_PLAIN_CHARS)
        if covered <= size and tail[-covered:-length] == tail[length - covered :]:
            return period
    return None
