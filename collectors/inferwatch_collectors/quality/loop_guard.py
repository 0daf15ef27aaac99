"""Has streams ended whose answer is a loop beyond doubt (`runaway`), if `quality.cut_loops` asks for it.

Which: streams of one answer, whose relay has told of them from the beginning. To end a stream ends all its answers,
and of several some may be of use. Each class of output is followed by itself, as a client shows it: the answer and the
reasoning, which loops at least as often; arguments of tools, and all of a request that asks for a form, for blanks
alone.

What was cut is counted when its record says so: a stream that had ended meanwhile, or that the relay cannot end, was
not.
"""

from collections.abc import Callable
from typing import Final

from inferwatch import canary
from inferwatch.record import RequestRecord
from inferwatch.tap import Open
from inferwatch_collectors.dialects.base import TOOL_CALL, Dialect
from inferwatch_collectors.quality.runaway import Runaway, asks_for_a_form

# Has a stream ended: by its request's id for ever, and by its id at its relay.
Cut = Callable[[str, int], None]


class LoopGuard:
    """All requests."""

    def __init__(self, cut: Cut) -> None:
        self._cut: Final = cut

    def opened(self, opened: Open, dialect: Dialect) -> "_Guarded | None":
        """Listen to what may be cut."""
        if not (dialect.generates and opened.stream and opened.choices == 1) or opened.resumed:
            return None
        if opened.tenant in canary.OWN:
            return None
        is_whole = len(opened.body) == opened.body_bytes
        return _Guarded(self._cut, opened, blanks_only=not is_whole or asks_for_a_form(opened.body))


class _Guarded:
    """One of them."""

    __slots__ = ("_blanks_only", "_cut", "_followed", "_number", "_request_id", "_several", "_told")

    def __init__(self, cut: Cut, opened: Open, *, blanks_only: bool) -> None:
        self._cut = cut
        self._request_id = opened.request_id
        self._number = opened.id
        self._blanks_only = blanks_only
        self._followed: dict[int, Runaway] = {}  # by class
        self._several = False  # it has more answers than its request told
        self._told = False

    def text(self, stamp_ns: int, choice: int, classes: int, text: str, pieces: int = 1) -> None:
        """Take some of the answer; the relay is told once."""
        if choice:
            self._several = True
        if self._told or self._several:
            return
        followed = self._followed.get(classes)
        if followed is None:
            blanks_only = self._blanks_only or classes == TOOL_CALL
            followed = self._followed[classes] = Runaway(blanks_only=blanks_only)
        if followed.take(text, pieces):
            self._told = True
            self._cut(self._request_id, self._number)

    def missing(self) -> None:
        """Some of it was not seen, perhaps for a broken connection on which our word was lost as well."""
        self._followed.clear()
        self._told = False

    def closed(self, record: RequestRecord) -> None:
        """Nothing is left to do."""
