"""Degenerate loops: an answer whose end is the same words again and again. Exact, live, and O(1) a piece of text.

The tail is a loop if it consists of three or more whole repeats of one period, and is long enough not to be meant so:
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
# 48 tokens of English, and 48 pieces where the tokens are shorter.
MIN_CHARS: Final = 192
MIN_PIECES: Final = 48
# Without a letter: longer than a line of a table or a row of an array.
MIN_PLAIN_CHARS: Final = 1536

KEEP_CHARS: Final = REPEATS * MAX_PERIOD_CHARS
NEEDLE_CHARS: Final = 24
# Looked at once for so many new characters or pieces, so that a loop is known well within 64 tokens.
EVERY_CHARS: Final = 64
EVERY_PIECES: Final = 16
# A needle may stand several times in one period, and candidates are as many; nobody's prose has more.
MAX_CANDIDATES: Final = 16


class TailCycle:
    """Takes one choice of an answer as it comes. `period` is set when its tail was found to be a loop, and stays."""

    __slots__ = ("_new_chars", "_new_pieces", "_pieces", "_tail", "period")

    def __init__(self) -> None:
        self._tail = ""
        self._pieces: list[int] = []  # the lengths of the last MIN_PIECES pieces
        self._new_chars = 0
        self._new_pieces = 0
        self.period: str | None = None

    def take(self, text: str) -> bool:
        """Take the next piece; tell whether it is now known to be a loop."""
        if self.period is not None:
            return True
        for start in range(0, len(text), EVERY_CHARS):
            piece = text[start : start + EVERY_CHARS]
            self._tail += piece
            self._new_chars += len(piece)
            if self._new_chars >= EVERY_CHARS and self._look():
                return True
        self._pieces.append(len(text))
        if len(self._pieces) > 2 * MIN_PIECES:
            del self._pieces[:-MIN_PIECES]
        self._new_pieces += 1
        return self._new_pieces >= EVERY_PIECES and self._look()

    def missing(self) -> None:
        """Some of it was not seen: begin anew."""
        self._tail = ""
        self._pieces.clear()

    def finish(self) -> bool:
        """Tell whether it ended in a loop."""
        return self.period is not None or self._look()

    def _look(self) -> bool:
        self._new_chars = self._new_pieces = 0
        self._tail = self._tail[-KEEP_CHARS:]
        self.period = cycle(self._tail, sum(self._pieces[-MIN_PIECES:]) if len(self._pieces) >= MIN_PIECES else None)
        return self.period is not None


def cycle(tail: str, pieces_chars: int | None = None) -> str | None:
    """Return the period in which `tail` ends, None if it does not. `pieces_chars`: what the last MIN_PIECES are
    long."""
    size = len(tail)
    least = MIN_CHARS if pieces_chars is None else min(MIN_CHARS, pieces_chars)
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
        covered = max(REPEATS * length, least if any(map(str.isalpha, period)) else MIN_PLAIN_CHARS)
        if covered <= size and tail[-covered:-length] == tail[length - covered :]:
            return period
    return None
