"""Anthropic Messages (`/v1/messages`): content blocks, usage at both ends, no `[DONE]`.

Usage is cumulative: what `message_start` said, and then each key that a `message_delta` has, in place of the one
before. Input comes in three parts that do not overlap (`input_tokens`, read from the cache, written to it). The start
of vLLM's stream counts cached tokens in `input_tokens` and the end does not: with the keys replaced, both add up.

`usage.iterations`, where the service did more than it shows (compaction, a fallback to another model), has all of it;
the top-level counts leave the compaction out. So the iterations are what was generated and is to be paid.

The `output_tokens` of a start are a placeholder (1 to 8): of a stream that is cut only the input is known.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Final

import msgspec

from inferwatch.record import TokenSource
from inferwatch_collectors.dialects.base import ANSWER, REASONING, TOOL_CALL, Observation
from inferwatch_collectors.dialects.content import BAD_JSON, Piece, Source, load, messages, settings, strings, texts
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
from inferwatch_collectors.dialects.usage import Count, Totals, Usage, summed


class OutputDetails(msgspec.Struct, gc=False):
    """What part of the output was thought."""

    thinking_tokens: Count | None = None


class Parts(msgspec.Struct, gc=False):
    """The counts of one pass over the model."""

    input_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    output_tokens: Count | None = None
    output_tokens_details: OutputDetails | None = None

    def usage(self) -> Usage:
        """Return it with the cached tokens in the prompt, as everywhere else."""
        parts = (self.input_tokens, self.cache_read_input_tokens, self.cache_creation_input_tokens)
        told = [part for part in parts if part is not None]
        details = self.output_tokens_details
        return Usage(
            prompt_tokens=sum(told) if told else None,
            completion_tokens=self.output_tokens,
            cached_tokens=self.cache_read_input_tokens,
            reasoning_tokens=None if details is None else details.thinking_tokens,
        )


class MessageUsage(Parts, gc=False):
    """`usage`."""

    iterations: list[Parts] | None = None

    def replaced(self, newer: "MessageUsage") -> "MessageUsage":
        """Return this with what `newer` has."""
        return MessageUsage(
            *[_newer(getattr(newer, name), getattr(self, name)) for name in MessageUsage.__struct_fields__]
        )

    def usage(self) -> Usage:
        """Return all that was read and written."""
        if self.iterations:
            return summed([iteration.usage() for iteration in self.iterations])
        return super().usage()


def _newer(newer: Any, older: Any) -> Any:
    return older if newer is None else newer


class Message(msgspec.Struct, gc=False):
    """A plain reply, or what `message_start` holds."""

    type: str | None = None
    id: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    usage: MessageUsage | None = None
    error: Any = None


class Delta(msgspec.Struct, gc=False):
    """What an event adds to a block, or to the message."""

    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class Event(msgspec.Struct, gc=False):
    """One event."""

    type: str | None = None
    message: Message | None = None
    delta: Delta | None = None
    usage: MessageUsage | None = None
    error: Any = None


_decode_event: Final = msgspec.json.Decoder(Event).decode
_decode_reply: Final = msgspec.json.Decoder(Message).decode
_decode_usage: Final = msgspec.json.Decoder(MessageUsage).decode


class AnthropicMessages(CountingDialect):
    """One prompt, one answer, which may be of several blocks."""

    operation = "chat"
    generates: ClassVar[bool] = True

    def prompt(self, body: bytes) -> Iterator[Piece]:
        """Yield the system's text, the blocks of the messages, and the settings."""
        loaded = load(body)
        for text in texts(loaded.get("system")):
            yield Piece(Source.SYSTEM, text)
        said = loaded.get("messages")
        yield from messages(said)
        for message in said if isinstance(said, list) else ():
            blocks = message.get("content") if isinstance(message, dict) else None
            for block in blocks if isinstance(blocks, list) else ():
                if isinstance(block, dict):
                    yield from _of_tools(block)
        yield from settings(loaded, ("stop_sequences", "metadata"))

    def read_event(self, observation: Observation, stamp_ns: int, name: bytes, data: bytes) -> None:
        """Take one event."""
        event = decoded(observation, data, _decode_event, Event)
        if event is None:
            observation.error |= name == b"error"
            return
        observation.events += 1
        delta = event.delta
        if event.error or event.type == "error" or name == b"error":
            note_error(observation, event.error)
        if delta is not None and event.type == "content_block_delta":
            classes = _classes(delta)
            if classes:
                advance(observation, stamp_ns, 0, classes, None)
                tell(observation, stamp_ns, 0, ANSWER, delta.text)
                tell(observation, stamp_ns, 0, REASONING, delta.thinking)
                tell(observation, stamp_ns, 0, TOOL_CALL, delta.partial_json)
        elif event.message is not None:  # message_start; services that splice streams send it again
            note_names(observation, event.message.id, event.message.model)
            _add(observation, event.message.usage, ends=False)
        elif event.type == "message_delta":
            _add(observation, event.usage, ends=True)
            if delta is not None:
                note_finish(observation, 0, delta.stop_reason)
        elif event.type == "message_stop":
            observation.done = True

    def read_reply(self, observation: Observation, body: bytes) -> None:
        """Take a message."""
        reply = whole_reply(observation, body, _decode_reply, Message)
        if reply is None:
            return
        note_names(observation, reply.id, reply.model)
        if reply.error or reply.type == "error":
            note_error(observation, reply.error)
        _add(observation, reply.usage, ends=True)
        note_finish(observation, 0, reply.stop_reason)

    def tell_reply(self, observation: Observation, stamp_ns: int, body: bytes) -> None:
        """Tell what the blocks say."""
        blocks = load(body).get("content")
        for block in blocks if isinstance(blocks, list) else ():
            if not isinstance(block, dict):
                continue
            tell(observation, stamp_ns, 0, REASONING, block.get("thinking"))
            tell(observation, stamp_ns, 0, ANSWER, block.get("text"))
            for text in strings(block.get("input")):
                tell(observation, stamp_ns, 0, TOOL_CALL, text)

    def read_usage(self, raw: bytes) -> Usage | None:
        """Return the usage object in `raw` JSON, None if it is none."""
        try:
            return _decode_usage(raw).usage()
        except BAD_JSON:
            loaded = load_object(raw)
            return None if loaded is None else salvage(loaded, MessageUsage).usage()

    def totals(self, observation: Observation, choices: int) -> Totals:
        """Return the final usage; of a stream that was cut the input, and what its events let us guess."""
        totals = super().totals(observation, choices)
        sofar: MessageUsage | None = observation.own
        if sofar is None or totals.source is TokenSource.FINAL_USAGE:
            return totals
        begun = sofar.usage()
        if begun.prompt_tokens is None:
            return totals
        return totals._replace(prompt=begun.prompt_tokens, cached=begun.cached, source=TokenSource.CHUNK_ESTIMATE)


def _classes(delta: Delta) -> int:
    return (
        (ANSWER if delta.text else 0) | (REASONING if delta.thinking else 0) | (TOOL_CALL if delta.partial_json else 0)
    )


def _of_tools(block: dict[str, Any]) -> Iterator[Piece]:
    """Yield what a block holds that is no plain text: thinking, a tool's input, a tool's result."""
    for text in (*texts(block.get("thinking")), *strings(block.get("input"))):
        yield Piece(Source.ASSISTANT, text)
    for text in texts(block.get("content")):
        yield Piece(Source.TOOL if block.get("type") == "tool_result" else Source.USER, text)


def _add(observation: Observation, usage: MessageUsage | None, *, ends: bool) -> None:
    if usage is None:
        return
    sofar: MessageUsage = usage if observation.own is None else observation.own.replaced(usage)
    observation.own = sofar
    if ends and usage.output_tokens is not None:
        observation.final = sofar.usage()


ANTHROPIC_MESSAGES: Final = AnthropicMessages()
