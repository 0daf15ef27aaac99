"""What is heard of one request: the last thing the user said, and the answer, in memory until the request is over.

Texts are kept up to bounds, made into numbers when the request is over, and let go. Of several choices the first is
heard.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from inferwatch.record import RequestRecord
from inferwatch_collectors.dialects.base import ANSWER, TOOL_CALL
from inferwatch_collectors.dialects.content import Piece, Source
from inferwatch_collectors.drift.features import Direction
from inferwatch_collectors.drift.following import Heard
from inferwatch_collectors.drift.text import MAX_CHARS, read
from inferwatch_collectors.drift.trigrams import Codebook
from inferwatch_collectors.quality.refusals import is_refusal
from inferwatch_collectors.quality.tail_cycle import TailCycle

# Whether a longer answer is valid JSON is not known.
MAX_ANSWER_CHARS: Final = 65_536

_raw_decode: Final = json.JSONDecoder().raw_decode
_FENCE: Final = "```"


def last_said(pieces: Iterator[Piece]) -> str:
    """Return what the user said last, or the last text of any other source if there is none of the user's."""
    said = any_text = ""
    for piece in pieces:
        if piece.source is Source.USER:
            said = piece.text
        elif piece.source is not Source.SETTING:
            any_text = piece.text
    return said or any_text


class Hearing:
    """A listener to one request. `over` takes what was heard, with the record."""

    __slots__ = (
        "_answer", "_book", "_called", "_called_chars", "_chars", "_cycle", "_missing", "_over", "_prompt",
        "_reasoned",
    )  # fmt: skip

    def __init__(self, prompt: str, book: Codebook, over: Callable[[RequestRecord, Heard], None]) -> None:
        self._prompt = prompt
        self._book = book
        self._over = over
        self._answer: list[str] = []
        self._chars = 0
        self._called: list[str] = []
        self._called_chars = 0
        self._cycle = TailCycle()
        self._reasoned: TailCycle | None = None
        self._missing = False

    def text(self, stamp_ns: int, choice: int, classes: int, text: str, pieces: int = 1) -> None:
        """Take some of the answer."""
        if choice:
            return
        if classes & TOOL_CALL:
            self._called_chars += len(text)
            if self._called_chars <= MAX_ANSWER_CHARS:
                self._called.append(text)
        elif classes & ANSWER:
            self._chars += len(text)
            if self._chars <= MAX_ANSWER_CHARS:
                self._answer.append(text)
            self._cycle.keep(text, pieces)
        else:
            if self._reasoned is None:
                self._reasoned = TailCycle()
            self._reasoned.keep(text, pieces)

    def missing(self) -> None:
        """Some of the answer was not seen: what depends on the whole of it is not known."""
        self._missing = True
        self._cycle.missing()
        if self._reasoned is not None:
            self._reasoned.missing()

    def closed(self, record: RequestRecord) -> None:
        """Make numbers of it."""
        answer = "".join(self._answer)
        values = read(self._prompt, Direction.PROMPT) if self._prompt else {}
        if answer:
            values |= read(answer, Direction.ANSWER)
            values["refusal"] = None if self._missing else float(is_refusal(answer))
            values["loop"] = float(self._cycle.finish())
            values["json"] = None if self._missing or self._chars > MAX_ANSWER_CHARS else valid_json(answer)
            values["answer_chars"] = float(self._chars)
        elif self._reasoned is not None:  # it may never come to an answer
            values["loop"] = float(self._reasoned.finish())
        buckets: dict[Direction, Sequence[int]] = {
            direction: self._book.buckets(text[:MAX_CHARS])
            for direction, text in ((Direction.PROMPT, self._prompt), (Direction.ANSWER, answer))
            if text
        }
        if not self._missing and not answer:
            values["empty"] = float(not self._called_chars)
        if self._called and not self._missing and self._called_chars <= MAX_ANSWER_CHARS:
            values["tool_json"] = valid_arguments("".join(self._called))
        self._answer.clear()
        self._called.clear()
        self._over(record, Heard(values, buckets))


def valid_json(answer: str) -> float | None:
    """Return 1.0 if an answer is JSON, 0.0 if it only begins so, None if it does not even."""
    body = answer.strip()
    if body.startswith(_FENCE):
        body = body.removeprefix(_FENCE).removeprefix("json").removesuffix(_FENCE).strip()
    if not body.startswith(("{", "[")):
        return None
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return 0.0
    return 1.0


def valid_arguments(called: str) -> float | None:
    """Return 1.0 if what was told of calls is one JSON object after the other, 0.0 if it only begins so.

    None if it does not even: some engines tell arguments that they have read already.
    """
    rest = called.strip()
    if not rest.startswith(("{", "[")):
        return None
    try:
        while rest:
            _, end = _raw_decode(rest)
            rest = rest[end:].lstrip()
    except (ValueError, RecursionError):
        return 0.0
    return 1.0
