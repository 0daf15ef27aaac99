"""Cohere's chat (`/cohere/v2/chat`), as vLLM speaks it: typed events without names, one usage at the end, `[DONE]`.

Counts are floats, which the second reading takes. `…-start` events come before any token, but for that of a tool's
call, which has its name.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Final

import msgspec

from inferwatch_collectors.dialects.base import ANSWER, REASONING, TOOL_CALL, Observation
from inferwatch_collectors.dialects.content import (
    BAD_JSON,
    Piece,
    Source,
    load,
    messages,
    settings,
    strings,
    texts,
)
from inferwatch_collectors.dialects.lenient import load_object, salvage
from inferwatch_collectors.dialects.reading import (
    CountingDialect,
    advance,
    decoded,
    note_error,
    note_finish,
    note_names,
    tell,
    whole_reply,
)
from inferwatch_collectors.dialects.usage import Count, Usage


class Tokens(msgspec.Struct, gc=False):
    """Counts."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None


class CohereUsage(msgspec.Struct, gc=False):
    """`usage`. What is billed may be less than what there was."""

    tokens: Tokens | None = None
    billed_units: Tokens | None = None
    cached_tokens: Count | None = None

    def usage(self) -> Usage:
        """Return it in the usual words."""
        counts = self.tokens or self.billed_units or Tokens()
        return Usage(counts.input_tokens, counts.output_tokens, cached_tokens=self.cached_tokens)


class Function(msgspec.Struct, gc=False):
    """A piece of a call."""

    name: str | None = None
    arguments: str | None = None


class Call(msgspec.Struct, gc=False):
    """A piece of a tool's call."""

    function: Function | None = None


class Content(msgspec.Struct, gc=False):
    """A piece of a block."""

    text: str | None = None
    thinking: str | None = None


class Message(msgspec.Struct, gc=False):
    """What an event adds to the message."""

    content: Content | None = None
    tool_plan: str | None = None
    tool_calls: Call | None = None


class Delta(msgspec.Struct, gc=False):
    """What an event adds, or how it ends."""

    message: Message | None = None
    finish_reason: str | None = None
    usage: CohereUsage | None = None
    error: Any = None


class Event(msgspec.Struct, gc=False):
    """One event."""

    type: str | None = None
    id: str | None = None
    delta: Delta | None = None


class Reply(msgspec.Struct, gc=False):
    """A plain reply, without what it says."""

    id: str | None = None
    finish_reason: str | None = None
    usage: CohereUsage | None = None


_decode_event: Final = msgspec.json.Decoder(Event).decode
_decode_reply: Final = msgspec.json.Decoder(Reply).decode
_decode_usage: Final = msgspec.json.Decoder(CohereUsage).decode


class Cohere(CountingDialect):
    """One prompt, one answer, which may be of several blocks."""

    operation = "chat"
    generates: ClassVar[bool] = True

    def prompt(self, body: bytes) -> Iterator[Piece]:
        """Yield the messages, the documents, and the stop sequences."""
        loaded = load(body)
        yield from messages(loaded.get("messages"))
        for text in strings(loaded.get("documents")):
            yield Piece(Source.USER, text)
        yield from settings(loaded, ("stop_sequences",))

    def read_event(self, observation: Observation, stamp_ns: int, name: bytes, data: bytes) -> None:
        """Take one event."""
        event = decoded(observation, data, _decode_event, Event)
        if event is None:
            observation.error |= name == b"error"
            return
        observation.events += 1
        if event.id and not observation.engine_id:
            note_names(observation, event.id, None)
        delta = event.delta
        if delta is None:
            return
        if event.type == "message-end":
            observation.done = True
            _note_end(observation, delta.finish_reason, delta.usage, delta.error)
        elif delta.message is not None:
            said = list(_said(delta.message))
            classes = sum({bit for bit, _ in said})
            if classes:
                advance(observation, stamp_ns, 0, classes, None)
                for bit, text in said:
                    tell(observation, stamp_ns, 0, bit, text)

    def read_reply(self, observation: Observation, body: bytes) -> None:
        """Take a plain reply."""
        reply = whole_reply(observation, body, _decode_reply, Reply)
        if reply is not None:
            note_names(observation, reply.id, None)
            _note_end(observation, reply.finish_reason, reply.usage, None)

    def tell_reply(self, observation: Observation, stamp_ns: int, body: bytes) -> None:
        """Tell what the message says."""
        message = load(body).get("message")
        if not isinstance(message, dict):
            return
        blocks = message.get("content")
        for block in blocks if isinstance(blocks, list) else ():
            if isinstance(block, dict):
                tell(observation, stamp_ns, 0, REASONING, block.get("thinking"))
                tell(observation, stamp_ns, 0, ANSWER, block.get("text"))
        for text in texts(message.get("tool_plan")):
            tell(observation, stamp_ns, 0, REASONING, text)
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            function = salvage(call, Call).function if isinstance(call, dict) else None
            tell(observation, stamp_ns, 0, TOOL_CALL, None if function is None else function.arguments)

    def read_usage(self, raw: bytes) -> Usage | None:
        """Return the usage object in `raw` JSON, None if it is none."""
        try:
            return _decode_usage(raw).usage()
        except BAD_JSON:
            loaded = load_object(raw)
            return None if loaded is None else salvage(loaded, CohereUsage).usage()

    def unfinished(self, observation: Observation) -> bool:
        """Return whether the event that ends it never came."""
        return not observation.done


def _said(message: Message) -> Iterator[tuple[int, str | None]]:
    """Yield what an event brings, by class; a tool's name is no text."""
    content, call = message.content, message.tool_calls
    if content is not None:
        if content.thinking:
            yield REASONING, content.thinking
        if content.text:
            yield ANSWER, content.text
    if message.tool_plan:
        yield REASONING, message.tool_plan
    function = None if call is None else call.function
    if function is not None and (function.name or function.arguments):
        yield TOOL_CALL, function.arguments


def _note_end(observation: Observation, reason: str | None, usage: CohereUsage | None, error: Any) -> None:
    if usage is not None:
        observation.final = usage.usage()
    if error or reason == "ERROR":
        note_error(observation, error)
    # In capitals nowhere else: MAX_TOKENS is Anthropic's max_tokens.
    note_finish(observation, 0, reason.lower() if reason else None)


COHERE_CHAT: Final = Cohere()
