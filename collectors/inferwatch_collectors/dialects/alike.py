"""The short way of an event that differs from an earlier one in nothing but a piece of text and the usage.

Most of a stream is such events: an engine writes them by one template, so all that their JSON says is known but for
these two. An `Alike` has the bytes around them from an event that was read in full; it takes another by comparing these
and decoding only what is between. It is exact, not a guess: the text must be a JSON string and the usage an object,
which the decoder checks, and then the event is the JSON of the first one with just these two values changed; that it is
they which count, a probe has shown. All else is left to the long way, and which was taken is not to be seen.
"""

import re
from typing import Final, NamedTuple

import msgspec

from inferwatch_collectors.dialects.base import Choice, Observation
from inferwatch_collectors.dialects.content import BAD_JSON
from inferwatch_collectors.dialects.reading import advance_choice
from inferwatch_collectors.dialects.sse import MAX_EVENT_BYTES as _LONGEST_BYTES
from inferwatch_collectors.dialects.usage import MAX_TOKENS, Usage

# In a longer event is more than a token (log-probabilities), and no other is like it.
MAX_EVENT_BYTES: Final = 2048

# The keys under which the OpenAI family puts generated text, before a string. Inside one the quotes would be escaped.
_TEXT: Final = re.compile(rb'"(?:content|text|reasoning|reasoning_content)":"([^"\\]+)"')
_USAGE: Final = b',"usage":{'

# A line end between the usage's values would end the event's line; within a string the decoder refuses it.
_LF: Final = ord("\n")
_CR: Final = ord("\r")

# With one of these the string might end elsewhere, and text and usage be good only together.
_QUOTE: Final = ord('"')
_BACKSLASH: Final = ord("\\")

# What the probe's usage counts: no engine does.
PROBE_TOKENS: Final = MAX_TOKENS


class Around(NamedTuple):
    """An event without its text and the inside of its usage."""

    before: bytes
    between: bytes
    after: bytes

    def probe(self) -> bytes:
        """Return the data of an event that has these, another text and a usage that nobody sends."""
        return b'%bx%b"completion_tokens":%d%b' % (self.before, self.between, PROBE_TOKENS, self.after)


class _Between(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """A text and a usage, as an array of just these two."""

    text: str
    usage: Usage


_decode: Final = msgspec.json.Decoder(_Between).decode


def around(event: bytes) -> Around | None:
    """Return what is around text and usage of an event's data; None if it is not an event with both."""
    if len(event) > MAX_EVENT_BYTES or (text := _TEXT.search(event)) is None:
        return None
    between, found, rest = event[text.end(1) :].rpartition(_USAGE)
    closed = rest.find(b"}")
    return Around(event[: text.start(1)], between + _USAGE, rest[closed:]) if found and closed >= 0 else None


class Alike:
    """Takes the events of one choice of an answer that are like one of them."""

    __slots__ = ("_after", "_before", "_between", "_choice", "_classes", "_observation", "_text_from", "_usage_to")

    def __init__(self, parts: Around, observation: Observation, choice: Choice, classes: int) -> None:
        """`classes` (bits) are those of the text."""
        self._before = b"data: " + parts.before
        self._between = parts.between
        self._after = parts.after + b"\n\n"
        self._text_from = len(self._before)
        self._usage_to = -len(self._after)
        self._observation = observation
        self._choice = choice
        self._classes = classes

    def take(self, stamp_ns: int, event: bytes) -> bool:
        """Take a whole event, with `data: ` and its end, if it is like that one; if not, nothing has happened."""
        if not (event.startswith(self._before) and event.endswith(self._after)):
            return False
        text, found, usage = event[self._text_from : self._usage_to].partition(self._between)
        if not text or not found or text[-1] == _BACKSLASH or _QUOTE in text or _LF in usage or _CR in usage:
            return False
        try:
            now = _decode(b'["%b",{%b}]' % (text, usage))
        except BAD_JSON:
            return False
        if not now.usage.completion_tokens or len(event) > _LONGEST_BYTES:
            return False
        self._observation.events += 1
        advance_choice(self._observation, stamp_ns, self._choice, self._classes, now.usage)
        return True
