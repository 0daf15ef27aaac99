"""What was said: the texts of a request and of its answer, for those who look at content (privacy, drift, quality).

Nobody listens by default, and then nothing here runs. Who listens gets an answer's text as it comes, a few pieces at a
time; a request's texts are there at its beginning, while its body is.

Texts only: pictures, sounds and token ids are left out. What is not text is not content that anybody here could read.
"""

import enum
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from inferwatch.record import RequestRecord
from inferwatch_collectors.dialects.lenient import load_object

# What msgspec raises on bad input: DecodeError and UnicodeDecodeError are ValueErrors; RecursionError on deep nesting.
BAD_JSON: Final = (ValueError, RecursionError)

# Values of a tool's arguments are texts wherever they stand; deeper than this nobody nests them.
MAX_DEPTH: Final = 16

# Strings that clients put beside the conversation, and that say who they are or what they look for.
SETTINGS: Final = ("stop", "user", "safety_identifier", "prompt_cache_key", "metadata")


class Source(enum.StrEnum):
    """Who a text is from."""

    SYSTEM = "system"  # the operator's instructions; `developer` too
    USER = "user"
    ASSISTANT = "assistant"  # earlier answers, sent along with the request
    TOOL = "tool"  # what tools returned
    SETTING = "setting"  # not part of the conversation: stop sequences, names and ids of users, metadata


class Piece(NamedTuple):
    """One text of a request."""

    source: Source
    text: str


_SOURCES: Final = {
    "system": Source.SYSTEM,
    "developer": Source.SYSTEM,
    "assistant": Source.ASSISTANT,
    "tool": Source.TOOL,
    "function": Source.TOOL,
}


class Ear(Protocol):
    """What a dialect tells of one answer, in which some are interested."""

    def text(self, stamp_ns: int, choice: int, classes: int, text: str) -> None:
        """Generated output came: `classes` as in `dialects.base`, one bit; CLOCK_MONOTONIC. `text` is not empty."""

    def missing(self) -> None:
        """Some of the answer was not seen: what comes next does not follow what came before."""

    def ended(self) -> None:
        """No more text comes."""

    def closed(self, record: RequestRecord) -> None:
        """It is over, and this is what was booked."""


class Listener(Protocol):
    """Who hears one answer. It may be forgotten without a word, if the request turns out to have been booked before."""

    def text(self, stamp_ns: int, choice: int, classes: int, text: str, pieces: int = 1) -> None:
        """As an `Ear`, but `text` may be several `pieces` of one choice and class that came one after the other."""

    def missing(self) -> None:
        """As an `Ear`."""

    def closed(self, record: RequestRecord) -> None:
        """It is over, and this is what was booked."""


def load(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a request's body, {} if there is none."""
    try:
        loaded = msgspec.json.decode(body)
    except BAD_JSON:
        return load_object(body) or {}
    return loaded if isinstance(loaded, dict) else {}


def texts(value: Any) -> Iterator[str]:
    """Yield the texts in a `content`: a string, a list of strings, or a list of parts with a `text` in them."""
    if isinstance(value, str):
        if value:
            yield value
    elif isinstance(value, list):
        for part in value:
            text = part.get("text") if isinstance(part, dict) else part
            if isinstance(text, str) and text:
                yield text


def strings(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield every string in any JSON `value`, as arguments of tools are, down to MAX_DEPTH. Keys are not content."""
    if isinstance(value, str):
        if value:
            yield value
    elif depth < MAX_DEPTH and isinstance(value, (list, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings(inner, depth + 1)


def messages(value: Any) -> Iterator[Piece]:
    """Yield the texts of a list of chat messages, with the arguments of the tools that they call."""
    for message in value if isinstance(value, list) else ():
        if not isinstance(message, dict):
            continue
        role = message.get("role")
        source = _SOURCES.get(role, Source.USER) if isinstance(role, str) else Source.USER
        spoken = (*texts(message.get("reasoning") or message.get("reasoning_content")), *texts(message.get("content")))
        for text in (*spoken, *strings([message.get("tool_calls"), message.get("function_call")])):
            yield Piece(source, text)
        if isinstance(name := message.get("name"), str) and name:
            yield Piece(Source.SETTING, name)


def from_user(body: dict[str, Any], keys: Iterable[str]) -> Iterator[Piece]:
    """Yield the texts under `keys`: a string, or a list of them, or of parts."""
    for key in keys:
        for text in texts(body.get(key)):
            yield Piece(Source.USER, text)


def settings(body: dict[str, Any], keys: Iterable[str]) -> Iterator[Piece]:
    """Yield the strings under `keys`, which are no part of the conversation."""
    for key in keys:
        for text in strings(body.get(key)):
            yield Piece(Source.SETTING, text)
